"""Rows in the journal and in the spool at once: claimed, and brought to their end in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt
from ivcap_flows.journal.rows import GIVEN_UP, Settled
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.batch_watcher import Pulse
from ivcap_flows.registration.keys import has_own_key, marked, new_intent
from ivcap_flows.registration.lookup import Lookup, Sign, read_sign
from ivcap_flows.registration.model_runs import digest_of, run_of_sign
from ivcap_flows.registration.outcome import OutcomeFile
from ivcap_flows.registration.preflight import Progress
from ivcap_flows.registration.requirements import ARTIFACT
from ivcap_flows.registration.spool import Outcome, Spool, Spooled
from ivcap_flows.secrets import logger_of

__all__ = ["Ledger", "Work", "artifacts_in", "doubted_since", "given_up", "job_of", "with_datasets"]

logger = logger_of(__name__)

_NO_REASON: Final = "Provena gives no reason"
_DIFFERS: Final = (
    "The run was registered under this key with another record, which this row does not change; give the row another "
    "key for a run of its own, or change the run with update_model_run"
)


@dataclass(frozen=True)
class Work:
    """A row that this process holds in the journal."""

    row: Spooled
    intent: IntentRow


class Ledger:
    """Each change is in the journal first, then in the spool and the outcome file."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        out: OutcomeFile | None,
        pulse: Pulse,
        lookup: Lookup,
        clock: PlatformClock,
        *,
        platform: str,
        account: str,
        attempt: OpenedAttempt | None,
        progress: Progress,
    ) -> None:
        self._journal = journal
        self._intents = journal.intents
        self._spool = spool
        self._out = out
        self._pulse = pulse
        self._lookup = lookup
        self._clock = clock
        self._since: datetime | None = None
        self._platform = platform
        self._account = account
        self._attempt = (attempt.run.id, attempt.attempt.id, attempt.attempt.number) if attempt else None
        self._progress = progress
        counts = spool.counts()
        self._total = sum(counts.values())
        self.ended = counts.get("wrong", 0) + counts.get("done", 0)
        """How many rows have come to their end."""

    async def begin(self) -> None:
        """Note Provena's time, before the rows are looked for: what comes about later is theirs or another's."""
        now = await self._clock.now()
        self._since = None if now is None else now.earliest

    async def claim(self, rows: Sequence[Spooled]) -> list[Work]:
        """The rows that this process may go on with; those that are done stand so from now on."""
        claims = await self._journal.claim([self._intent(row) for row in rows])
        pairs = list(zip(rows, claims, strict=True))
        works = [Work(row, claim.intent) for row, claim in pairs if claim.kind in ("new", "doubt")]
        try:
            await self.keep([(row, claim.intent) for row, claim in pairs if claim.kind == "kept"])
        except BaseException:
            self.release(works)
            raise
        return works

    def release(self, works: Iterable[Work]) -> None:
        """Give the claims up; what has come to its end is not changed by it."""
        self._intents.release_many(work.intent for work in works)

    async def note(self, rows: Sequence[Spooled]) -> None:
        """Write down rows that are going to be sent."""
        await self._journal.ask(self._intents.note_many, [self._intent(row) for row in rows])

    async def mark_sent(self, works: Sequence[Work], leaves_within: float) -> list[Work]:
        """The works that are still this process's, about to leave within so many seconds."""
        time = self._clock.time
        return _now(works, await self._journal.ask(self._intents.mark_sent_many, _intents(works), leaves_within, time))

    async def save(self, works: Sequence[Work], progress: Any) -> list[Work]:
        """The works, with what is needed to go on with them stored."""
        return _now(works, await self._journal.ask(self._intents.progress_many, _intents(works), progress))

    async def in_doubt(self, works: Sequence[Work], error: str) -> list[Work]:
        """The works as in doubt; what was so before keeps its time."""
        fresh = [work for work in works if work.intent.state != "in_doubt"]
        doubted = self._intents.mark_in_doubt_many
        moved = _now(fresh, await self._journal.ask(doubted, _intents(fresh), error, self._clock.time))
        return [*(work for work in works if work.intent.state == "in_doubt"), *moved]

    async def adopt(self, lodged: Sequence[tuple[Work, Sign]], how: str = "adopted") -> None:
        """Rows whose runs are there."""
        settled: list[Settled] = []
        for work, sign in lodged:
            if sign.handle is None:
                continue
            if sign.more:
                logger.error(
                    "Several model runs are registered for row %d under the key %s: %s is kept, the others are %s.",
                    *(work.row.number, work.row.key, sign.handle, ", ".join(sign.more)),
                )
            record = None if sign.record else self.record(work.row)
            handle = run_of_sign(sign, work.intent.request, platform=self._platform, key=work.row.key, record=record)
            outcome = handle.model_dump(mode="json")
            matched = "key" if how == "adopted" else None
            settled.append(Settled(work.intent, sign.handle, outcome, how, matched, sign.more))
        moved = {row.key: row for row in await self._journal.ask(self._intents.settle_many, settled)}
        await self.keep([(work.row, moved[work.row.key]) for work, _ in lodged if work.row.key in moved])

    async def fail(self, failed: Sequence[tuple[Work, str | None, str | None]]) -> None:
        """Rows of which surely nothing came: work, job, reason. The next start sends them again."""
        if not failed:
            return
        errors = {work.intent.key: words or _NO_REASON for work, _, words in failed}
        intents = [work.intent for work, _, _ in failed]
        moved = {row.key for row in await self._journal.ask(self._intents.abandon_many, errors, intents)}
        await self.stand(
            [
                Outcome(work.row.number, work.row.called, "failed", None, job, None, errors[work.intent.key])
                for work, job, _ in failed
                if work.intent.key in moved
            ]
        )

    async def leave(self, doubtful: Sequence[tuple[Work, str | None, str]], now: str) -> None:
        """Rows of which nobody knows: work, job, words. A user decides, or a later look finds their end."""
        since = {work.row.key: doubted_since(work.intent) or now for work, _, _ in doubtful}
        progress = {
            work.row.key: {**(work.intent.progress or {}), "job": job, "doubtful_since": since[work.row.key]}
            for work, job, _ in doubtful
        }
        errors = {work.row.key: words for work, _, words in doubtful}
        intents = [work.intent for work, _, _ in doubtful]
        moved = {row.key for row in await self._journal.ask(self._intents.leave_many, progress, errors, intents)}
        await self.stand(
            [
                Outcome(work.row.number, work.row.called, "doubtful", None, job, since[work.row.key], words)
                for work, job, words in doubtful
                if work.row.key in moved
            ]
        )

    async def give_back(self, works: Sequence[Work], error: str) -> None:
        """Rows that a refusal of all has kept from being sent."""
        errors = {work.intent.key: error for work in works}
        await self._journal.ask(self._intents.abandon_many, errors, _intents(works))

    async def stand(self, outcomes: Sequence[Outcome]) -> None:
        """Rows that have come to their end."""
        if not outcomes:
            return
        self._spool.stand(outcomes)
        if self._out is not None:
            self._out.add(outcomes)
        self._pulse.heartbeat()
        self.ended += len(outcomes)
        self._progress("registered", self.ended, self._total)

    async def keep(self, done: Sequence[tuple[Spooled, IntentRow]]) -> None:
        """Rows whose intents are done. That a run says something else than its row is told."""
        differing = [row for row, intent in done if self._differs(row, intent)]
        # Whoever registered the run may have minted its datasets since the row was checked.
        lacking = {each for row in differing for each in artifacts_in(row.body)}
        await self._lookup.among_datasets(sorted(lacking - self._spool.datasets(list(lacking)).keys()))
        others = {row.number for row, intent in done if self._differs(row, intent)} if differing else set()
        await self.stand([_kept(row, intent, _DIFFERS if row.number in others else None) for row, intent in done])

    def _differs(self, row: Spooled, intent: IntentRow) -> bool:
        run = intent.outcome if isinstance(intent.outcome, dict) else {}
        there = run.get("record_sha256") if has_own_key(row.subject) else None
        return there is not None and there != digest_of(self.record(row))

    def signs(self, rows: Iterable[Spooled]) -> dict[str, Sign]:
        """What Provena has shown of rows, as far as it was looked for."""
        seen = self._spool.seen([row.key for row in rows])
        return {key: sign for key, shown in seen.items() if (sign := read_sign(shown)) is not None}

    def record(self, row: Spooled) -> ModelRunRecord:
        """The record as it is sent."""
        body = marked(row.body, row.key, row.subject)
        return ModelRunRecord.model_validate(with_datasets(body, self._spool.datasets(artifacts_in(row.body))))

    def _intent(self, row: Spooled) -> Any:
        return new_intent(
            *(row.key, self._platform, self._account, row.subject, row.workflow, row.name, self._attempt, self._since)
        )


