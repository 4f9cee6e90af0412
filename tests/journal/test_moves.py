"""A journal moves to another database whole, and at no moment can both of its places be used."""

from __future__ import annotations

import random
import stat
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise, product
from pathlib import Path

import pytest
import sqlalchemy as sa

from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    JournalError,
    JournalKeyError,
    JournalMovedError,
    NewerSchemaError,
)
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity, moves, processes, schema
from ivcap_flows.journal.moves import move
from ivcap_flows.journal.redaction import key_file_of
from ivcap_flows.provenance import entity

KINDS = ("sqlite", "postgresql")
COPIED = [table for table in schema.metadata.sorted_tables if table.name not in ("journal_info", "redaction_keys")]
IDENTITY = RunIdentity("f", "f.py:f", {}, "1", "1")
SECRET = {"service": "s", "parameters": {"password": "pw1!"}}


@contextmanager
def database(url):
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def rows_of(url):
    with database(url) as connection:
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in COPIED}


def is_in_use(url):
    """Whether processes may use what is at a place now, without making a journal there."""
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return False
    with database(url) as connection:
        if not sa.inspect(connection).has_table("journal_info"):
            return False
    try:
        Journal.open(url).close()
    except JournalMovedError:
        return False
    return True


class Drawn:
    """Rows of every table with values of every kind, some of which only just fit."""

    TEXTS = ("", "plain", "ümläut 海 🌊", "a\tb\nc'd\"e\\f%s :g ?", "x" * 1500, " trailing ", "\x01\x7f\u2028")

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._keys = {}

    def fill(self, url, *, rows=7, facts=2300):
        Journal.open(url).close()
        with database(url) as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(sa.text("PRAGMA foreign_keys = ON"))
            for table in COPIED:
                made = [self._row(table, n) for n in range(1, (facts if table is schema.facts else rows) + 1)]
                self._keys[table.name] = [row[next(iter(table.primary_key)).name] for row in made]
                connection.execute(sa.insert(table), made)

    def _row(self, table, number):
        return {column.name: self._value(column, number) for column in table.columns}

    def _value(self, column, number):
        for foreign in column.foreign_keys:
            found = self._keys[foreign.column.table.name]
            return found[(number - 1) % len(found)] if not column.nullable or number % 3 else None
        if column.name == "seq" and column.table is not schema.cursors:
            return number * 3
        if column.primary_key:
            return f"{number} {self._random.choice(self.TEXTS)[:200]}"
        if column.nullable and self._random.random() < 0.3:
            return None
        if isinstance(column.type, schema.Instant):
            wide = timedelta(microseconds=self._random.randrange(10**17))
            return datetime(1969, 1, 1, tzinfo=timezone.utc) + wide
        if isinstance(column.type, schema.Json):
            text = self._random.choice([*self.TEXTS, "\x00 \ud800"])
            return {"text": text, "list": [None, True, 1.5e300, -0.0, 10**30], text: {}}
        if isinstance(column.type, sa.Boolean):
            return self._random.random() < 0.5
        if isinstance(column.type, sa.BigInteger):
            return self._random.choice([0, 1, -1, 2**63 - 1, -(2**63)])
        if isinstance(column.type, sa.Integer):
            return self._random.choice([0, 1, 2**31 - 1])
        return self._random.choice(self.TEXTS)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(pair for pair in product(KINDS, KINDS) if "sqlite" in pair),
        pytest.param("postgresql", "postgresql", marks=pytest.mark.long),
    ],
)
def test_every_row_of_every_table_arrives(place, source, target):
    """With the journal's id. The old place says where it is, and nothing opens it any more."""
    old, new = place(source), place(target)
    Drawn(f"{source} {target}").fill(old)
    before = rows_of(old)
    assert min(map(len, before.values())) == 7 and len(before["facts"]) > 2 * moves._AT_ONCE
    with Journal.open(old) as journal:
        id_ = journal.id
    moved = move(old, new)
    assert rows_of(new) == before == rows_of(old)
    assert (moved.journal, moved.rows) == (id_, {name: len(rows) for name, rows in before.items()})
    with Journal.open(new) as journal:
        assert journal.id == id_
    with pytest.raises(JournalMovedError, match="was moved to") as caught:
        Journal.open(old)
    assert caught.value.to == moved.target and not caught.value.retryable
    # As if the first command had been killed before it could print anything.
    assert move(old, new) == moved


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_numbers_continue_after_the_highest_that_was_ever_given(place, source, target):
    """Also if that row was deleted: the cursor of a sink is behind it, and would never see a lower number."""
    old, new = place(source), place(target)
    with Journal.open(old) as journal:
        opened = journal.runs.open_attempt(IDENTITY)
        for name in ("a", "b", "c"):
            journal.facts.append([Fact(entity(name, "file"), opened.run.id)])
        journal.runs.close_attempt(opened.attempt.id, "completed")
    with database(old) as connection:
        connection.execute(sa.delete(schema.facts).where(schema.facts.c.record_id == "c"))
    move(old, new)
    with Journal.open(new) as journal:
        again = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "2", "2"))
        journal.facts.append([Fact(entity("d", "file"), again.run.id)])
    with database(new) as connection:
        facts = connection.execute(sa.select(schema.facts.c.record_id, schema.facts.c.seq)).all()
        assert dict(tuple(row) for row in facts) == {"a": 1, "b": 2, "d": 4}
        for table in (schema.runs, schema.attempts):
            assert connection.execute(sa.select(table.c.seq).order_by(table.c.seq)).scalars().all() == [1, 2]


