"""Many processes may open a journal at once. What cannot be kept safe is refused with a next step."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from mutants import mutate

from ivcap_flows.capture import use_journal
from ivcap_flows.capture.record_writer import Statement
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.errors import ConfigurationError, JournalError, NewerSchemaError
from ivcap_flows.journal import Fact, Journal, RunIdentity, schema
from ivcap_flows.journal.filesystems import network_file_system
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import entity

FORK = multiprocessing.get_context("fork")


def _open_at(url: str, moment: float, results: multiprocessing.Queue[str]) -> None:
    time.sleep(max(0.0, moment - time.time()))
    try:
        with Journal.open(url) as journal:
            results.put(journal.id)
    except BaseException as error:
        results.put(repr(error))


def test_first_openings_at_once_take_turns(empty_url: str) -> None:
    """Eight processes that create one journal at the same moment all open it, and it is one journal."""
    results = FORK.Queue()
    moment = time.time() + 0.2
    children = [FORK.Process(target=_open_at, args=(empty_url, moment, results)) for _ in range(8)]
    for child in children:
        child.start()
    ids = {results.get(timeout=30) for _ in children}
    for child in children:
        child.join()
    with Journal.open(empty_url) as journal:
        assert ids == {journal.id}


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
def test_tables_that_do_not_fit_are_named_as_the_cause(empty_url: str, change: str, statement: sa.Executable) -> None:
    """What is missing is told, with a step that helps, instead of a guess about paths and servers."""
    Journal.open(empty_url).close()
    store = Store(empty_url)
    with store.write() as connection:
        connection.execute(sa.text(change))
    expected = r"(reuse|token|once|leases).*not those of this version.*upgrade here"
    with pytest.raises(JournalError, match=expected), store.write() as connection:
        connection.execute(statement)
    store.close()


def test_a_journal_with_other_tables_is_refused(empty_url: str) -> None:
    """A journal that another version made is an error that says what to do, and nothing is changed."""
    Journal.open(empty_url).close()
    store = Store(empty_url)
    with store.write() as connection:
        connection.execute(sa.update(schema.journal_info).values(version="9999"))
    store.close()
    with pytest.raises(NewerSchemaError, match="another version of ivcap-flows.*Use that version") as caught:
        Journal.open(empty_url)
    assert (caught.value.found, caught.value.known) == ("9999", schema.VERSION)


def test_each_change_of_the_tables_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is added, or that may be empty, makes another version; on every machine it is the same."""
    assert schema._version() == schema.VERSION
    code = "from ivcap_flows.journal.schema import VERSION; print(VERSION)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        said = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        assert said.stdout.strip() == schema.VERSION
    monkeypatch.setattr(schema.once.c.value, "nullable", True)
    assert schema._version() != schema.VERSION


