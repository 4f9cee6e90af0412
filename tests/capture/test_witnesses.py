"""Code, secrets and files by themselves; a queue that is full; and runs whose process was killed."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from checkouts import git

from ivcap_flows.capture import (
    annotate,
    attempts,
    context,
    current_attempt,
    file_clock,
    files,
    journal,
    recorded,
    recorder,
    use_journal,
)
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.code import checkout, code_record, packages
from ivcap_flows.capture.record_writer import Recorder, Statement
from ivcap_flows.errors import JournalError
from ivcap_flows.file_state import FileState
from ivcap_flows.handles import LocalFile, Order
from ivcap_flows.identity import digest, flows_urn
from ivcap_flows.in_prefect.flow_run_states import PrefectState, prefect_state
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity
from ivcap_flows.journal.facts import Facts
from ivcap_flows.journal.runs import Runs
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.secrets import HIDDEN, hide, is_secret_name, scrub, scrub_text


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "a.py").write_text("x = 1\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", "https://ada:t0ken-t0ken@example.org/flows.git")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    checkout.cache_clear()
    return folder


def test_the_code_is_its_commit_its_file_and_the_packages(repository):
    """A clean tree gives commit, branch and bare remote, the file within the repository, and versions."""
    facts = code_record(str(repository / "flows" / "a.py"), "main").attributes
    assert facts["commit"] == git(repository, "rev-parse", "HEAD")
    assert (facts["branch"], facts["remote"]) == ("main", "https://example.org/flows.git")
    assert (facts["dirty"], facts["file"], facts["name"]) == (False, "flows/a.py", "main")
    assert "diff_sha256" not in facts
    assert facts["packages"]["prefect"].startswith("3.")


def test_a_dirty_tree_is_told_by_the_digest_of_what_differs(repository):
    """A changed file and a new source each make the tree dirty, with another digest; data and ignored files do not."""
    (repository / "data.csv").write_text("1")
    assert not checkout(str(repository)).dirty
    digests = set()
    for name, text in (("flows/a.py", "x = 2\n"), ("flows/a.py", "x = 3\n"), ("flows/new.py", "y = 1\n")):
        (repository / name).write_text(text)
        checkout.cache_clear()
        tree = checkout(str(repository / "flows"))
        assert tree.dirty
        digests.add(tree.diff_sha256)
    assert len(digests) == 3
    assert None not in digests


def test_code_without_a_repository_is_known_by_its_file(tmp_path, monkeypatch):
    """Outside of git, or without the program, the digest of the file and the packages remain."""
    (tmp_path / "b.py").write_text("y = 1\n")
    checkout.cache_clear()
    record = code_record(str(tmp_path / "b.py"), "b")
    assert record.attributes["source_sha256"] == digest(b"y = 1\n")
    assert record.attributes["file"] == "b.py"
    assert "commit" not in record.attributes
    monkeypatch.setenv("PATH", "")
    checkout.cache_clear()
    assert code_record(str(tmp_path / "b.py"), "b").id == record.id
    assert code_record(None, "b").id != record.id


def test_hooks_of_a_repository_do_not_run(repository, tmp_path):
    """A repository's own settings start no program when its state is read."""
    spy = tmp_path / "spy.sh"
    spy.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    spy.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(spy))
    git(repository, "config", "diff.external", str(spy))
    (repository / "flows" / "a.py").write_text("x = 9\n")
    checkout.cache_clear()
    (tmp_path / "ran").unlink(missing_ok=True)
    assert checkout(str(repository)).dirty
    assert not (tmp_path / "ran").exists()


def test_package_versions_are_the_installed_ones():
    """The names of metadata folders tell what importlib.metadata tells."""
    from importlib.metadata import version

    assert {
        name: version(name) for name in ("prefect", "pydantic-settings", "sqlalchemy")
    }.items() <= packages().items()


@pytest.mark.parametrize("name", ["password", "api_key", "userToken", "IVCAP_JWT", "client-secret", "credentials"])
def test_secret_names(name):
    """These names hide their values."""
    assert is_secret_name(name)
    assert scrub({name: "x"}) == {name: HIDDEN}


@pytest.mark.parametrize("name", ["author", "token_count", "key", "keyboard", "tokenizer", "series", "token_url"])
def test_harmless_names(name):
    """These look alike and hide nothing."""
    assert not is_secret_name(name)


def test_secrets_in_texts():
    """Known values, tokens, passwords in URLs and bearer headers go; the text around them stays."""
    hide("known-secret-value")
    text = "a known-secret-value b https://u:p@host/x c Authorization: Bearer abcdefghijklmnop d"
    shown = f"a {HIDDEN} b https://{HIDDEN}@host/x c Authorization: Bearer {HIDDEN} d"
    assert scrub_text(text) == shown
    assert scrub_text("x=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln;") == f"x={HIDDEN};"
    assert scrub([{"a": "https://host/x?b=1"}, None, 3]) == [{"a": "https://host/x?b=1"}, None, 3]


def test_a_large_file_is_hashed_later_if_it_stays_the_same(tmp_path, monkeypatch):
    """Above the limit nothing is read at first; a file changed in between is recorded as unhashed, with the reason."""
    monkeypatch.setattr(files, "AT_ONCE", 10)
    same, changed = tmp_path / "same", tmp_path / "changed"
    for path in (same, changed):
        path.write_bytes(b"x" * 100)
    seen = [files.snapshot(str(path), "r", None) for path in (same, changed)]
    assert [each.sha256 for each in seen] == [None, None]
    changed.write_bytes(b"y" * 100)
    for each in seen:
        files.settle(each, None)
    assert seen[0].sha256 == digest(b"x" * 100)
    [record] = files.records_of(seen[1])
    assert (record.type, record.attributes["reason"]) == ("unhashed", "changed before it could be hashed")


