"""Digests of unchanged files, and values that a run computes once."""

from __future__ import annotations

import dataclasses

from ivcap_flows.file_state import FileState
from ivcap_flows.journal import Journal, RunIdentity


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


def test_first_value_counts(journal: Journal) -> None:
    """The first value of a name in a run is kept. Other runs have their own."""
    runs = [journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": n}, str(n), str(n))).run.id for n in (1, 2)]
    assert journal.once.get(runs[0], "now") is None
    assert journal.once.keep(runs[0], "now", "1") == "1"
    assert journal.once.keep(runs[0], "now", "2") == "1"
    assert journal.once.keep(runs[1], "now", "3") == "3"
    assert journal.once.get(runs[0], "now") == "1"
