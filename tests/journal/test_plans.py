"""What a command reads of a large journal: rows that an index finds, not tables."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ivcap_flows.identity import short_run
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Fact, schema
from ivcap_flows.provenance import activity
from ivcap_flows.sinks import Delivery, drain, run_graph

LARGE = ("runs", "attempts", "facts", "intents", "deliveries")


class Counting:
    """A sink that takes everything."""

    name = "counting"

    async def deliver(self, run, graph):
        return Delivery("delivered")


@contextmanager
def statements():
    """The statements that are sent to any database in the block."""
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)


def reads_all(step):
    """Whether a step of a plan reads a whole table or index, or all that a sink ever got."""
    of_a_sink = step.startswith("SEARCH deliveries") and step.endswith("(sink=?)")
    return of_a_sink or step.startswith(tuple(f"SCAN {table}" for table in LARGE))


def scans(journal, sent):
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


def test_each_reference_is_found_by_an_index():
    """A row that is deleted takes its children along. Without an index each reads their whole table."""
    for table in schema.metadata.tables.values():
        keys = (list(table.primary_key), *(list(index.columns) for index in table.indexes))
        indexed = {columns[0].name for columns in keys}
        for key in table.foreign_keys:
            assert key.parent.name in indexed, f"{table.name}.{key.parent.name}"


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_commands_read_no_whole_table(journal, begin):
    """What `runs`, `show`, `trace`, `sync` and `prune` ask the journal, and the begin of a run, goes by indexes."""

    def ended(name):
        opened, now = begin(name), journal.now()
        told = activity(f"urn:ivcap-flows:attempt:{opened.attempt.id}", "attempt", now, now, outcome="completed")
        journal.facts.append([Fact(told, name, opened.attempt.id)])
        journal.runs.close_attempt(opened.attempt.id, "completed")

    ended("first")
    with statements() as sent:
        ended("second")
        for row in journal.runs.recent(1, flow_name="f"):
            journal.runs.standing(row)
        for name in ("first", "f", short_run("first")):
            journal.runs.get(name)
        journal.intents.where(run_id="first", limit=None)
        run_graph(journal, "first")
        journal.facts.about("urn:x")
        journal.deliveries.where(run_id="first", limit=None)
        reconcile(journal, lambda _: None)
        assert drain(journal, [Counting()])[0].delivered == 2
        assert journal.prune(0, sinks=[Counting.name]) == 2
    # The newest runs, the newest attempt and the newest fact are read from the end of an index.
    assert scans(journal, sent) == []
