"""Check all rows before the first one is sent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import BadRequestError, NotAuthorizedError, NotFoundError
from ivcap_flows.journal import Journal
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.registration.keys import NOUN, run_key, subject_of
from ivcap_flows.registration.lookup import LODGE
from ivcap_flows.registration.requirements import OnProgress, Requirements
from ivcap_flows.registration.rows import Fault, FaultKind, Row, read_record, unstorable
from ivcap_flows.registration.sheet import HANDLE, JOB
from ivcap_flows.registration.sources import RowSource
from ivcap_flows.registration.spool import NewRow, Outcome, Spool
from ivcap_flows.threads import JOURNAL, alone

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Preflight"]

_BATCH: Final = 500
_PAGE: Final = 200
_SIDE: Final = re.compile(r"^(inputs|outputs)\[(\d+)\]")
_ANEW: Final = "Empty the column to register the row"


class Preflight:
    """Reads a source into a spool and checks it. Call `run` once; then the spool contains every fault."""

    def __init__(
        self,
        spool: Spool,
        requirements: Requirements,
        *,
        stall_timeout: float,
        progress: OnProgress,
        journal: Journal | None = None,
    ) -> None:
        """`journal` may know runs that Provena's jobs no longer show."""
        self._spool = spool
        self._requirements = requirements
        self._drafts = requirements.drafts
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._journal = journal
        self._names: Mapping[str, str] = {}

    async def run(self, source: RowSource) -> None:
        """Read and check all rows.

        Raises InputError if the source cannot be read at all, and for a caller who may not write.
        """
        await alone(self.read, source)
        self._names = source.names
        await self._requirements.look_up()
        await _DoneRows(self._drafts.client, self._spool, self._journal, self._stall_timeout).check()
        await alone(self._check)

    def read(self, source: RowSource) -> None:
        """Read the rows and check each without asking Provena. Call it in a thread."""
        rows = source.rows()
        number = 0
        while batch := list(itertools.islice(rows, _BATCH)):
            self._names = source.names
            self._store(batch)
            number += len(batch)
            self._progress("read", number, None)

    def _store(self, batch: Iterable[Row]) -> None:
        rows: list[NewRow] = []
        faults: list[Fault] = []
        bodies: list[dict[str, Any]] = []
        for row in batch:
            if wrong := unstorable(row):
                rows.append(NewRow(row.number, "wrong"))
                found = wrong
            elif row.is_done:
                rows.append(NewRow(row.number, "done", row.key, handle=row.handle, job=row.job))
                found = []
            else:
                new, found = self._read(row)
                rows.append(new)
                bodies += [] if new.body is None else [new.body]
            faults += [replace(fault, column=self._column(fault.column, row.body)) for fault in found]
        self._spool.add_rows(rows)
        self._spool.add_faults(faults)
        self._requirements.want(bodies)

    def _read(self, row: Row) -> tuple[NewRow, list[Fault]]:
        """Return a row with its record, if it has one, and the faults in it."""
        record, found = None, list(row.faults)
        if row.body is not None:
            record, more = read_record(row.number, row.body, frozenset(fault.column for fault in found))
            found += more
        if record is None:
            return NewRow(row.number, "wrong", row.key), found
        subject, workflow = subject_of(row.key, record), record.workflow_template_id
        key = run_key(self._drafts.platform, self._drafts.account, subject, workflow)
        body = record.model_dump(mode="json", exclude_none=True)
        return NewRow(row.number, "ready", row.key, key, subject, workflow, record.display_name, body), found

    def _check(self) -> None:
        checked = 0
        for page in self._spool.pages("ready", "wrong"):
            found = self._requirements.faults([(row.body, row.key, row.subject) for row in page])
            self._spool.add_faults(
                Fault(page[index].number, self._column(place, page[index].body), kind, words)
                for index, place, kind, words in found
            )
            checked += len(page)
            self._progress("checked", checked, None)
        repeated = []
        for number, first, own_key in self._spool.repeated():
            if own_key is None:
                words = f"The row is equal to row {first}; remove it, or give each a `key` if they are two runs"
                repeated.append(Fault(number, "the row", "identical rows", words))
            else:
                repeated.append(Fault(number, "key", "repeated key", f"Row {first} also has the key {own_key!r}"))
        self._spool.add_faults(repeated)

    def _column(self, place: str, body: Mapping[str, Any] | None) -> str:
        """Return the source's name for a field of a record."""
        named = place
        if (found := _SIDE.match(place)) and body is not None:
            parts = body.get(found[1])
            part = parts[int(found[2])] if isinstance(parts, list) and int(found[2]) < len(parts) else None
            template = part.get("dataset_template_id") if isinstance(part, dict) else None
            named = f"{found[1]}[{template}]{place[found.end() :]}"
        return self._names.get(named, self._names.get(place, place))


