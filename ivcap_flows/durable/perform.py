"""Cause an effect at most once per key: intent, idempotency record, request, outcome, each on disk before the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar, cast

from ivcap_flows.canonical import canonical_form
from ivcap_flows.durable.divergence import tell_of_divergence
from ivcap_flows.durable.effects import Caller, Effect, Performed, RecordStore, Reusable
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.durable.plan import Plan, planning
from ivcap_flows.durable.preview import preview
from ivcap_flows.durable.scopes import expand, is_second_call, warn_shared
from ivcap_flows.durable.submission import Submission, in_run
from ivcap_flows.errors import FencedError, InDoubtError, InputError, IvcapFlowsError
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.identity import How, OncePer, key_of, key_of_generation
from ivcap_flows.journal import Claim, IntentRow, Journal, NewIntent, OpenedAttempt
from ivcap_flows.secrets import logger_of
from ivcap_flows.threads import JOURNAL

__all__ = ["perform", "requested_before"]

T = TypeVar("T")

logger = logger_of("ivcap_flows.durable")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_SAID_AFTER: Final = 3.0
"""Seconds of waiting for another call after which the log says who works on the effect."""


_only_looked_up: ContextVar[bool] = ContextVar("ivcap_flows_only_looked_up", default=False)


class _LookedUp(BaseException):
    def __init__(self, newest: IntentRow | None) -> None:
        self.newest = newest


async def requested_before(request: Callable[[], Awaitable[object]]) -> IntentRow | None:
    """Return what the journal has of the effect that `request` would perform, if that was sent; it is not now.

    What is wrong with the request is for the request itself to say.
    """
    token = _only_looked_up.set(True)
    try:
        await request()
    except _LookedUp as found:
        return found.newest if found.newest is not None and found.newest.state in ("sent", "done") else None
    except IvcapFlowsError:
        return None
    finally:
        _only_looked_up.reset(token)
    return None


async def perform(
    effect: Effect[T],
    caller: Caller,
    *,
    idempotency_records: RecordStore | None = None,
    max_resubmits: int = 0,
    max_orders: int | None = None,
) -> Performed[T]:
    """Cause the effect unless it exists; wait while another live process works on the same effect.

    There is at most one effect per key, if all processes share one journal and the platform shows an accepted request
    within `effect.visibility_delay`. If a reply is lost, the call looks for the effect, waits until it must be visible,
    looks again, and only then sends again.

    If the newest generation ended in failure, a new one is sent, at most `max_resubmits` times.
    `max_orders` limits the spending effects of the run. Inside `plan()` nothing is sent. If the effect `reuses`, look
    for an earlier one of an equal request before anything is sent; an effect that is reused does not spend.

    Raise JournalError if the intent cannot be written (nothing was sent), InDoubtError if it is not known which effect
    is ours or if the user wrote the effect off, SpendLimitError, and PlatformError if the platform refuses or does not
    reply. If it does not reply, the effect stays in doubt until the next call.
    """
    plan = planning()
    journal, attempt = caller.journal, caller.attempt
    # In a thread: the first request with a secret reads or makes the journal's key file.
    wanted = await JOURNAL.run(_intent, effect, _scope(effect.once_per, attempt, plan), caller)
    if _only_looked_up.get():
        raise _LookedUp(await journal.ask(journal.intents.newest, wanted.base_key))
    if caller.clock is not None and caller.clock.time is not None:
        wanted = replace(wanted, platform_time=caller.clock.time.earliest)
    # Most effects are new. For these the claim alone is enough, and the newest generation is not read before.
    reads_newest = plan is not None or effect.reuses or max_resubmits > 0 or wanted.attempt_number > 1
    newest = await journal.ask(journal.intents.newest, wanted.base_key) if reads_newest else None
    if newest is not None and newest.given_up:
        raise _given_up(newest)
    if plan is not None:
        resubmit = _resubmits(newest, max_resubmits)
        return await preview(
            effect, plan, wanted, newest, resubmit=resubmit, journal=journal, idempotency_records=idempotency_records
        )
    if reads_newest and (newest is None or newest.state == "dropped"):
        await tell_of_divergence(journal, wanted)

    start_heartbeat(journal)
    try:
        return await _Performing(
            *(effect, caller, idempotency_records, max_resubmits, max_orders),
            is_second=attempt is not None and is_second_call(attempt.attempt.id, wanted.base_key, caller.tries),
            is_newest_known=reads_newest,
        ).run(wanted, newest)
    finally:
        stop_heartbeat(journal)


@dataclass
class _Performing(Generic[T]):
    """One call of `perform` that sends or waits."""

    effect: Effect[T]
    caller: Caller
    idempotency_records: RecordStore | None
    max_resubmits: int
    max_orders: int | None
    is_second: bool
    """Whether this attempt has asked for the same before."""
    is_newest_known: bool
    """Whether the newest generation was read, so that an outcome under the key is the one to return."""
    sent: str | None = None
    """What this call sent before another process took over."""

    @property
    def journal(self) -> Journal:
        return self.caller.journal

    async def run(self, wanted: NewIntent, newest: IntentRow | None) -> Performed[T]:
        earlier: Reusable[T] | None = None
        waiting = _Waiting(self.journal)
        while True:
            if newest is not None:
                wanted = _generation(wanted, newest.generation + _resubmits(newest, self.max_resubmits))
            if self.effect.reuses and earlier is None and _unsent(newest, wanted):
                earlier = await self.effect.earlier(wanted)
                wanted = replace(wanted, reuse=earlier.why, spends=self.effect.spends and earlier.found is None)
            claim = await self.journal.claim(wanted, spend_limit=self.max_orders)
            if self.is_second and claim.kind in ("kept", "held"):
                warn_shared(claim.intent, self.effect.once_per)
            if claim.kind == "kept":
                newest = await self._newer(claim.intent, wanted)
                if newest is None:
                    return await self._kept(claim.intent, wanted)
            elif claim.kind == "given up":
                raise _given_up(claim.intent)
            elif claim.kind == "held":
                await waiting.wait(claim.intent)
            elif (performed := await self._submit(claim, earlier, wanted)) is not None:
                return performed

    async def _newer(self, kept: IntentRow, wanted: NewIntent) -> IntentRow | None:
        """Return the newest generation, if the call is to go on from there; None if the outcome at hand is the one."""
        if not self.is_newest_known:
            self.is_newest_known = True
            newest = await self.journal.ask(self.journal.intents.newest, wanted.base_key)
            if newest is not None and newest.generation != kept.generation:
                return newest
        if _resubmits(kept, self.max_resubmits):
            return await self.journal.ask(self.journal.intents.newest, wanted.base_key)
        return None

    async def _kept(self, kept: IntentRow, wanted: NewIntent) -> Performed[T]:
        if self.sent is not None and self.sent != kept.urn:
            await _report(self.journal, kept, self.sent)
        own = kept.run_id is not None and kept.run_id == wanted.run_id
        how = in_run(cast(How, kept.how), kept) if own else "kept"
        return Performed(self.effect.decode(kept.outcome), "kept", kept.key, how)

    async def _submit(self, claim: Claim, earlier: Reusable[T] | None, wanted: NewIntent) -> Performed[T] | None:
        """Carry a claim to its outcome. Return None if another process has taken over, and decides."""
        attempt = self.caller.attempt
        flow = None if attempt is None else attempt.run.flow_name
        records, clock = self.idempotency_records, self.caller.clock
        submission = Submission(self.effect, self.journal, claim, idempotency_records=records, clock=clock, flow=flow)
        try:
            if claim.kind == "new" and earlier is not None and earlier.found is not None:
                return await submission.reuse(earlier.found)
            performed = await submission.run()
            if claim.intent.urn is not None and submission.urn == claim.intent.urn:
                # It seemed to be lost, and is there.
                return await self._kept(submission.intent, wanted)
            return performed
        except FencedError:
            # This process was taken for dead. What it sent is reported when the outcome is known.
            self.sent = submission.urn
            return None


class _Waiting:
    """The wait for another call, in this process or another, that works on the same effect."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pauses = Pauses(_FIRST_WAIT, _LONGEST_WAIT)
        self._began, self._said = asyncio.get_running_loop().time(), False

    async def wait(self, held: IntentRow) -> None:
        """Pause, and after some seconds say once who works on it."""
        if not self._said and asyncio.get_running_loop().time() - self._began > _SAID_AFTER:
            self._said = True
            await _say_who_holds(self._journal, held)
        await self._pauses.sleep()


