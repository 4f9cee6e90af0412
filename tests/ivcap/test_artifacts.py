"""Artifacts from any source and to any sink: on the embedded platform, and where a platform behaves oddly."""

import base64
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import InputError, IntegrityError, NotFoundError, ProtocolError, SourceChangedError
from ivcap_flows.file_state import FileState
from ivcap_flows.ivcap.archive import pack
from ivcap_flows.ivcap.data_urls import decode_data_url, encode_data_url
from ivcap_flows.ivcap.side_car import read_side_car, side_car_of, write_side_car

CONTENT = os.urandom(300_000)
A = "urn:ivcap:artifact:a"


def record(**fields):
    return {"id": A, "status": "ready", "data-href": "/1/artifacts/a/blob", "links": [], **fields}


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["some", "empty"])
@pytest.mark.parametrize("kind", ["path", "text path", "bytes"])
async def test_every_source_becomes_a_ready_artifact(embedded, tmp_path, kind, content):
    """A path or bytes, empty or not; no temporary file is left."""
    path = tmp_path / "source.csv"
    path.write_bytes(content)
    source = {"path": path, "text path": str(path), "bytes": content}[kind]
    before = set(Path(tempfile.gettempdir()).glob("ivcap-flows-*"))
    done = await embedded.artifacts.upload(source, name="Niño 1+2.csv")
    assert (done.ready, done.size, done.name, done.mime_type) == (True, len(content), "Niño 1+2.csv", "text/csv")
    assert await embedded.artifacts.read_bytes(done.urn, limit=len(content)) == content
    assert set(Path(tempfile.gettempdir()).glob("ivcap-flows-*")) <= before


async def test_an_upload_says_what_it_is_to_be(embedded):
    """Type, policy and collection; a name without a known ending is bytes."""
    policy = "urn:ivcap:policy:ivcap.open.artifact"
    done = await embedded.artifacts.upload(
        b"1", name="x.csv", media_type="x/y", policy=policy, collection="urn:ivcap:collection:c"
    )
    assert (done.mime_type, done.policy) == ("x/y", policy)
    assert (await embedded.artifacts.upload(b"1", name="what")).mime_type == "application/octet-stream"


async def test_bytes_go_on_by_the_urn_of_their_record(embedded):
    """Bytes that were sent in part are sent to their end; the platform gets the rest only."""
    record, told = await embedded.artifacts.create(name="s", media_type="x/y", size=len(CONTENT)), []
    await embedded.artifacts.send(record, CONTENT[:200_000])
    assert not (await embedded.artifacts.read(record.urn)).ready
    assert await embedded.artifacts.send(record.urn, CONTENT, progress=told.append) == len(CONTENT)
    assert told == [len(CONTENT)]
    assert await embedded.artifacts.read_bytes(record.urn, limit=10**6) == CONTENT


async def test_a_platform_that_leaves_an_empty_artifact_pending_is_understood(client, scripted, tmp_path):
    """It takes no empty chunk, says pending and 0 bytes; the upload ends well and the content is nothing."""
    pending = record(status="pending", size=0)
    scripted.on("POST /1/artifacts", JSONResponse(pending, 201))
    scripted.on(f"GET /1/artifacts/{A}", pending)
    scripted.on("PATCH /1/artifacts/a/blob", Response(status_code=409))
    done = await client.artifacts.upload(b"", name="empty")
    assert (done.status, done.size) == ("pending", 0)
    assert await client.artifacts.read_bytes(A, limit=0) == b""
    assert (await client.artifacts.download(A, tmp_path / "out")).size == 0
    assert scripted.to("GET /1/artifacts/a/blob") == []


async def test_a_record_may_have_no_name(client, scripted):
    """Its size is announced, and no name."""
    scripted.on("POST /1/artifacts", record(status="pending"))
    await client.artifacts.create(name=None, media_type="x/y", size=7)
    [call] = scripted.to("POST /1/artifacts")
    assert call.headers["x-content-length"] == "7"
    assert "x-name" not in call.headers


async def test_content_is_streamed_in_blocks_and_verified(embedded):
    """Blocks of the length asked for; a wrong digest is told at the end."""
    done = await embedded.artifacts.upload(CONTENT, name="s")
    parts = [part async for part in embedded.artifacts.stream(done.urn, block=70_000)]
    assert [len(part) for part in parts] == [70_000] * 4 + [20_000]
    assert b"".join(parts) == CONTENT
    right = hashlib.sha256(CONTENT).hexdigest()
    assert len([part async for part in embedded.artifacts.stream(done.urn, sha256=right)]) == 1
    with pytest.raises(IntegrityError, match="sha256"):
        [part async for part in embedded.artifacts.stream(done.urn, sha256="0" * 64)]


