"""The journal's rows for parked runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from ivcap_flows.journal import Journal, OpenedAttempt, RunIdentity
from ivcap_flows.journal.rows import ParkRow, Wait

WAITS = [Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1"), Wait("urn:ivcap:job:2", "job", "")]


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with Journal.open(journal_url) as opened:
        yield opened


def begin(journal: Journal, root: str) -> OpenedAttempt:
    return journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, root, root, deployed=True))


def park(journal: Journal, opened: OpenedAttempt, seconds: float = 60, **changed: Any) -> ParkRow:
    now = journal.now()
    given = {
        "run_id": opened.run.id,
        "attempt_id": opened.attempt.id,
        "flow_run_id": opened.attempt.flow_run_id,
        "platform": "https://x",
        "credentials": "prod",
        "waits": WAITS,
        "began_at": now,
        "wake_at": now + timedelta(seconds=seconds),
    }
    return journal.parks.park(**{**given, **changed})


def test_a_park_is_kept_as_it_was_noted(journal):
    """A park has all that a watcher needs. The run that wakes first is listed first."""
    late = park(journal, begin(journal, "a"), 600)
    soon = park(journal, begin(journal, "b"), 60)
    assert [each.flow_run_id for each in journal.parks.open()] == [soon.flow_run_id, late.flow_run_id] == ["b", "a"]
    assert soon.waits == tuple(WAITS) and soon.credentials == "prod"
    assert (soon.state, soon.round, soon.why) == ("parked", 1, None)


def test_rounds_count_on_and_only_the_newest_is_open(journal):
    """A run has at most one open park. Each park has the next round number."""
    opened = begin(journal, "a")
    first, second = park(journal, opened), park(journal, opened)
    assert (first.round, second.round) == (1, 2)
    assert [each.round for each in journal.parks.open()] == [2]
    assert [each.state for each in journal.parks.of(opened.run.id)] == ["woken", "parked"]


def test_a_park_ends_once(journal):
    """Only the first who ends a park, the run or a watcher, changes it."""
    noted = park(journal, begin(journal, "a"))
    assert journal.parks.end(noted, "woken", "by the watcher")
    assert not journal.parks.end(noted, "over", "deleted")
    [kept] = journal.parks.woke(noted.run_id)
    assert (kept.state, kept.why) == ("woken", "by the watcher")


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_a_run_has_left_when_its_process_is_gone(journal, journal_url):
    """A run has left when its process has ended."""
    code = """
import sys
from ivcap_flows.journal import Journal
sys.path.insert(0, sys.argv[2])
from test_parks import begin, park
with Journal.open(sys.argv[1]) as journal:
    park(journal, begin(journal, "other"))
"""
    subprocess.run([sys.executable, "-c", code, journal_url, __file__.rpartition("/")[0]], check=True)
    [theirs] = journal.parks.open()
    own = park(journal, begin(journal, "own"))
    assert journal.parks.left([theirs, own]) == [theirs]


def test_parks_go_with_their_run(journal):
    """Pruning a run deletes its parks."""
    opened = begin(journal, "a")
    noted = park(journal, opened)
    journal.runs.close_attempt(opened.attempt.id, "completed")
    journal.runs.prune(older_than_days=-1)
    assert journal.parks.of(noted.run_id) == []


def test_a_lease_is_held_while_its_block_runs(journal):
    """Anybody can see whether a lease is held, without taking it."""
    assert not journal.leases.held("watcher")
    with journal.leases.hold("watcher"):
        assert journal.leases.held("watcher")
    assert not journal.leases.held("watcher")
