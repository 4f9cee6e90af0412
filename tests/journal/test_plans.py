"""What a command reads of a large journal: rows that an index finds, not tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ivcap_flows.identity import short_run
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Fact, Journal, RunIdentity, schema
from ivcap_flows.provenance import activity
from ivcap_flows.sinks import Delivery, drain, run_graph

SINK = "counting"
LARGE = ("runs", "attempts", "facts", "intents", "deliveries")


class Counting:
    """A sink that takes everything."""

    name = SINK

    async def deliver(self, run: Any, graph: Any) -> Delivery:
        return Delivery("delivered")


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Iterator[Journal]:
    with Journal.open(sqlite_url) as opened:
        yield opened


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are sent to any database in the block."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)


def reads_all(step: str) -> bool:
    """Whether a step of a plan reads a whole table or index, or all that a sink ever got."""
    of_a_sink = step.startswith("SEARCH deliveries") and step.endswith("(sink=?)")
    return of_a_sink or step.startswith(tuple(f"SCAN {table}" for table in LARGE))


def scans(journal: Journal, sent: list[str]) -> list[str]:
    """The steps of these statements that read far more than the rows that they look for, by the plan of SQLite."""
    found = []
    with closing(sqlite3.connect(journal.url.removeprefix("sqlite:///"))) as database:
        for statement in dict.fromkeys(sent):
            # Without a condition, nothing is searched: the newest rows are read from the end of an index.
            if "WHERE" not in statement:
                continue
            plan = database.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * statement.count("?")).fetchall()
            found += [f"{step}: {statement}" for *_, step in plan if reads_all(step)]
    return found


def test_each_reference_is_found_by_an_index() -> None:
    """A row that is deleted takes its children along. Without an index each reads their whole table."""
    for table in schema.metadata.tables.values():
        keys = (list(table.primary_key), *(list(index.columns) for index in table.indexes))
        indexed = {columns[0].name for columns in keys}
        for key in table.foreign_keys:
            assert key.parent.name in indexed, f"{table.name}.{key.parent.name}"


def ended(journal: Journal, name: str) -> str:
    opened = journal.runs.open_attempt(RunIdentity("flow", "a.py:f", {"name": name}, name, name))
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
    told = activity(f"urn:ivcap-flows:attempt:{opened.attempt.id}", "attempt", noon, noon, outcome="completed")
    journal.facts.append([Fact(told, opened.run.id, opened.attempt.id)])
    journal.runs.close_attempt(opened.attempt.id, "completed")
    return opened.run.id


def test_commands_read_no_whole_table(on_sqlite: Journal) -> None:
    """What `runs`, `show`, `sync` and `prune` ask the journal, and the begin of a run, goes by indexes."""
    run = ended(on_sqlite, "first")
    with statements() as sent:
        ended(on_sqlite, "second")
        for row in on_sqlite.runs.recent(1, flow_name="flow"):
            on_sqlite.runs.standing(row)
        on_sqlite.runs.get(run)
        on_sqlite.runs.get("flow")
        on_sqlite.runs.get(short_run(run))
        on_sqlite.intents.where(run_id=run, limit=None)
        run_graph(on_sqlite, run)
        on_sqlite.deliveries.where(run_id=run, limit=None)
        reconcile(on_sqlite, lambda _: None)
        assert drain(on_sqlite, [Counting()])[0].delivered == 2
        assert on_sqlite.prune(0, sinks=[SINK]) == 2
    # The newest runs, the newest attempt and the newest fact are read from the end of an index.
    found = scans(on_sqlite, sent)
    assert found == []
