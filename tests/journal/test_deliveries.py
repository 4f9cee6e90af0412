"""Deliveries are known by their key, and a sink is drained by one process at a time."""

from __future__ import annotations

from datetime import timedelta

from ivcap_flows.journal import Journal


def test_delivered_is_the_last_word(journal):
    """Tries count up. A slower drainer cannot mark a delivered record as undelivered."""
    assert journal.deliveries.get("provena", "k") is None
    journal.deliveries.record("provena", "k", "pending", reason="down", next_try=journal.now())
    journal.deliveries.record("provena", "k", "delivered")
    journal.deliveries.record("provena", "k", "dead", reason="late news")
    row = journal.deliveries.get("provena", "k")
    assert (row.state, row.tries, row.reason) == ("delivered", 2, None)
    assert journal.deliveries.get("ivcap", "k") is None


def test_a_newer_word_takes_the_place_of_the_older(journal, begin):
    """A newer delivery of a run replaces its older ones that were not delivered. Other sinks and runs keep theirs."""
    first, second = (begin(name).run.id for name in "12")
    record = journal.deliveries.record
    for sink, key, run_id in (("s", "1@1", first), ("s", "2@2", second), ("other", "1@1", first)):
        record(sink, key, "dead", run_id=run_id, reason="no licence")
    record("s", "1@3", "pending", run_id=first, reason="down", next_try=journal.now())
    assert {(row.sink, row.key) for row in journal.deliveries.where()} == {("s", "1@3"), ("s", "2@2"), ("other", "1@1")}
    record("s", "1@3", "delivered", run_id=first)
    record("s", "1@4", "pending", run_id=first, reason="down")
    found = {(row.key, row.state) for row in journal.deliveries.where("s", run_id=first)}
    assert found == {("1@3", "delivered"), ("1@4", "pending")}


def test_deliveries_are_found_by_sink_state_and_run(journal, begin):
    """In the order of their next try."""
    for key, state, wait in (
        ("b", "pending", -1),
        ("a", "pending", -2),
        ("later", "pending", 60),
        ("dead", "dead", -1),
    ):
        when = journal.now() + timedelta(seconds=wait)
        journal.deliveries.record("s", key, state, run_id=begin(key).run.id, next_try=when)
    found = journal.deliveries.where
    lists = (found("s", state="pending"), found("s", state="dead"), found(run_id="dead"))
    assert [[row.key for row in rows] for rows in lists] == [["a", "b", "later"], ["dead"], ["dead"]]


def test_one_drainer_at_a_time_and_a_killed_one_is_replaced(journal_url, journal, child):
    """At once. Other sinks are not affected, and anybody sees whether a lease is held."""

    def hold():
        with Journal.open(journal_url).deliveries.lease("s") as mine:
            yield mine

    holder = child(hold)
    assert holder.said()
    with journal.deliveries.lease("s") as mine, journal.deliveries.lease("other") as other:
        assert (mine, other) == (False, True)
    holder.kill()
    with journal.deliveries.lease("s") as mine, journal.deliveries.lease("s") as twice:
        assert (mine, twice) == (True, False)
    with journal.leases.hold("x") as mine:
        assert mine and journal.leases.held("x")
    assert not journal.leases.held("x")


def test_of_many_at_once_one_gets_the_lease(journal_url, at_once):
    """Of four processes that ask for one lease at the same moment."""

    def grab(number, together):
        journal = Journal.open(journal_url)
        together()
        with journal.leases.hold("x") as mine:
            yield mine

    assert sorted(at_once(4, grab)) == [False] * 3 + [True]
