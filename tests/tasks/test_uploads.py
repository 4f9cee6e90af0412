"""Uploads of anything that holds bytes, and by several machines at once."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mutants import mutate

from ivcap_flows.capture import files, use_journal
from ivcap_flows.errors import InputError, IntegrityError, UnavailableError
from ivcap_flows.file_state import FileState
from ivcap_flows.http import tus
from ivcap_flows.identity import digest
from ivcap_flows.ivcap import idempotency_records
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import (
    artifact_for_file,
    collection_items,
    download_artifact,
    get_artifact,
    list_artifacts,
    read_artifact,
    untar_artifact,
    upload_artifact,
    upload_directory,
)

MIB = 1024 * 1024


def test_a_known_upload_says_under_which_name(in_flow, effects, source, caplog):
    """Nothing is sent, and the log has the name that the artifact got first."""
    first = in_flow(lambda: upload_artifact(source, name="north"))
    with caplog.at_level(logging.INFO, "ivcap_flows.tasks"):
        again = in_flow(lambda: upload_artifact(source, name="south"))
    assert again.urn == first.urn and effects.count("/1/artifacts") == 1
    [said] = [message for message in caplog.messages if "is known and was not sent" in message]
    assert said == f"The content of south is known and was not sent: it is the artifact 'north' ({first.urn})."


def test_a_small_one_is_sent_without_ado(in_flow, effects, source):
    """A small upload takes six requests: look-up, creation, bytes, digest, readiness and outcome."""
    in_flow(lambda: upload_artifact(b"The account and the platform are known then.", name="first"))
    effects.embedded.forget_requests()
    in_flow(lambda: upload_artifact(source))
    asked = Counter((request["method"], request["path"].split("/")[2]) for request in effects.embedded.requests())
    assert asked == {
        ("GET", "aspects"): 1,
        ("POST", "artifacts"): 1,
        ("PATCH", "artifacts"): 1,
        ("GET", "artifacts"): 1,
        ("POST", "aspects"): 2,
    }


def test_a_small_one_that_took_long(on_platform, unique, monkeypatch):
    """If the first look is too old when the outcome is written, the records are read again, and another's is found."""

    async def outcomes(client):
        account = await client.account()
        mine, theirs = (IdempotencyRecords(client.aspects, account) for _ in range(2))
        assert await mine.read(f"k1:{unique}") is None
        await theirs.write(f"k1:{unique}", {"journal": "theirs", "urn": "urn:b"})
        return [other["urn"] for other in await mine.write(f"k1:{unique}", {"journal": "mine", "urn": "urn:a"})]

    monkeypatch.setattr(idempotency_records, "FRESH", 0.0)
    assert on_platform(outcomes) == ["urn:b"]


def test_a_file_is_hashed_once(in_flow, effects, source, monkeypatch):
    """The record of the call and the upload share the digest of an unchanged file."""
    begun = []
    counted = SimpleNamespace(sha256=lambda: begun.append(1) or hashlib.sha256())
    monkeypatch.setattr(files, "hashlib", counted)
    os.utime(source, (0, 0))
    time.sleep(0.06)
    assert in_flow(lambda: upload_artifact(source)).sha256 == digest(source.read_bytes())
    assert len(begun) == 1


@pytest.fixture
def mistaken(source: Path, unique: str, request: pytest.FixtureRequest, monkeypatch) -> tuple[bytes, bytes]:
    """The file's content, and another content that its stored digest belongs to."""
    monkeypatch.setitem(tus.send.__kwdefaults__, "chunk", MIB)
    content, other = (os.urandom(request.param) for _ in range(2))
    source.write_bytes(content)
    files._read().digests.put(str(source), (FileState.of(source), digest(other)))
    return content, other


sizes = pytest.mark.parametrize("mistaken", [1000, 3 * MIB + 5], indirect=True, ids=["small", "large"])


