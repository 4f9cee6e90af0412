"""Register the rows of a spool. Each is an effect of its own, performed by the engine that registers a single run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable import Caller, Limit, perform
from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InDoubtError,
    InputError,
    InvalidParameterError,
    IvcapFlowsError,
    NotAuthorizedError,
    OutcomeError,
    PlatformError,
    WaitTimeoutError,
)
from ivcap_flows.handles import ModelRun
from ivcap_flows.http.concurrency_limit import MOST
from ivcap_flows.journal.rows import GIVEN_UP
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.keys import has_own_key
from ivcap_flows.registration.lookup import Newest, RowLookup
from ivcap_flows.registration.making import Making, with_datasets
from ivcap_flows.registration.model_runs import ModelRunEffect, digest_of
from ivcap_flows.registration.outcome import OutcomeFile
from ivcap_flows.registration.registry import dataset_of
from ivcap_flows.registration.requirements import OnProgress, artifacts_in
from ivcap_flows.registration.spool import Outcome, Spool, Spooled
from ivcap_flows.threads import FILES

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Options", "Registering", "doubtful"]

_LOOKED_AT: Final = 1_000
"""Rows that the journal has not sent are looked for among so many jobs and runs, and two more for each row."""
_DIFFERS: Final = (
    "The run was registered under this key with another record, which this row does not change. For a new run, give "
    "the row another key; to change the run, use update_model_run"
)
_OF_ITS_ROW: Final = (InputError, BadRequestError, InvalidParameterError, OutcomeError, InDoubtError, WaitTimeoutError)
"""The errors that say something about one row. Any other one ends the batch."""


@dataclass(frozen=True)
class Options:
    """How rows are registered: `in_flight` are under way at once, and each request takes a turn of the `limit`.

    `stall_timeout` is the number of seconds without progress after which a row is left in doubt, and for which Provena
    may be unreachable.
    """

    in_flight: int
    limit: Limit | None
    stall_timeout: float
    progress: OnProgress


class Registering:
    """Registers the ready rows of a spool; call `run` once. Each row ends with a handle, as failed, or as doubtful."""

    def __init__(
        self,
        client: ProvenaClient,
        caller: Caller,
        spool: Spool,
        out: OutcomeFile | None,
        *,
        making: Making,
        options: Options,
    ) -> None:
        self._client, self._caller, self._spool, self._out = client, caller, spool, out
        self._journal, self._options, self._references = caller.journal, options, making.references
        self._datasets = _Datasets(making, options.stall_timeout)
        self._lookup, self._job_watch = RowLookup(client), JobWatch(client)
        counts = spool.counts()
        self._total = sum(counts.values())
        self._ended = counts.get("wrong", 0) + counts.get("done", 0)
        self._unanswered = 0
        """Rows to which Provena had no answer, since the last one to which it had."""

    async def run(self) -> None:
        """Register all rows. Raises the error of a refusal of all rows, such as of the token.

        The next start finds what was sent until then.
        """
        await through_outages(self._recall, self._options.stall_timeout)
        if self._out is not None:
            await FILES.run(self._out.begin)
        rows = (row for page in self._spool.pages("ready") for row in page)
        try:
            await all_of(self._register, rows, self._options.in_flight)
        finally:
            await self._datasets.end()

    async def _recall(self) -> None:
        """End the rows whose end the journal knows, and look in Provena for those that it has not sent."""
        unsent: set[str] = set()
        first_end = 2**62
        for page in self._spool.pages("ready"):
            known = await self._journal.ask(self._journal.intents.find_many, [row.key for row in page])
            for row in page:
                if row.key not in known or known[row.key].state in ("claimed", "dropped"):
                    unsent.add(row.key)
                    first_end = min(first_end, row.body["end_time"])
            found = [(row, known[row.key]) for row in page if row.key in known]
            self._end([_given_up(row) for row, intent in found if intent.given_up])
            done = [(row, ModelRun.model_validate(intent.outcome)) for row, intent in found if intent.state == "done"]
            self._end([await self._registered(row, run) for row, run in done])
        if unsent:
            await self._lookup.look_first(unsent, Newest.after(first_end, _LOOKED_AT + 2 * len(unsent)))

    async def _register(self, row: Spooled) -> None:
        try:
            # What Provena has already needs no dataset, nor does its row say which ones it was registered with.
            mints = () if self._lookup.is_lodged(row.key) else artifacts_in(row.body)
            await all_of(self._datasets.find_or_mint, mints)
            effect = ModelRunEffect.of(
                row.subject,
                self._record(row),
                client=self._client,
                platform=self._caller.platform,
                limit=self._options.limit,
                job_watch=self._job_watch,
                look=self._lookup.look,
                stall_timeout=self._options.stall_timeout,
            )
            done = await through_outages(lambda: perform(effect, self._caller), self._options.stall_timeout)
        except (PlatformError, *_OF_ITS_ROW) as error:
            if not self._is_of_its_row(error):
                raise
            self._end([await self._unregistered(row, error)])
        else:
            self._unanswered = 0
            self._end([await self._registered(row, done.value)])

    def _is_of_its_row(self, error: IvcapFlowsError) -> bool:
        if isinstance(error, NotAuthorizedError):
            return bool(error.about == "item")
        if isinstance(error, PlatformError) and error.retryable:
            # It may have no answer to this row alone. If it has none to as many as are under way at once, it is away.
            self._unanswered += 1
            return self._unanswered < self._options.in_flight
        return isinstance(error, _OF_ITS_ROW)

    async def _registered(self, row: Spooled, run: ModelRun) -> Outcome:
        differs = has_own_key(row.subject) and await self._differs(row, run.record_sha256)
        words = _DIFFERS if differs else None
        return Outcome(row.number, row.called, "registered", run.urn, run.session_id, None, words)

    async def _differs(self, row: Spooled, sha256: str | None) -> bool:
        """Return whether a run was registered with another record than its row has."""
        if sha256 is None or sha256 == digest_of(self._record(row)):
            return False
        # Another process that registered the run may have minted its datasets since the row was checked.
        lacking = [each for each in artifacts_in(row.body) if each not in self._references.datasets([each])]
        for artifact in lacking:
            if (handle := await dataset_of(self._client, artifact)) is not None:
                self._references.note_datasets({artifact: handle})
        return sha256 != digest_of(self._record(row))

    async def _unregistered(self, row: Spooled, error: IvcapFlowsError) -> Outcome:
        intent = await self._journal.ask(self._journal.intents.get, row.key)
        if intent is not None and intent.given_up:
            return _given_up(row)
        may_be_there = isinstance(error, InDoubtError | WaitTimeoutError)
        if intent is None or (intent.state in ("claimed", "dropped") and not may_be_there):
            why = error.data.get("detail") if isinstance(error, OutcomeError) else None
            job = error.data.get("session_id")
            return Outcome(row.number, row.called, "failed", job=job, words=str(why or error))
        return doubtful(row, intent, str(error), next(iter(error.data.get("pending") or ()), None))

    def _record(self, row: Spooled) -> ModelRunRecord:
        """Return the record of a row, with the known datasets in place of artifacts."""
        known = self._references.datasets(artifacts_in(row.body))
        return with_datasets(ModelRunRecord.model_validate(row.body), known)

    def _end(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes of ended rows to the spool and the outcome file."""
        if not outcomes:
            return
        self._spool.stand(outcomes)
        if self._out is not None:
            self._out.add(outcomes)
        self._ended += len(outcomes)
        self._options.progress("registered", self._ended, self._total)


