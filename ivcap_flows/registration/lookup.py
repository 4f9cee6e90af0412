"""Look for model runs in Provena by their keys, in one pass over its lists for all of them, and interpret the finds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.durable.platform_time import SPREAD, look_since
from ivcap_flows.journal import IntentRow
from ivcap_flows.provena.models import JobRow
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.registration.keys import key_in
from ivcap_flows.registration.registry import KEY_FIELD, moment

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "LODGE",
    "Entry",
    "Newest",
    "ProvenaState",
    "RowLookup",
    "job_failed_but_run_exists",
    "look_for",
    "of_job",
    "state_of_run",
]

LODGE: Final = "MODEL_RUN_PROV_LODGE"

_PAGE: Final = 1000
"""Rows to request per page. That is more than fit into 1 MB, Provena's own limit for a page."""

_FRESH: Final = 30.0
"""Seconds for which it counts what was seen of rows that were not sent: another journal may send them meanwhile."""

_CLOCKS: Final = timedelta(days=1)
"""A work's end counts as this much earlier: it has another clock than Provena, and may be stated in another zone."""


@dataclass(frozen=True)
class Newest:
    """The user's newest jobs and the registry's newest model runs: at most `most` each, none from before `since`.

    What this journal has not sent is looked for among these. Work is registered when it has ended, by a job of its
    user.
    """

    since: datetime
    most: int

    @classmethod
    def after(cls, end: int, most: int) -> Newest:
        """Return the bounds for work that ended at `end`, in Unix seconds."""
        return cls(datetime.fromtimestamp(end, timezone.utc) - _CLOCKS, most)


@dataclass(frozen=True)
class Entry:
    """What Provena lists under a key: a job that should lodge the run, or (without a job) the run in the registry.

    `at` is in Unix seconds. `record` is the JSON of the record with which the run was registered.
    """

    key: str
    handle: str = ""
    job: str = ""
    status: str | None = None
    info: str | None = None
    at: int | None = None
    record: str | None = None


@dataclass(frozen=True)
class ProvenaState:
    """The state of one key, from all jobs and runs that Provena shows under it.

    `lodged`: Provena has the run `handle`, lodged by `job` if that is known; `more` are further runs under the key.
    `under way`: `job` may still lodge the run, as `handle` if the registry already has it. `failed`: `words` says why.
    `in doubt`: the registry has the run `handle`, but the job that should lodge it failed; `words` says why.
    """

    kind: Literal["lodged", "under way", "failed", "in doubt"]
    handle: str | None = None
    more: tuple[str, ...] = ()
    job: str | None = None
    words: str | None = None
    since: datetime | None = None
    """The time since which the run of a job under way may be there."""
    record: str | None = None
    """The JSON of the record with which the lodged run was registered."""


def state_of_run(entries: Iterable[Entry]) -> ProvenaState | None:
    """Summarise what Provena shows under a key; None if it shows nothing."""
    seen = sorted(entries, key=lambda each: (each.at or 0, each.job, each.handle))
    jobs = [each for each in seen if each.job]
    items = [each for each in seen if not each.job]
    lodged = [each.handle for each in jobs if each.status == "SUCCEEDED" and each.handle]
    lodged += [each.handle for each in items if each.status == "LODGED"]
    failed = [each for each in jobs if each.status == "FAILED"]
    going = [each for each in jobs if each.status not in ("SUCCEEDED", "FAILED")]
    if not lodged and not going and not failed:
        # After an update, the registry does not say LODGED of a lodged run.
        lodged = [each.handle for each in items]
    if lodged:
        at = {each.handle: each.at or 0 for each in reversed(seen) if each.handle}
        first, *rest = sorted(
            dict.fromkeys([*lodged, *(each.handle for each in items)]), key=lambda one: (at[one], one)
        )
        records = {each.handle: each.record for each in seen if each.record}
        by = {each.handle: each.job for each in jobs}
        return ProvenaState("lodged", first, tuple(rest), job=by.get(first), record=records.get(first))
    if going:
        last = going[-1]
        return ProvenaState("under way", items[0].handle if items else None, job=last.job, since=_before(last.at))
    if not failed:
        return None
    last = failed[-1]
    return ProvenaState(
        "in doubt" if items else "failed", items[0].handle if items else None, job=last.job, words=last.info
    )


def job_failed_but_run_exists(state: ProvenaState) -> str:
    """Return a sentence about a run `in doubt`."""
    return (
        f"Its job failed ({state.words or 'no reason given'}), but the registry has the run {state.handle} under its "
        "key; looked at: the job and the registry"
    )