async def test_content_is_read_as_a_file(embedded):
    """A head can be read without the rest."""
    done = await embedded.artifacts.upload(CONTENT, name="s")
    async with embedded.artifacts.open(done.urn) as file:
        assert await file.read(5) == CONTENT[:5]
    async with embedded.artifacts.open(done.urn) as file:
        assert await file.read(5) + await file.read() == CONTENT


async def test_a_size_that_is_not_what_comes_is_an_error(client, scripted):
    """The record says one size, the bytes have another."""
    scripted.on(f"GET /1/artifacts/{A}", record(size=4))
    scripted.on("GET /1/artifacts/a/blob", Response(b"12345"))
    with pytest.raises(IntegrityError, match="more than 4 bytes"):
        [part async for part in client.artifacts.stream(A)]


async def test_reading_whole_is_bounded(client, scripted):
    """By the record's size, without a request for the bytes; by the bytes where the record does not know."""
    scripted.on(f"GET /1/artifacts/{A}", record(size=5), record(), record())
    scripted.on("GET /1/artifacts/a/blob", Response(b"12345"))
    with pytest.raises(InputError, match="more than 4 bytes"):
        await client.artifacts.read_bytes(A, limit=4)
    assert scripted.to("GET /1/artifacts/a/blob") == []
    with pytest.raises(InputError, match="more than 4 bytes"):
        await client.artifacts.read_bytes(A, limit=4)
    assert await client.artifacts.read_bytes(A, limit=5) == b"12345"


@pytest.mark.parametrize("href", ["http://evil.example/blob", "//evil.example/blob", "file:///etc/passwd"])
async def test_bytes_are_never_fetched_from_elsewhere(client, scripted, href, tmp_path):
    """A data-href on a foreign host gets neither request nor token, whatever reads or writes by it."""
    scripted.on(f"GET /1/artifacts/{A}", record(**{"data-href": href}))
    for attempt in (
        lambda: client.artifacts.read_bytes(A, limit=9),
        lambda: client.artifacts.data_url(A),
        lambda: client.artifacts.untar(A, tmp_path / "out"),
        lambda: client.artifacts.send(A, b"1"),
        lambda: client.artifacts.send(A, b"1", offset=0),
        lambda: client.artifacts.offset(A),
    ):
        with pytest.raises(ProtocolError, match="not followed"):
            await attempt()
    assert {call.route for call in scripted.calls} == {f"GET /1/artifacts/{A}"}
    assert list(tmp_path.iterdir()) == []


async def test_artifacts_are_found_by_their_name(embedded):
    """The whole name, not a part of it; odd characters too; the limit counts those found."""
    names = ["report", "report 2", 'it\'s 100% "odd"', "report"]
    made = [(await embedded.artifacts.upload(b"1", name=f"n-{name}")).urn for name in names]
    found = [each.urn async for each in embedded.artifacts.list(name="n-report")]
    assert sorted(found) == sorted([made[0], made[3]])
    assert [each.urn async for each in embedded.artifacts.list(name=f"n-{names[2]}")] == [made[2]]
    assert len([each async for each in embedded.artifacts.list(name="n-report", limit=1)]) == 1
    assert [each async for each in embedded.artifacts.list(name="n-report", filter="status == 'pending'")] == []
    assert [each async for each in embedded.artifacts.list(name="n-report", limit=0)] == []


async def test_metadata_are_the_aspects_on_an_artifact(embedded):
    """What is added is listed, beside what the platform says itself."""
    done = await embedded.artifacts.upload(b"1", name="m")
    added = await embedded.artifacts.add_metadata(done.urn, "urn:x:schema:m.1", {"quality": "good"})
    found = {aspect.urn: aspect async for aspect in embedded.artifacts.metadata(done.urn)}
    assert found[added].content["quality"] == "good"
    assert all(aspect.entity == done.urn for aspect in found.values())
    assert len([each async for each in embedded.artifacts.metadata(done.urn, limit=1)]) == 1


