"""Digests of unchanged files, and values that a run computes once."""

from __future__ import annotations

import time

from ivcap_flows.journal import Journal, RunIdentity


def test_digest_is_known_for_the_same_stat_only(journal: Journal) -> None:
    """Another size, time or inode is another content; a newer digest replaces the old one."""
    stat = {"size": 10**13, "mtime_ns": 1_700_000_000_000_000_001, "inode": 2**64 - 1}
    assert journal.files.known_sha256("/f", **stat) is None
    journal.files.remember_sha256("/f", **stat, sha256="a")
    assert journal.files.known_sha256("/f", **stat) == "a"
    for name in stat:
        assert journal.files.known_sha256("/f", **{**stat, name: stat[name] - 1}) is None
    journal.files.remember_sha256("/f", **{**stat, "size": 5}, sha256="b")
    assert journal.files.known_sha256("/f", **stat) is None
    assert journal.files.known_sha256("/f", **{**stat, "size": 5}) == "b"


def test_file_changed_just_now_is_not_remembered(journal: Journal) -> None:
    """Within the clock's grain a file can change again without a trace in its stat."""
    stat = {"size": 1, "mtime_ns": time.time_ns(), "inode": 1}
    journal.files.remember_sha256("/f", **stat, sha256="a")
    assert journal.files.known_sha256("/f", **stat) is None


def test_first_value_counts(journal: Journal) -> None:
    """A later value of one name and run is not kept; other runs have their own."""
    runs = [journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": n}, str(n), str(n))).run.id for n in (1, 2)]
    assert journal.once.get(runs[0], "now") is None
    assert journal.once.keep(runs[0], "now", "1") == "1"
    assert journal.once.keep(runs[0], "now", "2") == "1"
    assert journal.once.keep(runs[1], "now", "3") == "3"
    assert journal.once.get(runs[0], "now") == "1"