def test_an_empty_journal_moves(place):
    """There and back, to other files each time."""
    places = [place(kind) for kind in (*KINDS, *KINDS)]
    Journal.open(places[0]).close()
    for old, new in pairwise(places):
        move(old, new)
    assert [is_in_use(url) for url in places] == [False, False, False, True]


@pytest.mark.parametrize(
    ("source", "target", "verbs"),
    [
        ("sqlite", "postgresql", ("INSERT", "UPDATE")),
        *(pytest.param(*pair, ("",), marks=pytest.mark.long) for pair in product(KINDS, KINDS)),
    ],
    ids=lambda value: value if isinstance(value, str) else "every statement" if value == ("",) else "writes",
)
def test_a_kill_at_any_step_leaves_one_journal(place, dying_at, source, target, verbs):
    """Killed before each step in turn, and started again after each. Until the old place is closed, it can be used and
    written; from then on, the same command opens the new one. Both are never in use."""
    old, new = place(source), place(target)
    Drawn("kills").fill(old, rows=2, facts=3)
    kills = closed = 0
    while not dying_at(kills - closed + 1, verbs, "move", old, new):
        kills += 1
        assert not (is_in_use(old) and is_in_use(new))
        if is_in_use(old):
            with database(old) as connection:
                connection.execute(sa.update(schema.runs).values(missing_facts=kills))
        else:
            # The command that finishes is killed at each of its own steps.
            closed = closed or kills
    assert kills > closed > len(COPIED)
    assert (is_in_use(old), is_in_use(new)) == (False, True)
    assert rows_of(new) == rows_of(old)


# Refusals


@pytest.fixture
def old(place, request):
    """The URL of a journal that holds a run."""
    url = place(getattr(request, "param", "sqlite"))
    with Journal.open(url) as journal:
        journal.runs.open_attempt(IDENTITY)
    return url


on_both = pytest.mark.parametrize("old", KINDS, indirect=True)


def refused(error, words, source, target):
    """Move, and return the error. No file is made."""
    file = Path(target.removeprefix("sqlite:///"))
    before = file.exists()
    with pytest.raises(error, match=words) as caught:
        move(source, target)
    assert file.exists() == before
    assert str(caught.value).endswith((".", "`.")) and "pw1" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("target", KINDS)
