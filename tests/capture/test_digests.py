"""When a digest that was computed before stands for a file: only while nothing can have changed it unseen."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from ivcap_flows.capture import file_clock, files, journal, recorded, recorder
from ivcap_flows.file_state import FileState
from ivcap_flows.handles import LocalFile
from ivcap_flows.identity import digest

LARGE = files._DEAR


def sha256_of(path: Path) -> str:
    return files.file_at(path, journal().files).sha256


def in_another_process() -> None:
    """What the process itself remembers is forgotten; the journal remains."""
    files._read._renew()


@pytest.fixture
def source(tmp_path):
    """A large file, long ago, whose digest is stored."""
    path = tmp_path / "source.bin"
    path.write_bytes(b"a" * LARGE)
    os.utime(path, ns=(10**18, 10**18))
    assert sha256_of(path) == digest(b"a" * LARGE)
    return path


@pytest.mark.parametrize("remembered", [True, False], ids=["same process", "another process"])
@pytest.mark.parametrize("replace", [["cp", "-p"], ["mv"]], ids=["copied", "renamed"])
def test_a_file_that_was_replaced_is_another(source, remembered, replace):
    """Both keep path, size and time. A copy keeps the inode, too, and is another content all the same."""
    other = source.with_name("other.bin")
    other.write_bytes(b"b" * LARGE)
    os.utime(other, ns=(10**18, 10**18))
    before = source.stat()
    subprocess.run([*replace, str(other), str(source)], check=True)
    after = source.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert (before.st_ino == after.st_ino) == (replace[0] == "cp")
    if not remembered:
        in_another_process()
    assert sha256_of(source) == digest(b"b" * LARGE)


@pytest.fixture
def stamped(monkeypatch):
    """Lets all files lie on a file system of a kind, with a clock that is ahead by `ahead` and has ticks of `tick`, of
    which one begins now."""

    def stamp(kind: str, *, ahead: float = 0.0, tick: float = 1e-9) -> None:
        grain, begun = int(tick * 1e9), time.time_ns() - 10**7
        base = begun // grain * grain + int(ahead * 1e9)

        def state(found: os.stat_result) -> FileState:
            times = [base + (each - begun) // grain * grain for each in (found.st_mtime_ns, found.st_ctime_ns)]
            return FileState(found.st_size, times[0], times[1], found.st_ino, found.st_dev)

        monkeypatch.setattr(FileState, "from_stat", staticmethod(state))
        monkeypatch.setattr(file_clock, "file_system", lambda path: kind)
        files._read._renew()

    yield stamp
    files._read._renew()


HOUR = 3600.0


@pytest.mark.parametrize(
    ("kind", "ahead", "tick"),
    [("ext4", 0.0, 1.0), ("nfs4", -HOUR, 1.0), ("nfs4", HOUR, 1.0), ("nfs4", -HOUR, 0.01), ("9p", 0.0, 1.0)],
    ids=["whole seconds", "a server behind", "a server ahead", "a server behind, with short ticks", "a virtual one"],
)
@pytest.mark.parametrize("size", [pytest.param(7, id="small", marks=pytest.mark.long), pytest.param(LARGE, id="large")])
def test_changes_within_a_tick_are_seen(stamped, tmp_path, kind, ahead, tick, size):
    """Contents of one size that follow each other within a tick of the file system, by whatever clock it has."""
    stamped(kind, ahead=ahead, tick=tick)
    path = tmp_path / "quick.bin"
    for number in range(5):
        path.write_bytes(b"%d" % number * size)
        assert sha256_of(path) == digest(b"%d" % number * size)


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_the_digest_of_a_new_file_is_kept_after_a_tick(stamped, tmp_path, kind):
    """Where a server stamps the file it is not known how old it is, but that its clock has gone on."""
    stamped(kind, ahead=HOUR * (kind == "nfs4"))
    path = tmp_path / "new.bin"
    path.write_bytes(b"a" * LARGE)
    os.utime(path, ns=(10**18, 10**18))
    begun = time.monotonic()
    assert sha256_of(path) == digest(b"a" * LARGE)
    assert time.monotonic() - begun < 10
    assert journal().files.known_sha256(str(path), FileState.of(path)) == digest(b"a" * LARGE)


@pytest.mark.parametrize("kind", ["vfat", "fuse.sshfs", ""])
def test_file_systems_without_a_change_time_keep_no_digest(stamped, source, kind):
    """They tell the modification time in its place, which a copy with times sets."""
    stamped(kind)
    source.write_bytes(b"b" * LARGE)
    assert sha256_of(source) == digest(b"b" * LARGE)
    in_another_process()
    assert journal().files.known_sha256(str(source), FileState.of(source)) is None


def test_a_time_in_the_future_is_not_believed(source):
    """When that time comes, another content may bear it."""
    source.write_bytes(b"b" * LARGE)
    later = time.time_ns() + 10**10
    os.utime(source, ns=(later, later))
    assert sha256_of(source) == digest(b"b" * LARGE)
    assert files._read().digests.get(str(source))[0] != FileState.of(source)
    assert journal().files.known_sha256(str(source), FileState.of(source)) is None


def test_threads_that_need_the_digest_of_one_large_file_read_it_once(tmp_path):
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(files.AT_ONCE * 4)
    before = files.blocks_read()
    with ThreadPoolExecutor(4) as threads:
        digests = list(threads.map(sha256_of, [path] * 4))
    assert len(set(digests)) == 1
    assert files.blocks_read() - before == path.stat().st_size // files._CHUNK


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
    """A folder of too many files and a file above the last limit are recorded without content, with the reason; also
    where the name is no UTF-8.
    """
    monkeypatch.setattr(files, "MAX_MEMBERS", 1)
    monkeypatch.setattr(files, "AT_ONCE", 1)
    monkeypatch.setattr(files, "HUGE", 2)
    latin = os.fsdecode(b"M\xfcnchen.csv")
    for name in ("a", latin):
        (tmp_path / name).write_text("abc")
    folder, *large = (
        files.snapshot(path, "r", None) for path in (f"{tmp_path}/", f"{tmp_path}/a", f"{tmp_path}/{latin}")
    )
    for each in (folder, *large):
        files.settle(each, None)
        assert files.records_of(each)[0].type == "unhashed"
    assert folder.reason == "a folder of more than 1 files"
    assert files.snapshot("/dev/null", "r", None) is None
    assert files.snapshot(str(tmp_path / "nothing"), "r", None).stamp is None


def test_a_file_is_read_once_however_many_use_it(tmp_path, monkeypatch):
    """By its maker, readers and an upload, also one that is too large to be hashed in the flow's thread. A download has
    hashed its bytes on the way. What is verified is read, whatever is known of it.
    """
    readings: list[int] = []
    counted = SimpleNamespace(sha256=lambda: readings.append(1) or hashlib.sha256())
    monkeypatch.setattr(files, "hashlib", counted)
    path, large, content = tmp_path / "made.bin", tmp_path / "large.bin", b"x" * LARGE

    @recorded
    def make(target: Path) -> Path:
        target.write_bytes(content)
        return target

    @recorded
    def use(source: Path) -> None:
        """Do nothing."""

    def download() -> LocalFile:
        (tmp_path / "series.csv").write_bytes(content)
        return LocalFile(path=str(tmp_path / "series.csv"), sha256=digest(content), size=len(content))

    def times(*uses: Callable[[], object]) -> int:
        before = len(readings)
        for each in uses:
            each()
            assert recorder().flush()
        return len(readings) - before

    download.__module__ = "ivcap_flows.tasks.artifacts"
    assert times(recorded(download), lambda: use(tmp_path / "series.csv")) == 0
    assert times(lambda: use(make(path)), lambda: use(path), lambda: sha256_of(path)) == 1
    in_another_process()
    assert times(lambda: use(path), lambda: sha256_of(path)) == 0
    monkeypatch.setattr(files, "AT_ONCE", 10)
    large.write_bytes(content)
    assert times(lambda: use(large), lambda: sha256_of(large), lambda: use(large)) == 1
    files._read().digests.put(str(path), (files.snapshot(str(path), "r", None).stamp, "0" * 64))
    assert files.snapshot(str(path), "r", journal().files).sha256 == "0" * 64
    assert files.file_at(path, None).sha256 == digest(content)
