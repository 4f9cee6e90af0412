"""Find orphans: orders and jobs on a platform that no run waits for, left by cancelled, killed and failed flows.

The platform cannot cancel them, so they continue and cost money. This module names each one and the next step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import ForbiddenError, IvcapFlowsError, PlatformError
from ivcap_flows.handles import TERMINAL
from ivcap_flows.identity import INTENT_SCHEMA, ivcap_urn, short_id, short_run, without_key
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.loop import all_of
from ivcap_flows.work.kinds import KINDS, LOOKED_AT, WorkKind, read_listed

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.job_records import JobRecord
    from ivcap_flows.ivcap.orders import OrderRecord
    from ivcap_flows.journal import IntentRow, Journal, Outcome, RunRow

__all__ = ["Orphan", "all_orphans", "as_rows", "is_orphan", "live_of", "orphans_of"]


UNKNOWN: Final = "unknown"
"""The status of work that exists, when the platform was not asked."""

Ended = Callable[[list[str]], set[str]]
"""Return those of these Prefect flow runs that are known not to continue."""


@dataclass(frozen=True)
class Orphan:
    """An order or job that no live run waits for. `urn` is None while it is unknown whether the platform has it.

    `status` and the times are the platform's if it was asked. `left` says how the requesting run ended, `then` what
    happens next or what the user can do. `here`: this journal knows it; if not, a run of another journal may wait for
    it.
    """

    noun: str
    urn: str | None
    key: str | None
    name: str | None
    service: str | None
    service_urn: str
    status: str
    since: datetime | None
    ended_at: datetime | None
    run: str | None
    flow: str | None
    left: str
    then: str
    here: bool = True

    @property
    def hours(self) -> float | None:
        """Hours from the request to the work's end, or to now if it has not ended; None if neither is known."""
        if self.since is None or self.urn is None or (self.ended_at is None and self.status == UNKNOWN):
            return None
        return round(((self.ended_at or datetime.now(timezone.utc)) - self.since).total_seconds() / 3600, 2)


_Both = tuple[list[Orphan], list[Orphan]]


def live_of(journal: Journal, run_id: str) -> list[IntentRow]:
    """Return the orders and jobs that a run requested and whose end the journal does not know."""
    rows = [row for noun in KINDS for row in journal.intents.where(run_id=run_id, noun=noun, limit=None)]
    return [row for row in rows if _may_live(row)]


def orphans_of(journal: Journal, ended: Ended | None = None) -> list[Orphan]:
    """Return the orphans that this journal knows, oldest first.

    `ended` says which parked or paused runs will not continue.
    """
    rows = [row for noun in KINDS for row in journal.intents.where(noun=noun, only="unended", limit=None)]
    by_run: dict[str | None, list[IntentRow]] = {}
    for row in rows:
        if _may_live(row) and not journal.intents.held(row):
            by_run.setdefault(row.run_id, []).append(row)
    found = [orphan for run_id, some in by_run.items() for orphan in _of_run(journal, run_id, some, ended)]
    return sorted(found, key=lambda orphan: (orphan.since is not None, orphan.since))


def all_orphans(
    journal: Journal, ended: Ended, ask: Callable[[Callable[[IvcapClient], Awaitable[_Both]]], _Both]
) -> tuple[list[Orphan], list[Orphan], str | None]:
    """Return the orphans that this journal knows, as IVCAP shows them, and those of other journals.

    `ask` calls a function with IVCAP's client. If it fails, return what this journal knows, and the reason.
    """
    here = orphans_of(journal, ended)

    async def looked(client: IvcapClient) -> _Both:
        return await seen(client, here), await elsewhere(client, journal)

    try:
        return (*ask(looked), None)
    except IvcapFlowsError as error:
        return here, [], str(error)


