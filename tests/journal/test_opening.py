"""Many processes may open a journal at once. What cannot be kept safe is refused with a next step."""

from __future__ import annotations

import atexit
import gc
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import psutil
import pytest
import sqlalchemy as sa

from ivcap_flows.capture import use_journal
from ivcap_flows.capture.record_writer import Statement
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.errors import ConfigurationError, JournalError
from ivcap_flows.journal import Fact, Journal, RunIdentity, schema
from ivcap_flows.journal.filesystems import network_file_system
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import entity


@pytest.fixture
def file(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def file_url(file):
    return f"sqlite:///{file}"


def test_first_openings_at_once_take_turns(empty_url, at_once):
    """Four processes that create one journal at the same moment all open it, and it is one journal."""

    def open_it(number, together):
        together()
        with Journal.open(empty_url) as journal:
            yield journal.id

    ids = at_once(4, open_it)
    with Journal.open(empty_url) as journal:
        assert set(ids) == {journal.id}


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ("ALTER TABLE intents DROP COLUMN reuse", sa.select(schema.intents.c.reuse)),
        ("ALTER TABLE leases DROP COLUMN token", sa.insert(schema.leases).values(name="n", token="t")),
        ("DROP TABLE once", sa.select(schema.once.c.name)),
        ("SELECT 1", sa.insert(schema.leases).values(name="n")),
    ],
    ids=["column read", "column written", "table", "column that is filled"],
)
def test_tables_of_another_version_are_named_as_the_cause(empty_url, change, statement):
    """With a step that helps, instead of a guess about paths and servers. Nothing is changed."""
    Journal.open(empty_url).close()
    store = Store(empty_url)
    with store.write() as connection:
        connection.execute(sa.text(change))
    expected = r"(reuse|token|once|leases).*not those of this version.*upgrade here"
    with pytest.raises(JournalError, match=expected), store.write() as connection:
        connection.execute(statement)
    store.close()


@pytest.mark.parametrize(
    "made", ["TABLE runs (number INTEGER)", "TABLE Runs (number INTEGER)", "VIEW runs AS SELECT 1 AS n"]
)
def test_what_another_program_keeps_in_a_database_is_left_alone(empty_url, made):
    """Such as that of a program that has `runs`, too, in whatever case."""
    engine = sa.create_engine(empty_url.replace("postgresql://", "postgresql+psycopg://"))
    if engine.dialect.name == "sqlite":
        Path(engine.url.database).parent.mkdir()
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE {made}"))
    file = Path(engine.url.database)
    before = file.read_bytes() if engine.dialect.name == "sqlite" else b""
    with pytest.raises(ConfigurationError, match=r"(?i)another program's: .* \(?runs\b"):
        Journal.open(empty_url)
    # Not even switched to another way of writing.
    assert before == (file.read_bytes() if before else b"")
    found = sa.inspect(engine)
    assert [name.lower() for name in (*found.get_table_names(), *found.get_view_names())] == ["runs"]
    engine.dispose()


def test_importing_and_opening_stay_light(sqlite_url):
    """The import loads no database library, and opening a journal is fast."""
    script = f"""
import sys, time
from ivcap_flows.journal import Journal
assert not {{"sqlalchemy", "psutil"}} & set(sys.modules), "heavy import"
times = []
for _ in range(5):
    began = time.perf_counter()
    Journal.open({sqlite_url!r}).close()
    times.append(time.perf_counter() - began)
assert min(times) < 0.06, times
assert "alembic" not in sys.modules, "nothing is to be upgraded"
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def open_and_record(url):
    """Record into a journal as a worker does, and leave it."""
    with Journal.open(url) as journal, use_journal(journal) as recorder:
        opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
        recorder.put(Statement(opened.run.id, None, lambda: [entity("urn:example:thing", "file")]))
        # After a write that had failed.
        start_heartbeat(journal)
        journal.untold.add(lambda: journal.runs.close_attempt(opened.attempt.id, "completed"))
        journal.untold.write()
        stop_heartbeat(journal)


def left_in_the_process():
    """Count the functions of the package and the callbacks for the end of the process."""
    gc.collect()
    functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    return sum(str(each.__module__).startswith("ivcap_flows.") for each in functions), atexit._ncallbacks()


@pytest.mark.catches("callback for each journal")
def test_a_journal_that_was_opened_leaves_nothing_in_the_process(sqlite_url):
    """A worker may open one for each of a million runs."""
    for _ in range(2):
        open_and_record(sqlite_url)
    before = left_in_the_process()
    for _ in range(5):
        open_and_record(sqlite_url)
    functions, callbacks = (now - then for now, then in zip(left_in_the_process(), before, strict=True))
    # Other threads may have made a function meanwhile, but none for each journal.
    assert functions < 5 and callbacks == 0


def test_commits_reach_the_disk(empty_url):
    """SQLite has WAL, full synchronisation and foreign keys; PostgreSQL commits to disk whatever its default says."""
    Journal.open(empty_url).close()
    store = Store(empty_url)
    with store.write() as connection:
        if store.is_sqlite:
            names = ("journal_mode", "synchronous", "foreign_keys")
            assert [connection.execute(sa.text(f"PRAGMA {name}")).scalar() for name in names] == ["wal", 2, 1]
        else:
            connection.execute(sa.text(f"ALTER DATABASE {store.engine.url.database} SET synchronous_commit = off"))
    store.close()
    again = Store(empty_url)
    with again.write() as connection:
        assert again.is_sqlite or connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"
    again.close()


def test_new_folder_is_private(tmp_path, monkeypatch):
    """Only the owner can open the folder and the files of a journal. A path that begins with ~ lies in the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with Journal.open("sqlite:///~/new/journal.sqlite"):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
        assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_journal_that_others_may_use_is_named(file, file_url):
    """A new one is its owner's whatever is masked. One that had another mode keeps it, since a group may share it."""
    before = os.umask(0)
    try:
        with Journal.open(file_url) as journal:
            assert [each for each in file.parent.iterdir() if each.stat().st_mode & 0o077] == []
            assert journal.exposure() is None
        for mode in (0o640, 0o602):
            file.chmod(mode)
            with Journal.open(file_url) as journal:
                said = journal.exposure()
            assert f"{mode:03o}" in said and str(file) in said and stat.S_IMODE(file.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_bad_places_are_named(tmp_path, monkeypatch):
    """A file in the way, a folder, a file that is no database and a read-only file are errors with the path."""
    (tmp_path / "file").write_text("this is no database, whatever its name says" * 100)
    (tmp_path / "closed.sqlite").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))
    for place in (tmp_path / "file" / "j.sqlite", tmp_path, tmp_path / "file", tmp_path / "closed.sqlite"):
        with pytest.raises(JournalError, match="IVCAP_FLOWS_JOURNAL") as caught:
            Journal.open(f"sqlite:///{place}")
        assert str(place) in caught.value.message