def test_too_large_and_unreadable_are_told(tmp_path, monkeypatch):
    """A folder of too many files and a file above the last limit are recorded without content, with the reason."""
    monkeypatch.setattr(files, "MAX_MEMBERS", 1)
    monkeypatch.setattr(files, "AT_ONCE", 1)
    monkeypatch.setattr(files, "HUGE", 2)
    for name in "ab":
        (tmp_path / name).write_text("abc")
    folder, file = files.snapshot(f"{tmp_path}/", "r", None), files.snapshot(str(tmp_path / "a"), "r", None)
    for each in (folder, file):
        files.settle(each, None)
    assert [files.records_of(each)[0].type for each in (folder, file)] == ["unhashed", "unhashed"]
    assert folder.reason == "a folder of more than 1 files"
    assert files.snapshot("/dev/null", "r", None) is None
    assert files.snapshot(str(tmp_path / "nothing"), "r", None).stamp is None


def test_unchanged_files_are_not_read_again(tmp_path):
    """The journal's digests of unchanged files are used and kept."""
    path = tmp_path / "big"
    path.write_bytes(os.urandom(files._DEAR))
    first = files.snapshot(str(path), "r", journal().files)
    known = journal().files.known_sha256(str(path), first.stamp)
    assert first.sha256 == known == digest(path.read_bytes())
    files._read._renew()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "hashlib", None)
        assert files.snapshot(str(path), "r", journal().files).sha256 == known
    # What is verified is read, whatever is known of it.
    files._read().digests.put(str(path), (first.stamp, "0" * 64))
    assert files.snapshot(str(path), "r", journal().files).sha256 == "0" * 64
    assert files.file_at(path, None).sha256 == known


@pytest.fixture
def readings(monkeypatch) -> list[int]:
    """One entry for each time that a file is read for its digest."""
    import hashlib

    made: list[int] = []
    monkeypatch.setattr(files, "hashlib", SimpleNamespace(sha256=lambda: made.append(1) or hashlib.sha256()))
    return made


def test_a_file_is_read_once_however_many_use_it(tmp_path, readings):
    """The one that a call has just written too: by its maker, two readers and an upload, one reading in all."""
    path = tmp_path / "made.bin"

    @recorded
    def make(target: str) -> Path:
        Path(target).write_bytes(b"x" * files._DEAR)
        return Path(target)

    @recorded
    def use(source: Path) -> None:
        """Do nothing."""

    use(make(str(path)))
    use(path)
    assert files.file_at(path, journal().files).sha256 == digest(path.read_bytes())
    assert recorder().flush()
    assert len(readings) == 1


def test_a_large_file_is_read_once_and_later(tmp_path, monkeypatch, readings):
    """What is too large to be hashed in the flow's thread is hashed by the recorder's, or by an upload: once."""
    monkeypatch.setattr(files, "AT_ONCE", 10)
    path = tmp_path / "large.bin"
    path.write_bytes(b"x" * files._DEAR)

    @recorded
    def use(source: Path, *, upload: bool) -> None:
        if upload:
            files.file_at(source, journal().files)

    for upload in (False, True, False):
        use(path, upload=upload)
        assert recorder().flush()
    assert len(readings) == 1


def test_what_a_task_of_the_package_has_written_is_not_read_for_it(tmp_path, readings):
    """A download has hashed its bytes on the way: the file that it names is known, also by its path."""
    content = b"x" * 2**15

    def download() -> LocalFile:
        (tmp_path / "series.csv").write_bytes(content)
        return LocalFile(path=str(tmp_path / "series.csv"), sha256=digest(content), size=len(content))

    @recorded
    def use(source: Path) -> None:
        """Do nothing."""

    download.__module__ = "ivcap_flows.tasks.artifacts"
    use(recorded(download)())
    use(tmp_path / "series.csv")
    assert recorder().flush()
    assert readings == []


def test_changes_faster_than_the_clock_are_seen(tmp_path, monkeypatch):
    """Versions of one size that follow each other within a tick of the file system's clock have each their digest."""
    tick = 4_000_000

    def coarse(found: os.stat_result) -> FileState:
        times = found.st_mtime_ns // tick * tick, found.st_ctime_ns // tick * tick
        return FileState(found.st_size, *times, found.st_ino, found.st_dev)

    # Some file systems stamp finer than others.
    monkeypatch.setattr(FileState, "from_stat", staticmethod(coarse))
    monkeypatch.setattr(file_clock, "_now_ns", lambda: time.time_ns() // tick * tick)
    path = tmp_path / "quick"
    for number in range(300):
        path.write_text(f"{number:04d}")
        assert files.snapshot(str(path), "r", journal().files).sha256 == digest(b"%04d" % number)


def test_a_flows_end_that_cannot_be_recorded_is_counted(monkeypatch):
    """A flow without `@recorded` whose end fails to be written: nothing is raised, and its run says so."""

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    identity = RunIdentity("flow", "a.py:flow", {}, "f9", "f9")
    attempt = attempts.open_attempt(identity, None, "flow")
    with monkeypatch.context() as patch:
        patch.setattr(context, "close_attempt", full)
        state = SimpleNamespace(type=SimpleNamespace(value="COMPLETED"), message=None)
        context._flow_ended(None, SimpleNamespace(id="f9"), state)
    assert recorder().flush()
    assert journal().runs.get(attempt.run.id).missing_facts == 1
    attempts.close_attempt(attempt, "completed")


def opened(root: str = "f1"):
    return journal().runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, root, root))


