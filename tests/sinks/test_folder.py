"""Files of runs in a folder: whole, on disk before they count as delivered, and nothing half behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prov.model import ProvDocument

from ivcap_flows import loop
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation
from ivcap_flows.sinks import Drained, FolderSink, drain, run_graph
from ivcap_flows.sinks.folder import ENDINGS
from ivcap_flows.whole_file import whole_file

WRITER = """
import sys, time
from pathlib import Path
from ivcap_flows.whole_file import whole_file

with whole_file(Path(sys.argv[1])) as file:
    file.write_text("half of it")
    print(file, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(ivcap_journal):
    """The id of a run that has completed."""
    opened = ivcap_journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "1", "1"))
    ivcap_journal.facts.append([Fact(activity(flows_urn("run", opened.run.id), "flow-run"), opened.run.id)])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    return opened.run.id


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "delivered"
    path.mkdir()
    return path


def deliver(journal: Journal, run_id: str, folder: Path, form="prov-json") -> Path:
    sink = FolderSink(folder, form)
    assert loop.run(sink.deliver(journal.runs.get(run_id), run_graph(journal, run_id))).state == "delivered"
    return sink.folder / f"{run_id}.{journal.id}{ENDINGS[form]}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_per_run_is_written_once_and_again_when_more_is_known(ivcap_journal, run, folder):
    """The file is valid PROV; a second drain writes nothing; a new fact is delivered."""
    sink = FolderSink(folder)
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    [file] = folder.iterdir()
    assert file.name == f"{run}.{ivcap_journal.id}.prov.json"
    read = ProvDocument.deserialize(content=file.read_text(), format="json")
    assert flows_urn("run", run) in {each.identifier.uri for each in read.get_records() if each.identifier}
    file.unlink()
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name)]
    ivcap_journal.facts.append([Fact(entity("urn:x:1", "entity"), run)])
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    assert "urn:x:1" in file.read_text()


def test_a_record_with_a_fact_missing_is_written_without_what_hung_on_it(ivcap_journal, run, folder):
    """A call whose parent could not be recorded is there, and the start by the parent, of which nothing is, is not."""
    call, parent = (f"urn:ivcap-flows:call:{name}" for name in ("child", "lost-parent"))
    stated = [activity(call, "call"), relation("wasStartedBy", call, parent)]
    ivcap_journal.facts.append([Fact(record, run) for record in stated])
    ivcap_journal.runs.count_missing(run, 1)
    for form in ("prov-json", "prov-n", "turtle"):
        text = deliver(ivcap_journal, run, folder, form).read_text()
        assert "child" in text and "lost-parent" not in text


@pytest.mark.parametrize("form", ENDINGS)
def test_what_is_delivered_is_on_disk(ivcap_journal, run, tmp_path, monkeypatch, form):
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


def test_a_folder_has_one_name_however_it_is_written(folder, monkeypatch):
    """Else all runs would be delivered there again."""
    monkeypatch.chdir(folder)
    assert FolderSink(Path("../x/../delivered")).name == FolderSink(folder).name == f"prov-json:{folder}"


def test_what_a_killed_writer_left_is_removed(ivcap_journal, run, folder):
    """By the next delivery of the run, which comes since that one was not made. What is of others stays."""
    target = deliver(ivcap_journal, run, folder)
    others = [folder / name for name in (f".{target.name}", f".{target.name}.part", f".a{target.name}.1.part")]
    for other in others:
        other.write_text("of the user")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True) as writer:
        left = Path(writer.stdout.readline().strip())
        writer.kill()
    assert left.read_text() == "half of it" and left.parent == folder
    deliver(ivcap_journal, run, folder)
    assert names(folder) == sorted(path.name for path in (*others, target))


def test_a_writer_that_was_overtaken_fails(folder):
    """One that was suspended for so long that another wrote the file does not put its own over it."""
    with pytest.raises(FileNotFoundError), whole_file(folder / "target") as own:
        own.write_text("old")
        with whole_file(folder / "target") as newer:
            newer.write_text("new")
    assert names(folder) == ["target"] and (folder / "target").read_text() == "new"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_disk_that_cannot_sync(ivcap_journal, run, folder, monkeypatch, code):
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
