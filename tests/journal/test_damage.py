"""A journal that lost rows is noticed when it is opened; one whose processes were killed, and lost none, never is."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal, NewIntent

FORK = multiprocessing.get_context("fork")


def order(journal: Journal, name: str, number: int) -> None:
    key = f"k1:{name}-{number}"
    claim = journal.intents.claim(NewIntent(key, key, "order", "p", "a", "account", {"number": number}))
    journal.intents.mark_sent(claim.intent)


def _order_some(url: str, name: str, count: int, done: Connection) -> None:
    with Journal.open(url) as journal:
        for number in range(count):
            order(journal, name, number)
        done.send(None)
        time.sleep(60)


def killed(url: str, name: str, count: int) -> None:
    """Let a process make so many orders, and kill it."""
    done, told = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_order_some, args=(url, name, count, told))
    child.start()
    assert done.poll(30)
    child.kill()
    child.join()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The file of a journal whose process was killed, with orders that are only in the write-ahead log."""
    path = tmp_path / "journal.sqlite"
    with Journal.open(f"sqlite:///{path}"):
        pass
    shutil.copy(path, tmp_path / "older.sqlite")
    killed(f"sqlite:///{path}", "some", 20)
    assert log_of(path).stat().st_size > 0
    return path


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.seal")


def forget_log(path: Path) -> None:
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink()


def cut_off_log(path: Path) -> None:
    with log_of(path).open("r+b") as log:
        log.truncate(log.seek(0, 2) - 5000)


def flip_bits_of_log(path: Path) -> None:
    with log_of(path).open("r+b") as log:
        log.seek(-3000, 2)
        byte = log.read(1)[0]
        log.seek(-1, 1)
        log.write(bytes([byte ^ 0xFF]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()
    forget_log(path)


def restore_older(path: Path) -> None:
    forget_log(path)
    shutil.copy(path.with_name("older.sqlite"), path)


DAMAGES: list[Callable[[Path], None]] = [forget_log, cut_off_log, flip_bits_of_log, empty, remove, restore_older]


@pytest.mark.parametrize("damage", DAMAGES)
def test_lost_rows_are_noticed(place: Path, damage: Callable[[Path], None]) -> None:
    """A journal that lost rows in any way is not opened.

    The error says what that means and what to do, and nothing is changed.
    """
    damage(place)
    files = {path.name: path.read_bytes() for path in place.parent.iterdir() if not path.name.endswith("-shm")}
    for _ in range(2):
        with pytest.raises(JournalError, match=r"lost.*sent again.*backup.*rebuild --accept-loss") as caught:
            Journal.open(f"sqlite:///{place}")
        assert str(seal_of(place)) in caught.value.message and not caught.value.retryable
    if damage in (empty, remove):
        # SQLite would delete the log of an empty file, from which an expert may restore the rest.
        left = {path.name: path.read_bytes() for path in place.parent.iterdir() if not path.name.endswith("-shm")}
        assert left == files


def test_another_journal_in_its_place_is_noticed(place: Path, tmp_path: Path) -> None:
    """A different journal in the same place is noticed, since its rows differ."""
    Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}").close()
    forget_log(place)
    shutil.copy(tmp_path / "other.sqlite", place)
    with pytest.raises(JournalError, match="another journal"):
        Journal.open(f"sqlite:///{place}")


@pytest.mark.parametrize("damage", [None, *DAMAGES])
def test_a_loss_is_accepted_by_the_user_alone(place: Path, damage: Callable[[Path], None] | None) -> None:
    """After the user has accepted a loss, the journal is used again, and a later loss is noticed."""
    if damage is not None:
        damage(place)
    url = f"sqlite:///{place}"
    Journal.open(url, accept_loss=True).close()
    with Journal.open(url) as journal:
        assert len(journal.intents.where()) <= 20
    killed(url, "later", 5)
    forget_log(place)
    with pytest.raises(JournalError, match="lost"):
        Journal.open(url)


def test_a_journal_deleted_on_purpose_is_made_anew(place: Path) -> None:
    """A journal that was deleted together with its seal, as the error message advises, is made anew."""
    remove(place)
    with pytest.raises(JournalError, match="on purpose, delete"):
        Journal.open(f"sqlite:///{place}")
    seal_of(place).unlink()
    with Journal.open(f"sqlite:///{place}") as journal:
        assert journal.intents.where() == []


def test_a_copy_without_its_seal_is_adopted(place: Path, tmp_path: Path) -> None:
    """A journal that was moved or restored without its seal gets a new seal, and is guarded from then on."""
    with Journal.open(f"sqlite:///{place}") as journal:
        known = journal.id
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "journal.sqlite"
    shutil.copy(place, copy)
    with Journal.open(f"sqlite:///{copy}") as journal:
        assert (journal.id, len(journal.intents.where())) == (known, 20)
    killed(f"sqlite:///{copy}", "later", 5)
    forget_log(copy)
    with pytest.raises(JournalError, match="lost"):
        Journal.open(f"sqlite:///{copy}")


def test_a_seal_that_cannot_be_read_is_made_anew(place: Path) -> None:
    """An empty seal, as a power cut may leave, is replaced and does not count as a loss."""
    for left in (b"", b"ivcap-flows", seal_of(place).read_bytes().replace(b"1", b"2")):
        seal_of(place).write_bytes(left)
        with Journal.open(f"sqlite:///{place}") as journal:
            assert len(journal.intents.where()) == 20


def test_one_journal_has_one_seal(place: Path, tmp_path: Path) -> None:
    """A journal that is opened under another name has the same seal."""
    link = tmp_path / "link.sqlite"
    link.symlink_to(place)
    killed(f"sqlite:///{link}", "linked", 3)
    assert not seal_of(link).exists()
    forget_log(place)
    with pytest.raises(JournalError, match="lost"):
        Journal.open(f"sqlite:///{link}")


def test_reading_changes_nothing(place: Path) -> None:
    """A command that only reads leaves the journal and its seal unchanged."""
    before = seal_of(place).read_bytes()
    with Journal.open(f"sqlite:///{place}") as journal:
        journal.intents.where()
    assert seal_of(place).read_bytes() == before


def _work(url: str, name: str, complaint: Path) -> None:
    try:
        with Journal.open(url) as journal:
            for number in itertools.count():
                order(journal, name, number)
    except BaseException as error:
        complaint.write_text(repr(error))


@pytest.mark.parametrize("kills", [15, pytest.param(120, marks=pytest.mark.long)])
def test_kills_are_no_loss(tmp_path: Path, kills: int) -> None:
    """Eight processes that open, write and are killed at any moment, with readers beside them, cause no false alarm."""
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