def test_a_full_queue_counts_what_it_leaves_out(monkeypatch):
    """Beyond its capacity the recorder drops, counts, and tells the journal the number."""
    monkeypatch.setattr("ivcap_flows.capture.record_writer.CAPACITY", 3)
    run = opened().run
    begun, held = threading.Event(), threading.Event()

    def slow():
        begun.set()
        held.wait(60)
        return [entity("urn:x:1", "entity")]

    writer = Recorder(journal())
    writer.put(Statement(run.id, None, slow))
    assert begun.wait(60)
    for _ in range(5):
        writer.put(Statement(run.id, None, lambda: [entity("urn:x:2", "entity")]))
    held.set()
    assert writer.flush()
    assert journal().runs.get(run.id).missing_facts == 2
    assert len(journal().facts.of_run(run.id)) == 4


def test_what_cannot_be_written_is_missing_alone():
    """What JSON cannot hold costs its own statement and none of those that are written with it."""

    def odd():
        return [entity("urn:x:odd", "entity", value={1: "no text"})]

    run = opened().run
    writer = Recorder(journal())
    for number in range(3):
        writer.put(Statement(run.id, None, lambda number=number: [entity(f"urn:x:{number}", "entity")]))
        writer.put(Statement(run.id, None, odd if number == 1 else list))
    assert writer.flush()
    assert [fact.record.id for fact in journal().facts.of_run(run.id)] == ["urn:x:0", "urn:x:1", "urn:x:2"]
    assert journal().runs.get(run.id).missing_facts == 1


def test_a_name_that_is_no_utf8_is_recorded(tmp_path, recorded_graph):
    """A file, a folder and a parameter named in Latin-1 are told apart, with their digests; nothing is missing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (b"M\xfcnchen.csv", b"M\xf6nchen.csv"):
        (folder / os.fsdecode(name)).write_bytes(name)

    @recorded
    def ingest(path: str, folder: Path) -> None:
        raise ValueError(path)

    for path in (folder / os.fsdecode(b"M\xfcnchen.csv"), folder / os.fsdecode(b"gone-\xfc.csv")):
        with pytest.raises(ValueError):
            ingest(str(path), folder)
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert run.missing_facts == 0
    named = {str(Path(node.attributes["path"]).name) for node in graph.nodes.values() if "path" in node.attributes}
    assert named == {"folder", "M\\udcfcnchen.csv", "M\\udcf6nchen.csv"}
    calls = [node.attributes for node in graph.nodes.values() if node.type == "call"]
    assert [Path(call["parameters"]["path"]).name for call in calls] == ["M\\udcfcnchen.csv", "gone-\\udcfc.csv"]
    assert calls[0]["cause"].endswith("M\\udcfcnchen.csv")


def test_a_large_file_whose_name_is_no_utf8_is_told_unhashed(tmp_path, monkeypatch):
    """It is known by its path like any other."""
    monkeypatch.setattr(files, "HUGE", 2)
    monkeypatch.setattr(files, "AT_ONCE", 1)
    path = tmp_path / os.fsdecode(b"M\xfcnchen.csv")
    path.write_text("abc")
    seen = files.snapshot(str(path), "r", None)
    files.settle(seen, None)
    assert files.records_of(seen)[0].type == "unhashed"


def test_an_attempt_that_is_named_and_ends_without_utf8_is_recorded():
    """Parameters, place and cause of a run hold what the system's file names held."""
    word = os.fsdecode(b"M\xfcnchen")
    script = """
import os
from ivcap_flows.capture import recorded
@recorded
def use(path): pass
use(1)
raise ValueError(os.fsdecode(b"M\\xfcnchen"))
"""
    done = subprocess.run([sys.executable, "-c", script, os.fsencode(word)], env={**os.environ}, capture_output=True)
    assert done.returncode == 1
    [run] = journal().runs.recent()
    [attempt] = journal().runs.attempts(run.id)
    assert (run.parameters, run.missing_facts) == ({"arguments": ["M\\udcfcnchen"]}, 0)
    assert (attempt.outcome, attempt.cause) == ("failed", "ValueError: M\\udcfcnchen")


