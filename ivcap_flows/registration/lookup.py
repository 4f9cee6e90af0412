"""Look for rows in Provena by their keys, in one pass over its lists for all rows, and interpret what is found."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import JobRow
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.registration.keys import key_in
from ivcap_flows.registration.registry import KEY_FIELD, dataset_of, moment
from ivcap_flows.registration.spool import Seen, Spool

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["BATCH", "LODGE", "Lookup", "Newest", "Sign", "half", "look_for", "of_job", "read_sign"]

LODGE: Final = "MODEL_RUN_PROV_LODGE"
BATCH: Final = "MODEL_RUN_BATCH_SUBMIT"

_PAGE: Final = 1000
"""Rows to request per page. That is more than fit into 1 MB, Provena's own limit for a page."""

_AT_ONCE: Final = 16
"""Maximum number of concurrent requests."""

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
class Sign:
    """The state of one key, from all jobs and runs that Provena shows under it.

    `lodged`: Provena has the run `handle`, lodged by `job` if that is known; `more` are further runs under the key.
    `under way`: `job` may still lodge the run, as `handle` if the registry already has it; the job is one of a `batch`,
    or with `parent` the one that makes a batch. `failed`: `words` says why. `half`: the registry has the run `handle`,
    but the job that should lodge it failed.
    """

    kind: Literal["lodged", "under way", "failed", "half"]
    handle: str | None = None
    more: tuple[str, ...] = ()
    job: str | None = None
    batch: str | None = None
    parent: bool = False
    words: str | None = None
    at: int | None = None
    """The time when the job was created, in Unix seconds."""
    record: str | None = None
    """The JSON of the record with which the lodged run was registered."""


def read_sign(shown: Iterable[Seen]) -> Sign | None:
    """Summarise what Provena shows under a key; None if it shows nothing."""
    seen = sorted(shown, key=lambda each: (each.at or 0, each.job, each.handle))
    jobs = [each for each in seen if each.job and not each.parent]
    items = [each for each in seen if not each.job]
    lodged = [each.handle for each in jobs if each.status == "SUCCEEDED" and each.handle]
    lodged += [each.handle for each in items if each.status == "LODGED"]
    failed = [each for each in jobs if each.status == "FAILED"]
    going = [each for each in jobs if each.status not in ("SUCCEEDED", "FAILED")]
    if not lodged and items and not going and not failed and (jobs or not any(each.parent for each in seen)):
        # After an update, the registry does not say LODGED of a lodged run. Of a batch that has shown no job of the
        # run, the job may still fail.
        lodged = [each.handle for each in items]
    if lodged:
        at = {each.handle: each.at or 0 for each in reversed(seen) if each.handle}
        first, *rest = sorted(
            dict.fromkeys([*lodged, *(each.handle for each in items)]), key=lambda one: (at[one], one)
        )
        records = {each.handle: each.record for each in seen if each.record}
        by = {each.handle: each.job for each in jobs}
        return Sign("lodged", first, tuple(rest), job=by.get(first), record=records.get(first))
    if going:
        last = going[-1]
        return Sign("under way", items[0].handle if items else None, job=last.job, batch=last.batch, at=last.at)
    parents = [each for each in seen if each.parent and each.status != "FAILED"]
    newest = max((each.at or 0 for each in failed), default=-1)
    parents = [each for each in parents if (each.at or 0) > newest]
    if parents:
        last = parents[-1]
        handle = items[0].handle if items else None
        return Sign("under way", handle, job=last.job, batch=last.batch, parent=True, at=last.at)
    broken = [each for each in seen if each.parent]
    if items:
        last = (failed or broken)[-1]
        return Sign("half", items[0].handle, job=last.job, words=last.info)
    if failed:
        return Sign("failed", job=failed[-1].job, words=failed[-1].info)
    return Sign("failed", job=broken[-1].job, words=broken[-1].info, parent=True) if broken else None


def half(handle: str | None, words: str | None) -> str:
    """Return a sentence about a run that the registry has although its job failed."""
    return (
        f"Its job failed ({words or 'no reason given'}), but the registry has the run {handle} under its key; looked "
        "at: the job and the registry"
    )


async def look_for(client: ProvenaClient, keys: Collection[str], since: datetime | Newest | None) -> dict[str, Sign]:
    """Return what Provena shows under these keys, in one pass over everything since `since`, by Provena's clock.

    If `since` is None, the pass is over everything. If it is `Newest` and a job under a key has lodged no run, the pass
    is over all model runs since that job, which may have left one.
    """
    seen: dict[str, dict[str, Seen]] = {}

    async def note(shown: AsyncIterator[Seen]) -> None:
        async for each in shown:
            if each.key in keys:
                # A page may repeat items of the page before.
                seen.setdefault(each.key, {})[each.job or each.handle] = each

    await note(_jobs(client, since))
    if isinstance(since, Newest):
        unlodged = [each.at for found in seen.values() if not _has_lodged(found.values()) for each in found.values()]
        since = _before(min(at or 0 for at in unlodged)) if unlodged else since
    await note(_items(client, since))
    if any(_lacks_job([each for each in found.values() if not each.parent]) for found in seen.values()):
        await note(_jobs(client, since))
    return {key: sign for key, found in seen.items() if (sign := read_sign(found.values())) is not None}


