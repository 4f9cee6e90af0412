"""Task that registers many Provena model runs, from a file or from records of a flow, each once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ivcap_flows.durable import planning
from ivcap_flows.errors import InputError, RegistrationFailedError
from ivcap_flows.handles import Handle, Job, ModelRun, ModelRuns, Order
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.batch import IN_FLIGHT, Batch
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.model_runs import STALL_TIMEOUT, ModelRunEffect
from ivcap_flows.registration.outcome import BatchReport, check_place
from ivcap_flows.registration.registry import person_of, refuse_trial
from ivcap_flows.registration.sources import RecordSource, RowSource, open_source
from ivcap_flows.registration.spool import Outcome, Spooled, Standing
from ivcap_flows.registration.work import work_record
from ivcap_flows.registration.work_source import WorkSource
from ivcap_flows.registration.workflow import RegisteredWorkflow, Workflow
from ivcap_flows.tasks.accounts import credentials_of
from ivcap_flows.tasks.batch_artifacts import BatchArtifacts
from ivcap_flows.tasks.call import IvcapCredentialsLike, ProvenaCall, ProvenaCredentialsLike
from ivcap_flows.tasks.describing import describing
from ivcap_flows.tasks.model_runs import workflow_for
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.registry import registering
from ivcap_flows.tasks.terms import TermsLike, terms_of
from ivcap_flows.tasks.waiting import PlannedError
from ivcap_flows.threads import FILES, JOURNAL

__all__ = ["aregister_model_runs", "register_model_runs"]

_NAMED: Final = 20
"""Maximum number of rows that an error names."""


async def _register_model_runs(
    source: Path | str | Iterable[ModelRunRecord | tuple[str, ModelRunRecord] | Order | Job],
    *,
    workflow: Workflow | Path | str | None = None,
    terms: TermsLike = None,
    skip_invalid: bool = False,
    out: Path | str | None = None,
    in_flight: int = IN_FLIGHT,
    stall_timeout: float = STALL_TIMEOUT,
    raise_on_failure: bool = True,
    credentials: ProvenaCredentialsLike = None,
    ivcap_credentials: IvcapCredentialsLike = None,
) -> ModelRuns:
    """Register many model runs, each once: orders and jobs by their workflow, the rows of a file, or records.

    All are checked before one is sent. `workflow` is a Workflow, or the path of a YAML file, for orders and jobs: it
    says which of their parameters and products are data, and what is stated of the runs. What it names without a handle
    is registered once. An order that is given twice, as equal steps share one, is one run.

    A file is Provena's CSV template filled in, JSON Lines (a ModelRunRecord per line, optionally with `key`), or
    Parquet. Records of a flow may be pairs `(key, record)`. A key is your own name for a run, such as an order's URN;
    `register_model_run` recognises the run by it too. A run without a key is identified by its record. If a row names
    an IVCAP artifact's URN in place of a dataset, the artifact's dataset is found, or minted from `terms` (Terms, the
    path of a YAML file, or the name of a saved ProvenaTerms block; default those of the workflow) and from what IVCAP
    knows of the artifact, which is read with `ivcap_credentials`.

    Raises InputError, with `faults`, if a row is wrong; with `skip_invalid`, wrong rows are left out instead. `out` is
    a CSV file that always shows what is known of each row. `in_flight` rows are under way at once.
    `stall_timeout` is the number of seconds without progress after which a row is left in doubt, and for which Provena
    may be unreachable.

    After a crash, or when the flow runs again, the task continues where it was and sends only failed rows again. With
    `raise_on_failure`, RegistrationFailedError names the rows that failed or are in doubt, after all rows have ended.
    A row whose job neither ended nor failed is never sent again automatically: decide it with `ivcap-flows models
    resolve`.
    """
    call = await ProvenaCall.of(credentials)
    if in_flight < 1:
        raise InputError(f"The argument in_flight must be at least 1, not {in_flight}.")
    if out is not None:
        rows_file = Path(source) if isinstance(source, str | Path) else None
        await FILES.run(check_place, Path(out), rows_file)
    drafts = Drafts(call.client, call.journal, call.platform, call.account)
    rows, stated = await _rows(source, workflow, await terms_of(terms), call, drafts)
    shown = BatchArtifacts()
    with Batch(
        rows,
        call.client,
        terms=stated,
        drafts=drafts,
        describe=describing(
            credentials_of("ivcap", ivcap_credentials, call.attempt),
            alone=credentials_of("provena", credentials, call.attempt) is not None,
        ),
        stall_timeout=stall_timeout,
        progress=shown.update,
    ) as batch:
        report = await batch.check(call.journal)
        if report.wrong:
            await shown.show_faults(batch.faults(), report)
        if report.wrong and not skip_invalid:
            in_file = isinstance(source, str | Path)
            listed = "`ivcap-flows models validate` lists all faults" if in_file else "Prefect shows a table of them"
            raise batch.refusal(f". {listed}")
        if planning() is not None:
            runs, kept = await JOURNAL.run(_planned, batch, call)
            only_planned("model runs", report.source, origin=f"journal {call.journal.url}" if kept else None)
            return _result(call, report, runs)
        file = None if out is None else Path(os.path.abspath(out))  # noqa: ASYNC240 - asks for nothing but the folder
        async with shown:
            report = await batch.register(
                call.journal,
                call.attempt,
                register=registering(credentials),
                skip_invalid=skip_invalid,
                in_flight=in_flight,
                limit=call.limit,
                out=file,
            )
        await shown.show_outcomes(batch.outcomes(), report)
        handles = await JOURNAL.run(_handles, batch, call.journal)
        troubles = list(islice(batch.outcomes("failed", "doubtful"), _NAMED))
    if (report.failed or report.doubtful) and raise_on_failure:
        raise _failure(report, troubles)
    return _result(call, report, handles)


async def _rows(
    source: Any,
    workflow: Workflow | Path | str | None,
    stated: Terms | None,
    call: ProvenaCall,
    drafts: Drafts,
) -> tuple[RowSource, Terms | None]:
    """Return the source of the rows, and the terms of its workflow if it has one, else those stated."""
    if isinstance(source, str | Path):
        if workflow is not None:
            raise InputError("A workflow is for orders and jobs; the rows of a file say all of a run themselves.")
        return open_source(Path(source)), stated
    if isinstance(source, ModelRunRecord | Handle):
        raise InputError(f"`source` is a list: pass `source=[…]`, not {type(source).__name__} alone.")
    if workflow is not None:
        return await _work_source([*source], workflow, stated, call, drafts)
    return RecordSource(source), stated


async def _work_source(
    work: Sequence[Any],
    given: Workflow | Path | str,
    stated: Terms | None,
    call: ProvenaCall,
    drafts: Drafts,
) -> tuple[RowSource, Terms | None]:
    """Return a source of the work's records, and the terms of its workflow."""
    if strange := next((each for each in work if not isinstance(each, Order | Job)), None):
        raise InputError(f"By a workflow, orders and jobs are registered, not {type(strange).__name__}.")
    PlannedError.refuse(work)
    refuse_trial(call.platform, *work)
    # Equal steps share an order, which is one run.
    work = list({each.urn: each for each in work}.values())
    known: dict[str, RegisteredWorkflow] = {}
    for each in work:
        if each.service not in known:
            known[each.service] = await workflow_for(each, given, stated, call, drafts)
    terms = {id(each.stated.terms): each.terms for each in known.values()}
    if len(terms) > 1:
        raise InputError("The workflows of one batch must have the same terms. Register each in a call of its own.")
    modellers = {each.stated.modeller for each in known.values()}
    person = await person_of(call.client, call.account) if None in modellers else ""
    source = WorkSource(
        ", ".join(sorted(f"orders of {each.stated.service}" for each in known.values())),
        work,
        lambda each: work_record(each, known[each.service], modeller=person),
    )
    return source, next(iter(terms.values()), None)