@pytest.mark.parametrize(
    ("deployed", "edited", "told"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_who_edits_a_flow_that_failed_is_told_what_is_kept(tmp_path, caplog, deployed, edited, told):
    """Not if nothing was edited, nor in a deployment, whose next attempt may run on another version for good reason."""
    path = tmp_path / "edited.py"
    path.write_text("def flow(): 1 / 0")
    identity = RunIdentity("edited", "edited.py:flow", {}, "once", "once", deployed=deployed)
    for text in ("def flow(): 1 / 0", "def flow(): 1 / 1" if edited else "def flow(): 1 / 0"):
        path.write_text(text)
        attempts.close_attempt(attempts.open_attempt(identity, str(path), "flow"), "failed", "out of luck")
        assert recorder().flush()
    assert ("Your code has changed since attempt 1" in caplog.text) == told


def test_a_run_that_completed_is_told_so_whatever_becomes_of_another_attempt(recorded_graph):
    """Of two at once the second fails after the first has completed."""
    identity = RunIdentity("twice", "twice.py:", {}, "once", "once")
    first, second = (attempts.open_attempt(identity, __file__, "twice") for _ in range(2))
    attempts.close_attempt(first, "completed")
    attempts.close_attempt(second, "failed", "out of luck")
    known = (node.attributes for node in recorded_graph() if node.type in ("flow-run", "attempt"))
    told = {attributes.get("number"): attributes["outcome"] for attributes in known}
    assert told == {None: "completed", 1: "completed", 2: "failed"}


@pytest.mark.parametrize("told_last", ["the one that failed", "the one that completed"])
def test_a_run_whose_processes_end_at_once_is_told_to_have_completed(recorded_graph, monkeypatch, told_last):
    """Both have told how it ended before either has closed: the one that is wrong must not have the last word."""
    identity = RunIdentity("twice", "twice.py:", {}, "once", "once")
    first, second = (attempts.open_attempt(identity, __file__, "twice") for _ in range(2))
    monkeypatch.setattr(attempts, "_decides", lambda *_: True)
    if told_last == "the one that failed":
        attempts.close_attempt(first, "completed")
        attempts.close_attempt(second, "failed", "out of luck")
    else:
        close = Runs.close_attempt

        def while_the_other_closes(runs, attempt_id, *end):
            if attempt_id == first.attempt.id:
                attempts.close_attempt(second, "failed", "out of luck")
            close(runs, attempt_id, *end)

        monkeypatch.setattr(Runs, "close_attempt", while_the_other_closes)
        attempts.close_attempt(first, "completed")
    assert journal().runs.get(first.run.id).outcome == "completed"
    [told] = (node.attributes for node in recorded_graph() if node.type == "flow-run")
    assert told["outcome"] == "completed"


def test_an_end_that_cannot_be_checked_is_an_end(monkeypatch, caplog):
    """The journal that took it and is away at once takes the record as told, and says so."""
    opened = attempts.open_attempt(RunIdentity("away", "away.py:", {}, "once", "once"), __file__, "away")

    def away(*_, **__):
        raise JournalError("The journal is away.")

    monkeypatch.setattr(Facts, "about", away)
    attempts.close_attempt(opened, "completed")
    assert f"the records say how run {opened.run.id} ended: The journal is away." in caplog.text
    assert journal().runs.get(opened.run.id).outcome == "completed"


@pytest.mark.long
def test_who_flushes_waits_while_the_recorder_gets_on(tmp_path, monkeypatch):
    """Each item that is made, and each block of a file that is read, is a reason to wait on."""
    import hashlib

    class Slow:
        def __init__(self) -> None:
            self.update = lambda block: time.sleep(0.2)
            self.hexdigest = hashlib.sha256().hexdigest

    def nap(number: int):
        time.sleep(0.2)
        return [entity(f"urn:x:{number}", "entity")]

    def read():
        files.settle(seen, None)
        return files.records_of(seen)

    monkeypatch.setattr("ivcap_flows.capture.record_writer.STALL_TIMEOUT", 0.5)
    monkeypatch.setattr(files, "AT_ONCE", 10)
    monkeypatch.setattr(files, "hashlib", SimpleNamespace(sha256=Slow))
    (tmp_path / "large").write_bytes(b"x" * files._CHUNK * 6)
    seen = files.snapshot(str(tmp_path / "large"), "", None)
    run, writer = opened().run, Recorder(journal())
    for number in range(6):
        writer.put(Statement(run.id, None, lambda number=number: nap(number)))
    writer.put(Statement(run.id, None, read))
    assert writer.flush()
    assert len(journal().facts.of_run(run.id)) == 7


def test_what_is_not_written_when_nobody_waits_on_is_missing_until_it_is(monkeypatch, caplog):
    """What is queued and what is in hand counts for each run, once, however often it is waited for."""
    monkeypatch.setattr("ivcap_flows.capture.record_writer.STALL_TIMEOUT", 0.2)
    runs, held = [opened("f1").run, opened("f2").run], threading.Event()

    def stuck():
        held.wait(30)
        return [entity("urn:x:1", "entity")]

    writer = Recorder(journal())
    writer.put(Statement(runs[0].id, None, stuck))
    for run in (*runs, runs[1]):
        writer.put(Statement(run.id, None, lambda: [entity("urn:x:2", "entity")]))

    def missing() -> list[int]:
        return [journal().runs.get(run.id).missing_facts for run in runs]

    for _ in range(2):
        assert not writer.flush()
        assert missing() == [2, 2]
    assert "4 calls are not written" in caplog.text
    held.set()
    assert writer.flush()
    assert missing() == [0, 0]
    assert [len(journal().facts.of_run(run.id)) for run in runs] == [2, 2]


def test_facts_outlast_an_outage_of_the_journal(postgresql_server, postgresql_url):
    """The server ends every connection and refuses new ones for a while, as when another takes over."""
    allow = "ALTER DATABASE journal_made ALLOW_CONNECTIONS"
    with (
        psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as server,
        Journal.open(postgresql_url) as shared,
        use_journal(shared) as writer,
    ):
        run = opened().run
        server.execute(f"{allow} false")
        try:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'journal_made'")
            writer.put(Statement(run.id, None, lambda: [entity("urn:x:1", "entity")]))
            assert not writer.flush(timeout=2)
        finally:
            server.execute(f"{allow} true")
        assert writer.flush()
        assert shared.runs.get(run.id).missing_facts == 0
        assert "urn:x:1" in {fact.record.id for fact in shared.facts.of_run(run.id)}


@pytest.mark.long
def test_what_is_left_when_the_process_ends_is_missing():
    """A recorder that does not get on does not hold the process for ever, and its run is not told as whole."""
    script = """
import threading
from ivcap_flows.capture import current_attempt, note, recorded, record_writer, recorder
record_writer.STALL_TIMEOUT = 0.3
@recorded
def use(number): pass
use(1)
recorder().flush()
opened = current_attempt()
recorder().put(record_writer.Statement(opened.run.id, None, threading.Event().wait))
use(2)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=True, capture_output=True)
    [run] = journal().runs.recent()
    # The statement, the call at its begin and its end, the end of the attempt, and its code if that was slow.
    assert run.outcome == "completed"
    assert run.missing_facts in (4, 5)


def test_an_attempt_ends_whatever_else_begins_or_breaks(monkeypatch):
    """The end of one does not touch what another is beginning, and is told though its last facts cannot be."""
    beginning, started = threading.Event(), threading.Event()
    start = threading.Thread.start

    def slow(thread: threading.Thread) -> None:
        if thread.name == "ivcap-flows-code" and threading.current_thread().name == "other":
            beginning.set()
            started.wait(10)
        start(thread)

    def begin(root: str):
        return attempts.open_attempt(RunIdentity("script", f"{root}.py:", {}, root, root), None, "script")

    monkeypatch.setattr(threading.Thread, "start", slow)
    first, opened_later = begin("f1"), []
    other = threading.Thread(target=lambda: opened_later.append(begin("f2")), name="other")
    other.start()
    assert beginning.wait(10)
    attempts.close_attempt(first, "completed")
    started.set()
    other.join(10)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupted() -> bool:
            raise KeyboardInterrupt

        patch.setattr(recorder(), "flush", interrupted)
        attempts.close_attempt(opened_later[0], "cancelled")
    assert [run.outcome for run in journal().runs.recent()] == ["cancelled", "completed"]
    assert recorder().flush()


def test_clocks_that_go_back_leave_a_valid_record(monkeypatch, recorded_graph):
    """Neither a run whose journal is ahead of its process nor a call during which the clock was set ends too early."""

    @recorded
    def use() -> None:
        monkeypatch.setattr("ivcap_flows.capture.calls.now", early)

    def early() -> datetime:
        return datetime.now(timezone.utc) - timedelta(hours=1)

    attempt = attempts.open_attempt(RunIdentity("script", "a.py:", {}, "f1", "f1"), None, "script")
    use()
    monkeypatch.setattr(attempts, "now", early)
    attempts.close_attempt(attempt, "completed")
    for fact in journal().facts.of_run(attempt.run.id):
        record = fact.record
        assert record.ended is None or record.ended >= record.time
    kinds = {node.type for node in recorded_graph().nodes.values() if node.ended is not None}
    assert kinds == {"flow-run", "attempt", "call"}


def test_what_is_queued_weighs_what_it_holds(tmp_path, monkeypatch):
    """The members of a folder, and what a note or an annotation holds, are taken into account."""
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("x")
    attempt = opened()
    call = Call(flows_urn("call", "c"), "call", "use", attempt.run.id, attempt.attempt.id, None)
    before = call.weight
    call.arguments.paths.append(("folder", f"{tmp_path}/"))
    call.snapshot_entry(None)
    call.snapshot_exit(None, other_process=False)
    assert call.weight - before >= 200 * 800
    current_attempt()
    for thread in attempts._attempts().describing.values():
        thread.join()
    put: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "put", lambda self, item: put.append(item.weight))
        context.note(entity("urn:x:1", "entity", text="x" * 100_000))
        annotate("urn:x:1", text=["x" * 4_000] * 20)
        annotate(tmp_path, unit="K")
    of_note, of_text, of_folder = put
    assert of_note >= 100_000
    assert of_text >= 80_000
    assert of_folder >= 100 * 800


def test_a_worker_that_has_the_number_of_the_flows_process_flushes(monkeypatch):
    """In containers both may have the number 1: what tells them apart is their id."""
    own = current_attempt()
    recorder().flush()
    foreign = replace(own, attempt=replace(own.attempt, process=replace(own.attempt.process, id="another")))
    flushed = []
    monkeypatch.setattr(Recorder, "flush", lambda self, timeout=None: flushed.append(1))

    @recorded
    def use() -> None:
        """Do nothing."""

    for attempt, times in ((own, 0), (foreign, 1)):
        token = context._attempt.set(attempt)
        use()
        context._attempt.reset(token)
        assert len(flushed) == times


@pytest.fixture
def broken_pipe():
    """A console that is gone: what is logged of the package ends the thread that logs it (rich, `on_broken_pipe`)."""

    class Gone(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit(1)

    handler = Gone()
    logging.getLogger("ivcap_flows").addHandler(handler)
    yield
    logging.getLogger("ivcap_flows").removeHandler(handler)


@pytest.mark.usefixtures("broken_pipe")
def test_a_warning_does_not_end_the_recorder(monkeypatch):
    """What the warning is about is counted, the rest is written, and the thread goes on."""
    run, writer = opened().run, Recorder(journal())

    def odd():
        raise ValueError

    def refused(facts: object) -> None:
        monkeypatch.setattr(writer.journal.facts, "append", append)
        raise OSError("disk full")

    append = writer.journal.facts.append
    writer.put(Statement(run.id, None, odd))
    writer.put(Statement(run.id, None, lambda: [entity("urn:x:1", "entity")]))
    assert writer.flush()
    thread = writer._thread
    monkeypatch.setattr(writer.journal.facts, "append", refused)
    writer.put(Statement(run.id, None, lambda: [entity("urn:x:2", "entity")]))
    assert writer.flush()
    writer.put(Statement(run.id, None, lambda: [entity("urn:x:3", "entity")]))
    assert writer.flush()
    assert [fact.record.id for fact in journal().facts.of_run(run.id)] == ["urn:x:1", "urn:x:3"]
    assert journal().runs.get(run.id).missing_facts == 2
    assert writer._thread is thread
    assert thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_recorder_that_ended_is_followed_by_another():
    """What it had in hand is missing; what is put next is written without that anybody flushes."""
    run, writer = opened().run, Recorder(journal())

    def ends():
        raise GeneratorExit

    writer.put(Statement(run.id, None, ends))
    ended = writer._thread
    ended.join(10)
    writer.put(Statement(run.id, None, lambda: [entity("urn:x:1", "entity")]))
    assert writer._thread is not ended
    deadline = time.monotonic() + 10
    while not (written := journal().facts.of_run(run.id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (len(written), journal().runs.get(run.id).missing_facts) == (1, 1)


def test_without_a_thread_the_facts_are_written_at_the_end(monkeypatch):
    """Where the system gives no thread, nothing is raised into the flow and nothing lost."""
    run, writer = opened().run, Recorder(journal())
    with monkeypatch.context() as patch:

        def none(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", none)
        writer.put(Statement(run.id, None, lambda: [entity("urn:x:1", "entity")]))
    assert writer.flush()
    assert len(journal().facts.of_run(run.id)) == 1


def test_a_long_call_is_written_when_it_begins(monkeypatch):
    """What still runs when its process dies has left its begin; a short call is written once."""
    attempt = opened()
    writer = Recorder(journal())
    call = Call(flows_urn("task-run", "t"), "task-run", "long", attempt.run.id, attempt.attempt.id, None)
    writer.put(call)
    assert writer.flush()
    assert [fact.record.attributes["outcome"] for fact in journal().facts.of_run(attempt.run.id)] == ["running"]
    call.outcome, call.ended = "completed", datetime.now(timezone.utc)
    writer.put(call)
    short = Call(flows_urn("task-run", "s"), "task-run", "short", attempt.run.id, attempt.attempt.id, None)
    short.outcome, short.ended = "completed", datetime.now(timezone.utc)
    writer.put(short)
    writer.put(short)
    assert writer.flush()
    assert [fact.record.attributes["name"] for fact in journal().facts.of_run(attempt.run.id)] == [
        "long",
        "long",
        "short",
    ]


def test_a_forked_child_writes_its_own_facts_and_not_its_parents(tmp_path):
    """What the parent had queued is written once, by the parent; the child's calls by the child."""
    attempt = opened()
    writer = Recorder(journal())
    writer.put(Statement(attempt.run.id, None, lambda: [entity("urn:x:parent", "entity")]))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            other = Recorder(Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]))
            writer.journal = other.journal
            writer.put(Statement(attempt.run.id, None, lambda: [entity("urn:x:child", "entity")]))
            status = 0 if writer.flush() else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert writer.flush()
    said = sorted(fact.record.id for fact in journal().facts.of_run(attempt.run.id))
    assert said == ["urn:x:child", "urn:x:parent"]