def test_a_target_that_holds_anything_is_refused(old, place, target):
    """Also a journal without rows: some process may have it open, and knows it by its own id. Both stay as they are."""
    new = place(target)
    with Journal.open(new) as journal:
        id_ = journal.id
    refused(InputError, "is not empty.*createdb", old, new)
    with Journal.open(new) as journal, Journal.open(old):
        assert journal.id == id_


def test_a_file_of_something_else_is_refused(old, place):
    """A journal may share a database on a server with other programs, but not a file."""
    new = place("sqlite")
    with database(new) as connection:
        connection.execute(sa.text("CREATE TABLE flow (id TEXT)"))
    refused(ConfigurationError, "is another program's", old, new)
    shared = place("postgresql")
    with database(shared) as connection:
        connection.execute(sa.text("CREATE TABLE flow (id TEXT)"))
    move(old, shared)
    assert is_in_use(shared)


@pytest.mark.parametrize("source", KINDS)
def test_a_journal_that_does_not_exist_is_refused(place, tmp_path, source):
    """Nothing is made at either place."""
    old, new = place(source), place("sqlite")
    refused(InputError, "There is no journal", old, new)
    assert source == "postgresql" or not Path(old.removeprefix("sqlite:///")).exists()
    assert not is_in_use(old) and not is_in_use(new)


@on_both
def test_a_journal_is_not_moved_to_itself(old):
    """Whatever the place is called."""
    kind = "host=" if "host=" in old else "sqlite"
    again = old.replace("/tmp", "/tmp/../tmp") if kind == "sqlite" else old.replace("host=", "connect_timeout=9&host=")
    assert again != old
    refused(InputError, "are the same journal", old, again)
    assert is_in_use(old)


@on_both
def test_a_journal_of_another_version_is_refused(old, place):
    """A newer one, also if it lets this code go on: what it has added would be lost."""
    with database(old) as connection:
        connection.execute(sa.update(schema.journal_info).values(version="9999"))
    refused(NewerSchemaError, "has tables of revision 9999, which need a newer version", old, place("sqlite"))


@on_both
@pytest.mark.catches("a target made before the proof")
def test_a_journal_that_a_process_uses_is_refused(old, place, child):
    """The process is named. When it has died, the journal moves at once."""

    def work():
        with Journal.open(old) as journal:
            journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "2", "2"))
            yield

    worker, new = child(work), place("sqlite")
    worker.said()
    error = refused(JournalError, f"process {worker.pid} on .* Start the command again", old, new)
    assert error.retryable and is_in_use(old) and not is_in_use(new)
    worker.kill()
    move(old, new)


WANTED = NewIntent("k1:c", "k1:c", "order", "p", "a", "run", {"n": 1}, run_id="2")
LATE = NewIntent("k1:d", "k1:d", "order", "p", "a", "run", {"n": 2}, run_id="2")


