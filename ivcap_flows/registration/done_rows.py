"""Check rows that claim to be registered: the run or job that they name must exist, or a run would be missing."""

from __future__ import annotations

import asyncio
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import BadRequestError, NotAuthorizedError, NotFoundError
from ivcap_flows.journal import Journal
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.lookup import LODGE
from ivcap_flows.registration.rows import Fault, FaultKind
from ivcap_flows.registration.sheet import HANDLE, JOB
from ivcap_flows.registration.spool import Outcome, Spool

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["DoneRows"]

_PAGE: Final = 200
_ANEW: Final = "Empty the column to register the row"


class DoneRows:
    """Checks the rows of a spool with the standing `done` against Provena, and the journal if there is one."""

    def __init__(self, client: ProvenaClient, spool: Spool, journal: Journal | None, stall_timeout: float) -> None:
        self._client = client
        self._spool = spool
        self._journal = journal
        self._stall_timeout = stall_timeout

    async def check(self) -> None:
        """Add a fault to each row whose run (or job, if it names no run) neither Provena nor the journal knows."""
        rows = self._spool.outcomes("done")
        while page := list(islice(rows, _PAGE)):
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
            if await asyncio.to_thread(self._knows_run, handle):
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
            if await asyncio.to_thread(self._knows_job, job):
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
        told = [part for row in rows for part in (row.progress, row.outcome) if isinstance(part, dict)]
        return frozenset(job for part in told if isinstance(job := part.get("session_id"), str))