def _kept(row: Spooled, intent: IntentRow, words: str | None) -> Outcome:
    job = intent.outcome.get("session_id") if isinstance(intent.outcome, dict) else None
    return Outcome(row.number, row.called, "registered", intent.urn, job, None, words)


def given_up(row: Spooled) -> Outcome:
    """How a row stands that the user has given up."""
    return Outcome(row.number, row.called, "failed", words=GIVEN_UP)


def job_of(intent: IntentRow) -> str | None:
    """The job that a row was sent with, as far as the journal knows it."""
    found = intent.progress.get("session_id") if isinstance(intent.progress, dict) else None
    return found if isinstance(found, str) else None


def doubted_since(intent: IntentRow) -> str | None:
    """Since when a row is known as doubtful."""
    found = intent.progress.get("doubtful_since") if isinstance(intent.progress, dict) else None
    return found if isinstance(found, str) else None


def artifacts_in(body: dict[str, Any]) -> list[str]:
    """The artifacts that stand for datasets in a record."""
    parts = (*body["inputs"], *body["outputs"])
    return list(dict.fromkeys(part["dataset_id"] for part in parts if part["dataset_id"].startswith(ARTIFACT)))


def with_datasets(body: dict[str, Any], datasets: dict[str, str]) -> dict[str, Any]:
    """A record with datasets in the place of artifacts."""
    sides = {
        side: [{**part, "dataset_id": datasets.get(part["dataset_id"], part["dataset_id"])} for part in body[side]]
        for side in ("inputs", "outputs")
    }
    return {**body, **sides}


def _intents(works: Iterable[Work]) -> list[IntentRow]:
    return [work.intent for work in works]


def _now(works: Sequence[Work], rows: Iterable[IntentRow]) -> list[Work]:
    """The works with their intents as they are now; without those that another process has taken over."""
    now = {row.key: row for row in rows}
    return [replace(work, intent=now[work.row.key]) for work in works if work.row.key in now]