@sizes
def test_the_digest_is_that_of_the_bytes_that_leave(in_flow, effects, source, mistaken):
    """If the stored digest is wrong, that is noticed before the last byte leaves.

    Nothing is stored under the key, and the next try uses the right digest.
    """
    with pytest.raises(IntegrityError, match=f"{source}.*Upload it again"):
        in_flow(lambda: upload_artifact(source))
    [intent] = effects.intents("upload")
    assert (intent.state, intent.urn, intent.progress) == ("dropped", None, None)
    assert sum(request["received"] for request in effects.embedded.requests("PATCH")) < source.stat().st_size
    uploaded = in_flow(lambda: upload_artifact(source))
    assert uploaded.sha256 == digest(mistaken[0])
    assert in_flow(lambda: read_artifact(uploaded)) == mistaken[0]


@sizes
@pytest.mark.parametrize("elsewhere", [False, True], ids=["this journal", "another journal"])
def test_what_was_begun_with_other_bytes_is_not_continued(in_flow, effects, source, tmp_path, mistaken, elsewhere):
    """A later upload of the content that the digest belongs to makes its own artifact."""
    with pytest.raises(IntegrityError):
        in_flow(lambda: upload_artifact(source))
    meant = tmp_path / "meant.csv"
    meant.write_bytes(mistaken[1])
    with (
        Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other,
        use_journal(other if elsewhere else effects.journal),
    ):
        uploaded = in_flow(lambda: upload_artifact(meant))
    assert in_flow(lambda: read_artifact(uploaded)) == mistaken[1]


def in_blocks(content: bytes) -> Iterator[bytes]:
    """An iterator that knows neither its size nor how to rewind."""
    for at in range(0, len(content), 1000):
        yield content[at : at + 1000]