def test_importing_and_opening_stay_light(tmp_path: Path) -> None:
    """The import loads no database library, and opening a journal is fast."""
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    Journal.open(url).close()
    script = f"""
import sys, time
from ivcap_flows.journal import Journal
assert not {{"sqlalchemy", "psutil"}} & set(sys.modules), "heavy import"
Journal.open({url!r}).close()
times = []
for _ in range(5):
    began = time.perf_counter()
    Journal.open({url!r}).close()
    times.append(time.perf_counter() - began)
assert min(times) < 0.06, times
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def open_and_record(url: str) -> None:
    """Record into a journal as a worker does, and leave it."""
    with Journal.open(url) as journal, use_journal(journal) as recorder:
        opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
        recorder.put(Statement(opened.run.id, None, lambda: [entity("urn:example:thing", "file")]))
        # After a write that had failed.
        start_heartbeat(journal)
        journal.untold.add(lambda: journal.runs.close_attempt(opened.attempt.id, "completed"))
        journal.untold.write()
        stop_heartbeat(journal)


def left_in_the_process() -> tuple[int, int]:
    """Count the functions of the package and the callbacks for the end of the process."""
    gc.collect()
    functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    return sum(str(each.__module__).startswith("ivcap_flows.") for each in functions), atexit._ncallbacks()


@pytest.mark.mutant(None)
def test_a_journal_that_was_opened_leaves_nothing_in_the_process(tmp_path: Path) -> None:
    """A worker may open one for each of a million runs."""
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    for _ in range(3):
        open_and_record(url)
    before = left_in_the_process()
    for _ in range(10):
        open_and_record(url)
    functions, callbacks = (now - then for now, then in zip(left_in_the_process(), before, strict=True))
    # Other threads may have made a function meanwhile, but none for each journal.
    assert functions < 10 and callbacks == 0


@pytest.mark.mutant("callback for each journal")
def test_a_build_with_a_callback_for_each_journal_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails on a build that registers what a forked child does once for each journal."""
    mutate("callback for each journal", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        test_a_journal_that_was_opened_leaves_nothing_in_the_process(tmp_path)


def test_commits_reach_the_disk(empty_url: str) -> None:
    """SQLite has WAL, full synchronisation and foreign keys; PostgreSQL commits to disk whatever its default says."""
    Journal.open(empty_url).close()
    store = Store(empty_url)
    with store.write() as connection:
        if store.is_sqlite:
            found = [connection.execute(sa.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
            assert found == ["wal", 2]
            assert connection.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1
            return
        name = store.engine.url.database
        connection.execute(sa.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    store.close()
    again = Store(empty_url)
    with again.write() as connection:
        assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"
    again.close()


def test_new_folder_is_private(tmp_path: Path) -> None:
    """Only the owner can open the folder and the files of a journal."""
    with Journal.open(f"sqlite:///{tmp_path / 'new' / 'journal.sqlite'}"):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
        assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_journal_that_others_may_use_is_named(tmp_path: Path) -> None:
    """A new one is its owner's whatever is masked. One that had another mode keeps it, since a group may share it."""
    path = tmp_path / "journal.sqlite"
    before = os.umask(0)
    try:
        with Journal.open(f"sqlite:///{path}") as journal:
            assert [file for file in tmp_path.iterdir() if file.stat().st_mode & 0o077] == []
            assert journal.exposure() is None
        for mode in (0o640, 0o602):
            path.chmod(mode)
            with Journal.open(f"sqlite:///{path}") as journal:
                said = journal.exposure()
            assert (
                said is not None
                and f"{mode:03o}" in said
                and str(path) in said
                and stat.S_IMODE(path.stat().st_mode) == mode
            )
    finally:
        os.umask(before)


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins with ~ lies in the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    Journal.open("sqlite:///~/journal.sqlite").close()
    assert (tmp_path / "journal.sqlite").exists()


def test_bad_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the way, a folder, a file that is no database and a read-only file are errors with the path."""
    (tmp_path / "file").write_text("this is no database, whatever its name says" * 100)
    (tmp_path / "closed.sqlite").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))
    for place in (tmp_path / "file" / "j.sqlite", tmp_path, tmp_path / "file", tmp_path / "closed.sqlite"):
        with pytest.raises(JournalError, match="IVCAP_FLOWS_JOURNAL") as caught:
            Journal.open(f"sqlite:///{place}")
        assert str(place) in caught.value.message


def test_full_disk_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    """Facts that do not fit on the disk raise JournalError. Earlier facts stay."""
    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    with Journal.open(url) as journal:
        run = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1")).run
        journal.facts.append([Fact(entity("small", "file"), run.id)])

        @sa.event.listens_for(journal._store.engine, "checkout")
        def _full(connection: sqlite3.Connection, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

        with pytest.raises(JournalError, match="full.* free space"):
            journal.facts.append([Fact(entity("large", "file", note="x" * 1_000_000), run.id)])
        assert [fact.record.id for fact in journal.facts.of_run(run.id)] == ["small"]


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost and last mount that covers the path decides. A local disk below NFS is accepted."""
    mounts = [("/", "ext4"), ("/data", "nfs4"), ("/data/fast", "xfs"), ("/over", "xfs"), ("/over", "cifs")]
    assert network_file_system(Path("/data/new/journal.sqlite"), mounts) == "nfs4"
    assert network_file_system(Path("/data/fast/journal.sqlite"), mounts) is None
    assert network_file_system(Path("/database/journal.sqlite"), mounts) is None
    assert network_file_system(Path("/over/journal.sqlite"), mounts) == "cifs"

    class Part:
        mountpoint, fstype = str(tmp_path.resolve()), "nfs"

    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [Part])
    with pytest.raises(ConfigurationError, match=r"network or virtual file system \(nfs\).*PostgreSQL"):
        Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    assert not (tmp_path / "journal.sqlite").exists()


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        *((kind, True) for kind in ("9p", "virtiofs", "vboxsf", "prl_fs", "drvfs", "vmhgfs", "macfuse", "fuse")),
        *((f"fuse.{name}", True) for name in ("rclone", "gcsfuse", "s3fs", "blobfuse2", "juicefs", "sshfs", "unknown")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "apfs", "tmpfs", "overlay", "fuseblk")),
        ("fuse.fuse-overlayfs", False),
    ],
)
def test_file_systems_that_machines_share_are_refused(kind: str, refused: bool) -> None:
    """Network file systems, folders that a host shares with its guest, and most FUSE file systems are refused."""
    found = network_file_system(Path("/data/journal.sqlite"), [("/", "ext4"), ("/data", kind.upper())])
    assert found == (kind if refused else None)


