"""`perform` in plan mode: read the journal and the platform, and write to neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ivcap_flows.durable.earlier_successes import EarlierSuccesses
from ivcap_flows.durable.effects import Effect, Found, Performed, RecordStore
from ivcap_flows.durable.intent_record import IntentRecord
from ivcap_flows.durable.plan import Plan, Planned, Source
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.threads import JOURNAL

__all__ = ["preview"]

T = TypeVar("T")


async def preview(
    effect: Effect[T],
    plan: Plan,
    wanted: NewIntent,
    newest: IntentRow | None,
    *,
    resubmit: bool,
    journal: Journal,
    idempotency_records: RecordStore | None,
) -> Performed[T]:
    """Add the effect to the plan. Return its real value if it exists, otherwise its placeholder."""

    key = wanted.key if newest is None else newest.key

    def note(source: Source, urn: str | None = None, origin: str | None = None, equals: str | None = None) -> None:
        plan.add(Planned(wanted.noun, wanted.subject, wanted.name, wanted.request, key, source, urn, origin, equals))

    async def reused() -> Performed[T] | None:
        earlier = await effect.earlier(wanted) if effect.reuses else None
        if earlier is None or earlier.found is None:
            return None
        note("reused", earlier.found.urn, earlier.why)
        return Performed(earlier.found.value, "reused", key, "reused")

    if resubmit:
        if (performed := await reused()) is not None:
            return performed
        note("resubmitted")
    elif newest is not None and newest.state == "done":
        note("kept", newest.urn, f"run {newest.run_id}" if newest.run_id else f"journal {journal.url}")
        return Performed(effect.decode(newest.outcome), "kept", newest.key, "kept")
    elif newest is not None and newest.state == "sent":
        found: Sequence[Found[T]] = [one for one in await effect.find(newest) if one.matched_by == "key"]
        if found:
            note("adopted", found[0].urn, "the platform")
            return Performed(found[0].value, "adopted", key, "adopted")
        note("in doubt")
    else:
        intent = newest or await _unwritten(wanted, journal)
        record = IntentRecord(intent, idempotency_records, journal_id=journal.id, flow=None)
        there = await record.earlier(refused=intent.state == "dropped")
        if there is not None and there.get("urn") is not None:
            note("adopted", str(there["urn"]), "idempotency record")
            return Performed(effect.decode(there.get("outcome")), "adopted", key, "adopted")
        if effect.look_first or (effect.bears_key and not intent.wanted_anew):
            found = await effect.find(await _unwritten(wanted, journal))
            if found:
                note("adopted", found[0].urn, "the platform")
                return Performed(found[0].value, "adopted", key, "adopted")
        if (performed := await reused()) is not None:
            return performed
        if there is not None:
            note("in doubt")
        elif effect.reuses:
            note("new")
        else:
            plan.earlier = plan.earlier or EarlierSuccesses(journal, plan.run_id)
            note("new", equals=await JOURNAL.run(plan.earlier.equal_to, wanted))
    value = effect.placeholder(key)
    if (urn := effect.urn(value)) is not None:
        plan.values[urn] = value
    return Performed(value, "planned", key, "planned")


async def _unwritten(wanted: NewIntent, journal: Journal) -> IntentRow:
    """Return the intent as it would be written, to look for its effect on the platform."""
    # Imported late: a flow opens its journal when it begins.
    from ivcap_flows.journal.claims import LEFT, fresh_row

    return IntentRow(**fresh_row(wanted, await journal.ask(journal.now)), **LEFT)
