"""Carry one claimed intent to its outcome: send it; if the reply is lost, look for the effect before sending again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

from ivcap_flows.durable.effects import Effect, Found, MatchedBy, Performed, RecordStore
from ivcap_flows.durable.equal_requests import EqualRequests
from ivcap_flows.durable.intent_record import IntentRecord
from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.wording import decide, unclear_reply
from ivcap_flows.errors import (
    ConfigurationError,
    DurabilityError,
    FencedError,
    InDoubtError,
    InputError,
    IntegrityError,
    JournalError,
    NotFoundError,
    OutcomeError,
    PlatformError,
    ProtocolError,
    SupersededError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http.confirm_send import confirming_sends
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.identity import How
from ivcap_flows.journal import Claim, IntentRow, Journal
from ivcap_flows.journal.rows import LEAVES_WITHIN
from ivcap_flows.plain_text import described
from ivcap_flows.secrets import logger_of

__all__ = ["Submission", "in_run", "may_have_taken_effect"]

T = TypeVar("T")

logger = logger_of("ivcap_flows.durable")

SENDS: Final = 3
"""How often one call sends if each reply is lost and no effect shows. Then it raises and the intent stays in doubt."""
_FIRST_PAUSE: Final = 0.1
_LATEST: Final = datetime.max.replace(tzinfo=timezone.utc)


def may_have_taken_effect(error: BaseException) -> bool:
    """Return whether a failed request may still have had an effect on the platform. True unless that is excluded."""
    if isinstance(error, PlatformError):
        if error.data.get("sent") is False or error.data.get("nothing_made"):
            return False
        if isinstance(error, UnreachableError | UnavailableError | ProtocolError):
            return True
        status = error.data.get("status")
        return not (isinstance(status, int) and 400 <= status < 500)
    return not isinstance(error, InputError | ConfigurationError | OutcomeError)


@dataclass(frozen=True)
class _Doubt:
    """The error of a request that may have taken effect."""

    error: Exception


class _Progress:
    def __init__(self, submission: Submission[Any], turn: AsyncExitStack) -> None:
        self._submission = submission
        self._turn = turn

    @property
    def stored(self) -> Any:
        return self._submission.intent.progress

    async def save(self, value: Any) -> None:
        submission = self._submission
        saved = await submission.journal.ask(submission.journal.intents.progress, submission.intent, value)
        # The claim may have been confirmed meanwhile.
        submission.intent = replace(submission.intent, progress=saved.progress)
        # What follows can take as long as the platform's work.
        await self._turn.aclose()


def in_run(how: How, intent: IntentRow) -> How:
    """Return how the run that requested an effect came by it, in all its attempts: sent, though its reply was lost."""
    ours = intent.sent_at is not None and _begun(intent) in (None, intent.urn)
    return "sent" if how == "adopted" and ours else how


def _begun(intent: IntentRow) -> str | None:
    """Return the URN under which an effect was begun that can be continued."""
    begun = intent.progress.get("urn") if isinstance(intent.progress, dict) else None
    return begun if isinstance(begun, str) else None


class Submission(Generic[T]):
    """Carries one claim to its outcome; call `run` once.

    `urn` is the effect that was sent or adopted, also if the journal could not be written.
    """

    def __init__(
        self,
        effect: Effect[T],
        journal: Journal,
        claim: Claim,
        *,
        idempotency_records: RecordStore | None,
        clock: PlatformClock | None = None,
        flow: str | None = None,
    ) -> None:
        self.effect = effect
        self.journal = journal
        self.intent = claim.intent
        self.urn: str | None = None
        self._new = claim.kind == "new"
        self._resent = claim.resent
        self._wanted_anew = claim.wanted_anew
        self._looked = False
        self._clock = clock
        self._record = IntentRecord(claim.intent, idempotency_records, journal_id=journal.id, flow=flow)

    async def reuse(self, earlier: Found[T]) -> Performed[T]:
        """Take an earlier effect of an equal request as this one's; send nothing."""
        try:
            return await self._accept(earlier.value, "reused")
        finally:
            await self.journal.ask_surely(self.journal.intents.release, self.intent)

    async def run(self) -> Performed[T]:
        """Return the effect, and release the claim in any case. Raises FencedError if another process has taken it."""
        doubt: str | None = None
        try:
            adopted = None if self._new else await self._look_for_it(shows_within(self.effect, self.intent))
            return adopted or await self._send()
        except BaseException as error:
            doubt = _say(error)
            raise
        finally:
            await self.journal.ask_surely(self.journal.intents.release, self.intent, doubt, self._time)

    async def _before_sending(self, send: int) -> Performed[T] | None:
        """Announce a send, and adopt an effect that exists already: at once, or as soon as it shows."""
        new, self._new = self._new, False
        if self.effect.announced:
            there, turn = await self._record.announce(send, refused=self._resent, looked=self._looked)
        else:
            there, turn = await self._record.read() if new else None, 0
        if there is not None and there.get("urn") is not None:
            return await self._adopt([self._recorded(there)])
        if turn:
            if self.intent.state == "claimed":
                doubt = "there is an earlier idempotency record under this key"
                self.intent = await self.journal.ask(self.journal.intents.mark_in_doubt, self.intent, doubt, self._time)
            return await self._look_for_it(turn * (self._record.shows_within + self.effect.visibility_delay))
        if new and (self.effect.look_first or (self.effect.bears_key and not self._wanted_anew)):
            # The idempotency record has just been read.
            return await self._adopt(await self.effect.find(self.intent))
        return None

    async def _send(self) -> Performed[T]:
        for sends in range(1, SENDS + 1):
            if self._clock is not None:
                await self._clock.now()
            async with AsyncExitStack() as turn:
                if self.effect.limit is not None and not self._has_begun:
                    await turn.enter_async_context(self.effect.limit.turn())
                # Not before the limit's turn: who finds the announcement waits for a while, and then sends.
                if (there := await self._before_sending(sends)) is not None:
                    return there
                made = await self._try(turn)
            if not isinstance(made, _Doubt):
                return await self._sent(made)
            adopted = await self._look_for_it(self.effect.visibility_delay)
            if adopted is not None:
                return adopted
            if sends == SENDS:
                raise made.error
        raise AssertionError("the last turn returns or raises")

    async def _try(self, turn: AsyncExitStack) -> T | _Doubt:
        """Send once. Return what was made, or the doubt that the error leaves. Raise what refuses it."""
        try:
            with confirming_sends(self._mark_sent) as sends:
                return await self.effect.send(self.intent, _Progress(self, turn))
        except SupersededError as error:
            await self._drop(error)
            raise
        except (JournalError, DurabilityError):
            raise
        except IntegrityError as error:
            # The content is not that of the key, and the upload was given up.
            if self.effect.resumable and not self._has_begun:
                await self._drop(error)
            raise
        except (PlatformError, InputError, ConfigurationError, OutcomeError) as error:
            # What fails after a request was accepted, such as a read of what it made, undoes nothing.
            undone = isinstance(error, OutcomeError) or error.data.get("nothing_made") or not sends.accepted
            if not may_have_taken_effect(error) and (undone or self._has_begun):
                # A refused step of a resumable effect leaves its beginning as it is: the next call resumes it,
                # unless it is gone or has failed. A refusal does not end the doubt about an earlier request.
                over = isinstance(error, NotFoundError | OutcomeError) if self._has_begun else not self._looked
                if over:
                    await self._drop(error)
                raise
            if self.intent.state == "claimed":
                # Only idempotent requests were sent, which are not confirmed.
                await self._mark_sent()
            self.intent = await self.journal.ask(
                self.journal.intents.mark_in_doubt, self.intent, _say(error), self._time
            )
            logger.warning(unclear_reply(error), self.intent.noun, self.intent.key, error)
            return _Doubt(error)

    async def _sent(self, value: T) -> Performed[T]:
        performed = await self._accept(value, "sent")
        if self._looked and self.intent.urn is not None:
            logger.warning(
                "The %s %s was sent again, as %s. If the first request shows an effect after all, "
                "`ivcap-flows doctor` names it.",
                self.intent.noun,
                self.intent.key,
                self.intent.urn,
            )
        return performed

    async def _mark_sent(self) -> None:
        """Confirm a send: from here on it is in doubt. Raises FencedError if another process has taken over."""
        if self._has_begun and self.intent.state == "sent" and not self.intent.in_doubt:
            # What has begun is resumed at the platform's offset, so more of it may leave at any time.
            return
        marked = await self.journal.ask(self.journal.intents.mark_sent, self.intent, self._time)
        # Progress may have been saved meanwhile.
        self.intent = replace(marked, progress=self.intent.progress)

    @property
    def _time(self) -> ServerTime | None:
        """The platform's own time; None if it is not known."""
        return None if self._clock is None else self._clock.time

    async def _look_for_it(self, visibility_delay: float) -> Performed[T] | None:
        """Adopt the effect as soon as it shows.

        Return None if it has not shown within `visibility_delay` seconds (monotonic clock), or if sending resumes it.
        """
        if self._has_begun:
            return await self._adopt(await self._stated())
        end = asyncio.get_running_loop().time() + visibility_delay
        pauses = Pauses(max(_FIRST_PAUSE, self.effect.visibility_delay / 64), self.effect.visibility_delay)
        while True:
            left = end - asyncio.get_running_loop().time()
            try:
                adopted = await self._adopt(await self._find(), last=left <= 0)
            except PlatformError as error:
                if left <= 0 or not error.retryable:
                    raise
            except InDoubtError:
                # A reply to another process may still decide it.
                if left <= 0:
                    raise
            else:
                if adopted is not None:
                    return adopted
                if left <= 0:
                    self._looked = True
                    return None
            await pauses.sleep(left)

    @property
    def _has_begun(self) -> bool:
        return self.effect.resumable and self.intent.progress is not None

    async def _find(self) -> Sequence[Found[T]]:
        return await self._stated() or await self.effect.find(self.intent)

    async def _stated(self) -> Sequence[Found[T]]:
        """Return the effect that the idempotency record names, if it names one."""
        record = await self._record.read()
        return [] if record is None or record.get("urn") is None else [self._recorded(record)]

    async def _adopt(self, found: Sequence[Found[T]], *, last: bool = False) -> Performed[T] | None:
        """Adopt the oldest effect that is surely this intent's, and report the others. `last`: no further look follows.

        Raises InDoubtError if it cannot be decided which is.
        """
        found = sorted(found, key=lambda one: (one.at or _LATEST, one.urn))
        ours = [one for one in found if one.matched_by == "key"]
        if not ours:
            return await self._adopt_by_content(found, last=last) if found else None
        oldest, *rest = ours
        return await self._keep(oldest, rest)

    async def _adopt_by_content(self, found: Sequence[Found[T]], *, last: bool) -> Performed[T] | None:
        urns = [one.urn for one in found]
        equal = await EqualRequests.of(self.journal, self.intent, self._record, urns)
        free = [one for one in found if one.urn not in equal.owned]
        alike = [one for one in free if one.matched_by == "content"]
        chosen = equal.choose(alike, last=last)
        if chosen is None:
            if free:
                raise self._undecided([one.urn for one in free])
            return None
        try:
            return await self._keep(chosen, [] if equal.rivals else [one for one in alike if one is not chosen])
        except InDoubtError:
            # Another key has taken it meanwhile.
            self.urn = None
            return await self._adopt_by_content(found, last=last)

    async def _keep(self, oldest: Found[T], rest: Sequence[Found[T]]) -> Performed[T]:
        if rest:
            logger.error(
                "Several effects match the %s %s: %s is kept, the others are %s. `ivcap-flows orders` lists them.",
                self.intent.noun,
                self.intent.key,
                oldest.urn,
                ", ".join(one.urn for one in rest),
            )
        self.urn = oldest.urn
        return await self._accept(oldest.value, "adopted", oldest.matched_by, [one.urn for one in rest])

    async def _accept(
        self,
        value: T,
        how: Literal["sent", "adopted", "reused"],
        matched_by: MatchedBy | None = None,
        duplicates: Sequence[str] = (),
    ) -> Performed[T]:
        if not self.effect.announced:
            # Before its row is written: if the process ends in between, others know it.
            counts, more = await self._record.agree(self.effect.urn(value), self._outcome(value))
            duplicates = [*duplicates, *more]
            if counts is not None and counts["urn"] != self.effect.urn(value):
                value, how, matched_by = self._recorded(counts).value, "adopted", "key"
        urn = self.urn = self.effect.urn(value)
        outcome = self._outcome(value)
        if (begun := _begun(self.intent)) not in (None, urn):
            # It was begun here before another was adopted, and may be complete by now.
            duplicates = [*duplicates, str(begun)]
        settle = partial(
            self.journal.intents.settle,
            self.intent,
            urn=urn,
            outcome=outcome,
            how=how,
            matched_by=matched_by,
            duplicates=duplicates,
        )
        lost = self.intent.urn
        try:
            self.intent = await self.journal.ask(settle)
        except JournalError as error:
            # The effect exists, so the flow continues. If this process ends before the journal can be written, the next
            # call finds the intent open and looks for its effect.
            logger.warning("The %s %s is told to the journal later: %s", self.intent.noun, urn, error)
            self.journal.untold.add(partial(_unless_settled, settle))
        if lost not in (None, urn):
            logger.warning("The platform has lost %s, so the %s is now %s.", lost, self.intent.noun, urn)
        if self.effect.announced and (more := await self._record.tell(urn, outcome)):
            await self._note_duplicates(more)
        return Performed(value, how, self.intent.key, in_run(how, self.intent))

    def _outcome(self, value: T) -> Any:
        """Return the value as the journal keeps it, and as the idempotency record shows it to others."""
        return self.journal.redaction.of(self.effect.encode(value))

    async def _drop(self, error: BaseException) -> None:
        try:
            self.intent = await self.journal.ask(self.journal.intents.drop, self.intent, _say(error))
        except (JournalError, FencedError) as failure:
            logger.warning("The refusal of the %s %s was not recorded: %s", self.intent.noun, self.intent.key, failure)

    async def _note_duplicates(self, urns: Sequence[str]) -> None:
        try:
            await self.journal.ask(self.journal.intents.note_duplicates, self.intent.key, urns)
        except (JournalError, DurabilityError) as error:
            logger.warning("The second %s is not in the journal: %s", self.intent.noun, error)

    def _recorded(self, content: dict[str, Any]) -> Found[T]:
        return Found(self.effect.decode(content.get("outcome")), str(content["urn"]))

    def _undecided(self, urns: Sequence[str]) -> InDoubtError:
        row = self.intent
        return InDoubtError(
            f"It is not known whether the {row.noun} {row.key} took effect. Candidates: {', '.join(urns)}. "
            f"{decide(row.key)}",
            key=row.key,
            candidates=list(urns),
        )


def shows_within(effect: Effect[Any], intent: IntentRow) -> float:
    """Return within how many seconds from now the effect of an earlier request shows, if there is one."""
    return effect.visibility_delay + (LEAVES_WITHIN if intent.lingering else 0.0)


def _say(error: BaseException) -> str:
    return described(error)[:2000]


def _unless_settled(settle: Callable[[], object]) -> None:
    """Write an outcome, unless the intent is another's by now, or has its outcome."""
    with suppress(DurabilityError):
        settle()
