"""Logical runs and their attempts: which flow run continues which run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError
from ivcap_flows.identity import fingerprint, short_run
from ivcap_flows.journal import schema
from ivcap_flows.journal.facts import Facts
from ivcap_flows.journal.known_runs import ATTEMPTS, KnownRuns, attempt_row, outcome_of
from ivcap_flows.journal.observer import AttemptEnded, RunWoken
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import AttemptRow, Fact, OpenedAttempt, Outcome, RunIdentity, RunRow
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import scrub, scrub_text

__all__ = ["Runs"]

_R, _A = schema.runs, schema.attempts


class _GoesOnError(Exception):
    """A run is not to be ended after all, so its transaction is taken back."""


class Runs(KnownRuns):
    """The runs of one journal."""

    def __init__(self, store: Store, processes: Processes, facts: Facts) -> None:
        super().__init__(store, processes)
        self._facts = facts

    def open_attempt(
        self, identity: RunIdentity, *, fresh: bool = False, attempt_id: str | None = None
    ) -> OpenedAttempt:
        """Begin an attempt of the logical run that the flow run belongs to; begin a new run if there is none.

        The attempt joins an earlier run (a) with the same root flow run, or (b), unless it is deployed or a subflow,
        the newest run of the same flow, code and parameters that is not deployed, did not complete and has no running
        attempt. Runs before a completed one are not considered. `fresh` switches off only (b): a retry of a flow run
        always continues its run. Attempts whose process is gone get the outcome `lost`. `attempt_id` is for a caller
        that has to know it even if the commit is not confirmed.
        """
        identity, attempt_id = _whole(identity), attempt_id or str(uuid.uuid4())
        with self._store.write() as connection:
            self._serialise(connection, identity)
            run_id = self._continued(connection, identity, fresh=fresh)
            number, nested, joined = 1, False, False
            if run_id is not None and self._hold(connection, run_id):
                number, nested = self._join(connection, run_id, identity)
                joined = not nested
            else:
                run_id = self._begin(connection, identity)
            now = self._store.now(connection)
            row = {
                **self._store.numbered(connection, _A),
                "id": attempt_id,
                "run_id": run_id,
                "number": number,
                "leads": not nested,
                "flow_name": identity.flow_name,
                "entry_point": identity.entry_point,
                "flow_run_id": identity.flow_run_id,
                "flow_run_name": identity.flow_run_name,
                "root_flow_run_id": identity.root_flow_run_id,
                "process_id": self._processes.register_and_beat(connection, now),
                "outcome": "running",
                "started_at": now,
            }
            connection.execute(sa.insert(_A), row)
            return OpenedAttempt(self._run(connection, run_id), self._attempt(connection, attempt_id), joined)

    def _begin(self, connection: Connection, identity: RunIdentity) -> str:
        """Begin a run, and return its id.

        A worker with another journal continues the run under the same id, so its keys are equal and it finds the
        effects.
        """
        now = self._store.now(connection)
        row = {
            **self._store.numbered(connection, _R),
            "id": identity.root_flow_run_id,
            "short_id": short_run(identity.root_flow_run_id),
            "flow_name": identity.flow_name,
            "entry_point": identity.entry_point,
            "code": identity.code,
            "parameters": scrub(identity.parameters),
            "parameters_sha256": identity.parameters_sha256,
            "given_sha256": identity.given_sha256,
            "deployed": identity.deployed,
            "deployment_id": identity.deployment_id,
            "outcome": "running",
            "created_at": now,
            "updated_at": now,
            "missing_facts": 0,
        }
        connection.execute(sa.insert(_R), row)
        return identity.root_flow_run_id

    def _join(self, connection: Connection, run_id: str, identity: RunIdentity) -> tuple[int, bool]:
        """Let a run go on. Return the number of the new attempt, and whether it is a subflow's inside a running one."""
        leading = [row for row in self._attempts(connection, run_id) if row.leads]
        self._lose_dead(connection, leading)
        live = [row for row in leading if row.outcome == "running" and self._alive(connection, row)]
        number = max((row.number for row in leading), default=0)
        if live and identity.is_subflow:
            return number, True
        for last in leading[-1:]:
            if last.park is not None and last.outcome == "parked":
                self._store.note(RunWoken(last))
        again: dict[str, Any] = {"outcome": "running", "updated_at": self._store.now(connection)}
        if not identity.is_subflow:
            # The checkout in which the run began may no longer exist.
            again["entry_point"] = identity.entry_point
        connection.execute(sa.update(_R).where(_R.c.id == run_id).values(**again))
        return number + 1, False

    def continued(self, identity: RunIdentity, *, fresh: bool = False) -> RunRow | None:
        """Return the run that `open_attempt` would join now, or None; change nothing."""
        with self._store.read() as connection:
            run_id = self._continued(connection, _whole(identity), fresh=fresh)
            return None if run_id is None else self._run(connection, run_id)

    def but_for_defaults(self, identity: RunIdentity) -> RunRow | None:
        """Return the run that `open_attempt` would have joined if each default had the value that it had then.

        A default that is made when its module is imported, such as `datetime.now()`, has another value in each process.
        """
        if not _has_like(identity) or identity.given_sha256 is None:
            return None
        with self._store.read() as connection:
            other = _R.c.parameters_sha256 != _whole(identity).parameters_sha256
            run_id = self._unfinished(connection, self._alike(_whole(identity), "given_sha256").where(other))
            return None if run_id is None else self._run(connection, run_id)

    def perhaps_running(self, identity: RunIdentity) -> AttemptRow | None:
        """Return an attempt of an earlier run that `open_attempt` would have joined, if it is not running after all.

        Only the heartbeat of its process is known, as on another machine.
        """
        if not _has_like(identity):
            return None
        with self._store.read() as connection:
            for id_, _ in connection.execute(self._alike(_whole(identity)).limit(2)):
                for row in self._attempts(connection, id_):
                    if row.outcome == "running" and self._processes.life(row.process) == "unknown":
                        return row
        return None

    def completed_before(self, identity: RunIdentity) -> AttemptRow | None:
        """Return the attempt that completed the newest run of an identity, if `open_attempt` begins a new run for this
        reason.

        Otherwise return None, also while that attempt's process is alive, since it can still write how it ended.
        """
        with self._store.read() as connection:
            if not _has_like(identity) or self._by_root(connection, identity) is not None:
                return None
            newest = connection.execute(self._alike(_whole(identity)).limit(1)).first()
            if newest is None or newest.outcome != "completed":
                return None
            leading = [row for row in self._attempts(connection, newest.id) if row.leads]
            last = max((row for row in leading if row.outcome == "completed"), key=lambda row: row.number, default=None)
            return None if last is None or self._processes.alive(last.process, self._store.now(connection)) else last

    def close_attempt(
        self, attempt_id: str, outcome: Outcome, cause: str | None = None, *, ended: datetime | None = None
    ) -> None:
        """Store how an attempt ended, and thereby its run, unless the user gave the run up. A later call replaces the
        outcome of an earlier one.

        `ended` is when the attempt ended, as another witness saw it after the attempt was lost; the default is now.
        """
        with self._store.write() as connection:
            attempt = self._attempt(connection, attempt_id)
            now = self._store.now(connection)
            # If two attempts end at once, the second must see how the first ended.
            self._hold(connection, attempt.run_id)
            self._end(connection, attempt, outcome, cause, ended or now, seen_by_another=ended is not None)
            self._store.note(AttemptEnded(self._attempt(connection, attempt_id)))
            if attempt.leads:
                told = outcome_of(self._attempts(connection, attempt.run_id))
                connection.execute(
                    sa.update(_R)
                    .where(_R.c.id == attempt.run_id, _R.c.outcome != "abandoned")
                    .values(outcome=told, updated_at=now)
                )

    def end(self, run_id: str, outcome: Outcome, told: Sequence[Fact] = ()) -> bool:
        """Store how a run without a process ended, such as a parked one, together with facts that tell of it.

        Its attempts keep their outcomes. Change nothing and return False if an attempt is running, the user gave the
        run up, or another process has stored this outcome.
        """
        ends = sa.update(_R).where(_R.c.id == run_id, _R.c.outcome.not_in(("running", "abandoned", outcome)))
        with suppress(_GoesOnError), self._store.write() as connection:
            self._facts.append_in(connection, told)
            now = self._store.now(connection)
            if connection.execute(ends.values(outcome=outcome, updated_at=now)).rowcount:
                return True
            raise _GoesOnError
        return False

    def reap(self) -> list[AttemptRow]:
        """Give every running attempt whose process is gone the outcome `lost`, and return those attempts."""
        with self._store.write() as connection:
            running = connection.execute(ATTEMPTS.where(_A.c.outcome == "running")).mappings()
            return self._lose_dead(connection, [attempt_row(row) for row in running])

    def abandon(self, run_id: str, *, running: bool = False, told: Sequence[Fact] = ()) -> None:
        """Give up a run: no later run continues it, and it may be pruned. Idempotent. `told` are facts that tell of it.

        Raise DurabilityError if the run completed, and while an attempt of it is running unless `running` is set.
        """
        with self._store.write() as connection:
            self._facts.append_in(connection, told)
            self._hold(connection, run_id)
            run, attempts = self._run(connection, run_id), self._attempts(connection, run_id)
            if not running and any(row.outcome == "running" and self._alive(connection, row) for row in attempts):
                raise DurabilityError(f"The run {run_id} is running. End its process, then try again.")
            if run.outcome == "completed":
                raise DurabilityError(f"The run {run_id} completed, so it cannot be given up.")
            now = self._store.now(connection)
            connection.execute(sa.update(_R).where(_R.c.id == run_id).values(outcome="abandoned", updated_at=now))

    def count_missing(self, run_id: str, facts: int) -> None:
        """Add to the number of facts of a run that could not be written: its record is incomplete."""
        with self._store.write() as connection:
            connection.execute(sa.update(_R).where(_R.c.id == run_id).values(missing_facts=_R.c.missing_facts + facts))

    def _serialise(self, connection: Connection, identity: RunIdentity) -> None:
        # Two attempts that open at once with one root or identity would both find no run.
        alike = f"identity:{identity.flow_name}:{identity.code}:{identity.parameters_sha256}"
        self._store.take_turns(connection, *sorted((f"root:{identity.root_flow_run_id}", alike)))

    def _continued(self, connection: Connection, identity: RunIdentity, *, fresh: bool) -> str | None:
        found = self._by_root(connection, identity)
        if found is None and _has_like(identity) and not fresh:
            found = self._unfinished(connection, self._alike(identity))
        return found

    def _by_root(self, connection: Connection, identity: RunIdentity) -> str | None:
        query = sa.select(_A.c.run_id).where(_A.c.root_flow_run_id == identity.root_flow_run_id)
        found: str | None = connection.execute(query.order_by(_A.c.seq.desc()).limit(1)).scalar()
        return found

    def _unfinished(self, connection: Connection, alike: sa.Select[tuple[str, str]]) -> str | None:
        for id_, outcome in connection.execute(alike):
            if outcome == "completed":
                return None
            attempts = self._attempts(connection, id_)
            ended = not any(row.outcome == "running" and self._alive(connection, row) for row in attempts)
            if ended and outcome != "abandoned":
                return str(id_)
        return None

    @staticmethod
    def _alike(identity: RunIdentity, parameters: str = "parameters_sha256") -> sa.Select[tuple[str, str]]:
        """Return the query for id and outcome of the runs of an identity that are not deployed, newest first."""
        alike = (_R.c[name] == getattr(identity, name) for name in ("flow_name", "code", parameters))
        return sa.select(_R.c.id, _R.c.outcome).where(*alike, ~_R.c.deployed).order_by(_R.c.seq.desc())

    def _lose_dead(self, connection: Connection, attempts: Sequence[AttemptRow]) -> list[AttemptRow]:
        dead = [row for row in attempts if row.outcome == "running" and not self._alive(connection, row)]
        # Runs before attempts, as wherever an attempt ends, or two that end one would wait for each other.
        for run_id in sorted({row.run_id for row in dead}):
            self._hold(connection, run_id)
        now = self._store.now(connection)
        for row in dead:
            process = row.process
            cause = f"process {process.pid} on {process.host} is gone; `ended` is when it was last seen"
            self._end(connection, row, "lost", cause, process.heartbeat_at)
        for run_id in {row.run_id for row in dead if row.leads}:
            told = outcome_of(self._attempts(connection, run_id))
            connection.execute(
                sa.update(_R).where(_R.c.id == run_id, _R.c.outcome == "running").values(outcome=told, updated_at=now)
            )
        return dead

    @staticmethod
    def _end(
        connection: Connection,
        attempt: AttemptRow,
        outcome: Outcome,
        cause: str | None,
        at: datetime,
        *,
        seen_by_another: bool = False,
    ) -> None:
        """Store how an attempt ended. The outcome `lost` does not replace one that was stored meanwhile."""
        of_run = _A.alias()
        newest = sa.select(sa.func.max(of_run.c.number)).where(of_run.c.run_id == attempt.run_id).scalar_subquery()
        cause = None if cause is None else scrub_text(cause)
        ended: dict[str, Any] = {"outcome": outcome, "cause": cause, "ended_at": max(at, attempt.started_at)}
        if not (seen_by_another and attempt.newest_at_end is not None):
            ended["newest_at_end"] = newest
        change = sa.update(_A).where(_A.c.id == attempt.id)
        if outcome == "lost" and attempt.outcome == "running":
            change = change.where(_A.c.outcome == "running")
        connection.execute(change.values(ended))

    @staticmethod
    def _hold(connection: Connection, run_id: str) -> bool:
        """Lock a run until the transaction ends. Return False if it was pruned meanwhile.

        Rows that refer to it can still be added (PostgreSQL's FOR NO KEY UPDATE). Who adds one, such as a claim, has
        its process's row already, for which the holder of the run may wait.
        """
        held = connection.execute(sa.select(_R.c.id).where(_R.c.id == run_id).with_for_update(key_share=True))
        return held.first() is not None


def _whole(identity: RunIdentity) -> RunIdentity:
    return replace(
        identity,
        code=identity.code or identity.entry_point,
        parameters_sha256=identity.parameters_sha256 or fingerprint(identity.parameters),
    )


def _has_like(identity: RunIdentity) -> bool:
    """Whether a flow run may continue a run that only has the same flow, code and parameters."""
    return not (identity.deployed or identity.is_subflow)