def _scope(once_per: OncePer, attempt: OpenedAttempt | None, plan: Plan | None) -> str:
    if attempt is not None:
        return expand(once_per, run=attempt.run.id, flow=attempt.run.flow)
    if plan is not None:
        return expand(once_per, run=plan.run_id, flow=plan.flow if plan.run is None else plan.run.flow)
    return expand(once_per, run=None, flow=None)


def _intent(
    effect: Effect[T],
    scope: str,
    caller: Caller,
) -> NewIntent:
    """Return the intent of an effect. Its key is made of the whole request.

    Each secret in the request is replaced by its keyed digest, in the key and in the stored request.
    """
    platform, account, attempt, redaction = caller.platform, caller.account, caller.attempt, caller.journal.redaction
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
    """Return whether nothing is known to have been sent under the key."""
    return newest is None or newest.key != wanted.key or newest.state in ("claimed", "dropped")


def _resubmits(newest: IntentRow | None, limit: int) -> bool:
    """Return whether the newest generation ended without success and another may follow."""
    return newest is not None and newest.has_ended and newest.status != "succeeded" and newest.generation < limit


def _given_up(intent: IntentRow) -> InDoubtError:
    return InDoubtError(
        f"The {intent.noun} {intent.key} was given up by the user, so it is not sent. To have it sent, decide with "
        "`ivcap-flows models resolve --resend`.",
        key=intent.key,
        candidates=[],
    )


async def _say_who_holds(journal: Journal, held: IntentRow) -> None:
    holder = await journal.ask(journal.intents.holder, held)
    if holder is not None:
        logger.warning(
            "Waiting for process %d on %s, which has worked on the %s %s (%s) since %s. If it is stopped (Ctrl-Z) or "
            "hangs, continue it or end it: then this call goes on, and nothing is sent twice.",
            holder.pid,
            holder.host,
            held.noun,
            held.key,
            held.name or held.subject,
            held.updated_at.astimezone().isoformat(" ", "seconds"),
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
