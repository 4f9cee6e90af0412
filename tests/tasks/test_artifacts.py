"""Uploads of anything that holds bytes are sent once and resumed, downloads are verified, and what is incomplete is not
taken for complete."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import logging
import lzma
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from on_record import last_graph

from ivcap_flows import task, tasks
from ivcap_flows.capture import files, use_journal
from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import InputError, IntegrityError, NotAuthorizedError, SourceChangedError, UnavailableError
from ivcap_flows.file_state import FileState
from ivcap_flows.handles import LocalFile
from ivcap_flows.http import tus
from ivcap_flows.identity import digest
from ivcap_flows.ivcap.artifacts import Artifacts
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import uploads

# The bodies of the tasks: a flow run around each would take most of the time, and change nothing.
artifact_for_file = tasks.ivcap.artifact_for_file.fn
collection_items = tasks.collection_items.fn
download_artifact = tasks.download_artifact.fn
get_artifact = tasks.get_artifact.fn
list_artifacts = tasks.list_artifacts.fn
place_order = tasks.place_order.fn
read_artifact = tasks.read_artifact.fn
untar_artifact = tasks.untar_artifact.fn
upload_artifact = tasks.upload_artifact.fn
upload_directory = tasks.upload_directory.fn
wait_for_orders = tasks.wait_for_orders.fn

MIB = 1024 * 1024


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of five chunks."""
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(5 * MIB))
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1 MiB, so that a file of a few has several."""
    monkeypatch.setitem(tus.send.__kwdefaults__, "chunk", MIB)


def sent(effects) -> int:
    """Bytes of content that reached the platform."""
    return sum(r["received"] for r in effects.embedded.requests("PATCH"))


def blobs(effects) -> list[int]:
    """The statuses of the requests for content."""
    return [r["status"] for r in effects.embedded.requests("GET") if r["path"].endswith("/blob")]


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


HOLDERS = [bytes, bytearray, memoryview, io.BytesIO, in_blocks, Pipe, lambda c: [c[:3], c[3:]]]


def test_whatever_holds_bytes_is_the_content_of_the_file(effects, source, tmp_path):
    """Bytes, streams and iterators, of known size or not, also without content. The file with the same content is not
    sent again."""
    for count, make in enumerate(HOLDERS, 1):
        content = source.read_bytes() * (count * 40)
        first = upload_artifact(make(content), name="series.csv")
        assert (first.sha256, first.size, first.media_type) == (digest(content), len(content), "text/csv")
        assert read_artifact(first) == content
        copy = source.with_name("copy.csv")
        copy.write_bytes(content)
        assert upload_artifact(copy) == first
        assert effects.count("/1/artifacts") == count
    (tmp_path / "empty.txt").touch()
    for content in (tmp_path / "empty.txt", b"", io.BytesIO(), []):
        uploaded = upload_artifact(content, name="nothing.bin")
        assert (uploaded.size, uploaded.sha256) == (0, digest(b""))
        assert download_artifact(uploaded, tmp_path / "back.bin").size == 0


def test_the_same_content_is_not_sent_again(effects, source, other_journal, caplog):
    """Neither under another name nor by another journal. The log has the name that the artifact got first."""
    first = upload_artifact(source, name="north.csv")
    with caplog.at_level(logging.INFO, "ivcap_flows.tasks"):
        assert upload_artifact(source, name="south.csv") == first
    [said] = [message for message in caplog.messages if "is known: " in message]
    assert said == f"The content of south.csv is known: it is the artifact 'north.csv' ({first.urn})."
    with use_journal(other_journal):
        assert upload_artifact(source).urn == first.urn
    assert effects.count("/1/artifacts") == 1 and sent(effects) == source.stat().st_size


@pytest.mark.catches("each journal keeps its upload")
@pytest.mark.parametrize("between", ["its creation and its bytes", "its bytes and its outcome"])
def test_what_follows_an_upload_of_two_journals_is_one_order(effects, source, other_journal, monkeypatch, between):
    """Another journal uploads the same in the middle of an upload. Both take one artifact, so the order is one."""
    name = {"its creation and its bytes": "create", "its bytes and its outcome": "send"}[between]
    real, meanwhile = getattr(Artifacts, name), []

    def order():
        return place_order("echo", {"message": upload_artifact(source).urn}, once_per="account")

    def elsewhere():
        with use_journal(other_journal):
            meanwhile.append(order())

    async def interrupted(*args, **options):
        done = await real(*args, **options)
        if not meanwhile:
            monkeypatch.setattr(Artifacts, name, real)
            await asyncio.to_thread(elsewhere)
        return done

    monkeypatch.setattr(Artifacts, name, interrupted)
    assert [order().urn] == [order.urn for order in meanwhile]
    assert (effects.count("/1/artifacts"), effects.count("/1/orders")) == (2, 1)


def test_what_makes_another_artifact(effects, source):
    """Equal bytes under another media type or policy are another artifact, as the platform sees it."""
    plain = upload_artifact(source)
    typed = upload_artifact(source, media_type="text/plain")
    shared = upload_artifact(source, policy="urn:ivcap:policy:ivcap.open.artifact")
    assert len({plain.urn, typed.urn, shared.urn}) == 3
    assert (plain.media_type, typed.media_type) == ("text/csv", "text/plain")
    assert shared.policy == "urn:ivcap:policy:ivcap.open.artifact"


def test_a_small_one_takes_seven_requests(effects, source):
    """Look-up, creation, bytes, digest, readiness, outcome, and whose outcome counts."""
    upload_artifact(b"The account and the platform are known then.", name="first")
    effects.embedded.forget_requests()
    upload_artifact(source)
    asked = Counter((request["method"], request["path"].split("/")[2]) for request in effects.embedded.requests())
    assert asked == {
        ("GET", "aspects"): 2,
        ("POST", "artifacts"): 1,
        ("PATCH", "artifacts"): 1,
        ("GET", "artifacts"): 1,
        ("POST", "aspects"): 2,
    }


def test_a_file_is_hashed_once(in_script, effects, source, monkeypatch):
    """The record of the call and the upload share the digest of an unchanged file."""
    begun = []
    counted = SimpleNamespace(sha256=lambda: begun.append(1) or hashlib.sha256())
    monkeypatch.setattr(files, "hashlib", counted)
    os.utime(source, (0, 0))
    time.sleep(0.06)
    assert in_script(lambda: tasks.upload_artifact(source)).sha256 == digest(source.read_bytes())
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("size", "elsewhere"),
    [
        pytest.param(1000, False, id="small, this journal"),
        pytest.param(3 * MIB + 5, True, id="large, another journal"),
        pytest.param(1000, True, id="small, another journal", marks=pytest.mark.long),
        pytest.param(3 * MIB + 5, False, id="large, this journal", marks=pytest.mark.long),
    ],
)
def test_the_digest_is_that_of_the_bytes_that_leave(effects, source, other_journal, small_chunks, size, elsewhere):
    """If the stored digest is wrong, that is noticed before the last byte leaves, and nothing is stored under the key.

    What the digest belongs to and what the file has become two artifacts: neither upload continues the first.
    """
    content, meant = os.urandom(size), os.urandom(size)
    source.write_bytes(content)
    files._read().digests.put(str(source), (FileState.of(source), digest(meant)))
    with pytest.raises(IntegrityError, match=f"{source}.*Upload it again"):
        upload_artifact(source)
    [intent] = effects.intents("upload")
    assert (intent.state, intent.urn, intent.progress) == ("dropped", None, None)
    assert sent(effects) < size
    with use_journal(other_journal if elsewhere else effects.journal):
        assert read_artifact(upload_artifact(meant)) == meant
        uploaded = upload_artifact(source)
        assert (uploaded.sha256, read_artifact(uploaded)) == (digest(content), content)


def test_a_stream_that_can_is_put_back(effects, source):
    """A stream is read from its position, which is restored afterwards, so that a retry reads the same."""
    with source.open("rb") as stream:
        stream.seek(5)
        uploaded = [upload_artifact(stream) for _ in range(2)]
        assert stream.tell() == 5
    assert uploaded[0] == uploaded[1]
    assert (uploaded[0].sha256, uploaded[0].name) == (digest(source.read_bytes()[5:]), "series.csv")


def test_a_stream_that_is_closed_is_refused(effects, source):
    """As one that was opened around `submit`, whose task runs later."""
    with source.open("rb") as stream:
        pass
    with pytest.raises(InputError, match="stream is closed. Keep it open"):
        upload_artifact(stream)


@pytest.mark.parametrize("module", [bz2, gzip, lzma])
def test_a_stream_that_decompresses_has_not_the_name_of_its_file(effects, source, module):
    """Nor its media type, in each Python: what is sent is not what the file has."""
    packed = source.with_name("series.csv.gz")
    with module.open(packed, "wb") as stream:
        stream.write(source.read_bytes())
    with module.open(packed) as stream:
        uploaded = upload_artifact(stream)
    assert (uploaded.name, uploaded.media_type) == (None, "application/octet-stream")
    assert read_artifact(uploaded) == source.read_bytes()


def test_a_stream_is_not_held_in_memory(effects, tmp_path, monkeypatch):
    """A stream is copied in blocks to a temporary file, which is deleted afterwards."""
    spools = []

    def blocks() -> Iterator[bytes]:
        for _ in range(12):
            yield os.urandom(MIB)
            spools[:] = list(tmp_path.rglob("spool"))
        assert spools[0].stat().st_size > 8 * MIB

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert upload_artifact(blocks()).size == 12 * MIB
    assert not spools[0].exists()


def test_a_stream_in_the_record(in_flow, ivcap_journal, source):
    """An artifact from a stream is recorded as generated, with its digest and without a file."""
    uploaded = in_flow(lambda: tasks.upload_artifact(io.BytesIO(source.read_bytes())))
    [run] = ivcap_journal.runs.recent()
    graph = run_graph(ivcap_journal, run.id)
    assert graph.nodes[uploaded.urn].attributes["sha256"] == uploaded.sha256
    assert not [node for node in graph.nodes.values() if "path" in node.attributes]
    made = [link for link in graph.relations.values() if link.type == "wasGeneratedBy"]
    assert [(link.source, graph.nodes[link.target].type) for link in made] == [(uploaded.urn, "task-run")]


@pytest.mark.parametrize(
    "fault", [{"reset": True}, {"drop_reply_after_effect": True}, {"truncate": 0}, {"status": 503}]
)
def test_an_upload_goes_on_where_the_platform_stands(effects, big, small_chunks, fault):
    """A connection that breaks in the middle of an upload costs at most one chunk, and one artifact is made."""
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=2, delay=0.0)
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=1, **fault)
    uploaded = upload_artifact(big)
    assert effects.count("/1/artifacts") == 1
    assert big.stat().st_size <= sent(effects) <= big.stat().st_size + MIB
    assert len(effects.embedded.requests("PATCH")) <= 6
    assert uploaded.sha256 == digest(big.read_bytes())


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"status": 503}, UnavailableError), ({"expire_token": True}, NotAuthorizedError)],
    ids=["unavailable", "expired token"],
)
def test_the_next_call_goes_on_with_an_upload(effects, big, small_chunks, fault, error):
    """What was begun is not the artifact of the file. Once it is continued, its first chunks are not sent again."""
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=3, delay=0.0)
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", **fault)
    with pytest.raises(error):
        upload_artifact(big)
    effects.embedded.clear_faults()
    assert artifact_for_file(big) is None

    def stored():
        return sum(r["received"] for r in effects.embedded.requests("PATCH") if r["status"] == 204)

    assert stored() == 3 * MIB
    assert read_artifact(upload_artifact(big)) == big.read_bytes()
    assert effects.count("/1/artifacts") == 1 and stored() == big.stat().st_size


def test_a_file_that_changes_while_it_is_sent_is_refused(effects, big, small_chunks, monkeypatch):
    """A file that changes during its upload does not become an artifact. Its next version does, as a whole."""
    patch = tus.patch

    async def meddling(*args, **options):
        reached = await patch(*args, **options)
        if reached == 2 * MIB:
            with big.open("r+b") as file:
                file.write(b"changed")
        return reached

    with monkeypatch.context() as patched:
        patched.setattr(tus, "patch", meddling)
        with pytest.raises(SourceChangedError, match=r"big\.bin changed while it was sent"):
            upload_artifact(big)
    assert sent(effects) < big.stat().st_size
    assert upload_artifact(big).sha256 == digest(big.read_bytes())


def test_an_artifact_that_shows_late_is_waited_for(effects, source):
    """If a new artifact is hidden for a while, it is waited for, and becomes the only one."""
    effects.embedded.add_fault(method="POST", path="^/1/artifacts$", count=1, late_visibility=0.6)
    assert read_artifact(upload_artifact(source)) == source.read_bytes()
    assert effects.count("/1/artifacts") == 1


def test_what_is_read_is_verified(effects, source, tmp_path, embedded_directory):
    """Content is read into memory up to a limit. Damaged bytes are refused, with and without a known sha256, and leave
    no file."""
    series, content = upload_artifact(source), source.read_bytes()
    assert read_artifact(series) == read_artifact(series.urn) == content
    with pytest.raises(InputError, match="more than 5 bytes"):
        read_artifact(series, limit=5)
    damaged = content[:-1] + b"!"
    blob = embedded_directory.blob(series.urn)
    blob.chmod(0o600)
    blob.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        read_artifact(series.urn)
    for given in (series, series.urn, series.model_copy(update={"sha256": None})):
        with pytest.raises(IntegrityError, match="was not written") as caught:
            download_artifact(given, tmp_path / "back.csv")
        assert (caught.value.expected, caught.value.found) == (series.sha256, digest(damaged))
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []


def test_a_right_file_is_not_fetched_again(effects, source, tmp_path):
    """A file with the artifact's content is not downloaded again. One with other content is replaced."""
    back, series = tmp_path / "back.csv", upload_artifact(source)
    assert download_artifact(series, back) == download_artifact(series, back)
    stamp = back.stat().st_mtime_ns
    download_artifact(series.urn, str(back))
    assert (back.stat().st_mtime_ns, len(blobs(effects))) == (stamp, 1)
    back.write_text("something else")
    download_artifact(series, back)
    assert back.read_bytes() == source.read_bytes() and len(blobs(effects)) == 2


