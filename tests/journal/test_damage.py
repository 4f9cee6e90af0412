"""A journal whose processes are killed at any moment loses no row and can always be opened."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sqlite3
import time
from pathlib import Path

import pytest

from ivcap_flows.journal import Journal, NewIntent

FORK = multiprocessing.get_context("fork")


def order(journal: Journal, name: str, number: int) -> None:
    key = f"k1:{name}-{number}"
    claim = journal.intents.claim(NewIntent(key, key, "order", "p", "a", "account", {"number": number}))
    journal.intents.mark_sent(claim.intent)


def _work(url: str, name: str, complaint: Path) -> None:
    try:
        with Journal.open(url) as journal:
            for number in itertools.count():
                order(journal, name, number)
    except BaseException as error:
        complaint.write_text(repr(error))


@pytest.mark.parametrize("kills", [15, pytest.param(120, marks=pytest.mark.long)])
def test_kills_lose_nothing(tmp_path: Path, kills: int) -> None:
    """Eight processes open the journal, write and are killed at any moment; a reader finds it whole."""
    url = f"sqlite:///{tmp_path / 'state' / 'journal.sqlite'}"
    draw = random.Random(5)
    running: list[multiprocessing.process.BaseProcess] = []
    for turn in range(kills):
        while len(running) < 8:
            child = FORK.Process(target=_work, args=(url, f"p{turn}-{len(running)}", tmp_path / f"complaint-{turn}"))
            child.start()
            running.append(child)
        time.sleep(draw.random() * 0.05)
        killed_now = running.pop(draw.randrange(len(running)))
        killed_now.kill()
        killed_now.join()
        if turn % 4 == 0:
            Journal.open(url).close()
    for child in running:
        child.kill()
        child.join()
    assert [path.read_text() for path in tmp_path.glob("complaint-*")] == []
    with Journal.open(url) as journal:
        assert journal.intents.where(limit=1)
    with sqlite3.connect(tmp_path / "state" / "journal.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