def is_orphan(journal: Journal, row: IntentRow, ended: Ended | None = None) -> bool:
    """Return whether this is an order or job that no run waits for."""
    if row.noun not in KINDS or not _may_live(row) or journal.intents.held(row):
        return False
    return any(True for _ in _of_run(journal, row.run_id, [row], ended))


def _may_live(row: IntentRow) -> bool:
    """Return whether the work may still run on the platform and belongs to the run that requested it.

    Reused work has ended. Work that the user adopted is the user's.
    """
    return row.state in ("sent", "done") and not row.has_ended and row.how != "reused" and row.matched_by != "user"


def _of_run(journal: Journal, run_id: str | None, rows: Iterable[IntentRow], ended: Ended | None) -> Iterator[Orphan]:
    if run_id is None:
        for row in rows:
            yield _orphan(row, None, "no run on record", None)
        return
    run, flow_run_id, outcome = _standing(journal, run_id)
    if outcome == "running" or (outcome in COMES_BACK and _comes_back(flow_run_id, ended)):
        return
    for row in rows:
        # A flow that completed without waiting for its orders left them intentionally.
        if outcome != "completed" or row.state != "done":
            yield _orphan(row, run, outcome, flow_run_id)


def _standing(journal: Journal, run_id: str) -> tuple[RunRow, str | None, Outcome]:
    """Return a run, its newest flow run's id and its outcome. The outcome is "lost" if its processes are gone."""
    run, attempts = journal.runs.standing(journal.runs.get(run_id))
    if any(attempt.outcome == "running" for attempt in attempts):
        return run, None, "running"
    leading = [attempt for attempt in attempts if attempt.leads]
    return run, leading[-1].flow_run_id if leading else None, run.outcome


def _comes_back(flow_run_id: str | None, ended: Ended | None) -> bool:
    return ended is None or flow_run_id is None or flow_run_id not in ended([flow_run_id])


def _orphan(row: IntentRow, run: RunRow | None, left: str, flow_run_id: str | None) -> Orphan:
    request: Mapping[str, Any] = row.request if isinstance(row.request, Mapping) else {}
    return Orphan(
        noun=row.noun,
        urn=row.urn,
        key=row.key,
        name=row.name,
        service=row.subject,
        service_urn=str(request.get("service") or ""),
        status=UNKNOWN if row.state == "done" else "in doubt",
        since=row.sent_at or row.created_at,
        ended_at=None,
        run=row.run_id,
        flow=None if run is None else run.flow_name,
        left=left,
        then=_then(row, run, left, flow_run_id),
    )


def _then(row: IntentRow, run: RunRow | None, left: str, flow_run_id: str | None) -> str:
    key = short_id(row.key)
    by_hand = f"`ivcap-flows orders resolve {key}`"
    if row.state == "done":
        by_hand = f"`ivcap-flows orders adopt {key}`, or when it has ended `ivcap-flows orders write-off {key}`"
    if run is None:
        return f"no run will request it again: use {by_hand}"
    again, unwanted = "run the same command again", "if you do not want that"
    if run.deployed:
        in_prefect = f"retry flow run {flow_run_id} in Prefect"
        again = f"have Prefect deliver task run {flow_run_id} again" if run.is_background else in_prefect
        unwanted = "if that was deleted"
    if left in ("abandoned", "completed"):
        unless = f", unless you {again}" if left == "abandoned" and run.deployed else ""
        return f"no run will request it again{unless}: use {by_hand}"
    return f"the next attempt of run {short_run(run.id)} takes it up: {again}; {unwanted}, use {by_hand}"


def as_rows(orphans: Iterable[Orphan]) -> list[dict[str, Any]]:
    """Return the orphans as rows of a table, with times in ISO 8601."""
    return [
        {
            "what": orphan.noun,
            "name": orphan.name,
            "of": orphan.service,
            "status": orphan.status,
            "since": None if orphan.since is None else orphan.since.isoformat(timespec="seconds"),
            "hours": orphan.hours,
            "placed by": " ".join(
                part for part in (orphan.flow, orphan.run and f"run {short_run(orphan.run)}") if part
            ),
            "run": orphan.left,
            "urn": orphan.urn,
            "key": None if orphan.key is None else short_id(orphan.key),
            "next": orphan.then,
        }
        for orphan in orphans
    ]