def test_use_journal_records_elsewhere(tmp_path):
    """Within the block another journal gets the facts; no thread is left of it."""
    before = set(threading.enumerate())
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other) as writer:
        assert journal() is other
        run = opened().run
        writer.put(Statement(run.id, None, lambda: [entity("urn:x:1", "entity")]))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        assert len(other.facts.of_run(run.id)) == 1


def test_what_is_put_after_the_end_is_written_all_the_same():
    """A recorder that was closed while somebody still held it loses nothing."""
    run, writer = opened().run, Recorder(journal())
    for n in range(3):
        writer.put(Statement(run.id, None, lambda n=n: [entity(f"urn:x:{n}", "entity")]))
        writer.close()
    assert len(journal().facts.of_run(run.id)) == 3


def test_of_many_the_latest_are_remembered():
    """The mapping holds so many at the most, and lets go of what was not asked for."""
    known = LruCache(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    known.put("c", 3)
    assert (known.get("a"), known.get("b"), known.pop("c"), known.get("c"), len(known)) == (1, None, 3, None, 1)


KILLED = """
import os, signal, sys, time
from prefect import flow, task
from ivcap_flows.capture import recorded, recorder

@task
@recorded
def endless(i: int) -> None:
    time.sleep(0.6)
    os.kill(os.getpid(), signal.SIGKILL)

@flow
@recorded
def doomed() -> None:
    endless(7)

doomed()
"""


@pytest.fixture(scope="module")
def killed(prefect_server, tmp_path_factory) -> Path:
    """The journal that a flow left whose process was killed in a task."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "doomed.py").write_text(KILLED)
    place = folder / "journal.sqlite"
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{place}"}
    done = subprocess.run(
        [sys.executable, str(folder / "doomed.py")], env=environment, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    return place


def copy_of(place: Path, target: Path) -> Journal:
    import sqlite3

    with sqlite3.connect(place) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    shutil.copytree(f"{place}-processes", f"{target}-processes")
    return Journal.open(f"sqlite:///{target}")


def graph_of(there: Journal) -> Graph:
    return Graph(fact.record for fact in there.facts.of_run(there.runs.recent()[0].id))


def test_a_killed_attempt_is_lost_and_last_seen_at_its_beat(killed, tmp_path):
    """The lease tells that the process is gone; the task it was in was written when it began, and ended with it."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: None)
        assert outcome == "lost"
        assert there.runs.recent()[0].outcome == "lost"
        graph = graph_of(there)
        lost = graph.nodes[flows_urn("attempt", attempt.id)]
        assert lost.attributes["outcome"] == "lost"
        assert "last seen" in lost.attributes["cause"]
        [task] = [node for node in graph if node.type == "task-run"]
        assert (task.attributes["outcome"], task.attributes["parameters"]) == ("lost", {"i": 7})
        assert task.ended == max(task.time, lost.ended)
        assert task.attributes["cause"] == "Its process ended before it did."
        assert reconcile(there, lambda flow_run_id: None) == []


def test_what_a_killed_attempt_was_at_ends_though_its_run_goes_on(killed, tmp_path):
    """The next attempt has found it gone when it began; its tasks end with it all the same, and nobody is warned."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [before] = there.runs.attempts(run.id)
        again = RunIdentity(run.flow_name, run.entry_point, run.parameters, before.root_flow_run_id, before.flow_run_id)
        opened = there.runs.open_attempt(again)
        assert (opened.run.id, opened.attempt.number) == (run.id, 2)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: None)
        assert (attempt.id, outcome) == (before.id, "lost")
        [task] = [node for node in graph_of(there) if node.type == "task-run"]
        assert task.attributes["outcome"] == "lost" and task.ended is not None
        assert there.runs.get(run.id).outcome == "running"
        assert reconcile(there, lambda flow_run_id: None) == []


def test_a_killed_attempt_stays_lost_when_its_retry_succeeds(killed, tmp_path):
    """Prefect says of the flow run, which both have, that it completed; of the attempt it has seen nothing."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [before] = there.runs.attempts(run.id)
        again = RunIdentity(run.flow_name, run.entry_point, run.parameters, before.root_flow_run_id, before.flow_run_id)
        opened = there.runs.open_attempt(again)
        there.runs.close_attempt(opened.attempt.id, "completed")
        lost, completed = there.runs.attempts(run.id)
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: PrefectState("completed", None, later))
        assert (attempt.id, outcome) == (before.id, "lost")
        told, last = there.runs.attempts(run.id)
        assert (told.outcome, told.cause, told.newest_at_end) == ("lost", lost.cause, 1)
        assert last == completed and there.runs.get(run.id).outcome == "completed"
        graph = graph_of(there)
        node = graph.nodes[flows_urn("attempt", before.id)]
        [task] = [each for each in graph if each.type == "task-run"]
        assert (node.attributes["outcome"], node.ended) == ("lost", told.ended_at)
        assert task.time <= task.ended == node.ended < completed.started_at
        assert reconcile(there, lambda flow_run_id: PrefectState("completed", None, later)) == []


