"""Read, check and register one source of model runs, and report the outcome of each row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, get_args

from ivcap_flows.durable import Caller, Limit, perform
from ivcap_flows.errors import ForbiddenError, InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.journal import Journal, OpenedAttempt
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.model_runs import STALL_TIMEOUT
from ivcap_flows.registration.outcome import BatchReport, OutcomeFile
from ivcap_flows.registration.preflight import OnProgress, Preflight
from ivcap_flows.registration.registering import Options, Registering
from ivcap_flows.registration.registry import DatasetEffect, item_registering
from ivcap_flows.registration.rows import Fault
from ivcap_flows.registration.sources import RowSource
from ivcap_flows.registration.spool import Outcome, Spool, Spooled, Standing

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["IN_FLIGHT", "STALL_TIMEOUT", "Batch", "Describe"]

IN_FLIGHT: Final = 200
"""Number of rows that are under way at once. It is large because Provena's queue should never be empty."""

_ALL: Final[tuple[Standing, ...]] = get_args(Standing)

Describe = Callable[[str], Awaitable[Artifact]]
"""A function from an artifact's URN to its handle, from which the artifact's dataset is minted."""


def _silent(what: str, done: int, total: int | None) -> None:
    pass


async def _by_urn(urn: str) -> Artifact:
    return Artifact(urn=urn, platform="IVCAP")


class Batch:
    """The registration of one source. Use it as a context manager: `check`, which sends nothing, then `register`.

    `terms` are the user's statements for datasets that are minted for artifacts. `stall_timeout` is in seconds.
    """

    def __init__(
        self,
        source: RowSource,
        client: ProvenaClient,
        *,
        terms: Terms | None = None,
        describe: Describe = _by_urn,
        stall_timeout: float = STALL_TIMEOUT,
        progress: OnProgress = _silent,
    ) -> None:
        self._source = source
        self._client = client
        self._terms = terms
        self._describe = describe
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._spool = Spool()

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.__exit__(kind, error, trace)

    async def read(self) -> BatchReport:
        """Read the rows and check each without asking Provena. Raises InputError if the source cannot be read."""
        await asyncio.to_thread((await self._preflight()).read, self._source)
        return self.report()

    async def check(self, journal: Journal | None = None) -> BatchReport:
        """Read the rows and find all faults in them. Raises InputError if the source cannot be read.

        A row that claims to be registered must name a run or job that Provena has or the `journal` knows.
        """
        await (await self._preflight(journal)).run(self._source)
        self._spool.explain_wrong()
        return self.report()

    async def register(
        self,
        journal: Journal,
        attempt: OpenedAttempt | None = None,
        *,
        skip_invalid: bool = False,
        in_flight: int = IN_FLIGHT,
        limit: Limit | None = None,
        out: Path | None = None,
    ) -> BatchReport:
        """Register the checked rows, each once. Each row ends with a handle, with the reason of a failure, or in doubt.

        Raises InputError before anything is sent if a row is wrong, unless `skip_invalid` is set. Each request
        takes a turn of the `limit`. `out` is a CSV file that always shows what is known of each row.
        """
        report = self.report()
        if report.wrong and not skip_invalid:
            raise InputError(
                f"{report.wrong} of the {report.rows} rows of {report.source} are wrong ({report.faults} faults), so "
                "none was sent. Correct these rows or leave them out.",
                faults=report.faults,
            )
        platform, account = await self._client.platform(), await self._client.username()

        register = await item_registering(self._client, journal, attempt)
        terms = await self._terms.registered(register) if self._terms is not None else None

        caller = Caller(journal, attempt, platform, account, self._client)

        async def mint(urn: str) -> str:
            try:
                artifact = await self._describe(urn)
            except ForbiddenError as error:
                # IVCAP hides this artifact. What Provena forbids is judged otherwise.
                raise InputError(str(error)) from error
            effect = DatasetEffect.of(artifact, terms, client=self._client, platform=platform, account=account)
            return (await perform(effect, caller)).value.urn

        file = OutcomeFile(out, self._spool) if out is not None else None
        registering = Registering(
            *(self._client, caller, self._spool, file),
            mint=mint,
            options=Options(in_flight, limit, self._stall_timeout, self._progress),
        )
        try:
            await registering.run()
            if file is not None:
                await asyncio.to_thread(file.finish)
        finally:
            if file is not None:
                file.close()
        return self.report()

    def report(self) -> BatchReport:
        """Return the current counts of the rows."""
        return BatchReport.of(self._spool, self._source.name, self._source.sha256, self._source.warnings)

    def faults(self) -> Iterator[Fault]:
        """Yield all faults, row by row."""
        return self._spool.faults()

    def outcomes(self, *standings: Standing) -> Iterator[Outcome]:
        """Yield the outcomes of the rows with these standings, or of all rows, in their order."""
        return self._spool.outcomes(*standings)

    def records(self) -> Iterator[Spooled]:
        """Yield all rows that have a record, in their order."""
        for page in self._spool.pages(*_ALL):
            yield from page

    def registered(self) -> Iterator[list[Spooled]]:
        """Yield the registered rows, page by page."""
        return self._spool.pages("registered")

    async def _preflight(self, journal: Journal | None = None) -> Preflight:
        return Preflight(
            self._client,
            self._spool,
            platform=await self._client.platform(),
            account=await self._client.username(),
            terms=self._terms,
            stall_timeout=self._stall_timeout,
            progress=self._progress,
            journal=journal,
        )