@pytest.mark.parametrize("fault", [{"truncate": 2 * MIB}, {"reset": True}, {"status": 503}])
def test_a_download_goes_on(effects, big, tmp_path, fault):
    """A download that breaks off continues after the bytes it has, and is verified as a whole."""
    series = upload_artifact(big)
    effects.embedded.add_fault(method="GET", path="/blob$", count=1, **fault)
    assert download_artifact(series, tmp_path / "back.bin").sha256 == series.sha256
    assert blobs(effects)[-1] == (206 if "truncate" in fault else 200)


def test_the_record_of_downloads_over_a_file(in_flow, source, ivcap_journal, tmp_path):
    """What was at the place before is no input. Who reads a file that the next download found in place is linked to
    the artifact of that download."""
    back = tmp_path / "back.csv"
    back.write_text("of another day\n", encoding="utf-8")
    old = urn_at(back)

    @task(name="Read")
    def read(file: LocalFile) -> int:
        return len(Path(file).read_bytes())

    def body(**options):
        series = tasks.upload_artifact(source, **options)
        read(tasks.download_artifact(series, back))
        return series

    for options in ({}, {"media_type": "text/plain"}):
        series = in_flow(lambda options=options: body(**options))
        graph = last_graph(ivcap_journal)
        [reading] = [node.id for node in graph.nodes.values() if node.attributes.get("name") == "Read"]
        assert series.urn in graph.lineage(reading).nodes and old not in graph.nodes


