"""What a folder sink writes is whole, on disk before it counts as delivered, and leaves nothing half behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.sinks import FolderSink, run_graph
from ivcap_flows.sinks.folder import ENDINGS, ExportFormat
from ivcap_flows.sinks.whole_file import whole_file

WRITER = """
import sys, time
from pathlib import Path
from ivcap_flows.sinks.whole_file import whole_file

with whole_file(Path(sys.argv[1])) as file:
    file.write_text("half of it")
    print(file, flush=True)
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


def deliver(journal: Journal, run_id: str, folder: Path, form: ExportFormat = "prov-json") -> Path:
    sink = FolderSink(folder, form)
    delivery = loop.run(sink.deliver(journal.runs.get(run_id), run_graph(journal, run_id)))
    assert delivery.state == "delivered"
    return sink.folder / f"{run_id}.{journal.id}{ENDINGS[form]}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ENDINGS)
def test_what_is_delivered_is_on_disk(
    ivcap_journal: Journal, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: ExportFormat
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
    assert steps[named - 1][0] == "sync" and steps[named - 1][1].name.startswith(f".{target.name}.")
    assert steps[named + 1 :] == [("sync", target.parent)]


def test_what_a_killed_writer_left_is_removed(ivcap_journal: Journal, run: str, folder: Path) -> None:
    """By the next delivery of the run, which comes since that one was not made. What is of others stays."""
    target = deliver(ivcap_journal, run, folder)
    others = [folder / name for name in (f".{target.name}", f".{target.name}.part", f".a{target.name}.1.part")]
    for other in others:
        other.write_text("of the user")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        left = Path(writer.stdout.readline().strip())
        writer.kill()
    assert left.read_text() == "half of it" and left.parent == folder
    deliver(ivcap_journal, run, folder)
    assert names(folder) == sorted(path.name for path in (*others, target))


def test_a_writer_that_was_overtaken_fails(folder: Path) -> None:
    """One that was suspended for so long that another wrote the file does not put its own over it."""
    with pytest.raises(FileNotFoundError), whole_file(folder / "target") as own:
        own.write_text("old")
        with whole_file(folder / "target") as newer:
            newer.write_text("new")
    assert names(folder) == ["target"] and (folder / "target").read_text() == "new"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_disk_that_cannot_sync(ivcap_journal: Journal, run: str, folder: Path, monkeypatch, code: int) -> None:
    """An error is the sink's, and is tried again. A file system that syncs no folder gets the file all the same."""
    fsync = os.fsync

    def refuse(file: int) -> None:
        if code == errno.EIO or Path(os.readlink(f"/proc/self/fd/{file}")).is_dir():
            raise OSError(code, "broken")
        fsync(file)

    monkeypatch.setattr(os, "fsync", refuse)
    if code == errno.EINVAL:
        assert deliver(ivcap_journal, run, folder).exists()
        return
    with pytest.raises(OSError, match="broken"):
        deliver(ivcap_journal, run, folder)
    assert names(folder) == []
