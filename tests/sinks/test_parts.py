"""What a folder sink writes is whole, on disk before it counts as delivered, and leaves nothing half behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.sinks import FolderSink, run_graph
from ivcap_flows.sinks.folder import ENDINGS, Form

WRITER = """
import sys, time
from pathlib import Path
from ivcap_flows.sinks.parts import part

with part(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half of it")
    (folder / "more").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(ivcap_journal: Journal) -> str:
    """The id of a run that has completed."""
    opened = ivcap_journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "1", "1"))
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    return opened.run.id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a sink."""
    path = tmp_path / "delivered"
    path.mkdir()
    return path


def deliver(journal: Journal, run_id: str, folder: Path, form: Form = "prov-json") -> Path:
    sink = FolderSink(folder, form)
    delivery = loop.run(sink.deliver(journal.runs.get(run_id), run_graph(journal, run_id)))
    assert delivery.state == "delivered"
    return sink.folder / f"{run_id}.{journal.id}{ENDINGS[form]}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ENDINGS)
def test_what_is_delivered_is_on_disk(
    ivcap_journal: Journal, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    """The file before it has its name, and then the folder that knows the name, and those that were made for it."""
    steps: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def syncing(file: int) -> None:
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{file}"))))
        fsync(file)

    def naming(source: Path, target: Path) -> None:
        steps.append(("name", Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", naming)
    target = deliver(ivcap_journal, run, tmp_path / "new" / "folder", form)
    named = steps.index(("name", target))
    assert {("sync", tmp_path), ("sync", tmp_path / "new")} <= set(steps[:named])
    assert steps[named - 1][0] == "sync" and steps[named - 1][1].parent.name.startswith(".part-")
    assert steps[named + 1 :] == [("sync", target.parent)]


def test_what_a_killed_writer_left_is_removed(ivcap_journal: Journal, run: str, folder: Path) -> None:
    """And what one that lives is writing stays."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, alive = (Path(writer.stdout.readline().strip()) for writer in writers if writer.stdout)
        (folder / ".part-empty").mkdir()
        (folder / ".part-file").write_text("of the user")
        (folder / ".part-folder").mkdir()
        (folder / ".part-folder" / "file").write_text("of the user")
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        assert dead.exists()
        target = deliver(ivcap_journal, run, folder)
        assert names(folder) == sorted([".part-file", ".part-folder", alive.name, target.name])
        assert (alive / "half").read_text() == "half of it"
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


@pytest.mark.parametrize("missing", ["locks", "syncing of folders"])
def test_a_file_system_without_a_call(
    ivcap_journal: Journal, run: str, folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without locks nobody knows who lives, so nothing of others is removed; the delivery is made all the same."""
    import fcntl

    def refuse(file: int, *_: object) -> None:
        if missing == "locks" or Path(os.readlink(f"/proc/self/fd/{file}")).is_dir():
            raise OSError(errno.ENOTSUP if missing == "locks" else errno.EINVAL, "no such call")

    monkeypatch.setattr(*((fcntl, "flock") if missing == "locks" else (os, "fsync")), refuse)
    left = folder / ".part-left"
    left.mkdir()
    for name in ("half", "lock"):
        (left / name).touch()
    target = deliver(ivcap_journal, run, folder)
    assert names(folder) == ([left.name, target.name] if missing == "locks" else [target.name])


def test_a_failed_disk_is_no_delivery(
    ivcap_journal: Journal, run: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk is one of the sink, which is tried again."""

    def broken(file: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        deliver(ivcap_journal, run, folder)
    assert names(folder) == []