def _handles(batch: Batch, journal: Journal) -> list[ModelRun]:
    """Return the registered runs in the order of their rows."""
    return [ModelRun.model_validate(intent.outcome) for _, intent in _intents(batch, journal, "registered") if intent]


def _planned(batch: Batch, call: ProvenaCall) -> tuple[list[ModelRun], bool]:
    """Return the runs of the rows to send, as they are or would be made, and whether the journal has all of them."""
    runs, kept = [], True
    for row, intent in _intents(batch, call.journal, "ready"):
        if intent is not None and intent.state == "done":
            runs.append(ModelRun.model_validate(intent.outcome))
        else:
            record, kept = ModelRunRecord.model_validate(row.body), False
            effect = ModelRunEffect.of(row.subject, record, client=call.client, platform=call.platform)
            runs.append(effect.placeholder(row.key))
    return runs, kept


def _intents(batch: Batch, journal: Journal, standing: Standing) -> Iterator[tuple[Spooled, IntentRow | None]]:
    """Yield the rows of a standing, each with its intent."""
    for page in batch.pages(standing):
        intents = journal.intents.find_many([row.key for row in page])
        yield from ((row, intents.get(row.key)) for row in page)


def _result(call: ProvenaCall, report: BatchReport, runs: Sequence[ModelRun]) -> ModelRuns:
    return ModelRuns(
        platform=call.platform,
        source=report.source,
        sha256=report.sha256,
        rows=report.rows,
        wrong=report.wrong,
        failed=report.failed,
        doubtful=report.doubtful,
        differing=report.differing,
        runs=tuple(runs),
    )


def _failure(report: BatchReport, troubles: Sequence[Outcome]) -> RegistrationFailedError:
    first = [f"row {each.number} {each.standing}: {each.words}" for each in troubles]
    return RegistrationFailedError(
        f"{report.source}: {report}. {'; '.join(first)}. The next run sends failed rows again; decide rows in doubt "
        "with `ivcap-flows models resolve`.",
        session_id=None,
        detail=first,
    )


register_model_runs, aregister_model_runs = task_pair(_register_model_runs, writes=("out",))
