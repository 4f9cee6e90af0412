"""A journal whose processes are killed at any moment loses no row and can always be opened."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import time
from contextlib import closing

import pytest

from ivcap_flows.journal import Journal, NewIntent


@pytest.mark.parametrize("kills", [6, pytest.param(120, marks=pytest.mark.long)])
def test_kills_lose_nothing(tmp_path, child, kills):
    """Eight processes open the journal, write and are killed at any moment; a reader finds it whole.

    None of them says anything, unless it fails.
    """
    path, draw, running = tmp_path / "state" / "journal.sqlite", random.Random(5), []

    def work():
        try:
            with Journal.open(f"sqlite:///{path}") as journal:
                for number in itertools.count():
                    key = f"k1:{os.getpid()}-{number}"
                    claim = journal.intents.claim(NewIntent(key, key, "order", "p", "a", "account", {"n": number}))
                    journal.intents.mark_sent(claim.intent)
        except BaseException as error:
            yield repr(error)

    for turn in range(kills):
        while len(running) < 8:
            running.append(child(work))
        time.sleep(draw.random() * 0.05)
        killed = running.pop(draw.randrange(len(running)))
        assert not killed.has_said() or killed.said() == ""
        killed.kill()
        if turn % 4 == 0:
            Journal.open(f"sqlite:///{path}").close()
    assert [each.said() for each in running if each.has_said()] == []
    for each in running:
        each.kill()
    with Journal.open(f"sqlite:///{path}") as journal:
        assert journal.intents.where(limit=1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
