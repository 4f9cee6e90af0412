"""Deliveries are known by their key, and a sink is drained by one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from typing import Any

from ivcap_flows.journal import Journal, RunIdentity

FORK = multiprocessing.get_context("fork")


def test_delivered_is_the_last_word(journal: Journal) -> None:
    """Tries count up. A slower drainer cannot mark a delivered record as undelivered."""
    assert journal.deliveries.get("provena", "k") is None
    journal.deliveries.record("provena", "k", "pending", reason="down", next_try=journal.now())
    journal.deliveries.record("provena", "k", "delivered")
    journal.deliveries.record("provena", "k", "dead", reason="late news")
    row = journal.deliveries.get("provena", "k")
    assert row is not None
    assert (row.state, row.tries, row.reason) == ("delivered", 2, None)
    assert journal.deliveries.get("ivcap", "k") is None


def test_a_newer_word_takes_the_place_of_the_older(journal: Journal) -> None:
    """A newer delivery of a run replaces its older ones that were not delivered. Other sinks and runs keep theirs."""
    first, second = (journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": n}, n, n)).run.id for n in ("1", "2"))
    record = journal.deliveries.record
    for sink, key, run_id in (("s", "1@1", first), ("s", "2@2", second), ("other", "1@1", first)):
        record(sink, key, "dead", run_id=run_id, reason="no licence")
    record("s", "1@3", "pending", run_id=first, reason="down", next_try=journal.now())
    assert {(row.sink, row.key) for row in journal.deliveries.where()} == {
        ("s", "1@3"),
        ("s", "2@2"),
        ("other", "1@1"),
    }
    record("s", "1@3", "delivered", run_id=first)
    record("s", "1@4", "pending", run_id=first, reason="down")
    assert [(row.key, row.state) for row in journal.deliveries.where("s", run_id=first)] == [
        ("1@3", "delivered"),
        ("1@4", "pending"),
    ]


def test_deliveries_are_found_by_sink_state_and_run(journal: Journal) -> None:
    """In the order of their next try."""
    now = journal.now()
    for key, state, wait in (
        ("b", "pending", -1),
        ("a", "pending", -2),
        ("later", "pending", 60),
        ("dead", "dead", -1),
    ):
        run_id = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": key}, key, key)).run.id
        journal.deliveries.record("s", key, state, run_id=run_id, next_try=now + timedelta(seconds=wait))  # type: ignore[arg-type]
    assert [row.key for row in journal.deliveries.where("s", state="pending")] == ["a", "b", "later"]
    assert [row.key for row in journal.deliveries.where("s", state="dead")] == ["dead"]
    assert [row.key for row in journal.deliveries.where(run_id=run_id)] == ["dead"]


def _hold(url: str, ready: Any) -> None:
    with Journal.open(url).deliveries.lease("s") as mine:
        ready.send(mine)
        time.sleep(60)


def test_one_drainer_at_a_time_and_a_killed_one_is_replaced(journal_url: str, journal: Journal) -> None:
    """One process at a time holds a sink.

    If it is killed, the next gets the sink at once. Other sinks are not affected.
    """
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_hold, args=(journal_url, theirs), daemon=True)
    child.start()
    assert ours.recv() is True
    with journal.deliveries.lease("s") as mine, journal.deliveries.lease("other") as other:
        assert (mine, other) == (False, True)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with journal.deliveries.lease("s") as mine, journal.deliveries.lease("s") as twice:
        assert (mine, twice) == (True, False)
    with journal.deliveries.lease("s") as mine:
        assert mine


def _grab(url: str, moment: float, results: Any) -> None:
    journal = Journal.open(url)
    time.sleep(max(0.0, moment - time.time()))
    with journal.leases.hold("x") as mine:
        results.put(mine)
        time.sleep(5)


def test_of_many_at_once_one_gets_the_lease(journal_url: str) -> None:
    """Of six processes that ask for one lease at the same moment, one gets it."""
    Journal.open(journal_url).close()
    results = FORK.Queue()
    moment = time.time() + 0.3
    children = [FORK.Process(target=_grab, args=(journal_url, moment, results), daemon=True) for _ in range(6)]
    for child in children:
        child.start()
    assert sorted(results.get(timeout=20) for _ in children) == [False] * 5 + [True]
    for child in children:
        child.kill()
        child.join()
