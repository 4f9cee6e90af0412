"""What a journal knows of runs and their attempts, to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ivcap_flows.errors import InputError
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import AttemptRow, OpenedAttempt, Outcome, Park, ProcessRow, RunRow, Wait
from ivcap_flows.journal.store import Store

__all__ = ["ATTEMPTS", "KnownRuns", "attempt_row", "outcome_of", "parks_of"]

_R, _A, _P, _F = schema.runs, schema.attempts, schema.processes, schema.facts
_RUN_COLUMNS = [
    column for column in _R.c if column.name not in ("seq", "short_id", "parameters_sha256", "given_sha256")
]
ATTEMPTS = sa.select(
    *[column for column in _A.c if column.name not in ("seq", "process_id")],
    *[column.label(f"process_{column.name}") for column in _P.c],
).join_from(_A, _P, _A.c.process_id == _P.c.id)


class KnownRuns:
    """The reading half of `Runs`."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store, self._processes = store, processes

    def decides(self, attempt: AttemptRow, outcome: Outcome) -> bool:
        """Return whether the run would have this outcome, too, if the attempt ended with it.

        A run that was given up has ended already.
        """
        with self._store.read() as connection:
            rows = self._attempts(connection, attempt.run_id)
            ended = replace(attempt, outcome=outcome, newest_at_end=max(row.number for row in rows))
            if not attempt.leads or self._run(connection, attempt.run_id).outcome == "abandoned":
                return False
            return outcome_of([ended if row.id == ended.id else row for row in rows]) == outcome

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
            run = replace(run, outcome=outcome_of(attempts))
        return run, attempts

    def untold(self) -> list[AttemptRow]:
        """Return the `lost` attempts whose end is not a fact yet, oldest first."""
        end = sa.select(_F.c.seq).where(
            _F.c.record_id == sa.literal(flows_urn("attempt", "")) + _A.c.id, _F.c.record.contains('"outcome":"lost"')
        )
        with self._store.read() as connection:
            query = ATTEMPTS.where(_A.c.outcome == "lost", ~end.exists()).order_by(_A.c.seq)
            return [attempt_row(row) for row in connection.execute(query).mappings()]

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
        begins or ends so. Raise InputError if there is none, or if several ids begin or end so (data: `matches`).
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
            matches = [row.id for row in found]
            words = f"The run id {name!r} is ambiguous: it matches {', '.join(matches)}. Give more of the id."
            raise InputError(words, matches=matches)
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


def outcome_of(attempts: Sequence[AttemptRow]) -> Outcome:
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


def attempt_row(row: RowMapping) -> AttemptRow:
    """Return a row of `ATTEMPTS` as a value."""
    process: dict[str, Any] = {name[8:]: value for name, value in row.items() if name.startswith("process_")}
    own: dict[str, Any] = {name: value for name, value in row.items() if not name.startswith("process_")}
    return AttemptRow(**{**own, "park": _park(own["park"])}, process=ProcessRow(**process))


def parks_of(connection: Connection, run_id: str) -> list[Park]:
    """Return all parks of a run."""
    noted = connection.execute(sa.select(_A.c.park).where(_A.c.run_id == run_id, _A.c.park.is_not(None))).scalars()
    return [park for park in map(_park, noted) if park is not None]


def _park(noted: Mapping[str, Any] | None) -> Park | None:
    if noted is None:
        return None
    times = {name: datetime.fromisoformat(noted[name]) for name in ("began_at", "wake_at")}
    return Park(**{**noted, **times, "waits": tuple(Wait(**wait) for wait in noted["waits"])})
