"""Cause an effect at most once per key: intent, idempotency record, request, outcome, each on disk before the next."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from ivcap_flows.canonical import canonical_form
from ivcap_flows.durable.divergence import OnDivergence, check_divergence
from ivcap_flows.durable.effects import Effect, Performed, RecordStore, Reusable
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.durable.plan import Plan, planning
from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.preview import preview
from ivcap_flows.durable.scopes import expand, warn_shared
from ivcap_flows.durable.submission import Submission
from ivcap_flows.errors import FencedError, InputError
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.identity import Scope, key_of, key_of_generation
from ivcap_flows.journal import IntentRow, Journal, NewIntent, OpenedAttempt
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal.redaction import Redaction

__all__ = ["OnFailure", "perform"]

T = TypeVar("T")

OnFailure = Literal["keep", "resubmit"]

logger = logger_of("ivcap_flows.durable")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0


async def perform(
    effect: Effect[T],
    *,
    journal: Journal,
    attempt: OpenedAttempt | None,
    platform: str,
    account: str,
    idempotency_records: RecordStore | None = None,
    clock: PlatformClock | None = None,
    on_divergence: OnDivergence = "raise",
    on_failure: OnFailure = "keep",
    max_resubmits: int = 3,
    max_orders: int | None = None,
) -> Performed[T]:
    """Cause the effect unless it exists; wait while another live process is at the same one.

    At most one effect per key, given one shared journal and a platform that shows an accepted request within
    `effect.visibility_delay`. A lost reply is resolved within the call: look, wait until it must show, look again, and
    only then send again. `clock` tells the platform's time, which bounds what is looked at, and how long; without it
    all is.

    `on_failure="resubmit"` sends a new generation when the newest ended in failure, up to `max_resubmits` of them.
    `max_orders` limits the spending effects of the run. Inside `plan()` nothing is sent. Where the effect says how, an
    earlier one of an equal request is looked for before anything is sent; it does not count as spent.

    Raises JournalError when the intent cannot be written (nothing was sent), InDoubtError when it cannot be told
    which effect is ours, DivergenceError, SpendLimitError, and the PlatformError of a refusal or of a platform that
    stays silent; the last leaves the effect in doubt for the next call.
    """
    plan = planning()
    scope = _scope(effect.scope, attempt, plan)
    # The first request that holds a secret reads or makes the journal's key.
    wanted = await asyncio.to_thread(_intent, effect, scope, attempt, platform, account, journal.redaction)
    if clock is not None and clock.time is not None:
        wanted = replace(wanted, platform_time=clock.time.earliest)
    # Nearly every effect is new: then the claim alone tells, and what there is need not be read before.
    direct = plan is None and not effect.reuses and on_failure == "keep" and wanted.attempt_number < 2
    newest = None if direct else await journal.ask(journal.intents.newest, wanted.base_key)
    if plan is not None:
        resubmit = _resubmits(newest, on_failure, max_resubmits)
        return await preview(
            effect, plan, wanted, newest, resubmit=resubmit, journal=journal, idempotency_records=idempotency_records
        )
    if not direct and (newest is None or newest.state == "abandoned"):
        await check_divergence(journal, wanted, on_divergence)

    pauses = Pauses(_FIRST_WAIT, _LONGEST_WAIT)
    sent: str | None = None
    earlier: Reusable[T] | None = None
    start_heartbeat(journal)
    try:
        while True:
            if newest is not None:
                again = _resubmits(newest, on_failure, max_resubmits)
                wanted = _generation(wanted, newest.generation + again)
            if effect.reuses and earlier is None and _unsent(newest, wanted):
                earlier = await effect.earlier(wanted)
                wanted = replace(wanted, reuse=earlier.why, spends=effect.spends and earlier.found is None)
            [claim] = await journal.claim([wanted], spend_limit=max_orders)
            if claim.again and claim.kind in ("kept", "held"):
                warn_shared(claim.intent, effect.scope)
            if claim.kind == "kept":
                if direct:
                    direct, newest = False, await journal.ask(journal.intents.newest, wanted.base_key)
                    if newest is not None and newest.generation != claim.intent.generation:
                        continue
                if _resubmits(claim.intent, on_failure, max_resubmits):
                    newest = await journal.ask(journal.intents.newest, wanted.base_key)
                    continue
                if sent is not None and sent != claim.intent.urn:
                    await _report(journal, claim.intent, sent)
                return Performed(effect.decode(claim.intent.outcome), "kept", claim.intent.key)
            if claim.kind == "held":
                await pauses.sleep()
                continue
            submission = Submission(
                effect,
                journal,
                claim,
                platform=platform,
                idempotency_records=idempotency_records,
                clock=clock,
                flow=None if attempt is None else attempt.run.flow_name,
            )
            try:
                if claim.kind == "new" and earlier is not None and earlier.found is not None:
                    return await submission.reuse(earlier.found)
                return await submission.run()
            except FencedError:
                # This process was taken for gone. Whoever took over decides, and is told of what was sent here.
                sent = submission.urn
    finally:
        stop_heartbeat(journal)


def _scope(scope: Scope, attempt: OpenedAttempt | None, plan: Plan | None) -> str:
    if attempt is not None:
        return expand(scope, run=attempt.run.id, flow=attempt.run.flow)
    if plan is not None:
        return expand(scope, run=plan.run_id, flow=plan.flow if plan.run is None else plan.run.flow)
    return expand(scope, run=None, flow=None)


def _intent(
    effect: Effect[T],
    scope: str,
    attempt: OpenedAttempt | None,
    platform: str,
    account: str,
    redaction: Redaction,
) -> NewIntent:
    """The intent of an effect, its key made of the whole request. Where that holds a secret, the key and what is kept
    hold a keyed digest of it."""
    request = canonical_form(effect.request, effect.noun)
    discriminator = canonical_form(effect.discriminator, "discriminator")
    if not isinstance(discriminator, str | None):
        raise InputError(f"A discriminator is a text, not {type(effect.discriminator).__name__}. Give it as str(…).")
    key = key_of(
        platform=platform,
        account=account,
        scope=scope,
        noun=effect.noun,
        request=redaction.by_rules(request),
        discriminator=redaction.by_rules(discriminator),
    )
    wanted = NewIntent(
        key=key,
        base_key=key,
        noun=effect.noun,
        platform=platform,
        account=account,
        scope=scope,
        request=request,
        discriminator=discriminator,
        subject=effect.subject,
        name=effect.name,
        spends=effect.spends,
        definition=effect.definition,
        run_id=attempt.run.id if attempt is not None else None,
        attempt_id=attempt.attempt.id if attempt is not None else None,
        attempt_number=attempt.attempt.number if attempt is not None else 0,
    )
    return redaction.of_intent(wanted)


def _generation(wanted: NewIntent, generation: int) -> NewIntent:
    return replace(wanted, key=key_of_generation(wanted.base_key, generation), generation=generation)


def _unsent(newest: IntentRow | None, wanted: NewIntent) -> bool:
    """Whether nothing is known to have left under the key."""
    return newest is None or newest.key != wanted.key or newest.state in ("intent", "abandoned")


def _resubmits(newest: IntentRow | None, on_failure: OnFailure, limit: int) -> bool:
    """Whether the newest generation ended badly and another may follow."""
    return (
        newest is not None
        and on_failure == "resubmit"
        and newest.state == "terminal"
        and newest.status != "succeeded"
        and newest.generation < limit
    )


async def _report(journal: Journal, kept: IntentRow, urn: str) -> None:
    logger.error(
        "Two effects exist under the key %s: %s is kept, %s was sent while this process was taken for gone. "
        "`ivcap-flows orders` lists it.",
        kept.key,
        kept.urn,
        urn,
    )
    await journal.ask(journal.intents.note_duplicates, kept.key, [urn])
