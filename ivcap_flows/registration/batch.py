"""Read, check and register one source of model runs, and report the outcome of each row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, get_args

from ivcap_flows.durable import Caller, Limit
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.journal import Journal, OpenedAttempt
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.making import Making
from ivcap_flows.registration.model_runs import STALL_TIMEOUT
from ivcap_flows.registration.outcome import BatchReport, OutcomeFile
from ivcap_flows.registration.preflight import Preflight
from ivcap_flows.registration.references import References
from ivcap_flows.registration.registering import Options, Registering
from ivcap_flows.registration.registry import Effects
from ivcap_flows.registration.requirements import Describe, OnProgress, Requirements, silent
from ivcap_flows.registration.rows import Fault
from ivcap_flows.registration.sources import RowSource
from ivcap_flows.registration.spool import Outcome, Spool, Spooled, Standing
from ivcap_flows.registration.workflow import Register
from ivcap_flows.threads import FILES, alone

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["IN_FLIGHT", "STALL_TIMEOUT", "Batch"]

IN_FLIGHT: Final = 200
"""Number of rows that are under way at once. It is large because Provena's queue should never be empty."""

_NAMED: Final = 20
"""Maximum number of faults that an error names."""

_ALL: Final[tuple[Standing, ...]] = get_args(Standing)


async def _by_urn(urn: str) -> Artifact:
    return Artifact(urn=urn, platform="IVCAP")


class Batch:
    """The registration of one source. Use it as a context manager: `check`, which sends nothing, then `register`.

    `terms` are the user's statements for datasets that are minted for artifacts. `drafts` are items that rows name and
    Provena may not have yet. `stall_timeout` is in seconds.
    """

    def __init__(
        self,
        source: RowSource,
        client: ProvenaClient,
        *,
        terms: Terms | None = None,
        drafts: Drafts | None = None,
        describe: Describe = _by_urn,
        stall_timeout: float = STALL_TIMEOUT,
        progress: OnProgress = silent,
    ) -> None:
        self._source = source
        self._client = client
        self._terms = terms
        self._drafts = drafts
        self._is_checked = False
        self._describe = describe
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._spool, self._references = Spool(), References()
        self._requirements: Requirements | None = None

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.__exit__(kind, error, trace)
        self._references.__exit__(kind, error, trace)

    async def read(self) -> BatchReport:
        """Read the rows and check each without asking Provena. Raises InputError if the source cannot be read."""
        await alone((await self._preflight()).read, self._source)
        return self.report()

    async def check(self, journal: Journal | None = None) -> BatchReport:
        """Read the rows and find all faults in them. Raises InputError if the source cannot be read.

        A row that claims to be registered must name a run or job that Provena has or the `journal` knows.
        """
        await (await self._preflight(journal)).run(self._source)
        self._spool.explain_wrong()
        self._is_checked = True
        return self.report()

    async def register(
        self,
        journal: Journal,
        attempt: OpenedAttempt | None = None,
        *,
        register: Register | None = None,
        skip_invalid: bool = False,
        in_flight: int = IN_FLIGHT,
        limit: Limit | None = None,
        out: Path | None = None,
    ) -> BatchReport:
        """Register the rows, each once. Each ends with a handle, with the reason of a failure, or in doubt.

        Raises InputError before anything is made if a row is wrong, unless `skip_invalid` is set. `register` makes
        items that Provena lacks. Each request takes a turn of the `limit`. `out` is a CSV file that always shows what
        is known of each row.
        """
        requirements = await self._requirements_of(journal)
        drafts = requirements.drafts
        caller = Caller(journal, attempt, drafts.platform, drafts.account, self._client)
        effects = Effects(caller, self._client)
        check = self._refuse_wrong(journal, skip_invalid)
        making = await Making.after(check, requirements, register or effects.item, effects.dataset)
        if drafts.infos:
            await self._fill(making, drafts)
        file = OutcomeFile(out, self._spool) if out is not None else None
        options = Options(in_flight, limit, self._stall_timeout, self._progress)
        registering = Registering(self._client, caller, self._spool, file, making=making, options=options)
        try:
            await registering.run()
            if file is not None:
                await FILES.run(file.finish)
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

    def pages(self, standing: Standing) -> Iterator[list[Spooled]]:
        """Yield the rows of a standing that have a record, page by page."""
        return self._spool.pages(standing)

    def refusal(self, listed: str = "") -> InputError:
        """Return the error for wrong rows. It names the first faults; `listed` says where more are listed."""
        report = self.report()
        first = [f"row {each.row}, {each.column}: {each.kind}: {each.words}" for each in islice(self.faults(), _NAMED)]
        more = f"; and {report.faults - len(first)} more{listed}" if report.faults > len(first) else ""
        return InputError(
            f"{report.wrong} of the {report.rows} rows of {report.source} are wrong, so none was sent. "
            f"{'; '.join(first)}{more}. Correct them, or leave them out with `skip_invalid`.",
            faults=first,
        )

    async def _refuse_wrong(self, journal: Journal, skip_invalid: bool) -> None:
        report = self.report() if self._is_checked else await self.check(journal)
        if report.wrong and not skip_invalid:
            raise self.refusal()

    async def _fill(self, making: Making, drafts: Drafts) -> None:
        """Register what the rows to send need, and name it by its handles in them."""
        for page in self._spool.pages("ready"):
            renamed = []
            for row in page:
                record = await making.filled(ModelRunRecord.model_validate(row.body))
                workflow, body = record.workflow_template_id, record.model_dump_json(exclude_none=True)
                key = run_key(drafts.platform, drafts.account, row.subject, workflow)
                renamed.append((key, workflow, body, row.number))
            self._spool.rename(renamed)

    async def _preflight(self, journal: Journal | None = None) -> Preflight:
        requirements = await self._requirements_of(journal)
        return Preflight(
            self._spool, requirements, stall_timeout=self._stall_timeout, progress=self._progress, journal=journal
        )

    async def _requirements_of(self, journal: Journal | None) -> Requirements:
        if self._requirements is None:
            self._requirements = Requirements(
                self._drafts or await Drafts.of(self._client, journal),
                self._references,
                terms=self._terms,
                describe=self._describe,
                stall_timeout=self._stall_timeout,
                progress=self._progress,
            )
        return self._requirements
