"""Logical runs and their attempts: which flow run continues which run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.identity import fingerprint, flows_urn, short_run
from ivcap_flows.journal import schema
from ivcap_flows.journal.facts import Facts
from ivcap_flows.journal.observer import AttemptEnded, RunWoken
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import (
    AttemptRow,
    Fact,
    OpenedAttempt,
    Outcome,
    Park,
    ProcessRow,
    RunIdentity,
    RunRow,
    Wait,
)
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import scrub, scrub_text

__all__ = ["ATTEMPTS", "Runs", "attempt_row"]

_R, _A, _P, _F = schema.runs, schema.attempts, schema.processes, schema.facts
_AT_ONCE: Final = 500
_RUN_COLUMNS = [column for column in _R.c if column.name not in ("seq", "short_id", "parameters_sha256")]
ATTEMPTS = sa.select(
    *[column for column in _A.c if column.name not in ("seq", "process_id")],
    *[column.label(f"process_{column.name}") for column in _P.c],
).join_from(_A, _P, _A.c.process_id == _P.c.id)


class _GoesOnError(Exception):
    """A run is not to be ended after all, so its transaction is taken back."""


class Runs:
    """The runs of one journal."""

    def __init__(self, store: Store, processes: Processes, facts: Facts) -> None:
        self._store = store
        self._processes = processes
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
            joined = nested = False
            if run_id is not None and not self._hold(connection, run_id):
                run_id = None
            now = self._store.now(connection)
            process_id = self._processes.register_and_beat(connection, now)
            if run_id is None:
                # A worker with another journal continues the run under the same id, so its keys are equal and it finds
                # the effects.
                run_id = identity.root_flow_run_id
                connection.execute(
                    sa.insert(_R),
                    {
                        **self._store.numbered(connection, _R),
                        "id": run_id,
                        "short_id": short_run(run_id),
                        "flow_name": identity.flow_name,
                        "entry_point": identity.entry_point,
                        "code": identity.code,
                        "parameters": scrub(identity.parameters),
                        "parameters_sha256": identity.parameters_sha256,
                        "deployed": identity.deployed,
                        "deployment_id": identity.deployment_id,
                        "outcome": "running",
                        "created_at": now,
                        "updated_at": now,
                        "missing_facts": 0,
                    },
                )
                number = 1
            else:
                leading = [row for row in self._attempts(connection, run_id) if row.leads]
                self._lose_dead(connection, leading)
                live = [row for row in leading if row.outcome == "running" and self._alive(connection, row)]
                nested = bool(live) and identity.is_subflow
                number = max((row.number for row in leading), default=0) + (0 if nested else 1)
                joined = not nested
                for last in leading[-1:]:
                    if joined and last.park is not None and last.outcome == "parked":
                        self._store.note(RunWoken(last))
                if joined:
                    again: dict[str, Any] = {"outcome": "running", "updated_at": now}
                    if not identity.is_subflow:
                        # The checkout in which the run began may no longer exist.
                        again["entry_point"] = identity.entry_point
                    connection.execute(sa.update(_R).where(_R.c.id == run_id).values(**again))
            connection.execute(
                sa.insert(_A),
                {
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
                    "process_id": process_id,
                    "outcome": "running",
                    "started_at": now,
                },
            )
            return OpenedAttempt(self._run(connection, run_id), self._attempt(connection, attempt_id), joined)

    def continued(self, identity: RunIdentity, *, fresh: bool = False) -> RunRow | None:
        """Return the run that `open_attempt` would join now, or None; change nothing."""
        with self._store.read() as connection:
            run_id = self._continued(connection, _whole(identity), fresh=fresh)
            return None if run_id is None else self._run(connection, run_id)

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
                told = _outcome(self._attempts(connection, attempt.run_id))
                connection.execute(
                    sa.update(_R)
                    .where(_R.c.id == attempt.run_id, _R.c.outcome != "abandoned")
                    .values(outcome=told, updated_at=now)
                )

    def end(self, run_id: str, outcome: Outcome, told: Sequence[Fact] = ()) -> bool:
        """Store how a run without a process ended, such as a parked one, together with facts that tell of it.

        Its attempts keep their outcomes. Change nothing and return False if an attempt is running or the user gave the
        run up.
        """
        ends = sa.update(_R).where(_R.c.id == run_id, _R.c.outcome.not_in(("running", "abandoned")))
        with suppress(_GoesOnError), self._store.write() as connection:
            self._facts.append_in(connection, told)
            now = self._store.now(connection)
            if connection.execute(ends.values(outcome=outcome, updated_at=now)).rowcount:
                return True
            raise _GoesOnError
        return False

    def decides(self, attempt: AttemptRow, outcome: Outcome) -> bool:
        """Return whether the run would have this outcome, too, if the attempt ended with it."""
        with self._store.read() as connection:
            rows = self._attempts(connection, attempt.run_id)
            ended = replace(attempt, outcome=outcome, newest_at_end=max(row.number for row in rows))
            return attempt.leads and _outcome([ended if row.id == ended.id else row for row in rows]) == outcome

    def standing(self, run: RunRow) -> tuple[RunRow, Sequence[AttemptRow]]:
        """Return a run and its attempts as they are now.

        An attempt whose process is gone is `lost`, even if the journal still has it as running.
        """
        with self._store.read() as connection:
            attempts = [
                row if row.outcome != "running" or self._alive(connection, row) else replace(row, outcome="lost")
                for row in self._attempts(connection, run.id)
            ]
        if run.outcome == "running" and attempts:
            run = replace(run, outcome=_outcome(attempts))
        return run, attempts

    def heartbeat(self) -> None:
        """Write this process's heartbeat, which keeps its attempts and claims. Call this every `HEARTBEAT_SECONDS`."""
        self._processes.heartbeat()

    @property
    def owes(self) -> bool:
        """Whether claims of this process have ended that the journal still shows; the next heartbeat writes that."""
        return self._processes.owes

    def unheard(self) -> float:
        """Return for how many seconds to listen until it is known whether overdue holders on other machines are
        alive."""
        return self._processes.unheard()

    def reap(self) -> list[AttemptRow]:
        """Give every running attempt whose process is gone the outcome `lost`, and return those attempts."""
        with self._store.write() as connection:
            running = connection.execute(ATTEMPTS.where(_A.c.outcome == "running")).mappings()
            return self._lose_dead(connection, [attempt_row(row) for row in running])

    def untold(self) -> list[AttemptRow]:
        """Return the `lost` attempts whose end is not a fact yet, oldest first."""
        end = sa.select(_F.c.seq).where(
            _F.c.record_id == sa.literal(flows_urn("attempt", "")) + _A.c.id, _F.c.record.contains('"outcome":"lost"')
        )
        with self._store.read() as connection:
            query = ATTEMPTS.where(_A.c.outcome == "lost", ~end.exists()).order_by(_A.c.seq)
            return [attempt_row(row) for row in connection.execute(query).mappings()]

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

    def recent(
        self,
        limit: int = 50,
        *,
        before: RunRow | None = None,
        flow_name: str | None = None,
        outcome: Outcome | None = None,
    ) -> list[RunRow]:
        """Return a page of runs, newest first, optionally of one flow or one outcome.

        `before` is the last run of the previous page.
        """
        query = sa.select(*_RUN_COLUMNS).order_by(_R.c.seq.desc()).limit(limit)
        if before is not None:
            last = _R.alias()
            query = query.where(_R.c.seq < sa.select(last.c.seq).where(last.c.id == before.id).scalar_subquery())
        if flow_name is not None:
            query = query.where(_R.c.flow_name == flow_name)
        if outcome is not None:
            query = query.where(_R.c.outcome == outcome)
        with self._store.read() as connection:
            return [self._row(row) for row in connection.execute(query).mappings()]

    def find(self, run_id: str) -> RunRow | None:
        """Return a run by its whole id, or None if there is none, for example because it was pruned."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(*_RUN_COLUMNS).where(_R.c.id == run_id)).mappings().first()
            return None if row is None else self._row(row)

    def get(self, name: str) -> RunRow:
        """Return the run that a user names.

        The first of these that exists: the newest run, for `latest`; the run with this id, or with a Prefect flow run
        of this id; the newest run of a flow run or flow of this name; the run with this short id; the run whose id
        begins or ends so. Raise InputError if there is none, or if several ids begin or end so.
        """
        if name == "latest":
            if newest := self.recent(1):
                return newest[0]
            raise InputError(f"The journal {self._store.url} has no run yet.")

        def with_flow_run(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
            return _R.c.id.in_(sa.select(_A.c.run_id).where(column == name))

        # The last choice reads the ids of all runs, from their index alone.
        id_ = _R.alias().c.id
        part = sa.select(id_).where(sa.or_(id_.startswith(name, autoescape=True), id_.endswith(name, autoescape=True)))
        choices: tuple[tuple[tuple[sa.ColumnElement[bool], ...], int], ...] = (
            ((_R.c.id == name, with_flow_run(_A.c.flow_run_id)), 1),
            ((_R.c.flow_name == name, with_flow_run(_A.c.flow_run_name)), 1),
            ((_R.c.short_id == name,), 5),
            ((_R.c.id.in_(part),), 5),
        )
        with self._store.read() as connection:
            for conditions, most in choices:
                # Each condition has an index, both together have none.
                some = (
                    sa.select(_R.c.id).where(condition).order_by(_R.c.seq.desc()).limit(most).subquery()
                    for condition in conditions
                )
                either = sa.union(*(sa.select(ids.c.id) for ids in some))
                query = sa.select(*_RUN_COLUMNS).where(_R.c.id.in_(either)).order_by(_R.c.seq.desc()).limit(most)
                found = [self._row(row) for row in connection.execute(query).mappings()]
                if found:
                    break
        if not found:
            raise InputError(f"The journal {self._store.url} has no run {name!r}. `ivcap-flows runs` lists its runs.")
        if len(found) > 1:
            names = ", ".join(row.id for row in found)
            raise InputError(f"The run id {name!r} is ambiguous: it matches {names}. Give more of the id.")
        return found[0]

    def attempts(self, run_id: str) -> Sequence[AttemptRow]:
        """Return all attempts of a run, including those of its subflows, oldest first."""
        with self._store.read() as connection:
            return self._attempts(connection, run_id)

    def attempt(self, attempt_id: str) -> AttemptRow:
        """Return an attempt by its id."""
        with self._store.read() as connection:
            return self._attempt(connection, attempt_id)

    def attempt_of(self, flow_run_id: str) -> OpenedAttempt | None:
        """Return the newest attempt that a Prefect flow run opened in any process, or None.

        Tasks that the flow run sent to another process find their attempt by it.
        """
        query = ATTEMPTS.where(_A.c.flow_run_id == flow_run_id).order_by(_A.c.seq.desc())
        with self._store.read() as connection:
            row = connection.execute(query.limit(1)).mappings().first()
            if row is None:
                return None
            attempt = attempt_row(row)
            return OpenedAttempt(self._run(connection, attempt.run_id), attempt, joined=attempt.number > 1)

    def alive(self, attempt: AttemptRow) -> bool:
        """Return whether the attempt still runs: it has not ended and its process is alive."""
        with self._store.read() as connection:
            return attempt.outcome == "running" and self._alive(connection, attempt)

    def alive_here(self, attempt: AttemptRow) -> bool:
        """Return whether the attempt still runs in a process of this machine."""
        return attempt.outcome == "running" and self._processes.life(attempt.process) == "alive"

    def prune(self, older_than_days: float, *, sinks: Sequence[str] = ()) -> int:
        """Delete runs that ended so long ago, with their facts, deliveries and run-scoped intents. Return their number.

        Intents of scope flow and account are never deleted, so that nothing is sent twice. The same holds for the
        spending intents of a deployed run, since Prefect may run it again under its old id. A run is kept while an
        attempt of it is running, while an effect of it is in doubt or an orphan, and until each of the `sinks` has its
        newest fact and no delivery to them is open.
        """
        intents = schema.intents
        with self._store.write() as connection:
            limit = self._store.now(connection) - timedelta(days=older_than_days)
            # Locked first, so that no attempt joins these runs and nothing is added to them after the decision.
            ended = sa.and_(_R.c.updated_at < limit, _R.c.outcome.in_(("completed", "abandoned")))
            held = connection.execute(sa.select(_R.c.id).where(ended).order_by(_R.c.id).with_for_update()).scalars()
            pruned = 0
            for ids in _portions(held.all()):
                old = self._prunable(connection, ids, sinks)
                paid = sa.and_(intents.c.spends, sa.exists().where(_R.c.id == intents.c.run_id, _R.c.deployed))
                of_run = sa.or_(intents.c.scope.like("run:%"), intents.c.scope.like("call:%"))
                gone = sa.and_(intents.c.run_id.in_(old), of_run, ~paid)
                connection.execute(sa.delete(intents).where(gone))
                pruned += connection.execute(sa.delete(_R).where(_R.c.id.in_(old))).rowcount
            return pruned

    def _prunable(self, connection: Connection, ids: Sequence[str], sinks: Sequence[str]) -> list[str]:
        """Return those of these ended runs that may be deleted."""
        intents, deliveries = schema.intents, schema.deliveries
        # An accepted effect keeps only a run that was given up: a completed run left it on purpose.
        given_up = sa.and_(intents.c.state == "accepted", _R.c.outcome == "abandoned")
        lives = sa.or_(intents.c.state.in_(("sent", "in_doubt")), given_up)
        newest = sa.select(sa.func.max(_F.c.seq)).where(_F.c.run_id == _R.c.id).correlate(_R).scalar_subquery()
        told = sa.and_(
            deliveries.c.run_id == _R.c.id,
            deliveries.c.state == "delivered",
            deliveries.c.key == _R.c.id + "@" + sa.cast(newest, sa.Text),
        )
        left = sa.and_(deliveries.c.run_id == _R.c.id, deliveries.c.state != "delivered")
        named = [deliveries.c.sink == name for name in sinks]
        old = sa.select(_R.c.id).where(
            _R.c.id.in_(ids),
            ~sa.exists().where(intents.c.run_id == _R.c.id, lives),
            *(~sa.exists().where(left, name) for name in named),
            # A run without facts has nothing to deliver.
            *(sa.or_(sa.exists().where(told, name), newest.is_(None)) for name in named),
        )
        running = connection.execute(ATTEMPTS.where(_A.c.run_id.in_(ids), _A.c.outcome == "running")).mappings()
        busy = {row.run_id for row in map(attempt_row, running) if self._alive(connection, row)}
        return [run_id for run_id in connection.execute(old).scalars() if run_id not in busy]

    def _serialise(self, connection: Connection, identity: RunIdentity) -> None:
        # SQLite's writers take turns anyway. On PostgreSQL, two attempts that open at once with one root or identity
        # would both find no run.
        if not self._store.is_sqlite:
            alike = f"identity:{identity.flow_name}:{identity.code}:{identity.parameters_sha256}"
            for name in sorted((f"root:{identity.root_flow_run_id}", alike)):
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def _continued(self, connection: Connection, identity: RunIdentity, *, fresh: bool) -> str | None:
        found = self._by_root(connection, identity)
        if found is None and _has_like(identity) and not fresh:
            found = self._by_identity(connection, identity)
        return found

    def _by_root(self, connection: Connection, identity: RunIdentity) -> str | None:
        query = sa.select(_A.c.run_id).where(_A.c.root_flow_run_id == identity.root_flow_run_id)
        found: str | None = connection.execute(query.order_by(_A.c.seq.desc()).limit(1)).scalar()
        return found

    def _by_identity(self, connection: Connection, identity: RunIdentity) -> str | None:
        for id_, outcome in connection.execute(self._alike(identity)):
            if outcome == "completed":
                return None
            attempts = self._attempts(connection, id_)
            ended = not any(row.outcome == "running" and self._alive(connection, row) for row in attempts)
            if ended and outcome != "abandoned":
                return str(id_)
        return None

    @staticmethod
    def _alike(identity: RunIdentity) -> sa.Select[tuple[str, str]]:
        """Return the query for id and outcome of the runs of an identity that are not deployed, newest first."""
        names = ("flow_name", "code", "parameters_sha256")
        alike = (_R.c[name] == getattr(identity, name) for name in names)
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
            told = _outcome(self._attempts(connection, run_id))
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

    def _alive(self, connection: Connection, attempt: AttemptRow) -> bool:
        return self._processes.alive(attempt.process, self._store.now(connection))

    def _run(self, connection: Connection, run_id: str) -> RunRow:
        return self._row(connection.execute(sa.select(*_RUN_COLUMNS).where(_R.c.id == run_id)).mappings().one())

    def _row(self, row: RowMapping) -> RunRow:
        return RunRow(**row, journal=self._store.journal_id)

    def _attempts(self, connection: Connection, run_id: str) -> Sequence[AttemptRow]:
        query = ATTEMPTS.where(_A.c.run_id == run_id).order_by(_A.c.number, _A.c.seq)
        return [attempt_row(row) for row in connection.execute(query).mappings()]

    def _attempt(self, connection: Connection, attempt_id: str) -> AttemptRow:
        row = connection.execute(ATTEMPTS.where(_A.c.id == attempt_id)).mappings().first()
        if row is None:
            raise InputError(f"The journal {self._store.url} has no attempt {attempt_id!r}.")
        return attempt_row(row)


def _whole(identity: RunIdentity) -> RunIdentity:
    return replace(
        identity,
        code=identity.code or identity.entry_point,
        parameters_sha256=identity.parameters_sha256 or fingerprint(identity.parameters),
    )


def _has_like(identity: RunIdentity) -> bool:
    """Whether a flow run may continue a run that only has the same flow, code and parameters."""
    return not (identity.deployed or identity.is_subflow)


def _outcome(attempts: Sequence[AttemptRow]) -> Outcome:
    """Return the outcome of a run by its attempts.

    It is the newest attempt's, unless an attempt that ran at the same time completed, or the newest is lost and the
    other is not. Two attempts can run at once if Prefect took a live process for dead. An attempt that ended before the
    newest began does not count. Attempt numbers decide that, since clocks may be changed.
    """
    leading = sorted((row for row in attempts if row.leads), key=lambda row: row.number, reverse=True)
    newest = leading[0].number
    outcomes = [row.outcome for row in leading if row.newest_at_end is None or row.newest_at_end >= newest]
    if "completed" in outcomes:
        return "completed"
    return next((outcome for outcome in outcomes if outcome != "lost"), "lost")


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into portions for one statement each, since SQLite limits the number of values."""
    for begin in range(0, len(ids), _AT_ONCE):
        yield ids[begin : begin + _AT_ONCE]


def attempt_row(row: RowMapping) -> AttemptRow:
    """Return a row of `ATTEMPTS` as a value."""
    process: dict[str, Any] = {name[8:]: value for name, value in row.items() if name.startswith("process_")}
    own: dict[str, Any] = {name: value for name, value in row.items() if not name.startswith("process_")}
    return AttemptRow(**{**own, "park": _park(own["park"])}, process=ProcessRow(**process))


def _park(noted: Mapping[str, Any] | None) -> Park | None:
    if noted is None:
        return None
    times = {name: datetime.fromisoformat(noted[name]) for name in ("began_at", "wake_at")}
    return Park(**{**noted, **times, "waits": tuple(Wait(**wait) for wait in noted["waits"])})
