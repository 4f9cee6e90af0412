"""Find out what became of model runs that were requested from Provena, and whose end no process has seen."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.journal import NewIntent
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.lookup import ProvenaState, half, look_for
from ivcap_flows.registration.model_runs import run_of_state

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["adopt_sent_runs"]


async def adopt_sent_runs(client: ProvenaClient, journal: Journal, run_id: str) -> tuple[list[str], dict[str, str]]:
    """Look for the model runs that a run has sent to this Provena, and settle the intents of those that are lodged.

    Return the keys of those that may still be lodged, and by key the reasons why the others failed.
    """
    rows = await journal.ask(journal.intents.where, run_id=run_id, limit=None)
    rows = [row for row in rows if row.noun == NOUN and row.state == "sent"]
    platform = await client.platform() if rows else None
    sent = [row for row in rows if row.platform == platform]
    if not sent:
        return [], {}
    states = await look_for(client, {intent.key for intent in sent}, look_since(client.time, *sent))
    now = await journal.ask(journal.now)
    waiting: list[str] = []
    failed: dict[str, str] = {}
    for intent in sent:
        state = states.get(intent.key)
        # Before the visibility delay is over, a later job under the key of a failed one may still appear.
        is_old = intent.sent_at is not None and (now - intent.sent_at).total_seconds() > client.visibility_delay
        if state is not None and state.kind == "half":
            failed[intent.key] = f"The model run {intent.key} is in doubt. {half(state.handle, state.words)}."
        elif state is not None and state.kind == "failed" and is_old:
            failed[intent.key] = f"The model run {intent.key} is not registered. Its job failed: {state.words}"
        elif state is None or state.kind != "lodged" or not await _adopt(journal, intent, state):
            waiting.append(intent.key)
    return waiting, failed


async def _adopt(journal: Journal, intent: IntentRow, state: ProvenaState) -> bool:
    """Settle the intent of a lodged run. Return False if a live process holds it, which will find the same."""
    shared = {field.name for field in fields(NewIntent)} & vars(intent).keys()
    wanted = NewIntent(**{name: getattr(intent, name) for name in shared}, attempt_number=intent.asked_attempt)
    claim = await journal.claim(wanted)
    if claim.kind in ("new", "doubt"):
        try:
            if claim.kind == "doubt":
                await _settle(journal, claim.intent, state)
        finally:
            await journal.ask_surely(journal.intents.release, claim.intent)
    return claim.kind != "held"


async def _settle(journal: Journal, intent: IntentRow, state: ProvenaState) -> None:
    run = run_of_state(state, intent.request, platform=intent.platform, key=intent.key)
    settle = partial(
        journal.intents.settle,
        intent,
        urn=run.urn,
        outcome=run.model_dump(mode="json"),
        how="adopted",
        matched_by="key",
        duplicates=state.more,
    )
    await journal.ask(settle)
