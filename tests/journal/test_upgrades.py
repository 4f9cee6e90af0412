"""A journal that older code made goes on under newer code: whole, once, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import newer_code
import pytest
import sqlalchemy as sa
from dump_journal import (
    FOLDER,
    SECRET,
    WAITED,
    dumped_from_file,
    dumped_from_server,
    identity,
    loaded_into_file,
    loaded_into_server,
    wanted,
)

from ivcap_flows.errors import ConfigurationError, InputError, JournalError, JournalMovedError, NewerSchemaError
from ivcap_flows.journal import Fact, Journal, processes, revisions, upgrading
from ivcap_flows.journal.moves import move
from ivcap_flows.journal.redaction import key_file_of
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import entity

KINDS = ("sqlite", "postgresql")
NEWEST = revisions.newest().number
OLDER = range(NEWEST)
FOREIGN = re.compile(r",FOREIGNKEY\([^)]*\)REFERENCES\w+\([^)]*\)[^,)]*")
on_both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def old_journal(place):
    """Puts the journal that code of a revision left at a new place; gives its URL."""

    def put(kind, number=0):
        url = place(kind)
        text = FOLDER.joinpath(f"{number}.{kind}.sql").read_text()
        if kind == "sqlite":
            file = file_of(url)
            file.touch(mode=0o600)
            loaded_into_file(text, file)
            shutil.copy(FOLDER / f"{number}.key", key_file_of(file))
        else:
            loaded_into_server(text, url)
        return url

    return put


def file_of(url):
    return Path(url.removeprefix("sqlite:///"))


def dumped(url):
    """All that a journal has, one statement after the other."""
    return dumped_from_file(file_of(url)) if url.startswith("sqlite") else dumped_from_server(url)


def tables(url):
    """How a journal's tables are declared, word for word, but for the quotes and the order of foreign keys."""
    declared = re.findall(r"^(?:CREATE|ALTER)[^;]*;$", dumped(url).replace('"', ""), re.MULTILINE)
    plain = ["".join(each.split()) for each in declared]
    return sorted((FOREIGN.sub("", each), sorted(FOREIGN.findall(each))) for each in plain)


def rows(url):
    """The rows of each table that says what happened."""
    return sorted(
        re.sub(r'"|public\.', "", line)
        for line in dumped(url).splitlines()
        if line.startswith("INSERT") and "journal_info" not in line and "sqlite_sequence" not in line
    )


def opened(url, *, newer=None):
    """Open a journal in a child, with newer code if that is named, and say what came of it."""
    if newer is not None:
        newer_code.become(newer)
    try:
        Journal.open(url).close()
    except JournalError as error:
        yield f"{type(error).__name__}: {error}"
    yield "opened"


@pytest.fixture
def open_there(child):
    """What `opened` says, in a process of its own."""
    return lambda url, **how: child(lambda: opened(url, **how)).said()


@contextmanager
def refused(error, words, url):
    """What the block does is refused, and the journal is as it was."""
    before, said = dumped(url), "nothing was refused"
    try:
        yield
    except error as refusal:
        said = str(refusal)
    assert re.search(words, said) and dumped(url) == before


# What an upgrade makes


def test_a_change_of_the_tables_is_a_revision(place):
    """A change of the tables needs one: CONTRIBUTING.md has the recipe. The newest code has made a dump of its own."""
    assert [revision.number for revision in revisions.REVISIONS] == list(range(1, NEWEST + 1))
    for kind in KINDS:
        made, kept = place(kind), place(kind)
        Journal.open(made).close()
        text = FOLDER.joinpath(f"{NEWEST}.{kind}.sql").read_text()
        loaded_into_file(text, file_of(kept)) if kind == "sqlite" else loaded_into_server(text, kept)
        assert tables(made) == tables(kept)


@on_both
@pytest.mark.parametrize("number", OLDER)
def test_an_upgraded_journal_has_the_tables_of_a_new_one(old_journal, place, kind, number):
    """And all rows, and counters that go on after the highest number ever given, also to a row that was deleted."""
    url, new = old_journal(kind, number), place(kind)
    Journal.open(new).close()
    before = rows(url)
    with Journal.open(url) as journal:
        assert (tables(url), rows(url)) == (tables(new), before)
        run = next(run for run in journal.runs.recent(9) if run.flow_name == "killed")
        journal.facts.append([Fact(entity("urn:example:new", "file"), run.id)])
        assert [fact.seq for fact in journal.facts.of_run(run.id)] == [1, 2, 3, 6]