async def seen(client: IvcapClient, orphans: Iterable[Orphan]) -> list[Orphan]:
    """Return the orphans with status and times read from the platform.

    The status of an orphan that cannot be read, such as one of another account, says so.
    """

    async def look(orphan: Orphan) -> Orphan:
        if orphan.urn is None:
            return orphan
        try:
            return await _looked_at(client, orphan, orphan.urn)
        except PlatformError as error:
            return replace(orphan, status=f"cannot be read ({type(error).__name__})")

    return await all_of(look, orphans)


async def _looked_at(client: IvcapClient, orphan: Orphan, urn: str) -> Orphan:
    kind = KINDS[orphan.noun]
    record = await kind.read(client, urn, orphan.service_urn)
    since = kind.requested_at(record) or orphan.since
    return replace(orphan, status=record.status, since=since, ended_at=record.finished_at)


async def elsewhere(client: IvcapClient, journal: Journal) -> list[Orphan]:
    """Return running orders and jobs of the account that this package placed and that this journal does not know.

    They belong to other journals, whose runs may wait for them. Reads the newest `LOOKED_AT` orders, jobs and
    idempotency records of the account.
    """
    records, account = await _idempotency_records(client), await client.account()
    known = {row.urn for row in journal.intents.where(limit=None) if row.urn is not None}
    known |= {urn for row in journal.intents.where(only="twice", limit=None) for urn in row.duplicates}
    keys = {short_id(row.key) for noun in KINDS for row in journal.intents.where(noun=noun, limit=None)}
    found: list[Orphan] = []
    for kind in KINDS.values():
        async for record in kind.newest(client):
            named = kind.key(record)
            ours = (named is not None or record.urn in records) and record.urn not in known and named not in keys
            if ours and record.status not in TERMINAL and await _is_its(client, kind, record, account):
                found.append(_foreign(kind, record, records.get(record.urn, {})))
    return found


async def _is_its(client: IvcapClient, kind: WorkKind[Any], record: OrderRecord | JobRecord, account: str) -> bool:
    """Whether listed work is the account's. A list of jobs does not say whose they are."""
    if record.account is not None:
        return record.account == account
    service = ivcap_urn("service", record.service) if record.service else ""
    whole = await read_listed(kind, client, record.urn, service)
    return whole is not None and whole.account in (None, account)


async def _idempotency_records(client: IvcapClient) -> dict[str, Mapping[str, Any]]:
    """Return the contents of the newest idempotency records, by the URN that each names."""
    records: dict[str, Mapping[str, Any]] = {}
    try:
        async for record in client.aspects.list(schema=INTENT_SCHEMA, limit=LOOKED_AT):
            if isinstance(record.content, Mapping) and isinstance(record.content.get("urn"), str):
                records.setdefault(record.content["urn"], record.content)
    except ForbiddenError:
        return {}
    return records


def _foreign(kind: WorkKind[Any], record: OrderRecord | JobRecord, content: Mapping[str, Any]) -> Orphan:
    """Return the orphan for work of another journal. `content` is its idempotency record's, empty if not found."""
    journal = content.get("journal")
    return Orphan(
        noun=kind.noun,
        urn=record.urn,
        key=content.get("key") or kind.key(record),
        name=without_key(record.name),
        service=content.get("subject"),
        service_urn=ivcap_urn("service", record.service) if record.service else "",
        status=record.status,
        since=kind.requested_at(record),
        ended_at=record.finished_at,
        run=content.get("run"),
        flow=content.get("flow"),
        left="not known here",
        then=f"a run of journal {journal} may wait for it: look there" if journal else "its journal is not known",
        here=False,
    )