class _Datasets:
    """The datasets of the artifacts in rows. Each is found or minted once, and a refusal counts for all its rows."""

    def __init__(self, making: Making, stall_timeout: float) -> None:
        self._making, self._stall_timeout = making, stall_timeout
        self._minting: dict[str, asyncio.Task[None]] = {}
        self._minted = False
        self._forbidden = 0

    async def find_or_mint(self, artifact: str) -> None:
        """Let the spool know the dataset of an artifact. Raises InputError with the reason why there is none."""
        if self._making.references.datasets([artifact]):
            return
        if artifact not in self._minting:
            self._minting[artifact] = asyncio.create_task(self._find_or_mint(artifact))
        await asyncio.shield(self._minting[artifact])

    async def end(self) -> None:
        """Give up the mints that nobody waits for any more, before the spool is closed."""
        for minting in self._minting.values():
            minting.cancel()
        await asyncio.gather(*self._minting.values(), return_exceptions=True)

    async def _find_or_mint(self, artifact: str) -> None:
        try:
            await through_outages(lambda: self._making.dataset(artifact), self._stall_timeout)
        except ForbiddenError as error:
            # It may be forbidden for this artifact alone. If many mints and no other are answered, the caller may not.
            self._forbidden += 1
            if not self._minted and self._forbidden >= MOST:
                raise
            raise InputError(str(error)) from error
        except PlatformError as error:
            if error.retryable or isinstance(error, NotAuthorizedError):
                raise
            raise InputError(str(error)) from error
        self._minted = True
        del self._minting[artifact]


def doubtful(row: Spooled, intent: IntentRow, words: str | None, job: str | None = None) -> Outcome:
    """Return the outcome of a row that was sent, and of which nobody knows whether Provena has it."""
    job = (intent.progress or {}).get("session_id") or job
    since = (intent.sent_at or intent.created_at).isoformat(timespec="seconds")
    return Outcome(row.number, row.called, "doubtful", job=job, since=since, words=words)


def _given_up(row: Spooled) -> Outcome:
    return Outcome(row.number, row.called, "failed", words=GIVEN_UP)