@on_both
@pytest.mark.parametrize("adds_only", [True, False], ids=["adds", "changes"])
def test_a_later_revision_has_the_tables_of_a_new_one(old_journal, place, open_there, kind, adds_only):
    """Also where SQLite copies tables that others refer to."""
    url, new = old_journal(kind, 1), place(kind)
    before = rows(url)
    assert open_there(url, newer=adds_only) == open_there(new, newer=adds_only) == "opened"
    assert tables(url) == tables(new)
    gained = re.compile(r"(INTO (?:facts|cursors) VALUES.*), ?(?:'0'|NULL)\)")
    table = "cursors" if adds_only else "facts"
    assert [gained.sub(r"\1)", row) if f"INTO {table} " in row else row for row in rows(url)] == before


@on_both
@pytest.mark.catches("an upgrade that forgets a table")
def test_an_upgrade_makes_what_is_new(old_journal, open_there, kind):
    """A table, to begin with."""
    url = old_journal(kind, 1)
    assert open_there(url, newer=True) == "opened"
    assert any("TABLE" in name and "notes(" in name for name, _ in tables(url))


@pytest.mark.catches("an upgrade that forgets a counter")
def test_a_table_that_sqlite_copies_keeps_its_counter(old_journal, open_there):
    """The highest number ever given was of a row that was deleted."""
    url = old_journal("sqlite", 1)
    assert open_there(url, newer=False) == "opened"
    assert "VALUES('facts',5)" in dumped(url)


@on_both
@pytest.mark.parametrize("number", [*OLDER, NEWEST])
def test_what_was_under_way_goes_on(old_journal, monkeypatch, kind, number):
    """Parked, in doubt, being delivered, in the middle of a batch; a request with a secret is known again."""
    # The process that held it was another machine's, and has been silent for long.
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.0)
    with Journal.open(old_journal(kind, number)) as journal:
        killed = journal.runs.open_attempt(identity("killed"))
        assert (killed.joined, killed.attempt.number) == (True, 2)
        kinds = {name: journal.intents.claim(wanted(killed, name)).kind for name in ("done", "sent", "announced")}
        assert kinds == {"done": "kept", "sent": "doubt", "announced": "new"}
        [(parked, park)] = journal.parks.open()
        assert park.urns == {WAITED} and parked.flow_name == "parked"
        batch = journal.runs.open_attempt(identity("batch"))
        assert batch.joined
        assert journal.intents.claim(wanted(batch, "row-1", "model run")).kind == "kept"
        assert [each.reason for each in journal.deliveries.where("ivcap")] == ["try later"]
        assert journal.deliveries.cursor("ivcap").seq == 5
        assert journal.intents.get("k1:secret").request == journal.redaction.of(SECRET)


# Killed, failed, or at once


