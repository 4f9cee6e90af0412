"""`ivcap-flows orders`: what runs have asked of the platforms, and what a user says of a doubt."""

from __future__ import annotations

import cyclopts

from ivcap_flows.cli.output import Json, console, emit, moment, table
from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Handle, Job, ModelRun, Order
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal

__all__ = ["app"]

app = cyclopts.App(name="orders", help="Orders and jobs on record, and what is in doubt.")

_NOUNS = ("order", "job")


@app.default
def orders(*, run: str | None = None, open_only: bool = False, as_json: Json = False) -> None:
    """List orders and jobs, oldest first.

    Args:
        run: Only those of this run.
        open_only: Only those of which it is not known that the platform has them.
    """
    with open_journal() as journal:
        run_id = find_run(journal, run).id if run else None
        rows = [row for noun in _NOUNS for row in journal.intents.where(run_id=run_id, noun=noun)]
    rows = [row for row in rows if not open_only or row.state in ("intent", "sent", "in_doubt")]
    rows.sort(key=lambda row: row.created_at)
    if as_json:
        emit([vars(row) for row in rows])
        return
    table(
        "Orders and jobs",
        ("what", "of", "state", "how", "urn", "asked", "run", "key"),
        [
            (
                row.noun,
                row.subject or "",
                row.status or row.state,
                row.how or "",
                row.urn or row.error or "",
                moment(row.created_at),
                (row.run_id or "")[:8],
                short_id(row.key),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row.duplicates:
            console.print(f"{row.urn}: also found under its key: {', '.join(row.duplicates)}", style="red")


@app.command
def adopt(key: str, urn: str, /) -> None:
    """Say that an intent in doubt became this order or job.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
        urn: The URN on the platform.
    """
    with open_journal() as journal:
        row = _find(journal, key)
        journal.intents.resolve(row.key, urn=urn, outcome=_handle(row, urn).model_dump(mode="json"))
    console.print(f"{row.noun} {short_id(row.key)} is {urn}.")


@app.command(name="write-off")
def write_off(key: str, /) -> None:
    """Say that an intent in doubt had no effect; the next run that asks for it sends it again.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
    """
    with open_journal() as journal:
        row = _find(journal, key)
        journal.intents.write_off(row.key)
    console.print(f"{row.noun} {short_id(row.key)} is written off.")


def _handle(row: IntentRow, urn: str) -> Handle:
    """The handle that the flow's task would have got."""
    request = row.request
    if row.noun == "order":
        return Order(
            urn=urn,
            platform=row.platform,
            service=request["service"],
            service_name=row.subject,
            parameters=request["parameters"],
            key=row.key,
        )
    if row.noun == "job":
        return Job(
            urn=urn,
            platform=row.platform,
            service=request["service"],
            service_name=row.subject,
            request=request["request"],
            key=row.key,
        )
    if row.noun == "model run":
        return ModelRun(
            urn=urn,
            platform=row.platform,
            workflow_template=request["workflow-template"],
            subject=request["subject"],
            key=row.key,
        )
    raise InputError(
        f"A {row.noun} in doubt is looked up by the next run that asks for it; write it off, or run again."
    )


def _find(journal: Journal, key: str) -> IntentRow:
    exact = journal.intents.get(key)
    if exact is not None:
        return exact
    found = [row for row in journal.intents.where(limit=100_000) if short_id(row.key).startswith(key)]
    if len(found) == 1:
        return found[0]
    which = "none" if not found else ", ".join(row.key for row in found[:5])
    raise InputError(f"The key {key!r} should name one intent; it names {which}.")
