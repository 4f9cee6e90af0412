"""Pruning deletes what is over, and nothing without which something would be sent twice or lost."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from ivcap_flows.file_state import FileState
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity, schema
from ivcap_flows.provenance import entity

FILES, AWAY = "prov-json:/x", "ivcap:https://p"


def an_order(key, run_id=None, scope=None, **more):
    return NewIntent(key, key, "order", "p", "a", scope or f"run:{run_id}", {}, run_id=run_id, **more)


@pytest.fixture
def bring(journal):
    """Claims an intent and brings it into this state."""

    def to(state, intent):
        row = journal.intents.claim(intent).intent
        if state in ("sent", "done"):
            row = journal.intents.mark_sent(row)
        if state == "done":
            journal.intents.settle(row, urn="u", outcome={}, how="sent")

    return to


def test_keys_that_last_and_unfinished_runs_are_kept(journal, begin, bring):
    """Completed runs go with their run-scoped intents. Keys of scope flow and account stay for ever."""
    attempt = begin("1").attempt
    for scope in ("run:1", "flow:f", "account"):
        bring("claimed", an_order(f"k1:{scope}", "1", scope))
    begin("2")
    journal.runs.close_attempt(attempt.id, "completed")
    assert [journal.prune(older_than_days=days) for days in (1, 0)] == [0, 1]
    assert [row.id for row in journal.runs.recent()] == ["2"]
    assert {row.scope for row in journal.intents.where()} == {"flow:f", "account"}


RUNS = {
    "a doubt": ("sent", "completed", {FILES: "delivered"}),
    "an orphan of a run that was given up": ("done", "abandoned", {FILES: "delivered"}),
    "facts that no sink has": (None, "completed", {}),
    "newer facts than the sink has": (None, "completed", {FILES: "older"}),
    "facts that the sink refused": (None, "completed", {FILES: "dead"}),
    "facts that another sink refused": (None, "completed", {FILES: "delivered", AWAY: "dead"}),
    "facts that one sink has": (None, "completed", {FILES: "delivered"}),
    "facts that both sinks have": (None, "completed", {FILES: "delivered", AWAY: "delivered"}),
}
"""By what a run has: the state of an intent, how the run ended, and what became of its deliveries."""


def test_what_is_open_or_not_delivered_is_kept(journal, begin, bring):
    """Until each sink that is on has the run's newest fact, and while an effect would be lost with it."""
    for name, (state, end, deliveries) in RUNS.items():
        attempt = begin(name).attempt
        if state is not None:
            bring(state, an_order(name, name))
        journal.runs.close_attempt(attempt.id, "failed" if end == "abandoned" else end)
        if end == "abandoned":
            journal.runs.abandon(name)
        fact = Fact(entity("urn:x:1", "entity"), name)
        journal.facts.append([fact])
        for sink, became in deliveries.items():
            key = f"{name}@{journal.facts.last_seq(name)}"
            journal.deliveries.record(sink, key, "dead" if became == "dead" else "delivered", run_id=name)
            if became == "older":
                journal.facts.append([fact])
    left = []
    for sinks in ([FILES, AWAY], ["prov-json:/y"], [FILES]):
        journal.prune(0, sinks=sinks)
        left.append({row.id for row in journal.runs.recent()})
    kept = set(RUNS) - {"facts that both sinks have"}
    assert left == [kept, kept, kept - {"facts that another sink refused", "facts that one sink has"}]
    assert {row.run_id for row in journal.deliveries.where()} <= left[-1]


def test_what_a_deployed_run_has_paid_for_is_kept(journal, begin, bring):
    """Prefect may run it again. Other intents are deleted."""
    opened = begin("1", deployed=True)
    for key, spends in (("order", True), ("aspect", False)):
        bring("done", an_order(key, "1", spends=spends))
        journal.intents.finish(key, "succeeded", {})
    journal.runs.close_attempt(opened.attempt.id, "completed")
    assert journal.prune(older_than_days=0) == 1
    assert begin("1", deployed=True).run.id == opened.run.id
    assert journal.intents.claim(an_order("order", "1")).kind == "kept"
    assert [row.key for row in journal.intents.where()] == ["order"]


def test_a_run_that_a_process_is_still_at_is_kept(journal, begin):
    """Of two attempts one has completed; the other would order again."""
    first, second = (begin("1", deployed=True).attempt.id for _ in range(2))
    journal.runs.close_attempt(first, "completed")
    assert journal.runs.get("1").outcome == "completed" and journal.prune(older_than_days=0) == 0
    journal.runs.close_attempt(second, "failed")
    assert journal.prune(older_than_days=0) == 1


@pytest.mark.parametrize("moment", ["DELETE FROM intents", "DELETE FROM runs"])
def test_a_run_is_pruned_with_its_intents_or_not_at_all(journal, journal_url, begin, bring, at_statement, moment):
    """An attempt that begins during pruning finds either the whole run or nothing of it."""
    opened = begin("1", deployed=True)
    bring("done", an_order("k", "1"))
    journal.runs.close_attempt(opened.attempt.id, "completed")
    joined = []

    def join():
        with Journal.open(journal_url) as other:
            joined.append(begin("1", at=other, deployed=True))

    meanwhile = threading.Thread(target=join)

    def join_now():
        if not meanwhile.ident:
            meanwhile.start()
            # It is done now, or waits for the pruning to end.
            meanwhile.join(0.5)

    at_statement(journal, moment, join_now)
    journal.prune(older_than_days=0)
    meanwhile.join(60)
    [again] = joined
    assert journal.runs.get(again.run.id).outcome == "running"
    assert [row.key for row in journal.intents.where()] == (["k"] if again.joined else [])


def rows(journal):
    """How many processes and digests of files the journal has."""
    with journal._store.read() as connection:
        return tuple(
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (schema.processes, schema.files)
        )


@pytest.mark.catches("processes not pruned")
def test_processes_and_digests_that_nothing_needs_are_deleted(journal_url):
    """A process when nothing names it any more, and a digest of a file when it is old."""
    state = FileState(1, 2, 3, 4, 5)
    with (
        Journal.open(journal_url) as continued,
        Journal.open(journal_url) as working,
        Journal.open(journal_url) as done,
    ):
        for journal, end in ((continued, "failed"), (done, "completed")):
            attempt = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"end": end}, end, end)).attempt
            journal.runs.close_attempt(attempt.id, end)
        working.intents.claim(an_order("k", scope="account"))
        for number in range(5):
            done.files.remember_sha256(f"/{number}", state, "a")
            # A `sync` every hour takes a lease in a process of its own.
            with Journal.open(journal_url) as each, each.leases.hold("sink:x") as mine:
                assert mine
        assert done.prune(1) == 0 and rows(done) == (8, 5)
        # The process of the run that may be continued, and that of the claim.
        assert done.prune(-1) == 1 and rows(done) == (2, 0)
        # A process that lives takes part as before.
        assert done.intents.claim(an_order("k", scope="account")).kind == "held"
        done.files.remember_sha256("/1", state, "b")
        assert done.files.known_sha256("/1", state) == "b"
