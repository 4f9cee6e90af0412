"""One source on its way to Provena: read, checked, registered; and what came of each row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, get_args

from ivcap_flows.durable import perform
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.journal import Journal, OpenedAttempt
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.registration.outcome import BatchReport, OutcomeFile
from ivcap_flows.registration.preflight import Preflight, Progress
from ivcap_flows.registration.registry import DatasetEffect
from ivcap_flows.registration.rows import Fault
from ivcap_flows.registration.sources import Source
from ivcap_flows.registration.spool import Outcome, Spool, Spooled, Standing
from ivcap_flows.registration.submit import Submission

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["IN_FLIGHT", "STALL_TIMEOUT", "Batch", "Describe"]

IN_FLIGHT: Final = 4
"""Batches on their way together."""
STALL_TIMEOUT: Final = 1800.0
"""Seconds without any movement after which what was sent is left in doubt: workers start on demand, and each takes
one job at a time."""

_ALL: Final[tuple[Standing, ...]] = get_args(Standing)

Describe = Callable[[str], Awaitable[Artifact]]
"""From an artifact's URN to what is known of it, for the dataset that is minted."""


def _silent(what: str, done: int, total: int | None) -> None:
    pass


async def _by_urn(urn: str) -> Artifact:
    return Artifact(urn=urn, platform="IVCAP")


class Batch:
    """Use as a context manager: `check`, then `register`. Nothing is sent by `check`.

    `datasets` is what the user states of the datasets that are minted for artifacts; `stall_timeout` is in seconds.
    """

    def __init__(
        self,
        source: Source,
        client: ProvenaClient,
        *,
        datasets: DatasetDefaults | None = None,
        describe: Describe = _by_urn,
        stall_timeout: float = STALL_TIMEOUT,
        progress: Progress = _silent,
    ) -> None:
        self._source = source
        self._client = client
        self._datasets = datasets
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
        """Read the rows once, and check each by itself. Raises InputError for a source that is none."""
        await asyncio.to_thread((await self._preflight()).read, self._source)
        return self.report()

    async def check(self, journal: Journal | None = None) -> BatchReport:
        """Read the rows once, and find all that is wrong with them. Raises InputError for a source that is none.

        A row that calls itself registered must name a run or job that Provena has, or that the `journal` knows.
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
        out: Path | None = None,
    ) -> BatchReport:
        """Register the checked rows, each once: with a handle, a reason, or as doubtful.

        Raises InputError while a row is wrong, unless `skip_invalid`; then nothing was sent. `out` is a CSV file that
        holds at any time what is known so far of each row.
        """
        report = self.report()
        if report.wrong and not skip_invalid:
            raise InputError(
                f"{report.wrong} of the {report.rows} rows of {report.source} are wrong ({report.faults} faults), so "
                "none was sent. Correct them, or leave them out.",
                faults=report.faults,
            )
        platform, account = await self._client.platform(), await self._client.username()

        async def mint(urn: str) -> str:
            artifact = await self._describe(urn)
            effect = DatasetEffect.of(artifact, self._datasets, client=self._client, platform=platform, account=account)
            done = await perform(
                effect, journal=journal, attempt=attempt, platform=platform, account=account, clock=self._client
            )
            return done.value.urn

        file = OutcomeFile(out, self._spool) if out is not None else None
        submission = Submission(
            self._client,
            journal,
            self._spool,
            file,
            platform=platform,
            account=account,
            attempt=attempt,
            mint=mint,
            in_flight=in_flight,
            stall_timeout=self._stall_timeout,
            progress=self._progress,
        )
        try:
            await submission.run()
            if file is not None:
                await asyncio.to_thread(file.finish)
        finally:
            if file is not None:
                file.close()
        return self.report()

    def report(self) -> BatchReport:
        """How the rows stand now."""
        return BatchReport.of(self._spool, self._source.name, self._source.sha256, self._source.warnings)

    def faults(self) -> Iterator[Fault]:
        """All that is wrong, row by row."""
        return self._spool.faults()

    def outcomes(self, *standings: Standing) -> Iterator[Outcome]:
        """How rows stand, in their order; those of these standings or all."""
        return self._spool.outcomes(*standings)

    def records(self) -> Iterator[Spooled]:
        """All rows that have a record, in their order."""
        for page in self._spool.pages(*_ALL):
            yield from page

    def registered(self) -> Iterator[list[Spooled]]:
        """The rows that have a handle, page by page."""
        return self._spool.pages("registered")

    async def _preflight(self, journal: Journal | None = None) -> Preflight:
        return Preflight(
            self._client,
            self._spool,
            platform=await self._client.platform(),
            account=await self._client.username(),
            defaults=self._datasets,
            stall_timeout=self._stall_timeout,
            progress=self._progress,
            journal=journal,
        )