def test_a_big_upload_may_take_longer_to_be_ready(effects, source, monkeypatch):
    """The platform puts together and hashes what it has got, which takes longer for more. What is refused names how
    long that was waited for.
    """
    real, begun = Artifacts.read, time.monotonic()

    async def late(self, urn):
        record = await real(self, urn)
        return record if time.monotonic() - begun > 0.6 else record.model_copy(update={"status": "partial"})

    monkeypatch.setattr(Artifacts, "read", late)
    monkeypatch.setattr(uploads, "_READY_WAIT", 0.1)
    with pytest.raises(IntegrityError, match="its status is 'partial' after 0 s"):
        upload_artifact(source)
    monkeypatch.setattr(uploads, "_READY_RATE", source.stat().st_size / 30)
    upload_artifact(source)
    assert effects.count("/1/artifacts") == 1


def test_products(effects, source, tmp_path, tasks_service):
    """The products of an order are found by name and downloaded. An unknown name is an error with the known ones."""
    [done] = wait_for_orders([place_order(tasks_service, {"series": upload_artifact(source)})], timeout=60)
    file = download_artifact(done.products["upper.csv"], tmp_path / "upper.csv")
    assert Path(file).read_bytes() == source.read_bytes().upper()
    assert sorted(product.name for product in done.products)[:2] == ["lower.csv", "upper.csv"]
    assert done.products[0].size == source.stat().st_size
    with pytest.raises(KeyError, match=r"no product 'missing.csv'; there are: .*upper\.csv"):
        done.products["missing.csv"]