async def test_a_data_url_is_an_artifact(embedded, tmp_path):
    """Read, streamed, opened, downloaded and unpacked without a request; with and without `urn:`."""
    for prefix in ("", "urn:"):
        url = f"{prefix}data:text/csv;base64,{base64.b64encode(b'a,b').decode()}"
        found = await embedded.artifacts.read(url)
        assert (found.ready, found.urn, found.mime_type, found.size) == (True, url, "text/csv", 3)
        assert found.handle("p").size == 3
        assert await embedded.artifacts.read_bytes(url, limit=3) == b"a,b"
        assert [part async for part in embedded.artifacts.stream(url, block=2)] == [b"a,", b"b"]
        async with embedded.artifacts.open(url) as file:
            assert await file.read(1) == b"a"
        there = await embedded.artifacts.download(url, tmp_path / "out", sha256=hashlib.sha256(b"a,b").hexdigest())
        assert (there.size, (tmp_path / "out").read_bytes()) == (3, b"a,b")
        assert await embedded.artifacts.data_url(url) == url.removeprefix("urn:")
        with pytest.raises(IntegrityError):
            await embedded.artifacts.download(url, tmp_path / "out", sha256="0" * 64)
    with pytest.raises(InputError):
        await embedded.artifacts.send(url, b"1")


@pytest.mark.parametrize(
    ("url", "media_type", "content"),
    [
        ("data:,Hello%2C%20World", "text/plain", b"Hello, World"),
        ("data:text/html,<b>x</b>", "text/html", b"<b>x</b>"),
        ("data:;charset=utf-8,%C3%B1", "text/plain;charset=utf-8", "ñ".encode()),
        ("data:text/plain;charset=utf-8;base64,w7E=", "text/plain;charset=utf-8", "ñ".encode()),
        ("data:x/y;base64,w7E", "x/y", "ñ".encode()),
        ("data:x/y;base64,w7%0AE%3D", "x/y", "ñ".encode()),
        ("urn:data:;base64,", "text/plain", b""),
    ],
)
def test_data_urls_are_read_as_they_are_written(url, media_type, content):
    """RFC 2397: percent-encoded or base64, with and without type, parameters and padding."""
    assert decode_data_url(url) == (media_type, content)
    assert decode_data_url(encode_data_url(media_type, content)) == (media_type, content)


@pytest.mark.parametrize("url", ["data:text/plain", "data:x/y;base64,a?b", "data:;base64,a", "https://x/,"])
def test_malformed_data_urls_are_refused(url):
    """No comma, no base64, no data URL at all."""
    with pytest.raises(InputError, match="no data URL"):
        decode_data_url(url)


async def test_content_becomes_a_data_url_within_a_limit(embedded):
    """The limit is that of the URL's characters."""
    done = await embedded.artifacts.upload(b"a,b", name="x.csv")
    url = "data:text/csv;base64,YSxi"
    assert (
        await embedded.artifacts.data_url(done.urn)
        == await embedded.artifacts.data_url(done.urn, limit=len(url))
        == url
    )
    with pytest.raises(InputError, match="more than"):
        await embedded.artifacts.data_url(done.urn, limit=len(url) - 1)


@pytest.mark.parametrize("address", ["http://example.org/x", "https://example.org/x", "urn:http://example.org/x"])
async def test_an_address_of_the_web_is_not_fetched(client, scripted, address, tmp_path):
    """It may be a parameter of a service, but nobody here goes there."""
    for attempt in (client.artifacts.read(address), client.artifacts.download(address, tmp_path / "out")):
        with pytest.raises(InputError, match="not fetched"):
            await attempt
    assert scripted.calls == []


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x").write_bytes(CONTENT)
    (root / "y").write_bytes(b"y")
    return root


async def test_a_folder_goes_there_and_back(embedded, folder, tmp_path):
    """Packed as it is sent, unpacked as it arrives."""
    done = await embedded.artifacts.upload(b"".join(pack(folder)), name="folder.tar")
    assert done.mime_type == "application/x-tar"
    out = await embedded.artifacts.untar(done.urn, tmp_path / "out")
    assert (out / "a" / "x").read_bytes() == CONTENT and (out / "y").read_bytes() == b"y"


async def test_a_hostile_archive_leaves_nothing(embedded, tmp_path):
    """A member that climbs out; a wrong digest; a limit: no folder, nothing beside it."""
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w:gz") as out:
        out.addfile(tarfile.TarInfo("../evil"), io.BytesIO(b""))
    done = await embedded.artifacts.upload(evil.getvalue(), name="evil.tgz")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(InputError, match="outside of the folder"):
        await embedded.artifacts.untar(done.urn, work / "out")
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w:xz") as out:
        out.addfile(tarfile.TarInfo("fine"))
        out.addfile(tarfile.TarInfo("fine too"))
    done = await embedded.artifacts.upload(good.getvalue(), name="good.tar.xz")
    with pytest.raises(IntegrityError):
        await embedded.artifacts.untar(done.urn, work / "out", sha256="0" * 64)
    with pytest.raises(InputError, match="more than 1 members"):
        await embedded.artifacts.untar(done.urn, work / "out", max_members=1)
    assert list(tmp_path.rglob("*")) == [work]
    assert sorted(os.listdir(await embedded.artifacts.untar(done.urn, work / "out"))) == ["fine", "fine too"]


