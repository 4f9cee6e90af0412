"""The tasks for files of datasets, and what they put on record."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from on_record import pairs

from ivcap_flows import tasks
from ivcap_flows.capture import files, recorder, use_journal
from ivcap_flows.capture.files import urn_at
from ivcap_flows.durable import plan
from ivcap_flows.errors import InputError, NotFoundError, SourceChangedError
from ivcap_flows.file_state import FileState
from ivcap_flows.identity import digest, file_urn
from ivcap_flows.journal import Journal
from ivcap_flows.provena.collection_format import AccessInfo
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph

# The tasks' own functions record themselves without Prefect, as part of the process's run.
download_dataset_files = tasks.download_dataset_files.fn
list_dataset_files = tasks.list_dataset_files.fn
register_dataset = tasks.register_dataset.fn
upload_dataset_files = tasks.upload_dataset_files.fn


@pytest.fixture(autouse=True)
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as opened, use_journal(opened):
        yield opened


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder of two files that no other test has."""
    folder = tmp_path / "series"
    (folder / "by year").mkdir(parents=True)
    (folder / "all.csv").write_text(f"{uuid.uuid4()}\n")
    (folder / "by year" / "1950.csv").write_text(f"{uuid.uuid4()}\n")
    return folder


def recorded(journal: Journal) -> Graph:
    assert recorder().flush()
    [row] = journal.runs.recent()
    return run_graph(journal, row.id)


def test_files_go_there_and_come_back_on_record(journal, stated, series, tmp_path):
    """What is downloaded leads to what was uploaded, by its content; the dataset holds its files."""
    dataset = register_dataset(stated)
    sent = upload_dataset_files(dataset, series, to="raw")
    got = download_dataset_files(dataset.urn, tmp_path / "back", paths=["raw/by year", sent[0]])
    listed = list_dataset_files(dataset, paths="raw")

    assert [(each.path, each.size) for each in sent] == [("raw/all.csv", 37), ("raw/by year/1950.csv", 37)]
    assert [(each.urn, each.path, each.size) for each in listed] == [(each.urn, each.path, each.size) for each in sent]
    assert [each.sha256 for each in got] == [each.sha256 for each in sent]
    assert (tmp_path / "back/raw/by year/1950.csv").read_bytes() == (series / "by year/1950.csv").read_bytes()

    graph = recorded(journal)
    content = file_urn(sent[0].sha256)
    back = urn_at(tmp_path / "back/raw/all.csv")
    [upload] = {maker for made, maker in pairs(graph, "wasGeneratedBy") if made == sent[0].urn}
    [download] = {maker for made, maker in pairs(graph, "wasGeneratedBy") if made == back}
    assert (dataset.urn, sent[0].urn) in pairs(graph, "hadMember")
    assert pairs(graph, "used") >= {(download, dataset.urn), (download, sent[0].urn)}
    assert content in graph.lineage(sent[0].urn, "up").nodes
    assert upload in graph.lineage(content, "up").nodes
    assert download in graph.lineage(content, "down").nodes


def test_what_is_there_was_found_and_not_made(journal, stated, series):
    """A second upload makes only the file that changed."""
    dataset = register_dataset(stated)
    first = upload_dataset_files(dataset, series)
    (series / "all.csv").write_text("changed")
    second = upload_dataset_files(dataset, series)
    graph = recorded(journal)
    made = pairs(graph, "wasGeneratedBy")
    assert [each.urn for each in first] == [each.urn for each in second]
    assert [len([urn for urn, _ in made if urn == each.urn]) for each in first] == [2, 1]


def test_a_plan_sends_no_files(stated, series):
    """It names the upload and goes on with handles of what there would be."""
    dataset = register_dataset(stated)
    with plan() as planned:
        files = upload_dataset_files(dataset, series)
    assert [each.path for each in files] == ["all.csv", "by year/1950.csv"]
    assert [each.noun for each in planned.effects] == ["dataset files"]
    assert [each.path for each in list_dataset_files(dataset)] == ["metadata.json"]


def test_a_file_that_is_another_than_its_digest_says(stated, series):
    """Nothing of it arrives, and the next call knows what it holds."""
    dataset, path = register_dataset(stated), series / "all.csv"
    files._read().digests.put(str(path), (FileState.of(path), "0" * 64))
    with pytest.raises(SourceChangedError, match="Run it again"):
        upload_dataset_files(dataset, path)
    [sent] = upload_dataset_files(dataset, path)
    assert sent.sha256 == digest(path.read_bytes())


def test_what_cannot_be_moved_is_told(stated, series, tmp_path):
    """A dataset whose files lie elsewhere, a folder without files, a link out of it, a path that is not there."""
    elsewhere = AccessInfo(reposited=False, uri=f"https://example.org/{uuid.uuid4()}", description="There.")
    info = stated.dataset_info.model_copy(update={"access_info": elsewhere})
    far = register_dataset(stated.model_copy(update={"dataset_info": info}))
    near = register_dataset(stated)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="lie at https://example.org"):
        upload_dataset_files(far, series)
    with pytest.raises(InputError, match="without files"):
        upload_dataset_files(near, tmp_path / "empty")
    os.symlink("/etc/hostname", series / "link")
    with pytest.raises(InputError, match="lead out of the folder"):
        upload_dataset_files(near, series)
    with pytest.raises(NotFoundError, match="neither a file nor a folder 'raw'"):
        download_dataset_files(near, tmp_path / "back", paths="raw")


def test_a_file_that_reports_no_size_has_the_size_of_what_was_read(stated, tmp_path):
    """It is stored as it is read, and known the next time."""
    dataset, content = register_dataset(stated), Path("/proc/version").read_bytes()
    [sent] = upload_dataset_files(dataset, "/proc/version")
    assert (sent.size, sent.sha256) == (len(content), digest(content))
    [got] = download_dataset_files(dataset, tmp_path / "back", paths=["version"])
    assert Path(got.path).read_bytes() == content