@on_both
@pytest.mark.parametrize("target", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
@pytest.mark.catches("a noted death is not believed")
def test_who_was_proven_dead_before_a_move_is_dead_after_it(old, place, child, target):
    """Its run goes on, its claims are in doubt or begin anew, and its leases are free, all at once: at the new place no
    lock says so, and its heartbeat is young."""
    identity = RunIdentity("f", "f.py:f", {"n": 2}, "2", "2")

    def work():
        with Journal.open(old) as journal, journal.leases.hold("drain"):
            journal.runs.open_attempt(identity)
            journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
            journal.intents.claim(LATE)
            yield

    worker, new = child(work), place(target)
    worker.said()
    worker.kill()
    move(old, new)
    with Journal.open(new) as journal:
        again = journal.runs.open_attempt(replace(identity, flow_run_id="3", root_flow_run_id="3"))
        assert (again.joined, again.run.id, again.attempt.number) == (True, "2", 2)
        doubt, anew = journal.intents.claim(WANTED), journal.intents.claim(LATE)
        assert (doubt.kind, doubt.intent.lingering, anew.kind) == ("doubt", False, "new")
        with journal.leases.hold("drain") as mine:
            assert mine


@on_both
@pytest.mark.catches("a move takes silence for a death")
def test_a_process_on_another_machine_is_known_by_its_heartbeat(old, place, monkeypatch):
    """Until that is a minute old. Its request may still leave after the move, since nothing has proven its death."""
    with Journal.open(old) as journal:
        journal.intents.mark_sent(journal.intents.claim(replace(WANTED, run_id="1")).intent)
    with database(old) as connection:
        now = datetime.now(timezone.utc)
        far = {"id": "far", "host": "far", "pid": 7, "heartbeat_at": now - timedelta(seconds=30)}
        connection.execute(sa.insert(schema.processes).values(far))
        connection.execute(sa.update(schema.intents).values(process_id="far"))
    new = place("sqlite")
    refused(JournalError, "process 7 on far", old, new)
    with database(old) as connection:
        changed = sa.update(schema.processes).where(schema.processes.c.id == "far")
        connection.execute(changed.values(heartbeat_at=now - timedelta(seconds=90)))
    move(old, new)
    with Journal.open(new) as journal:
        assert journal.intents.claim(WANTED).kind == "held"
        monkeypatch.setattr(processes, "SILENT_SECONDS", 0.0)
        doubt = journal.intents.claim(WANTED)
        assert (doubt.kind, doubt.intent.lingering) == ("doubt", True)


@on_both
def test_what_was_moved_goes_nowhere_else(old, place):
    """Not to a third place, nor to the second once its journal is gone: that would be an old copy of it."""
    new = place("sqlite")
    move(old, new)
    refused(JournalMovedError, f"was moved to {new}. Name that in IVCAP_FLOWS_JOURNAL", old, place("sqlite"))
    refused(JournalMovedError, "was moved to", old, place("postgresql"))
    Path(new.removeprefix("sqlite:///")).unlink()
    refused(JournalMovedError, "was moved to", old, new)
    assert not is_in_use(old) and not is_in_use(new)


@on_both
def test_a_copy_that_an_earlier_move_left_is_not_opened(old, place, dying_at):
    """Its journal went on where it was, and moved to another place. The copy would be a second one with its id."""
    first, second = place("postgresql"), place("sqlite")
    # The death of the process that made it, the commit at the target, then the mark of the source.
    assert not dying_at(3, ("UPDATE",), "move", old, first)
    assert is_in_use(old) and not is_in_use(first) and len(rows_of(first)["runs"]) == 1
    move(old, second)
    refused(JournalMovedError, "was moved to", old, first)
    with pytest.raises(JournalMovedError, match="has not ended. Start the same command again") as caught:
        Journal.open(first)
    assert Path(caught.value.source.removeprefix("sqlite:///")).exists() == ("host=" not in old)
    refused(JournalMovedError, "has not ended", first, place("sqlite"))
    assert not is_in_use(first) and is_in_use(second)


def test_two_moves_at_once_make_one(old, place, at_once):
    """To two places: one of them is refused."""
    targets = [place("postgresql"), place("postgresql")]

    def try_it(number, together):
        together()
        try:
            move(old, targets[number])
        except JournalMovedError as error:
            yield str(error)
        yield None

    said = at_once(2, try_it)
    assert sorted(map(bool, said)) == [False, True]
    assert [is_in_use(url) for url in targets] == [not each for each in said]


def test_no_password_is_shown(old, place):
    """Neither in the command's words, nor in those of who opens the old place."""
    # The server trusts all that reach its socket.
    new = place("postgresql").replace("postgres:@", "postgres:hunter2@")
    assert "hunter2" in new
    moved = move(old, new)
    with pytest.raises(JournalMovedError) as caught:
        Journal.open(old)
    assert "hunter2" not in f"{moved} {caught.value} {caught.value.data}" and "postgres@" in caught.value.to


# What has the journal open


@on_both
def test_a_process_that_had_it_open_writes_nothing_more(old, place):
    """Such as a flow that is about to begin: what it orders now, the new place would know nothing of."""
    with Journal.open(old) as idle:
        new = place("sqlite")
        move(old, new)
        before = rows_of(old)
        for write in (
            lambda: idle.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "3", "3")),
            lambda: idle.intents.claim(NewIntent("k1:b", "k1:b", "order", "p", "a", "account", {"n": 1})),
            lambda: together(idle),
        ):
            with pytest.raises(JournalMovedError, match="was moved to"):
                write()
        assert rows_of(old) == before


