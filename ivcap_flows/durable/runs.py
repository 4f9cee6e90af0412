"""A logical run in this process: open an attempt of it, send its heartbeats, and close it with its outcome."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt, Outcome, RunIdentity, RunRow
from ivcap_flows.secrets import logger_of

__all__ = ["LogicalRun"]

logger = logger_of("ivcap_flows.durable")


class LogicalRun:
    """One attempt of a logical run. `Runs.open_attempt` says when it joins an earlier run."""

    def __init__(self, journal: Journal, opened: OpenedAttempt) -> None:
        self.journal = journal
        self.opened = opened
        self._alive = False

    @classmethod
    def open(cls, journal: Journal, identity: RunIdentity, *, fresh: bool = False) -> LogicalRun:
        """Open an attempt and send heartbeats for it until `close`. Log which run it continues, if any.

        The log level is WARNING if a new flow run continues the run of an earlier one, which the user may not expect.
        """
        # An earlier attempt whose end is not written yet would count as running.
        journal.untold.write()
        start_heartbeat(journal)
        attempt_id = str(uuid.uuid4())
        try:
            run = cls(journal, journal.runs.open_attempt(identity, fresh=fresh, attempt_id=attempt_id))
        except BaseException:
            # The commit may be on disk although it was not confirmed. As long as this process lives, nobody else would
            # end the attempt, and the run could not be continued.
            journal.untold.add(partial(_lose, journal, attempt_id))
            stop_heartbeat(journal)
            raise
        run._alive = True
        if not run.opened.joined and (other := journal.runs.perhaps_running(identity)) is not None:
            logger.warning(
                "A new run begins, since process %d on %s seems to run the same: its last heartbeat was at %s. If that "
                "is gone, end this one and start it again in a minute, or what it ordered is ordered again.",
                *(other.process.pid, other.process.host),
                other.process.heartbeat_at.astimezone().isoformat(" ", "seconds"),
            )
        if not run.opened.joined and not fresh:
            run._say_what_differs(identity)
        if run.opened.joined:
            try:
                run._say()
            except JournalError as error:
                logger.warning("Continues run %s (attempt %d): %s", run.run.id, run.attempt.number, error)
        return run

    @property
    def run(self) -> RunRow:
        return self.opened.run

    @property
    def attempt(self) -> AttemptRow:
        return self.opened.attempt

    def close(self, outcome: Outcome, cause: str | None = None) -> None:
        """Store how the attempt ended. If the journal cannot be written now, store it as soon as it can."""

        def tell() -> None:
            self.journal.runs.close_attempt(self.attempt.id, outcome, cause)

        alive, self._alive = self._alive, False
        try:
            tell()
        except JournalError as error:
            if not (alive and error.retryable):
                raise
            self.journal.untold.add(tell)
            logger.warning("That run %s ended as %s is told to the journal later: %s", self.run.id, outcome, error)
        finally:
            if alive:
                stop_heartbeat(self.journal)

    def _say_what_differs(self, identity: RunIdentity) -> None:
        """Name the unfinished run that this one would have continued, but for values of defaults."""
        try:
            other = self.journal.runs.but_for_defaults(identity)
        except JournalError:
            return
        if other is not None:
            names = [name for name, value in identity.parameters.items() if other.parameters.get(name) != value]
            then = ", ".join(f"{name} ({_brief(other.parameters.get(name))} then)" for name in names)
            logger.warning(
                "A new run begins, which requests everything anew. Run %s of this flow did not complete, and differs "
                "only in what was left at its default: %s. To continue that one, give it the value of then.",
                *(other.id, then or "a value that is not shown"),
            )

    def _say(self) -> None:
        kept = Counter(
            row.noun for row in self.journal.intents.where(run_id=self.run.id, limit=None) if row.state == "done"
        )
        things = ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in sorted(kept.items()))
        earlier = [row for row in self.journal.runs.attempts(self.run.id) if row.number < self.attempt.number]
        retried = any(row.root_flow_run_id == self.attempt.root_flow_run_id for row in earlier)
        before = next((row.entry_point for row in reversed(earlier) if row.leads), self.attempt.entry_point)
        logger.log(
            logging.INFO if retried else logging.WARNING,
            "Continues run %s (attempt %d)%s, %s kept%s.",
            self.run.id,
            self.attempt.number,
            f", which was {before} before" if before != self.attempt.entry_point else "",
            things or "nothing",
            "" if retried else "; set IVCAP_FLOWS_FRESH=1 to begin a new one",
        )


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _lose(journal: Journal, attempt_id: str) -> None:
    with suppress(InputError):  # the journal does not have it
        journal.runs.close_attempt(attempt_id, "lost", "its begin was not confirmed")