def test_a_run_that_succeeds_in_the_end_has_no_cause_of_failure(recorded_graph):
    """The attempt that failed keeps its own."""
    identity = RunIdentity("flow", "a.py:flow", {}, "f1", "f1")
    for outcome, cause in (("failed", "out of luck"), ("completed", None)):
        attempts.close_attempt(attempts.open_attempt(identity, None, "flow"), outcome, cause)
    known = [node for node in recorded_graph() if node.type in ("flow-run", "attempt")]
    told = {node.attributes.get("number"): node.attributes.get("cause") for node in known}
    assert told == {None: None, 1: "out of luck", 2: None}


def test_what_a_killed_attempt_ordered_is_its_own(killed, tmp_path):
    """Though it was killed before it could say so; what has a cause on record keeps that one."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [attempt] = there.runs.attempts(run.id)
        for urn in ("urn:ivcap:order:1", "urn:ivcap:order:2"):
            told = {"platform": "p", "account": "a", "scope": f"run:{run.id}", "noun": "order", "request": urn}
            wanted = NewIntent(key=urn, base_key=urn, run_id=run.id, attempt_id=attempt.id, **told)
            intent = there.intents.mark_sent(there.intents.claim(wanted).intent)
            order = Order(urn=urn, platform="p", service="urn:ivcap:service:1", status="pending")
            there.intents.settle(intent, urn=urn, outcome=order.model_dump(mode="json"), how="sent")
        known = relation("wasStartedBy", "urn:ivcap:order:2", flows_urn("call", "x"))
        there.facts.append([Fact(known, run.id, attempt.id)])
        reconcile(there, lambda flow_run_id: None)
        links = {(link.source, link.target) for link in graph_of(there).whole().relations.values()}
        own = flows_urn("attempt", attempt.id)
        assert ("urn:ivcap:order:1", own) in links and ("urn:ivcap:order:2", own) not in links
        assert (own, flows_urn("run", run.id)) in links


def test_prefects_word_goes_before_the_lease(killed, tmp_path):
    """Where Prefect's API knows a final state, that is the outcome, with its message, and without a secret in it."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        since = datetime.now(timezone.utc)
        word = PrefectState("crashed", "killed at https://ada:t0ken-t0ken@example.org", since)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: word)
        assert outcome == there.runs.recent()[0].outcome == "crashed"
        graph = graph_of(there)
        node, run = (graph.nodes[flows_urn(*of)] for of in (("attempt", attempt.id), ("run", attempt.run_id)))
        assert node.attributes["cause"] == run.attributes["cause"] == f"killed at https://{HIDDEN}@example.org"
        told = there.runs.attempt(attempt.id)
        assert (told.cause, told.ended_at) == (node.attributes["cause"], node.ended)
        # Prefect has heard of the run's end; of the process the journal has heard last.
        assert node.ended < since == run.ended
        assert {n.attributes["outcome"] for n in graph_of(there) if n.type == "task-run"} == {"crashed"}


