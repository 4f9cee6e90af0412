"""Digests of unchanged files, values that a run computes once, and what a parked run waits for."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from ivcap_flows.file_state import FileState
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import Park, Wait


def test_a_digest_is_known_for_the_same_state_only(journal):
    """For the same size, time, inode and device. A newer digest replaces it, and it can be removed."""
    files, moment = journal.files, 1_700_000_000_000_000_001
    state = FileState(size=10**13, mtime_ns=moment, ctime_ns=moment, inode=2**64 - 1, device=2**64 - 1)
    assert files.known_sha256("/f", state) is None
    files.remember_sha256("/f", state, "a")
    assert files.known_sha256("/f", state) == "a"
    for field in dataclasses.fields(state):
        other = dataclasses.replace(state, **{field.name: getattr(state, field.name) - 1})
        assert files.known_sha256("/f", other) is None
    shorter = dataclasses.replace(state, size=5)
    files.remember_sha256("/f", shorter, "b")
    assert [files.known_sha256("/f", each) for each in (state, shorter)] == [None, "b"]
    files.forget("/f")
    assert files.known_sha256("/f", shorter) is None


def test_the_first_value_counts(journal, begin):
    """The first value of a name in a run is kept. Other runs have their own."""
    one, other = (begin(name).run.id for name in "12")
    assert journal.once.get(one, "now") is None
    assert [journal.once.keep(run, "now", str(n)) for n, run in enumerate((one, one, other))] == ["0", "0", "2"]
    assert journal.once.get(one, "now") == "0"


@pytest.fixture
def park(journal):
    """Notes for what an attempt waits."""

    def note(opened, at=journal):
        now = at.now()
        waits = (Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1"),)
        at.parks.note(opened.attempt.id, Park(1, "https://x", "ada", "prod", waits, now, now + timedelta(seconds=60)))

    return note


def test_a_run_that_stays_or_ends_is_not_parked(journal, begin, park):
    """Prefect may refuse to park a run, and a run may end while it is parked, or be given up."""
    stays, ends, given_up = (begin(name, deployed=True) for name in "abc")
    for each in (stays, ends, given_up):
        park(each)
    journal.parks.note(stays.attempt.id, None)
    for each in (ends, given_up):
        journal.runs.close_attempt(each.attempt.id, "parked")
    assert journal.runs.end("b", "cancelled")
    journal.runs.abandon("c")
    assert journal.parks.open() == []


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_a_run_has_left_when_its_process_is_gone(journal, journal_url, begin, park, child):
    def begin_and_park():
        with Journal.open(journal_url) as other:
            opened = begin("other", at=other, deployed=True)
            park(opened, at=other)
            yield opened.attempt.id

    process = child(begin_and_park)
    left, own = process.said(), begin("own", deployed=True)
    park(own)
    attempts = [attempt for attempt, _ in journal.parks.open()]
    assert {each.id for each in attempts} == {left, own.attempt.id} and journal.parks.left(attempts) == set()
    process.kill()
    assert journal.parks.left(attempts) == {left}