@pytest.mark.parametrize(
    ("asked", "done"),
    [
        ("PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
        ("PRAGMA foreign_keys = ON", "PRAGMA foreign_keys = OFF"),
    ],
)
def test_what_sqlite_does_not_grant_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, done: str
) -> None:
    """SQLite silently ignores settings it was built without, so the settings are read back."""
    connect = sqlite3.dbapi2.connect

    class Deaf(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
            return super().execute(done if statement == asked else statement, *values)

    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *given, **more: connect(*given, **more, factory=Deaf))
    with pytest.raises(ConfigurationError, match=rf"journal\.sqlite.*{asked.split()[1]}.*IVCAP_FLOWS_JOURNAL"):
        Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}")


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shared memory SQLite silently uses another journal mode, with which locks would fail. That is refused."""
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(
        sqlite3.dbapi2,
        "connect",
        lambda path, **more: connect(f"file:{path}?vfs=unix-none", uri=True, **more),
    )
    path = tmp_path / "journal.sqlite"
    with pytest.raises(ConfigurationError, match=f"{path}.*journal_mode.*'delete'.*local disk"):
        Journal.open(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "no url at all"])
def test_urls_that_cannot_hold_a_journal(url: str) -> None:
    """In-memory, unknown and malformed URLs are refused. The error shows the valid forms and no password."""
    with pytest.raises(ConfigurationError, match="sqlite:///<path>") as caught:
        Journal.open(url)
    assert "secret" not in str(caught.value)


def test_unreachable_server_is_named_without_its_password() -> None:
    """A PostgreSQL server that does not answer is a JournalError with its host, never its password."""
    with pytest.raises(JournalError, match=r"127\.0\.0\.1.*server runs") as caught:
        Journal.open("postgresql://user:hunter2@127.0.0.1:1/nothing")
    assert "hunter2" not in caught.value.message + caught.value.url + repr(caught.value.__cause__)


def test_the_benchmarks_write_rows_that_the_tables_take(tmp_path: Path) -> None:
    """They fill a journal without the package, so a column that comes or goes would stop them."""
    from benchmarks.journal_size import BEGIN, SINK, OnSqlite, Rows

    url = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    with Journal.open(url):
        pass
    OnSqlite(url).fill(Rows(range(2), SINK, BEGIN, delivered=True))
    with Journal.open(url) as journal:
        assert len(journal.runs.recent()) == 2