def marker(path, text):
    side_car_of(path).write_bytes(text)


async def test_a_file_is_known_by_its_side_car(embedded, blob):
    """As ivcap-client ends it and as ivcap-cli does; only while file and artifact are what they were."""
    done = await embedded.artifacts.upload(blob, name="blob")
    md5 = hashlib.md5(blob.read_bytes()).hexdigest().encode()
    assert side_car_of(blob).name == ".ivcap-blob.bin.txt"
    assert await embedded.artifacts.for_file(blob) is None
    for end in (b"\n", b"", b"\r\n"):
        marker(blob, md5 + b"|" + done.urn.encode() + end)
        assert (await embedded.artifacts.for_file(blob)).urn == done.urn
    pending = await embedded.artifacts.create(name="pending", media_type="x/y", size=9)
    for urn in (pending.urn, "urn:ivcap:artifact:00000000-0000-4000-8000-000000000000"):
        marker(blob, md5 + b"|" + urn.encode())
        assert await embedded.artifacts.for_file(blob) is None
    marker(blob, md5 + b"|" + done.urn.encode())
    blob.write_bytes(b"something else")
    assert await embedded.artifacts.for_file(blob) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|",
        "x",
        "%s|",
        f"|{A}",
        f"%s|{A}|more",
        "%s|urn:file:///etc/passwd",
        "\xff",
        "%s|../../x",
        f"%s|{A} b",
        f"%s|{A}/../../x",
        "%s" * 999,
    ],
)
async def test_a_damaged_side_car_is_none(client, scripted, blob, text):
    """Nothing is asked of the platform by it but by a URN of an artifact, and nothing raises."""
    marker(blob, text.replace("%s", hashlib.md5(blob.read_bytes()).hexdigest()).encode("latin-1"))
    assert await client.artifacts.for_file(blob) is None
    assert scripted.calls == []


@pytest.mark.parametrize("what", ["pipe", "folder", "loop"])
def test_a_side_car_that_is_no_file_is_none(blob, what):
    """Nothing waits for a pipe."""
    place = side_car_of(blob)
    {"pipe": os.mkfifo, "folder": os.mkdir, "loop": lambda path: os.symlink(path, path)}[what](place)
    assert read_side_car(blob) is None


def test_a_side_car_is_written_whole_or_not_at_all(blob):
    """It is read back; an older one is replaced; nothing else lies about."""
    assert write_side_car(blob, A)
    assert side_car_of(blob).read_text() == f"{hashlib.md5(blob.read_bytes()).hexdigest()}|{A}\n"
    assert read_side_car(blob) == A
    assert write_side_car(blob, A + "2")
    assert read_side_car(blob) == A + "2"
    assert len(list(blob.parent.iterdir())) == 2


def test_a_folder_that_takes_no_side_car_is_no_error(blob):
    """Read-only media, or a name that would be too long."""
    place = side_car_of(blob)
    place.mkdir()
    assert not write_side_car(blob, A)
    long = blob.with_name("n" * 250)
    blob.rename(long)
    assert not write_side_car(long, A)
    assert read_side_car(long) is None


async def test_a_side_car_of_a_changed_file_is_not_written(client, blob):
    """It would say that the new content is the old artifact."""
    state = FileState.of(blob)
    assert await client.artifacts.write_side_car(blob, A, state=state)
    side_car_of(blob).unlink()
    blob.write_bytes(b"changed")
    with pytest.raises(SourceChangedError):
        await client.artifacts.write_side_car(blob, A, state=state)
    with pytest.raises(InputError, match="by its URN"):
        await client.artifacts.write_side_car(blob, "urn:file:///x")
    assert not side_car_of(blob).exists()


async def test_a_missing_file_has_no_side_car_to_read(client, tmp_path):
    """The file is what is missing, and it is named."""
    with pytest.raises(InputError, match="missing"):
        await client.artifacts.for_file(tmp_path / "missing")


async def test_an_unknown_artifact_is_not_found(embedded, tmp_path):
    """In whatever way it is read."""
    unknown = "urn:ivcap:artifact:00000000-0000-4000-8000-000000000000"
    for attempt in (
        embedded.artifacts.read_bytes(unknown, limit=1),
        embedded.artifacts.untar(unknown, tmp_path / "out"),
    ):
        with pytest.raises(NotFoundError):
            await attempt