class _DoneRows:
    """Checks rows that claim to be registered: the run or job that they name must exist, or a run would be missing."""

    def __init__(self, client: ProvenaClient, spool: Spool, journal: Journal | None, stall_timeout: float) -> None:
        self._client = client
        self._spool = spool
        self._journal = journal
        self._stall_timeout = stall_timeout

    async def check(self) -> None:
        """Add a fault to each row whose run (or job, if it names no run) neither Provena nor the journal knows."""
        rows = self._spool.outcomes("done")
        while page := list(itertools.islice(rows, _PAGE)):
            found = await all_of(self._fault, page)
            self._spool.add_faults([fault for fault in found if fault is not None])

    async def _fault(self, row: Outcome) -> Fault | None:
        trouble = await (self._of_run(row.handle) if row.handle else self._of_job(row.job or ""))
        if trouble is None:
            return None
        kind, words = trouble
        return Fault(row.number, HANDLE if row.handle else JOB, kind, words)

    async def _of_run(self, handle: str) -> tuple[FaultKind, str] | None:
        try:
            item = await through_outages(lambda: self._client.registry.fetch_any(handle), self._stall_timeout)
        except (NotFoundError, BadRequestError):
            if await JOURNAL.run(self._knows_run, handle):
                return None
            return "unknown id", f"The registry has no model run {handle}. {_ANEW}"
        except NotAuthorizedError as error:
            if error.about != "item":
                raise
            # The caller may not read it, so it exists.
            return None
        if item.item_subtype != ModelRun.subtype:
            return (
                "wrong type",
                f"{handle} is {item.item_subtype}, but the row needs {ModelRun.subtype}. {_ANEW}",
            )
        return None

    async def _of_job(self, job: str) -> tuple[FaultKind, str] | None:
        try:
            row = await through_outages(lambda: self._client.jobs.fetch(job), self._stall_timeout)
        except NotAuthorizedError:
            return None
        if row is None:
            if await JOURNAL.run(self._knows_job, job):
                return None
            return "unknown id", f"Provena has no job {job}. {_ANEW}"
        if row.job_sub_type != LODGE:
            return (
                "wrong type",
                f"The job {job} is {row.job_sub_type} and registers no run. {_ANEW}",
            )
        if row.status == "FAILED":
            return "failed job", f"The job {job} failed ({(row.info or '').strip() or 'no reason given'}). {_ANEW}"
        return None

    def _knows_run(self, handle: str) -> bool:
        return self._journal is not None and bool(self._journal.intents.where(noun=NOUN, urn=handle, limit=1))

    def _knows_job(self, job: str) -> bool:
        return job in self._jobs

    @cached_property
    def _jobs(self) -> frozenset[str]:
        """The job ids of all model runs in the journal."""
        rows = [] if self._journal is None else self._journal.intents.where(noun=NOUN, limit=None)
        parts = [part for row in rows for part in (row.progress, row.outcome) if isinstance(part, dict)]
        return frozenset(job for part in parts if isinstance(job := part.get("session_id"), str))