def test_artifacts_are_listed(effects, unique):
    """By name or by a filter, up to a limit."""
    made = [upload_artifact(f"{n}{unique}".encode(), name=unique) for n in range(12)]
    listed = list_artifacts(unique)
    assert {one.urn for one in listed} == {one.urn for one in made} and len(listed) == 12
    assert len(list_artifacts(unique, limit=3)) == 3
    [first] = list_artifacts(filter=f"name ~= '{unique}'", order_by="name", limit=1)
    assert first.name == unique


def test_the_artifact_of_a_file(effects, source, tmp_path, other_journal):
    """The artifact of a file is found in the journal, or else on the platform, or not at all. Nothing is sent."""
    assert artifact_for_file(source) is None
    series = upload_artifact(source)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(source.read_bytes())
    posts = len(effects.embedded.requests("POST"))
    assert artifact_for_file(copy) == series
    with use_journal(other_journal):
        assert artifact_for_file(copy) == series
    copy.write_bytes(b"another")
    assert artifact_for_file(copy) is None
    assert len(effects.embedded.requests("POST")) == posts


def test_a_side_car(effects, source, unique):
    """A side-car file is written only on request. One that an official client wrote is read."""
    marker = source.with_name(f".ivcap-{source.name}.txt")
    upload_artifact(source)
    assert not marker.exists()
    series = upload_artifact(source, side_car=True)
    assert marker.read_text().strip().endswith(f"|{series.urn}")
    unknown = source.with_name("unknown.csv")
    unknown.write_text(unique * 2)
    md5 = hashlib.md5(unknown.read_bytes(), usedforsecurity=False).hexdigest()
    unknown.with_name(".ivcap-unknown.csv.txt").write_text(f"{md5}|{series.urn}")
    assert artifact_for_file(unknown).urn == series.urn


