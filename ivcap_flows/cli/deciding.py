"""Decisions that the user makes: what became of an effect in doubt, and to give up a run. All commands use these."""

from __future__ import annotations

from typing import Final

from ivcap_flows.cli.output import moment
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.durable.heartbeat import listen
from ivcap_flows.durable.parking import in_words
from ivcap_flows.durable.wording import decide
from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.handles import TERMINAL, Aspect, Handle, Job, ModelRun, Order, QueueMessage
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.in_prefect import flow_run_states, reconcile
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow, Journal, RunRow
from ivcap_flows.journal.rows import COMES_BACK, AttemptRow
from ivcap_flows.journal.states import OPEN
from ivcap_flows.plain_text import described
from ivcap_flows.work.kinds import KINDS
from ivcap_flows.work.orphans import is_orphan, live_of

__all__ = ["abandon", "adopt", "consequences", "find_intent", "resolve", "way", "write_off"]

_ADOPTED: Final = {
    "order": "order",
    "job": "job",
    "aspect": "aspect",
    "aspect update": "aspect",
    "message": None,
    "model run": None,
}
"""The nouns of which a user can say what an effect became, with the kind of its URN; None if it has no URN."""


def consequences(journal: Journal, run: RunRow) -> str | None:
    """Return what it means to give up a run that goes on, which the user is asked about; None for other runs."""
    run, attempts = journal.runs.standing(run)
    name = f"The run {short_run(run.id)} of {run.flow_name}"
    live = [attempt.process for attempt in attempts if attempt.outcome == "running"]
    if live:
        return (
            f"{name} is running in process {live[-1].pid} on {live[-1].host}. Giving it up does not end the process, "
            "which goes on and may request more. When it has ended, nothing continues the run."
        )
    left = _left(journal, run)
    if left is None:
        return None
    return (
        f"{name} is {_waits(left)}. Giving it up cancels its flow run {left.flow_run_id} in Prefect. What it ordered "
        "goes on and is paid for; `ivcap-flows orders --orphans` lists it."
    )


def abandon(journal: Journal, run: RunRow) -> str:
    """Give up a run, and return a message for the user. Raise DurabilityError if it completed, or if it would come back
    and Prefect cannot be asked to cancel it."""
    left = _left(journal, run)
    if left is not None:
        _cancel(left.flow_run_id)
    reconcile.abandon(journal, run, running=True)
    work = [f"{row.noun} {short_id(row.key)}" for row in live_of(journal, run.id)]
    orders = f" It requested {', '.join(work)}; see `ivcap-flows orders --orphans`." if work else ""
    again = ""
    if run.deployed:
        how = "Its task run, delivered again," if run.is_background else "A retry of its flow run in Prefect"
        again = f" {how} would continue it all the same."
    return (
        f"The run {short_run(run.id)} of {run.flow_name} is given up: it is not continued, and may be pruned."
        f"{orders}{again}"
    )


def _left(journal: Journal, run: RunRow) -> AttemptRow | None:
    """Return the attempt that a parked or paused run left, or was leaving when it was killed; None for other runs."""
    run, attempts = journal.runs.standing(run)
    newest = max((attempt for attempt in attempts if attempt.leads), key=lambda one: one.number)
    if run.outcome in COMES_BACK:
        return newest
    state = flow_run_states.prefect_state(newest.flow_run_id) if run.outcome == "lost" else None
    return newest if state is not None and state.outcome in COMES_BACK else None


def _waits(left: AttemptRow) -> str:
    if left.park is None:
        return "paused: it continues when somebody resumes it in Prefect"
    return f"parked: it waits for {in_words(left.park.waits)} and wakes at {moment(left.park.wake_at)}"


def _cancel(flow_run_id: str) -> None:
    from ivcap_flows.tasks.flow_run import cancel_waiting

    try:
        cancel_waiting(flow_run_id)
    except Exception as error:
        raise DurabilityError(
            f"Prefect cannot be asked to cancel the flow run {flow_run_id} ({described(error)}), so the "
            "run would come back. Nothing was changed. Check PREFECT_API_URL, then try again."
        ) from error