def _has_lodged(seen: Iterable[Seen]) -> bool:
    return any(each.status == "SUCCEEDED" and not each.parent for each in seen)


def _lacks_job(seen: Collection[Seen]) -> bool:
    """Return whether only the registry shows the run, and does not say that it is lodged. `seen` is without batches.

    Either the run was updated, or its job did not show yet when jobs were listed. If so, the job shows by now, since a
    job exists before its run.
    """
    return bool(seen) and all(not each.job and each.status != "LODGED" for each in seen)


class Lookup:
    """Looks in Provena for the rows of a spool that have not ended, and stores in the spool what it finds."""

    def __init__(self, client: ProvenaClient, spool: Spool, stall_timeout: float) -> None:
        self._client = client
        self._spool = spool
        self._stall_timeout = stall_timeout

    async def everywhere(self, since: datetime | Newest | None) -> None:
        """Look among the caller's jobs and the registry's model runs, as far as `look_for` does."""
        await self.among_jobs(since)
        if isinstance(since, Newest):
            unlodged = self._spool.first_unlodged()
            since = since if unlodged is None else _before(unlodged)
        await self.among_items(since)
        if self._spool.lacks_jobs():
            await self.among_jobs(since)

    async def among_jobs(self, since: datetime | Newest | None) -> None:
        """Look among the caller's jobs since `since`; None: among all."""
        await through_outages(lambda: self._pass(_jobs(self._client, since)), self._stall_timeout)

    async def among_items(self, since: datetime | Newest | None) -> None:
        """Look among the registry's model runs since `since`; None: among all."""
        await through_outages(lambda: self._pass(_items(self._client, since)), self._stall_timeout)

    async def among_datasets(self, artifacts: Iterable[str]) -> None:
        """Look for the datasets of artifacts that had none when the rows were checked."""

        async def look(artifact: str) -> None:
            handle = await through_outages(lambda: dataset_of(self._client, artifact), self._stall_timeout)
            if handle is not None:
                self._spool.told_of_datasets([(handle, artifact)])

        await all_of(look, artifacts, _AT_ONCE)

    async def _pass(self, shown: AsyncIterator[Seen]) -> None:
        some: list[Seen] = []

        def note() -> None:
            wanted = self._spool.wanted([each.key for each in some])
            self._spool.see([each for each in some if each.key in wanted])
            some.clear()

        async for each in shown:
            some.append(each)
            if len(some) >= _PAGE:
                note()
        note()


async def _jobs(client: ProvenaClient, within: datetime | Newest | None) -> AsyncIterator[Seen]:
    since, page = _range(within)
    async for row in client.jobs.list(**page):
        if _older(row.created_timestamp, since):
            return
        for each in of_job(row):
            yield each


async def _items(client: ProvenaClient, within: datetime | Newest | None) -> AsyncIterator[Seen]:
    since, page = _range(within)
    async for item in client.registry.list(ModelRunInfo, sort="CREATED_TIME", **page):
        if _older(item.created_timestamp, since):
            return
        run = item.info
        key = (run.record.annotations or {}).get(KEY_FIELD)
        if key is not None:
            there = json.dumps(run.record.plain())
            yield Seen(key, item.id, status=run.record_status, at=item.created_timestamp, record=there)


def of_job(row: JobRow) -> list[Seen]:
    """Return what a job shows of the runs that it lodges, or that it has other jobs lodge."""
    records: Any = ()
    if row.job_sub_type == BATCH:
        records = row.payload.get("records")
    elif row.job_sub_type == LODGE:
        records = [row.payload.get("record")]
    keys = [key for record in (records if isinstance(records, list) else ()) if (key := key_in(record)) is not None]
    lodged = row.lodged if keys and row.job_sub_type == LODGE else None
    return [
        Seen(
            key,
            lodged.id if lodged is not None else "",
            row.session_id,
            batch=row.result_batch_id if row.job_sub_type == BATCH else row.batch_id,
            status=row.status,
            info=(row.info or "").strip() or "Provena gives no reason",
            at=row.created_timestamp,
            parent=row.job_sub_type == BATCH,
            record=json.dumps(row.payload.get("record")) if lodged is not None else None,
        )
        for key in keys
    ]


def _range(within: datetime | Newest | None) -> tuple[datetime | None, dict[str, Any]]:
    """Return since when to read, and the size of a page and the limit of a list."""
    if not isinstance(within, Newest):
        return within, {"page_size": _PAGE}
    # The newest mostly suffice, and a page of many takes seconds.
    return within.since, {"page_size": min(_PAGE, within.most // 5), "limit": within.most}


def _before(seconds: int) -> datetime | None:
    """Return the time from which on a run may be there of a job that was created at `seconds`."""
    at = moment(seconds)
    return None if at is None else at - SPREAD


def _older(seconds: int | None, since: datetime | None) -> bool:
    at = moment(seconds)
    return since is not None and at is not None and at < since