UNSIZED = Path("/proc/sys/fs/epoll")
"""A folder of a file whose size is 0 by `stat`, and which has content."""


@pytest.mark.catches("sizes by stat")
def test_the_bytes_that_are_read_are_what_is_stored(effects, tmp_path):
    """Of a file whose file system reports no size: as an artifact, in a tar archive, in a collection, in the record.

    Also of one that reads otherwise each time.
    """
    version, folder = Path("/proc/version"), {path.name: path.read_bytes() for path in UNSIZED.iterdir()}
    assert version.stat().st_size == 0 and all(folder.values())
    file = upload_artifact(version)
    content = read_artifact(file)
    assert content == version.read_bytes()
    assert (file.sha256, file.size) == (digest(content), len(content))
    back = untar_artifact(upload_directory(UNSIZED, pack="tar", name="epoll"), tmp_path / "back")
    items = collection_items(upload_directory(UNSIZED, pack="collection", name="epoll"))
    members = {item.name: read_artifact(item) for item in (get_artifact(item.urn) for item in items)}
    assert {path.name: path.read_bytes() for path in back.iterdir()} == members == folder
    record = files.records_of(files.state_at(version))[0]
    assert (record.attributes["sha256"], record.attributes["size"]) == (file.sha256, file.size)
    random = upload_artifact("/proc/sys/kernel/random/uuid")
    assert random.sha256 == digest(read_artifact(random)) and random.size == 37