def test_a_full_disk_is_an_error_with_a_next_step(sqlite_journal):
    """Earlier facts stay."""
    run = sqlite_journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1")).run
    sqlite_journal.facts.append([Fact(entity("small", "file"), run.id)])

    @sa.event.listens_for(sqlite_journal._store.engine, "checkout")
    def _full(connection, *_):
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    with pytest.raises(JournalError, match="full.* free space"):
        sqlite_journal.facts.append([Fact(entity("large", "file", note="x" * 1_000_000), run.id)])
    assert [fact.record.id for fact in sqlite_journal.facts.of_run(run.id)] == ["small"]


def test_network_file_systems_are_refused(file, file_url, monkeypatch):
    """The innermost and last mount that covers the path decides. A local disk below NFS is accepted."""
    mounts = [("/", "ext4"), ("/data", "nfs4"), ("/data/fast", "xfs"), ("/over", "xfs"), ("/over", "cifs")]
    places = {"/data/new": "nfs4", "/data/fast": None, "/database": None, "/over": "cifs"}
    assert {place: network_file_system(Path(place) / "journal.sqlite", mounts) for place in places} == places

    class Part:
        mountpoint, fstype = str(file.parent.resolve()), "nfs"

    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [Part])
    with pytest.raises(ConfigurationError, match=r"network or virtual file system \(nfs\).*PostgreSQL"):
        Journal.open(file_url)
    assert not file.exists()


def test_file_systems_that_machines_share_are_refused():
    """Network file systems, folders that a host shares with its guest, and most FUSE file systems."""
    shared = ["9p", "virtiofs", "vboxsf", "prl_fs", "drvfs", "vmhgfs", "macfuse", "fuse"]
    fuse = ("rclone", "gcsfuse", "s3fs", "blobfuse2", "juicefs", "sshfs", "unknown")
    shared += [f"fuse.{name}" for name in fuse]
    own = ["ext4", "xfs", "btrfs", "zfs", "apfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"]
    for kind in (*shared, *own):
        found = network_file_system(Path("/data/journal.sqlite"), [("/", "ext4"), ("/data", kind.upper())])
        assert found == (kind if kind in shared else None)


@pytest.mark.parametrize(
    ("asked", "done"),
    [
        ("PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
        ("PRAGMA foreign_keys = ON", "PRAGMA foreign_keys = OFF"),
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE"),
    ],
)
def test_what_sqlite_does_not_grant_is_an_error(file, file_url, monkeypatch, asked, done):
    """It ignores settings that it was built without, and WAL on a file system without shared memory, in silence."""
    connect = sqlite3.dbapi2.connect

    class Deaf(sqlite3.Connection):
        def execute(self, statement, *values):
            return super().execute(done if statement == asked else statement, *values)

    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *given, **more: connect(*given, **more, factory=Deaf))
    setting = asked.split()[1]
    with pytest.raises(ConfigurationError, match=f"{file}.*{setting}.*local disk in IVCAP_FLOWS_JOURNAL"):
        Journal.open(file_url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "no url at all"])
def test_urls_that_cannot_hold_a_journal(url):
    """In-memory, unknown and malformed URLs are refused. The error shows the valid forms and no password."""
    with pytest.raises(ConfigurationError, match="sqlite:///<path>") as caught:
        Journal.open(url)
    assert "secret" not in str(caught.value)


def test_unreachable_server_is_named_without_its_password():
    """A PostgreSQL server that does not answer is a JournalError with its host, never its password."""
    with pytest.raises(JournalError, match=r"127\.0\.0\.1.*server runs") as caught:
        Journal.open("postgresql://user:hunter2@127.0.0.1:1/nothing")
    assert "hunter2" not in caught.value.message + caught.value.url + repr(caught.value.__cause__)


def test_the_benchmarks_write_rows_that_the_tables_take(sqlite_url):
    """They fill a journal without the package, so a column that comes or goes would stop them."""
    from benchmarks.journal_size import BEGIN, SINK, OnSqlite, Rows

    OnSqlite(sqlite_url).fill(Rows(range(2), SINK, BEGIN, delivered=True))
    with Journal.open(sqlite_url) as journal:
        assert len(journal.runs.recent()) == 2