def in_use(file):
    """Whether a file is a journal that some code would open."""
    with closing(sqlite3.connect(file)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal_info'").fetchone():
            return False
        names = [name for _, name, *_ in connection.execute("PRAGMA table_info(journal_info)")]
        mark = "mark" if "mark" in names else "move"
        return connection.execute(f"SELECT {mark} IS NULL FROM journal_info").fetchone() == (1,)


def places_in_use(url):
    """The files beside a journal that are in use, and itself."""
    file = file_of(url)
    ours = re.compile(rf"{file.name}(\.revision-\d+)?")
    return [each.name for each in file.parent.iterdir() if ours.fullmatch(each.name) and in_use(each)]


LATER = (("open newer", 1, True), ("open newer", 1, False))


@pytest.mark.parametrize(
    ("kind", "call", "number", "more"),
    [
        ("sqlite", "open", 0, ()),
        ("postgresql", "open", 0, ()),
        *(pytest.param(kind, call, n, (adds,), marks=pytest.mark.long) for kind in KINDS for call, n, adds in LATER),
    ],
)
def test_a_kill_at_any_step_leaves_all_or_nothing_changed(old_journal, dying_at, kind, call, number, more):
    """And the next process that opens the journal does it. No copy can be used."""
    url, whole = old_journal(kind, number), old_journal(kind, number)
    assert dying_at(-1, ("",), call, whole, *more)
    states = [(tables(url), rows(url)), (tables(whole), rows(whole))]
    kills = 0
    while not dying_at(kills + 1, ("",), call, url, *more):
        kills += 1
        assert (tables(url), rows(url)) in states
        assert kind == "postgresql" or places_in_use(url) == [file_of(url).name]
    assert kills > 10 and (tables(url), rows(url)) == states[1]
    if kind == "sqlite":
        assert [each.name for each in file_of(url).parent.iterdir() if ".part" in each.name] == []


@on_both
@pytest.mark.catches("an upgrade without its transaction")
def test_an_upgrade_that_fails_changes_nothing(old_journal, monkeypatch, kind):
    """Such as on a full disk, when all tables are made. The next one succeeds."""
    url = old_journal(kind)

    def fail():
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, refused(JournalError, "cannot be upgraded: No space left", url):
        patch.setattr(revisions, "readable_from", fail)
        Journal.open(url)
    Journal.open(url).close()


@on_both
@pytest.mark.catches("an upgrade without its lock")
def test_of_processes_that_open_a_journal_at_once_one_upgrades_it(old_journal, at_once, monkeypatch, kind):
    """The others wait for it, however long it takes, and then have nothing to do."""
    url, real = old_journal(kind), upgrading._wait_for

    def wait_for(*given):
        time.sleep(0.5)
        real(*given)

    monkeypatch.setattr(upgrading, "_wait_for", wait_for)

    def open_it(number, together):
        together()
        yield from opened(url)

    assert at_once(3, open_it) == ["opened"] * 3


# Older code


@on_both
def test_code_of_before_the_first_revision_writes_nothing_any_more(old_journal, kind):
    """Also where nobody knows that it has the journal open: before each write it asks for a column that is gone."""
    url = old_journal(kind)
    Journal.open(url).close()
    store = Store(url)
    with pytest.raises(JournalError, match="move.*Its tables are not those of this version"), store.write() as writing:
        writing.exec_driver_sql("SELECT move FROM journal_info")
    store.close()


@on_both
def test_older_code_goes_on_beside_a_change_that_only_adds(old_journal, open_there, kind):
    """Running or started again. It moves such a journal nowhere, since it does not know all of it."""
    url = old_journal(kind, 1)
    with Journal.open(url) as older:
        older.runs.open_attempt(identity("before"))
        assert open_there(url, newer=True) == "opened"
        older.runs.open_attempt(identity("after"))
    with Journal.open(url) as restarted:
        assert {"before", "after"} < {run.flow_name for run in restarted.runs.recent(9)}
    with refused(NewerSchemaError, "has tables of revision 2, which need a newer version", url):
        move(url, "sqlite:////nowhere/there.sqlite")


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_this_code_does_everything_on_tables_that_newer_code_has_added_to():
    """The tests of the journal and of what is durable pass there, as they do on its own tables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/journal", "tests/durable"],
        cwd=Path(__file__).parents[2],
        env={**environment, "IVCAP_FLOWS_TEST_NEWER_TABLES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def works(url):
    with Journal.open(url) as journal:
        journal.processes.announce()
        yield "works"


@on_both
@pytest.mark.catches("an upgrade that waits for nobody", "the revision is not read again")
def test_another_change_waits_for_older_code(old_journal, child, open_there, monkeypatch, kind):
    """It names the processes that are left, and changes nothing. Older code then says which version it needs."""
    monkeypatch.setattr(upgrading, "PATIENCE", 0.6)
    url = old_journal(kind, 1)
    idle = Journal.open(url)
    workers = [child(partial(works, url)) for _ in range(2)]
    assert [worker.said() for worker in workers] == ["works"] * 2
    before = tables(url)
    said = open_there(url, newer=False)
    assert said.startswith("JournalError") and "these processes use it with an older version" in said
    assert all(f"{worker.pid} on " in said for worker in workers) and tables(url) == before
    monkeypatch.setattr(upgrading, "PATIENCE", 60.0)
    newer = child(partial(opened, url, newer=False))
    time.sleep(1)
    assert not newer.has_said()
    for worker in workers:
        worker.kill()
    assert newer.said() == "opened"
    for write in (lambda: idle.runs.open_attempt(identity("late")), lambda: Journal.open(url)):
        with refused(NewerSchemaError, "revision 2, which need ivcap-flows 0.2.0 or later.*never delete", url):
            write()
    idle.close()


# The way back


@pytest.fixture
def upgraded(old_journal):
    """The URL of a journal on SQLite that was upgraded, and what was in it before."""
    url = old_journal("sqlite")
    before = dumped(url)
    Journal.open(url).close()
    return url, before


def beside(url, number):
    file = file_of(url)
    return file.with_name(f"{file.name}.revision-{number}")


@pytest.mark.catches("a copy without its mark")
def test_a_copy_is_kept_that_nobody_opens(upgraded):
    """Its owner's alone, with its key file. It says where the journal is."""
    url, before = upgraded
    copy = beside(url, 0)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (copy, key_file_of(copy))] == [0o600] * 2
    assert key_file_of(copy).read_text() == key_file_of(file_of(url)).read_text()
    assert places_in_use(url) == [file_of(url).name]
    with pytest.raises(JournalMovedError, match=f"was moved to {url}"):
        Journal.open(f"sqlite:///{copy}")
    kept = [line for line in dumped_from_file(copy).splitlines() if "journal_info" not in line]
    assert kept == [line for line in before.splitlines() if "journal_info" not in line]


def test_an_upgrade_is_undone(upgraded):
    """All of it, so that the code of before goes on. A process that has it open writes nothing more."""
    url, before = upgraded
    with Journal.open(url) as idle:
        assert upgrading.undo(url) == beside(url, 0)
        assert dumped(url) == before and places_in_use(url) == [file_of(url).name]
        with pytest.raises(JournalError, match="if an upgrade was undone, start again"):
            idle.runs.open_attempt(identity("late"))
    assert dumped(url) == before
    with refused(InputError, "no copy of", url):
        upgrading.undo(url)
    Journal.open(url).close()
    assert upgrading.undo(url) == beside(url, 0) and dumped(url) == before