def together(journal):
    with journal._store.together():
        journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "4", "4"))


@on_both
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.catches("a source that is not locked")
def test_what_is_written_during_a_move_is_refused_after_it(old, place, target, monkeypatch):
    """It waits for the move, which has read the tables already, and has proven that no process lives."""
    new, errors = place(target), []

    def write():
        with Journal.open(old) as journal:
            opened.set()
            moving.wait()
            try:
                journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "3", "3"))
            except JournalMovedError as error:
                errors.append(str(error))

    opened, moving = threading.Event(), threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    opened.wait()
    real = moves._copy

    def copy(table, *rest):
        real(table, *rest)
        if table is COPIED[-1]:
            moving.set()
            writer.join(0.5)
            assert writer.is_alive() and errors == []

    monkeypatch.setattr(moves, "_copy", copy)
    move(old, new)
    writer.join()
    assert len(errors) == 1 and "was moved to" in errors[0]
    assert rows_of(new) == rows_of(old)


@on_both
def test_a_copy_that_comes_back_changed_is_not_used(old, place, monkeypatch):
    """The source goes on, and there is no journal at the target: nobody who looks there makes one, and the next move
    goes into it."""
    new = place("sqlite")
    target, real = new, moves._End.pages

    def pages(end, connection, table):
        for rows in real(end, connection, table):
            yield rows if end.place != target or table.name != "runs" else []

    with monkeypatch.context() as patch:
        patch.setattr(moves._End, "pages", pages)
        with pytest.raises(JournalError, match="returned other rows of runs"):
            move(old, new)
    assert is_in_use(old)
    with Journal.or_empty(new) as seen:
        assert seen.runs.recent(9) == []
    move(old, new)
    assert is_in_use(new)


# The key by which requests with secrets are known


def test_the_key_moves_with_the_journal(place):
    """From its file into the table and back, so that requests with secrets are known again. On SQLite its owner alone
    can read it, and the database does not hold it."""
    places = [place(kind) for kind in ("sqlite", "postgresql", "postgresql", "sqlite", "sqlite")]
    with Journal.open(places[0]) as journal:
        known = journal.redaction.of(SECRET)
    for source, target in pairwise(places):
        move(source, target)
        with Journal.open(target) as journal:
            assert journal.redaction.of(SECRET) == known
    for url in (places[3], places[4]):
        file = key_file_of(Path(url.removeprefix("sqlite:///")))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with database(url) as connection:
            assert connection.execute(sa.select(schema.redaction_keys)).all() == []


def test_a_journal_without_its_key_is_not_moved(place):
    """It would be missing at the new place, too."""
    old, new = place("sqlite"), place("postgresql")
    with Journal.open(old) as journal:
        known = journal.redaction.of(SECRET)
    file = key_file_of(Path(old.removeprefix("sqlite:///")))
    file.rename(file.with_name("away"))
    refused(JournalKeyError, "key file", old, new)
    file.with_name("away").rename(file)
    move(old, new)
    back = place("sqlite")
    other = key_file_of(Path(back.removeprefix("sqlite:///")))
    other.write_text("00" * 32)
    refused(InputError, "key file of another journal", new, back)
    assert other.read_text() == "00" * 32 and is_in_use(new)
    other.unlink()
    move(new, back)
    with Journal.open(back) as journal:
        assert journal.redaction.of(SECRET) == known