class Pipe(io.RawIOBase):
    """A stream that can only be read forwards."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # Less than was asked for, as sockets do.
        block, self._left = self._left[:777], self._left[777:]
        return block


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO, in_blocks, Pipe, lambda c: [c[:3], c[3:]]])
def test_whatever_holds_bytes(in_flow, effects, source, make, tmp_path):
    """Bytes, streams and iterators are the same content as the file.

    They are not sent again, whether or not their size is known.
    """
    content = source.read_bytes()
    first = in_flow(lambda: upload_artifact(make(content), name="series.csv"))
    assert (first.sha256, first.size, first.media_type) == (digest(content), len(content), "text/csv")
    assert in_flow(lambda: upload_artifact(source)).urn == first.urn
    assert effects.count("/1/artifacts") == 1
    back = in_flow(lambda: download_artifact(first, tmp_path / "back.csv"))
    assert Path(back).read_bytes() == content


def test_a_stream_that_can_is_put_back(in_flow, effects, source):
    """A stream is read from its position, which is restored afterwards, so that a retry reads the same."""
    with source.open("rb") as stream:
        stream.seek(5)
        uploaded = [in_flow(lambda: upload_artifact(stream)) for _ in range(2)]
        assert stream.tell() == 5
    assert uploaded[0] == uploaded[1]
    assert (uploaded[0].sha256, uploaded[0].name) == (digest(source.read_bytes()[5:]), "series.csv")


@pytest.mark.parametrize("content", [b"", io.BytesIO(), []])
def test_no_bytes(in_flow, effects, tmp_path, content):
    """Bytes and streams without content make an artifact without content."""
    uploaded = in_flow(lambda: upload_artifact(content, name="nothing.bin"))
    assert (uploaded.size, uploaded.sha256) == (0, digest(b""))
    assert in_flow(lambda: download_artifact(uploaded, tmp_path / "back.bin")).size == 0


def test_a_stream_is_not_held_in_memory(in_flow, effects, monkeypatch):
    """A stream is copied in blocks to a temporary file, which is deleted afterwards."""
    spools = []

    def blocks() -> Iterator[bytes]:
        for _ in range(40):
            yield os.urandom(MIB)
            spools[:] = list(Path(os.environ["TMPDIR"]).rglob("spool"))
        assert spools[0].stat().st_size > 30 * MIB

    monkeypatch.setenv("TMPDIR", str(Path(effects.journal.url.removeprefix("sqlite:///")).parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert in_flow(lambda: upload_artifact(blocks())).size == 40 * MIB
    assert not spools[0].exists()


@pytest.mark.parametrize("wrong", [io.StringIO("text"), ["text"], 7])
def test_what_holds_no_bytes(in_flow, effects, wrong):
    """Text and other objects without bytes are errors before anything is sent."""
    with pytest.raises(InputError, match=r"must give bytes, not str|Pass a path, bytes, a binary stream"):
        in_flow(lambda: upload_artifact(wrong))
    assert effects.embedded.requests("POST") == []


def test_a_stream_in_the_record(in_flow, ivcap_journal, source):
    """An artifact from a stream is recorded as generated, with its digest and without a file."""
    from ivcap_flows.sinks import run_graph

    uploaded = in_flow(lambda: upload_artifact(io.BytesIO(source.read_bytes())))
    [run] = ivcap_journal.runs.recent()
    graph = run_graph(ivcap_journal, run.id)
    assert graph.nodes[uploaded.urn].attributes["sha256"] == uploaded.sha256
    assert not [node for node in graph.nodes.values() if "path" in node.attributes]
    made = [link for link in graph.relations.values() if link.type == "wasGeneratedBy"]
    assert [(link.source, graph.nodes[link.target].type) for link in made] == [(uploaded.urn, "task-run")]


def test_another_journal_after_a_lost_one(in_flow, effects, tmp_path, source):
    """After the journal was deleted, nothing is sent again."""
    first = in_flow(lambda: upload_artifact(source.read_bytes(), name=source.name))
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as other, use_journal(other):
        assert in_flow(lambda: upload_artifact(source)).urn == first.urn
    assert effects.count("/1/artifacts") == 1


def test_an_artifact_as_bytes(in_flow, effects, source, embedded_directory):
    """The content is read into memory and verified, up to the limit."""
    series = in_flow(lambda: upload_artifact(source))
    content = source.read_bytes()
    assert in_flow(lambda: read_artifact(series)) == in_flow(lambda: read_artifact(series.urn)) == content
    with pytest.raises(InputError, match="more than 5 bytes"):
        in_flow(lambda: read_artifact(series, limit=5))
    blob = embedded_directory.blob(series.urn)
    blob.chmod(0o600)
    blob.write_bytes(content[:-1] + b"!")
    with pytest.raises(IntegrityError):
        in_flow(lambda: read_artifact(series.urn))


def test_artifacts_are_listed(in_flow, effects, source, unique):
    """Artifacts are listed by name, newest first, up to a limit. The flow is not recorded as their maker."""

    def body():
        made = [upload_artifact(f"{n}{unique}".encode(), name=unique) for n in range(12)]
        listed, some = list_artifacts(unique), list_artifacts(unique, limit=3)
        [first] = list_artifacts(filter=f"name ~= '{unique}'", order_by="name", limit=1)
        return made, listed, some, first

    made, listed, some, first = in_flow(body)
    assert {one.urn for one in listed} == {one.urn for one in made} and len(listed) == 12
    assert len(some) == 3 and first.name == unique


def test_the_artifact_of_a_file(in_flow, effects, source, tmp_path):
    """The artifact of a file is found in the journal, or else on the platform, or not at all. Nothing is sent."""
    assert in_flow(lambda: artifact_for_file(source)) is None
    series = in_flow(lambda: upload_artifact(source))
    copy = tmp_path / "copy.csv"
    copy.write_bytes(source.read_bytes())
    posts = len(effects.embedded.requests("POST"))
    assert in_flow(lambda: artifact_for_file(copy)) == series
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_flow(lambda: artifact_for_file(copy)) == series
    copy.write_bytes(b"another")
    assert in_flow(lambda: artifact_for_file(copy)) is None
    assert len(effects.embedded.requests("POST")) == posts


def test_the_artifact_of_a_file_must_be_ready(in_flow, effects, source):
    """An upload that was not finished is not the artifact of the file."""
    effects.embedded.add_fault(method="PATCH", status=503)
    with pytest.raises(UnavailableError):
        in_flow(lambda: upload_artifact(source))
    assert in_flow(lambda: artifact_for_file(source)) is None


def test_a_side_car(in_flow, effects, source, unique):
    """A side-car file is written only on request. One that an official client wrote is read."""
    marker = source.with_name(f".ivcap-{source.name}.txt")
    in_flow(lambda: upload_artifact(source))
    assert not marker.exists()
    series = in_flow(lambda: upload_artifact(source, side_car=True))
    assert marker.read_text().strip().endswith(f"|{series.urn}")
    other = in_flow(lambda: upload_artifact(source, media_type="text/plain"))
    unknown = source.with_name("unknown.csv")
    unknown.write_text(unique * 2)
    md5 = hashlib.md5(unknown.read_bytes(), usedforsecurity=False).hexdigest()
    unknown.with_name(".ivcap-unknown.csv.txt").write_text(f"{md5}|{other.urn}")
    assert in_flow(lambda: artifact_for_file(unknown)).urn == other.urn
    with pytest.raises(InputError, match="pass a path"):
        in_flow(lambda: upload_artifact(b"bytes", side_car=True))


def test_an_artifact_that_shows_late_is_waited_for(effects, source):
    """If a new artifact is hidden for a while, it is waited for, and becomes the only one."""
    effects.embedded.add_fault(method="POST", path="^/1/artifacts$", count=1, late_visibility=0.6)
    source.write_bytes(os.urandom(1000))
    artifact = upload_artifact.fn(source)
    assert read_artifact.fn(artifact) == source.read_bytes()
    assert len(effects.embedded.requests("POST", "/1/artifacts")) == 1


UNSIZED = Path("/proc/sys/fs/epoll")
"""A folder of a file whose size is 0 by `stat`, and which has content."""


def stored_as_read(in_flow, effects, tmp_path):
    """Upload a file, and a folder in both ways, and compare what comes back with what can be read."""
    version, folder = Path("/proc/version"), {path.name: path.read_bytes() for path in UNSIZED.iterdir()}
    assert version.stat().st_size == 0 and all(folder.values())

    def body():
        file, tar = upload_artifact(version), upload_directory(UNSIZED, pack="tar", name="epoll")
        collection = upload_directory(UNSIZED, pack="collection", name="epoll")
        items = [get_artifact(item.urn) for item in collection_items(collection)]
        members = {item.name: read_artifact(item) for item in items}
        return file, read_artifact(file), untar_artifact(tar, tmp_path / "back"), members

    file, content, back, members = in_flow(body)
    assert content == version.read_bytes()
    assert (file.sha256, file.size) == (digest(content), len(content))
    assert {path.name: path.read_bytes() for path in back.iterdir()} == members == folder
    record = files.records_of(files.state_at(version))[0]
    assert (record.attributes["sha256"], record.attributes["size"]) == (file.sha256, file.size)


@pytest.mark.mutant(None)
def test_the_bytes_that_are_read_are_what_is_stored(in_flow, effects, tmp_path):
    """Of a file whose file system reports no size: as an artifact, in a tar archive, in a collection, in the record."""
    stored_as_read(in_flow, effects, tmp_path)


@pytest.mark.mutant("sizes by stat")
def test_a_build_that_believes_stat_is_found(in_flow, effects, tmp_path, monkeypatch):
    """The test above fails on it."""
    mutate("sizes by stat", monkeypatch.setattr)
    with pytest.raises((AssertionError, IntegrityError)):
        stored_as_read(in_flow, effects, tmp_path)


def test_a_file_that_reads_otherwise_each_time_is_one_of_them(in_flow, effects):
    """What is stored is what was read once, and its digest fits."""
    file, content = in_flow(lambda: (file := upload_artifact("/proc/sys/kernel/random/uuid"), read_artifact(file)))
    assert file.sha256 == digest(content) and file.size == len(content) == 37