def test_what_was_recorded_since_is_lost_only_if_that_is_asked_for(upgraded):
    """It is named, and kept in a copy."""
    url, before = upgraded
    with Journal.open(url) as journal:
        new = journal.runs.open_attempt(identity("new"))
        journal.intents.settle(
            journal.intents.mark_sent(journal.intents.claim(wanted(new, "dear")).intent),
            urn="urn:ivcap:order:dear",
            outcome={},
            how="sent",
        )
        with refused(JournalError, f"cannot be undone: these processes use it.*{os.getpid()} on", url):
            upgrading.undo(url)
    with refused(InputError, "would lose .*1 run, the order dear.*--lose", url):
        upgrading.undo(url)
    upgrading.undo(url, lose=True)
    assert dumped(url) == before and "urn:ivcap:order:dear" in dumped_from_file(beside(url, 1))


def test_a_kill_while_an_upgrade_is_undone_leaves_one_journal(upgraded, dying_at):
    """The same command ends it. Until then nobody opens any of the files."""
    url, before = upgraded
    kills = 0
    while not dying_at(kills + 1, ("",), "undo", url):
        kills += 1
        assert len(places_in_use(url)) <= 1
    assert kills > 15 and dumped(url) == before and places_in_use(url) == [file_of(url).name]


def test_of_several_copies_the_last_one_counts(upgraded, open_there, child):
    """One with a higher number may be left of an upgrade that was undone."""
    url, before = upgraded

    def undone():
        newer_code.become(adds_only=True)
        yield upgrading.undo(url)

    assert open_there(url, newer=True) == "opened"
    assert child(undone).said() == beside(url, 1)
    assert upgrading.undo(url) == beside(url, 0)
    assert open_there(url, newer=True) == "opened"
    assert child(undone).said() == beside(url, 0) and dumped(url) == before


def test_there_is_no_way_back_on_a_server(old_journal):
    """It says so, and changes nothing."""
    url = old_journal("postgresql")
    Journal.open(url).close()
    with refused(ConfigurationError, "cannot be undone. Restore a backup", url):
        upgrading.undo(url)


# What is refused


def test_a_disk_with_too_little_room_is_named_before_anything_changes(old_journal, monkeypatch):
    """The journal must fit into it three times."""
    url = old_journal("sqlite")
    usage = shutil.disk_usage(file_of(url).parent)
    little = usage._replace(free=2 * file_of(url).stat().st_size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    with refused(JournalError, "must be free in .* Make room", url):
        Journal.open(url)
    assert not beside(url, 0).exists()


@on_both
def test_tables_that_nobody_knows_are_left_alone(old_journal, kind):
    """Those of an unpublished version, with a next step that loses nothing."""
    url = old_journal(kind)
    store = upgrading.Place(url)
    with store.write() as writing:
        writing.exec_driver_sql("UPDATE journal_info SET version = 'abcdef012345'")
    store.close()
    with refused(NewerSchemaError, "unpublished version .*tables abcdef012345.*Finish its runs", url):
        Journal.open(url)


def test_half_a_file_is_no_journal(old_journal):
    """Not even one that could be upgraded."""
    url = old_journal("sqlite")
    file = file_of(url)
    half = file.read_bytes()[: file.stat().st_size // 2 // 4096 * 4096]
    file.write_bytes(half)
    with pytest.raises(JournalError, match="damaged or was copied in part: restore a backup"):
        Journal.open(url)
    assert file.read_bytes() == half


# Moves


@on_both
def test_an_older_journal_is_upgraded_before_it_is_moved(old_journal, place, kind):
    url, new = old_journal(kind), place("sqlite")
    before = rows(url)
    move(url, new)
    with Journal.open(new) as journal:
        assert len(journal.runs.recent(9)) == 4
    assert rows(url) == before


@on_both
def test_a_move_that_older_code_began_is_ended(old_journal, kind):
    """The copy has the tables of before, and is upgraded when it is opened."""
    url, copy = old_journal(kind), old_journal(kind)
    for place, mark in ((url, {"id": "m", "to": copy}), (copy, {"id": "m", "from": url})):
        database = upgrading.Place(place)
        with database.write() as writing:
            writing.execute(sa.text("UPDATE journal_info SET move = :mark, id = 'j'"), {"mark": json.dumps(mark)})
        database.close()
    with refused(JournalMovedError, "was moved to", url):
        Journal.open(url)
    move(url, copy)
    with Journal.open(copy) as journal:
        assert len(journal.runs.recent(9)) == 4