async def look_for(
    client: ProvenaClient, keys: Collection[str], since: datetime | Newest | None
) -> dict[str, ProvenaState]:
    """Return what Provena shows under these keys, in one pass over everything since `since`, by Provena's clock.

    If `since` is None, the pass is over everything. If it is `Newest` and a job under a key has lodged no run, the pass
    is over all model runs since that job, which may have left one.
    """
    seen: dict[str, dict[str, Entry]] = {}

    async def note(entries: AsyncIterator[Entry]) -> None:
        async for each in entries:
            if each.key in keys:
                # A page may repeat items of the page before.
                seen.setdefault(each.key, {})[each.job or each.handle] = each

    await note(_jobs(client, since))
    if isinstance(since, Newest):
        unlodged = [each.at for found in seen.values() if not _has_lodged(found.values()) for each in found.values()]
        since = _before(min(at or 0 for at in unlodged)) if unlodged else since
    await note(_items(client, since))
    if any(_lacks_job(found.values()) for found in seen.values()):
        await note(_jobs(client, since))
    return {key: state for key, found in seen.items() if (state := state_of_run(found.values())) is not None}


class RowLookup:
    """Looks for the rows of a batch together.

    Those that may have been sent share a pass: who asks during one is answered by the next. For those that were not
    sent, what other journals have made is read again when it is older than `_FRESH` seconds.
    """

    def __init__(self, client: ProvenaClient) -> None:
        self._client = client
        self._unsent: set[str] = set()
        self._made: dict[str, ProvenaState] = {}
        self._since: datetime | Newest | None = None
        self._read_at = 0.0
        self._asking: dict[str, IntentRow] = {}
        self._next: asyncio.Task[dict[str, ProvenaState]] | None = None
        self._turn = asyncio.Lock()

    async def look_first(self, keys: set[str], newest: Newest) -> None:
        """Look for rows that the journal has not sent, before any of them is sent."""
        self._unsent, self._since = keys, newest
        await self._read()

    def is_lodged(self, key: str) -> bool:
        """Return whether the last look has shown the run of a row that was not sent."""
        return key in self._made and self._made[key].kind == "lodged"

    async def look(self, intent: IntentRow) -> ProvenaState | None:
        """Return what Provena shows of a row."""
        if intent.state == "claimed":
            async with self._turn:
                if time.monotonic() - self._read_at > _FRESH:
                    await self._read()
                # Its own job is not read again.
                self._unsent.discard(intent.key)
            return self._made.get(intent.key)
        self._asking[intent.key] = intent
        if self._next is None:
            self._next = asyncio.create_task(self._look_for_all())
        return (await asyncio.shield(self._next)).get(intent.key)

    async def _read(self) -> None:
        now = await self._client.now()
        self._made |= await look_for(self._client, self._unsent, self._since)
        self._since = None if now is None else now.earliest - SPREAD
        self._read_at = time.monotonic()

    async def _look_for_all(self) -> dict[str, ProvenaState]:
        async with self._turn:
            asking, self._asking, self._next = self._asking, {}, None
            return await look_for(self._client, asking.keys(), look_since(self._client.time, *asking.values()))


def _has_lodged(seen: Iterable[Entry]) -> bool:
    return any(each.status == "SUCCEEDED" for each in seen)


def _lacks_job(seen: Collection[Entry]) -> bool:
    """Return whether only the registry shows the run, and does not say that it is lodged.

    Either the run was updated, or its job did not show yet when jobs were listed. If so, the job shows by now, since a
    job exists before its run.
    """
    return bool(seen) and all(not each.job and each.status != "LODGED" for each in seen)


async def _jobs(client: ProvenaClient, within: datetime | Newest | None) -> AsyncIterator[Entry]:
    since, page = _range(within)
    async for row in client.jobs.list(**page):
        if _older(row.created_timestamp, since):
            return
        if (seen := of_job(row)) is not None:
            yield seen


async def _items(client: ProvenaClient, within: datetime | Newest | None) -> AsyncIterator[Entry]:
    since, page = _range(within)
    async for item in client.registry.list(ModelRunInfo, sort="CREATED_TIME", **page):
        if _older(item.created_timestamp, since):
            return
        run = item.info
        key = (run.record.annotations or {}).get(KEY_FIELD)
        if key is not None:
            there = json.dumps(run.record.plain())
            yield Entry(key, item.id, status=run.record_status, at=item.created_timestamp, record=there)


def of_job(row: JobRow) -> Entry | None:
    """Return what a job shows of the run that it should lodge; None for another job, and for a run without a key."""
    record = row.payload.get("record") if row.job_sub_type == LODGE else None
    key, lodged = key_in(record), row.lodged
    if key is None:
        return None
    return Entry(
        key,
        lodged.id if lodged is not None else "",
        row.session_id,
        status=row.status,
        info=(row.info or "").strip() or "Provena gives no reason",
        at=row.created_timestamp,
        record=json.dumps(record) if lodged is not None else None,
    )


def _range(within: datetime | Newest | None) -> tuple[datetime | None, dict[str, Any]]:
    """Return since when to read, and the size of a page and the limit of a list."""
    if not isinstance(within, Newest):
        return within, {"page_size": _PAGE}
    # The newest mostly suffice, and a page of many takes seconds.
    return within.since, {"page_size": min(_PAGE, within.most // 5), "limit": within.most}


def _before(seconds: int | None) -> datetime | None:
    """Return the time from which on a run may be there of a job that was created at `seconds`."""
    at = moment(seconds)
    return None if at is None else at - SPREAD


def _older(seconds: int | None, since: datetime | None) -> bool:
    at = moment(seconds)
    return since is not None and at is not None and at < since