def test_prefects_api_is_asked_and_may_be_silent(killed, prefect_server, tmp_path):
    """A running state says nothing, a final one its outcome; a server that is not there says nothing either."""
    import uuid

    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Cancelled

    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [attempt] = there.runs.attempts(there.runs.recent()[0].id)
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        assert prefect_state(attempt.flow_run_id) is None
        assert prefect_state(str(uuid.uuid4())) is None
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(attempt.flow_run_id, Cancelled(message="enough"), force=True)
        said = prefect_state(attempt.flow_run_id)
        assert (said.outcome, said.cause) == ("cancelled", "enough")
    with temporary_settings({PREFECT_API_URL: None}):
        assert prefect_state(attempt.flow_run_id) is None


HEARD = """
import os, signal, sys
from prefect import flow
from ivcap_flows import recorded
from ivcap_flows.journal.runs import Runs

close = Runs.close_attempt

def die(self, *args, **options):
    close(self, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1:] == ["dies"]:
    Runs.close_attempt = die

@flow
@recorded
def short() -> None:
    pass

short()
"""


@pytest.mark.long
def test_a_run_that_prefect_has_not_heard_to_end_is_continued(prefect_server, tmp_path):
    """Killed between the flow's last line and Prefect's Completed, it is taken up again; once Completed, it is not."""
    (tmp_path / "short.py").write_text(HEARD)
    place = tmp_path / "short.sqlite"
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{place}"}

    def run(*arguments: str) -> int:
        command = [sys.executable, str(tmp_path / "short.py"), *arguments]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    assert run("dies") == -signal.SIGKILL
    with copy_of(place, tmp_path / "first.sqlite") as there:
        assert [each.outcome for each in there.runs.recent()] == ["completed"]
    assert run() == 0
    with copy_of(place, tmp_path / "second.sqlite") as there:
        [again] = there.runs.recent()
        assert [each.outcome for each in there.runs.attempts(again.id)] == ["lost", "completed"]
        told = [
            node.attributes for node in graph_of(there) if node.type == "attempt" and node.attributes["number"] == 1
        ]
        assert [each["cause"] for each in told] == ["Its process ended before it reported its end to Prefect."]
    assert run() == 0
    with copy_of(place, tmp_path / "third.sqlite") as there:
        assert len(there.runs.recent()) == 2