def resolve(journal: Journal, row: IntentRow, urn: str | None) -> str:
    """Resolve an intent in doubt to this effect, or with None to no effect. Return a message for the user.

    Raise InputError if the URN is of another kind, or if the user cannot know the effect, and DurabilityError if there
    is no doubt.
    """
    name = f"{row.noun} {short_id(row.key)}"
    if row.state not in OPEN:
        orphaned = _is_orphan_at_work(journal, row)
        instead = "an orphan, which `adopt` and `write-off` decide on" if orphaned else "there is nothing to decide"
        raise DurabilityError(f"The {name} is {row.standing} and not in doubt: {instead}.", key=row.key)
    if urn is None:
        listen(journal)
        journal.decisions.write_off(row.key)
        never = "" if row.state == "sent" else " Nothing had been sent."
        return f"{name} is written off.{never}"
    if row.noun not in _ADOPTED:
        raise InputError(way(row))
    listen(journal)
    journal.decisions.resolve(row.key, urn=urn, outcome=_handle(row, urn).model_dump(mode="json"))
    return f"{name} is {urn}."


def way(row: IntentRow) -> str:
    """Return how a user decides what became of an intent in doubt."""
    if row.noun in _ADOPTED:
        return decide(short_id(row.key))
    return (
        f"The next run that asks for the {row.noun} {short_id(row.key)} looks for it on the platform. Run again, or "
        "decide with `--none`."
    )


def adopt(journal: Journal, row: IntentRow) -> str:
    """Take over an orphan, and return a message for the user. Raise DurabilityError if it is none."""
    _check_is_orphan(journal, row)
    journal.decisions.take_over(row.key)
    return (
        f'{row.noun} {short_id(row.key)} is yours: {row.urn}. It continues; `get_{row.noun}("{row.urn}")` waits for it '
        "in any flow."
    )


def write_off(journal: Journal, row: IntentRow) -> str:
    """Close an orphan that has ended, and return a message for the user. Raise DurabilityError if it is none, and while
    it runs."""
    _check_is_orphan(journal, row)
    name = f"{row.noun} {short_id(row.key)}"
    status = ask_ivcap(lambda client: _status(client, row, str(row.urn)))
    if status not in TERMINAL:
        raise DurabilityError(
            f"The {name} is {status}, and IVCAP cannot cancel it. Write it off when it has ended, or take it over with "
            f"`ivcap-flows orders adopt {short_id(row.key)}`.",
            key=row.key,
        )
    journal.decisions.account_for(row.key, status)
    return f"{name} ended as {status} and is written off. It stays on record and still answers an equal request."


def _check_is_orphan(journal: Journal, row: IntentRow) -> None:
    if _is_orphan_at_work(journal, row):
        return
    key = short_id(row.key)
    instead = {
        "sent": f" `ivcap-flows orders resolve {key}` decides on a doubt.",
        "claimed": " Nothing was sent, so there is nothing to decide.",
    }.get(row.state, "")
    raise DurabilityError(f"The {row.noun} {key} is {row.standing} and no orphan.{instead}", key=row.key)


def _is_orphan_at_work(journal: Journal, row: IntentRow) -> bool:
    return row.state == "done" and is_orphan(journal, row, flow_run_states.ended_flow_runs)


async def _status(client: IvcapClient, row: IntentRow, urn: str) -> str:
    status: str = (await KINDS[row.noun].read(client, urn, row.request["service"])).status
    return status


def _handle(row: IntentRow, urn: str) -> Handle | QueueMessage:
    """Return the handle that the flow's task would have returned."""
    request = row.request
    kind = _ADOPTED[row.noun]
    if kind is not None and not urn.startswith(f"urn:ivcap:{kind}:"):
        raise InputError(f"{urn} is not the URN of an IVCAP {kind}.")
    if kind is None and urn.startswith("urn:"):
        raise InputError(f"{urn} is not the id of a {row.noun}.")
    if row.noun == "order":
        return Order(
            urn=urn,
            platform=row.platform,
            service=request["service"],
            service_name=row.subject,
            name=row.name,
            parameters=request.get("parameters", {}),
            key=row.key,
        )
    if row.noun == "job":
        return Job(
            urn=urn,
            platform=row.platform,
            service=request["service"],
            service_name=row.subject,
            request=request.get("request"),
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
    return ModelRun(
        urn=urn,
        platform=row.platform,
        workflow_template=request["workflow-template"],
        subject=request["subject"],
        key=row.key,
    )


def find_intent(journal: Journal, key: str) -> IntentRow:
    """Return the intent with this key or beginning of a key. Raise InputError if there is none or several."""
    exact = journal.intents.get(key)
    if exact is not None:
        return exact
    rows = journal.intents.where(limit=None)
    found = [row for row in rows if row.key.startswith(key) or short_id(row.key).startswith(key)]
    if len(found) == 1:
        return found[0]
    which = "none" if not found else ", ".join(row.key for row in found[:5])
    raise InputError(f"The key {key!r} must name one intent, but names {which}. `ivcap-flows orders` lists them.")
