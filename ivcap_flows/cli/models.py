"""`ivcap-flows models`: write, check and register files of model runs, each row once, and decide rows in doubt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ivcap_flows import loop
from ivcap_flows.cli.output import AtLeastOne, Json, console, print_json, table, write, writing
from ivcap_flows.cli.platform import ivcap, provena
from ivcap_flows.cli.records import open_journal, read_journal
from ivcap_flows.durable.heartbeat import listen
from ivcap_flows.errors import BadRequestError, InputError, NotFoundError, PlatformOffError
from ivcap_flows.handles import Artifact, Service
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import OPEN
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.terms import Terms as StatedTerms
from ivcap_flows.registration.batch import IN_FLIGHT, Batch
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.keys import key_in
from ivcap_flows.registration.model_runs import STALL_TIMEOUT, model_run_handle
from ivcap_flows.registration.outcome import BatchReport, check_place
from ivcap_flows.registration.registering import doubtful
from ivcap_flows.registration.registry import person_of, refuse_trial
from ivcap_flows.registration.sources import RowSource, open_source
from ivcap_flows.registration.spool import Spooled
from ivcap_flows.registration.work import work_record
from ivcap_flows.registration.work_source import WorkSource, succeeded_orders
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.registration.yaml_file import read_terms
from ivcap_flows.settings import Settings

__all__ = ["app"]

app = cyclopts.App(
    name="models", help="Check files of model runs, register each row with Provena once, and decide rows in doubt."
)

_SHOWN: Final = 200
"""Rows that a printed table has at most; the outcome file has all rows."""

_UNSENT: Final = "This journal has sent nothing, but another one may have: the next `models register` looks for it"

Terms = Annotated[Path | None, Parameter(name="--terms")]
StallTimeout = Annotated[float, Parameter(name="--stall-timeout")]


@app.command
def template(workflow: str, /, *, output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None) -> None:
    """Write the CSV file to fill in: Provena's columns for model runs of a workflow template.

    Args:
        workflow: Handle of the workflow template.
        output: File to write, which must not exist yet. Default: standard output.
    """
    try:
        text = loop.run(_template(workflow))
    except BadRequestError as error:
        raise InputError(f"{workflow} is not a workflow template of this Provena: {error.detail}") from error
    if output is None:
        write(text)
        return
    if output.exists():
        raise InputError(f"{output} exists and may be filled in already. Name another file.")
    with writing(output), output.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
    console.print(f"Fill in {output}, one row for each run; then check it: ivcap-flows models validate {output}")


@app.command
def validate(
    file: Path, /, *, terms: Terms = None, stall_timeout: StallTimeout = STALL_TIMEOUT, as_json: Json = False
) -> int:
    """Check every row of a file and list all faults, without sending anything. Exit status 1 if a row is wrong.

    Args:
        file: Provena's CSV template (`models template`) filled in, JSON Lines (one record of a model run per line,
            optionally with `key`), or Parquet.
        terms: YAML file with your statements about the datasets that are minted for IVCAP artifacts.
        stall_timeout: Seconds for which Provena may be unreachable.
    """
    with ExitStack() as stack:
        progress = stack.enter_context(_bar())
        # Without a journal nothing was registered, and none is made to check a file.
        journal = None if Journal.is_missing(Settings().journal) else stack.enter_context(open_journal())
        batch = stack.enter_context(_batch(open_source(file), terms, stall_timeout, progress))
        report = loop.run(batch.check(journal))
        faults = [asdict(fault) for fault in batch.faults()]
    if as_json:
        print_json({**asdict(report), "faults": faults})
    else:
        _print_faults(report, faults)
        if not faults:
            console.print(f"{report.source}: {report.rows} rows, all of them correct.")
    return int(bool(faults))


@app.command
def register(
    file: Path | None = None,
    /,
    *,
    orders_of: str | None = None,
    since: datetime | None = None,
    workflow: Path | None = None,
    terms: Terms = None,
    skip_invalid: bool = False,
    out: Path | None = None,
    in_flight: AtLeastOne = IN_FLIGHT,
    stall_timeout: StallTimeout = STALL_TIMEOUT,
    as_json: Json = False,
) -> int:
    """Register every row of a file, or every successful order of a service, once. Exit status 1 if a run is missing.

    Nothing is sent while a row is wrong. A command that was killed continues when it is started again with the same
    file, on any machine; only failed rows are sent again.

    Args:
        file: As for `validate`.
        orders_of: Instead of a file: name or URN of a service of which your account's successful orders are registered.
        since: With --orders-of: only orders placed since this time. A time without an offset is this machine's.
        workflow: With --orders-of: YAML file with the service's workflow, without `flow`.
        terms: As for `validate`. Default: the terms in the workflow.
        skip_invalid: Leave wrong rows out, and register the others.
        out: CSV file to which the handle, reason or doubt of each row is written.
        in_flight: Number of rows that are under way at once.
        stall_timeout: Seconds without progress after which a row is left in doubt, and for which Provena may be
            unreachable.
    """
    if out is not None:
        check_place(out, file)
    chosen = _chosen(file, orders_of, since, workflow)
    with ExitStack() as stack:
        progress, journal = stack.enter_context(_bar()), stack.enter_context(open_journal(new=True))
        source: RowSource
        if isinstance(chosen, Path):
            source, stated, drafts = open_source(chosen), None, None
        else:
            (source, drafts), stated = loop.run(_orders(*chosen, journal)), chosen[0].terms
        batch = stack.enter_context(_batch(source, terms, stall_timeout, progress, stated, drafts))
        report = loop.run(batch.check(journal))
        faults = [asdict(fault) for fault in batch.faults()]
        sent = skip_invalid or not report.wrong
        troubles: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        if sent:
            place = out and out.absolute()
            report = loop.run(batch.register(journal, skip_invalid=skip_invalid, in_flight=in_flight, out=place))
            troubles = [asdict(each) for each in batch.outcomes("failed", "doubtful")]
            others = [asdict(each) for each in batch.outcomes("registered") if each.words] if report.differing else []
    if as_json:
        print_json({**asdict(report), "faults": faults, "troubles": troubles, "others": others})
    else:
        _print_faults(report, faults)
        _print_outcomes("Rows without a model run", troubles)
        _print_outcomes("Runs that were registered with another record", others)
        if sent:
            console.print(f"{report.source}: {report}.")
        else:
            console.print("Nothing was sent. Correct the rows, or leave them out with --skip-invalid.")
        if sent and report.doubtful and file is not None:
            console.print(f"Doubtful rows are not sent again automatically: ivcap-flows models resolve {file}")
    return int(not report.is_whole)


@app.command
def resolve(
    file: Path,
    /,
    *,
    row: Annotated[list[int] | None, Parameter(name="--row")] = None,
    adopt: str | None = None,
    resend: bool = False,
    give_up: bool = False,
    as_json: Json = False,
) -> int:
    """List the doubtful rows of a file, or decide on some of them. Exit status 1 if doubtful rows are left.

    Look at Provena first: a row that is sent again although its model run exists is registered twice.

    Args:
        file: The file that was registered.
        row: Number of a row to decide on, as in the outcome file; may be given several times.
        adopt: Handle of the model run that the row became; for one row only.
        resend: Let the next `models register` send the rows again. This also takes back a `--give-up`.
        give_up: Never send the rows again.
    """
    decisions = [bool(adopt), resend, give_up]
    if sum(decisions) > 1 or (any(decisions) != bool(row)):
        raise InputError("To decide, give --row and one of --adopt, --resend and --give-up; to list rows, give none.")
    if adopt and row and len(row) > 1:
        raise InputError("A model run belongs to one row; give one --row with --adopt.")
    with (
        _bar() as progress,
        open_journal(new=True) if row else read_journal() as journal,
        _batch(open_source(file), None, STALL_TIMEOUT, progress) as batch,
    ):
        loop.run(batch.read())
        if row:
            listen(journal)
        # All are found before the first is decided on.
        for chosen, intent in list(_chosen_rows(journal, batch, row or [])):
            if adopt:
                _adopt(journal, chosen, intent, adopt)
            elif resend:
                journal.decisions.send_again(intent.key)
            else:
                journal.decisions.give_up(intent.key)
        left = [
            asdict(doubtful(each, intent, _UNSENT if intent.state == "claimed" else intent.error))
            for each, intent in _open(journal, batch)
        ]
    if as_json:
        print_json({"doubtful": left})
    else:
        _print_outcomes("Rows in doubt", left)
        console.print(f"{len(left)} doubtful rows." if left else "No row is in doubt.")
    return int(bool(left))


def _chosen_rows(journal: Journal, batch: Batch, numbers: list[int]) -> Iterator[tuple[Spooled, IntentRow]]:
    """Yield the rows to decide on, with their intents. Raise InputError for one that was never sent or is not there."""
    wanted = set(numbers)
    for row in batch.records() if wanted else ():
        if row.number in wanted:
            intent = journal.intents.get(row.key)
            if intent is None:
                raise InputError(f"This journal never sent row {row.number}, so there is nothing to decide.")
            yield row, intent
            wanted.remove(row.number)
    if wanted:
        raise InputError(f"The file has no record in row {', '.join(map(str, sorted(wanted)))}.")


def _adopt(journal: Journal, row: Spooled, intent: IntentRow, handle: str) -> None:
    """Decide that a row became this model run. Raise InputError if that is none, or one of another workflow."""
    try:
        item = loop.run(_run(handle))
    except NotFoundError as error:
        raise InputError(f"{handle} is not a model run of this Provena.") from error
    if item.record.workflow_template_id != row.workflow:
        raise InputError(
            f"{handle} is a run of the workflow template {item.record.workflow_template_id}, and row {row.number} is "
            f"one of {row.workflow}."
        )
    theirs = key_in(item.record.model_dump(mode="json"))
    if theirs not in (None, intent.key):
        raise InputError(f"{handle} is the model run of another row, order or job, not that of row {row.number}.")
    platform = loop.run(_platform())
    run = model_run_handle(handle, item.record, intent.request, session_id=None, platform=platform, key=intent.key)
    journal.decisions.resolve(intent.key, urn=handle, outcome=run.model_dump(mode="json"))


def _open(journal: Journal, batch: Batch) -> Iterator[tuple[Spooled, IntentRow]]:
    """Yield the rows whose outcome is open, with their intents, which are read page by page."""
    rows = batch.records()
    while page := list(islice(rows, _SHOWN)):
        intents = journal.intents.find_many([row.key for row in page])
        for row in page:
            intent = intents.get(row.key)
            if intent is not None and intent.state in OPEN:
                yield row, intent


def _chosen(
    file: Path | None, orders_of: str | None, since: datetime | None, path: Path | None
) -> Path | tuple[Workflow, datetime]:
    """Return the file whose rows are registered, or the workflow of the orders that are, and the time of the first."""
    if file is not None:
        if orders_of or since or path:
            raise InputError("Give either a file, or --orders-of with --since and --workflow.")
        return file
    if not (orders_of and since and path):
        raise InputError("Give a file, or --orders-of with --since and --workflow.")
    found = [each for each in Workflows.read(path).all if each.service == orders_of]
    if not found:
        raise InputError(f"{path} has no workflow for the service {orders_of!r}.")
    if flows := sorted(each.flow for each in found if each.flow is not None):
        raise InputError(
            f"{path} limits the service {orders_of!r} to the flow {', '.join(flows)}, but IVCAP does not say which "
            "flow placed an order. Give a file with one workflow for the service, without a flow."
        )
    return found[0], since.astimezone(timezone.utc)


async def _orders(workflow: Workflow, since: datetime, journal: Journal) -> tuple[RowSource, Drafts]:
    client, registry = await ivcap(), await provena()
    drafts, name = await Drafts.of(registry, journal), workflow.service or ""
    service, platform = (await client.services.by_name(name)).urn, await client.platform()
    refuse_trial(drafts.platform, Service(urn=service, platform=platform, name=name))
    modeller = workflow.modeller or await person_of(registry, drafts.account)
    known = await workflow.registered(drafts.name)
    orders = succeeded_orders(client, service, name=name, since=since, platform=platform)
    # The orders may be of any flow, so only what the platform says of each is used.
    title = f"orders of {name} since {since.isoformat(timespec='seconds')}"
    return WorkSource(title, orders, lambda order: work_record(order, known, modeller=modeller)), drafts


@contextmanager
def _batch(
    source: RowSource,
    terms: Path | None,
    stall_timeout: float,
    progress: Callable[[str, int, int | None], None],
    default: StatedTerms | None = None,
    drafts: Drafts | None = None,
) -> Iterator[Batch]:
    stated = read_terms(terms) if terms else default
    client = loop.run(provena())
    options: dict[str, Any] = {"describe": _artifact, "stall_timeout": stall_timeout, "progress": progress}
    with Batch(source, client, terms=stated, drafts=drafts, **options) as batch:
        yield batch


async def _template(workflow: str) -> str:
    return await (await provena()).prov.csv_template(workflow)


async def _artifact(urn: str) -> Artifact:
    """Return the artifact as IVCAP knows it, or with its URN only if IVCAP is switched off."""
    try:
        client = await ivcap()
        return (await client.artifacts.read(urn)).handle(await client.platform())
    except PlatformOffError:
        return Artifact(urn=urn, platform="IVCAP")


async def _run(handle: str) -> ModelRunInfo:
    client = await provena()
    return (await client.registry.fetch(ModelRunInfo, handle)).info


async def _platform() -> str:
    return await (await provena()).platform()


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar on standard error if that is a terminal, and give the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Console(stderr=True)
    with Progress(*columns, console=shown, disable=not sys.stderr.isatty(), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def move(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield move


def _print_faults(report: BatchReport, faults: list[dict[str, Any]]) -> None:
    for warning in report.warnings:
        console.print(warning, style="yellow")
    if faults:
        rows = [(str(each["row"]), each["column"], each["kind"], each["words"]) for each in faults]
        table(f"{report.source}: {len(faults)} faults in {report.wrong} rows", ("row", "column", "kind", "what"), rows)


def _print_outcomes(title: str, outcomes: list[dict[str, Any]]) -> None:
    if outcomes:
        rows = [
            (str(each["number"]), each["standing"], each["job"] or "", each["since"] or "", each["words"] or "")
            for each in outcomes[:_SHOWN]
        ]
        table(f"{title} ({len(outcomes)})", ("row", "outcome", "job", "since", "reason"), rows)
    if len(outcomes) > _SHOWN:
        console.print(f"{len(outcomes) - _SHOWN} more; --out and --json have all of them.")