def test_a_cancelled_run_is_told_from_a_crashed_one():
    """An attempt that was ended by a signal has the outcome that Prefect knows, and is asked for once."""
    attempt = opened().attempt
    journal().runs.close_attempt(attempt.id, "crashed", "TerminationSignal: 15")
    assert reconcile(journal(), lambda flow_run_id: None) == []
    [(_, outcome)] = reconcile(journal(), lambda flow_run_id: PrefectState("cancelled", "by Ada", None))
    assert outcome == journal().runs.recent()[0].outcome == "cancelled"
    assert reconcile(journal(), lambda flow_run_id: PrefectState("crashed", None, None)) == []


def test_a_live_attempt_is_left_alone():
    """What this very process runs is not reconciled."""
    attempt = opened()
    assert reconcile(journal(), lambda flow_run_id: PrefectState("crashed", None, None)) == []
    assert journal().runs.attempt(attempt.attempt.id).outcome == "running"


def test_importing_capture_loads_no_database():
    """The decorator costs little: neither database, nor prov, nor Prefect are imported by it."""
    heavy = "['sqlalchemy', 'prov', 'prefect', 'psutil']"
    code = f"import sys, ivcap_flows.capture; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def exceptions() -> dict[str, BaseException]:
    import asyncio

    from prefect.exceptions import CancelledRun, Pause, TerminationSignal

    return {
        "parked": Pause("until tomorrow"),
        "cancelled": CancelledRun("by Ada"),
        "cancelled by its loop": asyncio.CancelledError(),
        "crashed": TerminationSignal(signal=15),
        "crashed by hand": KeyboardInterrupt(),
        "failed": ValueError("no"),
    }


@pytest.mark.parametrize("kind", exceptions())
def test_a_call_ends_as_what_it_raised_says(kind):
    """Parking and cancelling are no failures, and what ends a process is no error of the function's."""

    @recorded
    def work() -> None:
        raise exceptions()[kind]

    with pytest.raises(type(exceptions()[kind])):
        work()
    assert recorder().flush()
    [run] = journal().runs.recent()
    [call] = [n for n in Graph(fact.record for fact in journal().facts.of_run(run.id)) if n.type == "call"]
    assert call.attributes["outcome"] == kind.split()[0]
    assert call.ended is not None
    assert run.missing_facts == 0


def test_an_activity_that_is_not_known_to_end_is_running():
    """An unended call has no end and the outcome `running`."""
    call = Call("urn:ivcap-flows:call:1", "call", "f", "r", "a", None)
    from ivcap_flows.capture.calls import records_of

    [record] = records_of(call, None)
    assert record == activity(call.id, "call", call.started, name="f", outcome="running")
