"""The journal's rows for parked runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from ivcap_flows.journal import Journal, OpenedAttempt, RunIdentity
from ivcap_flows.journal.rows import Park, Wait

WAITS = (Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1"), Wait("urn:ivcap:job:2", "job", ""))


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with Journal.open(journal_url) as opened:
        yield opened


def begin(journal: Journal, root: str) -> OpenedAttempt:
    return journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, root, root, deployed=True))


def park(journal: Journal, opened: OpenedAttempt, seconds: float = 60, number: int = 1) -> Park:
    now = journal.now()
    noted = Park(number, "https://x", "prod", WAITS, now, now + timedelta(seconds=seconds))
    journal.parks.note(opened.attempt.id, noted)
    return noted


def test_a_park_is_kept_as_it_was_noted(journal):
    """A park has all that a watcher needs. The run that wakes first is listed first."""
    late, soon = begin(journal, "a"), begin(journal, "b")
    noted = park(journal, late, 600), park(journal, soon, 60)
    assert [(each.flow_run_id, park) for each, park in journal.parks.open()] == [("b", noted[1]), ("a", noted[0])]
    assert journal.runs.attempt(soon.attempt.id).park == noted[1]


def test_only_the_newest_attempt_is_parked(journal):
    """A run that goes on is not parked; what its earlier attempts parked for stays on record."""
    opened = begin(journal, "a")
    first = park(journal, opened)
    journal.runs.close_attempt(opened.attempt.id, "parked")
    assert [park for _, park in journal.parks.open()] == [first]
    again = begin(journal, "a")
    assert again.joined and journal.parks.open() == []
    second = park(journal, again, number=2)
    assert [park for _, park in journal.parks.open()] == [second]
    assert [each.park for each in journal.runs.attempts("a")] == [first, second]


def test_a_run_that_stays_or_ends_is_not_parked(journal):
    """Prefect may refuse to park a run, and a run may end while it is parked, or be given up."""
    stays, ends, given_up = (begin(journal, name) for name in "abc")
    for each in (stays, ends, given_up):
        park(journal, each)
    journal.parks.note(stays.attempt.id, None)
    for each in (ends, given_up):
        journal.runs.close_attempt(each.attempt.id, "parked")
    assert journal.runs.end("b", "cancelled")
    journal.runs.abandon("c")
    assert journal.parks.open() == []


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
    opened = begin(journal, "own")
    park(journal, opened)
    attempts = [attempt for attempt, _ in journal.parks.open()]
    assert journal.parks.left(attempts) == {each.id for each in attempts} - {opened.attempt.id} != set()


def test_a_lease_is_held_while_its_block_runs(journal):
    """Anybody can see whether a lease is held, without taking it."""
    assert not journal.leases.held("watcher")
    with journal.leases.hold("watcher"):
        assert journal.leases.held("watcher")
    assert not journal.leases.held("watcher")
