"""Digests of unchanged files, and values that a run computes once."""

from __future__ import annotations

import dataclasses

import pytest
import sqlalchemy as sa
from mutants import mutate

from ivcap_flows.file_state import FileState
from ivcap_flows.journal import Journal, NewIntent, RunIdentity, schema


def test_digest_is_known_for_the_same_state_only(journal: Journal) -> None:
    """A digest is valid only for the same size, time, inode and device.

    A newer digest replaces it, and it can be removed.
    """
    nanoseconds = 1_700_000_000_000_000_001
    state = FileState(size=10**13, mtime_ns=nanoseconds, ctime_ns=nanoseconds, inode=2**64 - 1, device=2**64 - 1)
    assert journal.files.known_sha256("/f", state) is None
    journal.files.remember_sha256("/f", state, "a")
    assert journal.files.known_sha256("/f", state) == "a"
    for field in dataclasses.fields(state):
        other = dataclasses.replace(state, **{field.name: getattr(state, field.name) - 1})
        assert journal.files.known_sha256("/f", other) is None
    shorter = dataclasses.replace(state, size=5)
    journal.files.remember_sha256("/f", shorter, "b")
    assert journal.files.known_sha256("/f", state) is None
    assert journal.files.known_sha256("/f", shorter) == "b"
    journal.files.forget("/f")
    assert journal.files.known_sha256("/f", shorter) is None


def rows(journal: Journal, table: sa.Table) -> int:
    with journal._store.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def prune_a_year(url: str) -> None:
    """Let processes come and go, and files be read. Then prune, first too early and then late enough."""
    wanted = NewIntent("k", "k", "order", "p", "a", "account", {})
    state = FileState(1, 2, 3, 4, 5)
    with Journal.open(url) as continued, Journal.open(url) as working, Journal.open(url) as ended:
        ids = {
            name: each.runs.open_attempt(RunIdentity("f", "f.py:f", {}, name, name)).attempt.id
            for name, each in (("failed", continued), ("ended", ended))
        }
        ended.runs.close_attempt(ids["ended"], "completed")
        continued.runs.close_attempt(ids["failed"], "failed")
        working.intents.claim(wanted)
        for number in range(20):
            ended.files.remember_sha256(f"/{number}", state, "a")
            # A `sync` every hour takes a lease in a process of its own.
            with Journal.open(url) as each, each.leases.hold("sink:x") as mine:
                assert mine
        assert (rows(ended, schema.processes), rows(ended, schema.files)) == (23, 20)
        assert ended.prune(1) == 0
        assert (rows(ended, schema.processes), rows(ended, schema.files)) == (23, 20)
        assert ended.prune(-1) == 1
        # The process of the run that may be continued, and that of the claim.
        assert (rows(ended, schema.processes), rows(ended, schema.files)) == (2, 0)
        # A process that lives takes part as before.
        assert ended.intents.claim(wanted).kind == "held"
        ended.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "3", "3"))
        ended.files.remember_sha256("/1", state, "b")
        assert ended.files.known_sha256("/1", state) == "b"


@pytest.mark.mutant(None)
def test_prune_deletes_what_processes_and_files_left(journal_url: str) -> None:
    """A process is deleted when nothing names it any more, and a digest when it is old."""
    prune_a_year(journal_url)


@pytest.mark.mutant("processes not pruned")
def test_a_build_that_keeps_each_process_is_found(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails on a build in which `prune` only deletes runs."""
    mutate("processes not pruned", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        prune_a_year(sqlite_url)


def test_first_value_counts(journal: Journal) -> None:
    """The first value of a name in a run is kept. Other runs have their own."""
    runs = [journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": n}, str(n), str(n))).run.id for n in (1, 2)]
    assert journal.once.get(runs[0], "now") is None
    assert journal.once.keep(runs[0], "now", "1") == "1"
    assert journal.once.keep(runs[0], "now", "2") == "1"
    assert journal.once.keep(runs[1], "now", "3") == "3"
    assert journal.once.get(runs[0], "now") == "1"
