"""The ledger: claim rows and write their ends in the journal, the spool and the outcome file together."""

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
from ivcap_flows.registration.preflight import OnProgress
from ivcap_flows.registration.requirements import ARTIFACT
from ivcap_flows.registration.spool import Outcome, Spool, Spooled
from ivcap_flows.secrets import logger_of

__all__ = ["Ledger", "Work", "artifacts_in", "doubted_since", "given_up", "job_of", "with_datasets"]

logger = logger_of(__name__)

_NO_REASON: Final = "Provena gives no reason"
_DIFFERS: Final = (
    "The run was registered under this key with another record, which this row does not change. For a new run, give "
    "the row another key; to change the run, use update_model_run"
)


@dataclass(frozen=True)
class Work:
    """A row whose intent this process has claimed in the journal."""

    row: Spooled
    intent: IntentRow


class Ledger:
    """Writes each change to the journal first, then to the spool and the outcome file."""

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
        progress: OnProgress,
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
        """Number of rows that have ended."""

    async def begin(self) -> None:
        """Store Provena's time before the rows are looked for. A run of a row that is new cannot be older."""
        now = await self._clock.now()
        self._since = None if now is None else now.earliest

    async def claim(self, rows: Sequence[Spooled]) -> list[Work]:
        """Claim rows, and return those that this process may work on. Rows done or given up get their outcome."""
        claims = await self._journal.claim([self._intent(row) for row in rows])
        pairs = list(zip(rows, claims, strict=True))
        works = [Work(row, claim.intent) for row, claim in pairs if claim.kind in ("new", "doubt")]
        try:
            await self.keep([(row, claim.intent) for row, claim in pairs if claim.kind == "kept"])
            await self.stand([given_up(row) for row, claim in pairs if claim.kind == "given up"])
        except BaseException:
            await self.release(works)
            raise
        return works

    async def release(self, works: Iterable[Work]) -> None:
        """Release the claims. Rows that have ended keep their outcome."""
        await self._journal.ask_surely(self._intents.release_many, [work.intent for work in works])

    async def note(self, rows: Sequence[Spooled]) -> None:
        """Write intents for rows that will be sent."""
        await self._journal.ask(self._intents.note_many, [self._intent(row) for row in rows])

    async def mark_sent(self, works: Sequence[Work]) -> list[Work]:
        """Mark works as sent now, and return those that this process still holds."""
        return _now(works, await self._journal.ask(self._intents.mark_sent_many, _intents(works), self._clock.time))

    async def save(self, works: Sequence[Work], progress: Any) -> list[Work]:
        """Store what is needed to continue the works, and return those that this process still holds."""
        return _now(works, await self._journal.ask(self._intents.progress_many, _intents(works), progress))

    async def in_doubt(self, works: Sequence[Work], error: str) -> list[Work]:
        """Mark works as in doubt and return them. A work that was in doubt before keeps its time."""
        fresh = [work for work in works if work.intent.state != "in_doubt"]
        doubted = self._intents.mark_in_doubt_many
        moved = _now(fresh, await self._journal.ask(doubted, _intents(fresh), error, self._clock.time))
        return [*(work for work in works if work.intent.state == "in_doubt"), *moved]

    async def adopt(self, lodged: Sequence[tuple[Work, Sign]], how: str = "adopted") -> None:
        """End rows whose runs Provena has, with their handles."""
        settled: list[Settled] = []
        for work, sign in lodged:
            if sign.handle is None:
                continue
            if sign.more:
                logger.error(
                    "Row %d, key %s, was registered several times: %s is used; the others are %s.",
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
        """End rows that certainly have no run, as failed: work, job, reason. The next start sends them again."""
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
        """Leave rows in doubt: work, job, words. The user decides, or a later look finds their end."""
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
        """Mark the intents of rows as abandoned that were not sent because Provena refuses all rows."""
        errors = {work.intent.key: error for work in works}
        await self._journal.ask(self._intents.abandon_many, errors, _intents(works))

    async def stand(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes of ended rows to the spool and the outcome file."""
        if not outcomes:
            return
        self._spool.stand(outcomes)
        if self._out is not None:
            self._out.add(outcomes)
        self._pulse.heartbeat()
        self.ended += len(outcomes)
        self._progress("registered", self.ended, self._total)

    async def keep(self, done: Sequence[tuple[Spooled, IntentRow]]) -> None:
        """End rows whose intents are done. The outcome says so if a run's record differs from its row."""
        differing = [row for row, intent in done if self._differs(row, intent)]
        # Another process that registered the run may have minted its datasets since the row was checked.
        lacking = {each for row in differing for each in artifacts_in(row.body)}
        await self._lookup.among_datasets(sorted(lacking - self._spool.datasets(list(lacking)).keys()))
        others = {row.number for row, intent in done if self._differs(row, intent)} if differing else set()
        await self.stand([_kept(row, intent, _DIFFERS if row.number in others else None) for row, intent in done])

    def _differs(self, row: Spooled, intent: IntentRow) -> bool:
        run = intent.outcome if isinstance(intent.outcome, dict) else {}
        there = run.get("record_sha256") if has_own_key(row.subject) else None
        return there is not None and there != digest_of(self.record(row))

    def signs(self, rows: Iterable[Spooled]) -> dict[str, Sign]:
        """Return what Provena has shown of rows, from the looks so far."""
        seen = self._spool.seen([row.key for row in rows])
        return {key: sign for key, shown in seen.items() if (sign := read_sign(shown)) is not None}

    def record(self, row: Spooled) -> ModelRunRecord:
        """Return the record of a row as it is sent, with its key and its datasets."""
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
    """Return the outcome of a row that the user has given up."""
    return Outcome(row.number, row.called, "failed", words=GIVEN_UP)


def job_of(intent: IntentRow) -> str | None:
    """Return the job with which a row was sent, or None if the journal does not know it."""
    found = intent.progress.get("session_id") if isinstance(intent.progress, dict) else None
    return found if isinstance(found, str) else None


def doubted_since(intent: IntentRow) -> str | None:
    """Return since when a row is in doubt, or None."""
    found = intent.progress.get("doubtful_since") if isinstance(intent.progress, dict) else None
    return found if isinstance(found, str) else None


def artifacts_in(body: dict[str, Any]) -> list[str]:
    """Return the artifacts in a record whose datasets are meant, each once."""
    parts = (*body["inputs"], *body["outputs"])
    return list(dict.fromkeys(part["dataset_id"] for part in parts if part["dataset_id"].startswith(ARTIFACT)))


def with_datasets(body: dict[str, Any], datasets: dict[str, str]) -> dict[str, Any]:
    """Return a record's JSON with artifacts replaced by their datasets."""
    sides = {
        side: [{**part, "dataset_id": datasets.get(part["dataset_id"], part["dataset_id"])} for part in body[side]]
        for side in ("inputs", "outputs")
    }
    return {**body, **sides}


def _intents(works: Iterable[Work]) -> list[IntentRow]:
    return [work.intent for work in works]


def _now(works: Sequence[Work], rows: Iterable[IntentRow]) -> list[Work]:
    """Return the works with their current intents, without those that another process has taken over."""
    now = {row.key: row for row in rows}
    return [replace(work, intent=now[work.row.key]) for work in works if work.row.key in now]
