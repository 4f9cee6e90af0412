"""`ivcap-flows orders`: what runs have asked of the platforms, and what a user says of a doubt."""

from __future__ import annotations

from typing import Final

import cyclopts

from ivcap_flows.cli import effects
from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Aspect, Handle, Job, ModelRun, Order, QueueMessage
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import OPEN

__all__ = ["app"]

app = cyclopts.App(name="orders", help="Orders and jobs on record, and what is in doubt.")

_NOUNS: Final = ("order", "job")
_KINDS: Final = {"order": "order", "job": "job", "aspect": "aspect", "aspect update": "aspect"}
"""What the platform's URN of such an effect names."""


@app.default
def orders(*, run: str | None = None, open_only: bool = False, as_json: Json = False) -> None:
    """List orders and jobs, and whatever else is in doubt or was found twice, oldest first.

    Args:
        run: Only those of this run.
        open_only: Only those of which it is not known whether the platform has them.
    """
    with open_journal() as journal:
        run_id = find_run(journal, run).id if run else None
        rows = journal.intents.where(run_id=run_id, limit=None)
    rows = [row for row in rows if row.state in OPEN or (not open_only and (row.noun in _NOUNS or row.duplicates))]
    if as_json:
        emit([effects.as_json(row) for row in rows])
    else:
        effects.print_effects("Orders and jobs", rows)


@app.command
def adopt(key: str, urn: str, /) -> None:
    """Say that an intent in doubt became this order, job, aspect, model run or message.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
        urn: The URN on the platform; of a message its id.
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


def _handle(row: IntentRow, urn: str) -> Handle | QueueMessage:
    """The handle that the flow's task would have got."""
    request = row.request
    kind = _KINDS.get(row.noun)
    if kind is not None and not urn.startswith(f"urn:ivcap:{kind}:"):
        raise InputError(f"{urn} is not the URN of an IVCAP {kind}.")
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
    if kind == "aspect":
        return Aspect(
            urn=urn,
            platform=row.platform,
            entity=request["entity"],
            schema_urn=request["schema"],
            content=request["content"],
        )
    if row.noun == "message":
        content = request["content"]
        key = row.key if isinstance(content, dict) else None
        return QueueMessage(id=urn, content=content, schema_urn=request["schema"], key=key)
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
    found = [row for row in journal.intents.where(limit=None) if short_id(row.key).startswith(key)]
    if len(found) == 1:
        return found[0]
    which = "none" if not found else ", ".join(row.key for row in found[:5])
    raise InputError(f"The key {key!r} should name one intent; it names {which}.")
