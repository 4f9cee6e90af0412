"""Artifacts from any source and to any sink: on the embedded platform, and where a platform behaves oddly."""

import base64
import hashlib
import io
import os
import tarfile

import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import InputError, IntegrityError, ProtocolError, SourceChangedError
from ivcap_flows.file_state import FileState
from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.ivcap.data_urls import decode_data_url
from ivcap_flows.ivcap.side_car import read_side_car, side_car_of, write_side_car

CONTENT = os.urandom(300_000)
A = "urn:ivcap:artifact:a"
READ = f"GET /1/artifacts/{A}"
BLOB = "GET /1/artifacts/a/blob"
POLICY = "urn:ivcap:policy:p"


def record(**fields):
    return {"id": A, "status": "ready", "data-href": "/1/artifacts/a/blob", "links": [], **fields}


@pytest.mark.parametrize("content", [CONTENT, b""])
async def test_a_file_becomes_a_ready_artifact(embedded, upload, content):
    """Empty or not, under any name."""
    done = await upload(content, name="Niño 1+2.csv")
    assert (done.ready, done.size, done.name, done.mime_type) == (True, len(content), "Niño 1+2.csv", "text/csv")
    assert await embedded.artifacts.read_bytes(done.urn, limit=len(content)) == content


async def test_bytes_go_on_by_the_urn_of_their_record(embedded, tmp_path):
    """Bytes that were sent in part are sent to their end; the platform gets the rest only."""
    record, told = await embedded.artifacts.create(name="s", media_type="x/y", size=len(CONTENT)), []
    file = tmp_path / "s"
    file.write_bytes(CONTENT[:200_000])
    await embedded.artifacts.send(record, file)
    assert not (await embedded.artifacts.read(record.urn)).ready
    file.write_bytes(CONTENT)
    assert await embedded.artifacts.send(record.urn, file, progress=told.append) == len(CONTENT)
    assert told == [len(CONTENT)]
    assert await embedded.artifacts.read_bytes(record.urn, limit=10**6) == CONTENT


async def test_a_record_says_what_the_content_is_to_be(client, scripted):
    """In headers: the name is base64, so any name travels, or is left out. A policy that is none is not sent."""
    scripted.on("POST /1/artifacts", JSONResponse(record(status="pending"), 201))
    given = {"media_type": "text/csv", "size": 8}
    await client.artifacts.create(name="Niño", policy=POLICY, collection="urn:ivcap:collection:c", **given)
    await client.artifacts.create(name=None, **given)
    with pytest.raises(InputError, match="policy must be a URN beginning with urn:ivcap:policy:"):
        await client.artifacts.create(name="x", policy="open", **given)
    named, unnamed = (call.headers for call in scripted.calls)
    assert {
        "x-name": "TmnDsW8=",
        "x-content-type": "text/csv",
        "x-content-length": "8",
        "content-length": "0",
        "x-policy": POLICY,
        "x-collection": "urn:ivcap:collection:c",
        "tus-resumable": "1.0.0",
        "authorization": "Bearer t0ken",
    }.items() <= named.items()
    assert "x-name" not in unnamed


async def test_a_platform_that_leaves_an_empty_artifact_pending_is_understood(client, scripted, tmp_path):
    """It takes no empty chunk, says pending and 0 bytes; the upload ends well and the content is nothing."""
    pending = record(status="pending", size=0)
    scripted.on("POST /1/artifacts", JSONResponse(pending, 201))
    scripted.on(READ, pending)
    scripted.on("PATCH /1/artifacts/a/blob", Response(status_code=409))
    made = await client.artifacts.create(name="empty", media_type="text/csv", size=0)
    (tmp_path / "empty").touch()
    assert await client.artifacts.send(made, tmp_path / "empty", offset=0) == 0
    assert await client.artifacts.read_bytes(A, limit=0) == b""
    assert (await client.artifacts.download(A, tmp_path / "out")).size == 0
    assert scripted.to(BLOB) == []


@pytest.mark.parametrize(
    ("status", "size", "complete"),
    [
        *((status, size, True) for status in ("ready", "unknown", "a newer word") for size in (None, 0, 7)),
        *((status, size, False) for status in ("partial", "error") for size in (None, 0, 7)),
        *(("pending", size, size == 0) for size in (None, -1, 0, 7)),
    ],
)
def test_what_is_complete(status, size, complete):
    """What the platform does not say lacks bytes, and what has none to lack."""
    assert ArtifactRecord(id="a", status=status, size=size).complete == complete


async def test_content_is_streamed_and_verified(embedded, upload):
    """In blocks of the length asked for."""
    done = await upload(CONTENT, name="s")
    parts = [part async for part in embedded.artifacts.stream(done.urn, block=70_000)]
    assert [len(part) for part in parts] == [70_000] * 4 + [20_000]
    assert b"".join(parts) == CONTENT
    with pytest.raises(IntegrityError, match="sha256"):
        [part async for part in embedded.artifacts.stream(done.urn, sha256="0" * 64)]


async def test_reading_whole_is_bounded(client, scripted):
    """By the record's size, without a request for the bytes; by the bytes where the record does not know."""
    scripted.on(READ, record(size=5), record(), record())
    scripted.on(BLOB, Response(b"12345"))
    for requests in (0, 1):
        with pytest.raises(InputError, match="more than 4 bytes"):
            await client.artifacts.read_bytes(A, limit=4)
        assert len(scripted.to(BLOB)) == requests
    assert await client.artifacts.read_bytes(A, limit=5) == b"12345"


async def test_an_unfinished_artifact_is_not_downloaded(client, scripted, tmp_path):
    """Half an artifact is not taken for a whole one."""
    for status in ("pending", "partial", "error"):
        scripted.on(READ, record(status=status))
        with pytest.raises(InputError, match=f"its status is {status}"):
            await client.artifacts.download(A, tmp_path / "out")


@pytest.mark.parametrize(
    "href",
    [
        "https://evil.example/blob?sig=s3cr3t",
        "//evil.example/blob?sig=s3cr3t",
        "http://127.0.0.1:1/blob",
        "file:///etc/passwd",
    ],
)
async def test_a_foreign_data_href_is_refused(client, scripted, href, tmp_path):
    """Neither bytes nor token go to another host, whatever reads or writes by it."""
    scripted.on(READ, record(**{"data-href": href}))
    for attempt in (
        lambda: client.artifacts.download(A, tmp_path / "out"),
        lambda: client.artifacts.read_bytes(A, limit=9),
        lambda: client.artifacts.untar(A, tmp_path / "out"),
        lambda: client.artifacts.send(A, __file__),
        lambda: client.artifacts.send(A, __file__, offset=0),
        lambda: client.artifacts.offset(A),
    ):
        with pytest.raises(ProtocolError, match="not followed") as error:
            await attempt()
        assert "s3cr3t" not in str(error.value) + repr(error.value.data)
    assert {call.route for call in scripted.calls} == {READ}
    assert list(tmp_path.iterdir()) == []


async def test_artifacts_are_found_by_their_whole_name(embedded, upload):
    """Odd characters too; the limit counts those found."""
    names = ["report", "report 2", 'it\'s 100% "odd"', "report"]
    made = [(await upload(b"1", name=f"n-{name}")).urn for name in names]

    async def found(**query):
        return [each.urn async for each in embedded.artifacts.list(**query)]

    assert sorted(await found(name="n-report")) == sorted([made[0], made[3]])
    assert await found(name=f"n-{names[2]}") == [made[2]]
    assert len(await found(name="n-report", limit=1)) == 1
    assert await found(name="n-report", filter="status == 'pending'") == await found(name="n-report", limit=0) == []


async def test_a_data_url_is_an_artifact(client, scripted, tmp_path):
    """Read, streamed and downloaded without a request; with and without `urn:`."""
    for prefix in ("", "urn:"):
        url = f"{prefix}data:text/csv;base64,{base64.b64encode(b'a,b').decode()}"
        found = await client.artifacts.read(url)
        assert (found.ready, found.urn, found.mime_type, found.handle("p").size) == (True, url, "text/csv", 3)
        assert await client.artifacts.read_bytes(url, limit=3) == b"a,b"
        assert [part async for part in client.artifacts.stream(url, block=2)] == [b"a,", b"b"]
        there = await client.artifacts.download(url, tmp_path / "out", sha256=hashlib.sha256(b"a,b").hexdigest())
        assert (there.size, (tmp_path / "out").read_bytes()) == (3, b"a,b")
        with pytest.raises(IntegrityError):
            await client.artifacts.download(url, tmp_path / "out", sha256="0" * 64)
    with pytest.raises(InputError):
        await client.artifacts.send(url, __file__)
    assert scripted.calls == []


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
        *((malformed, None, None) for malformed in ("data:text/plain", "data:x/y;base64,a?b", "data:;base64,a", "x:,")),
    ],
)
def test_data_urls_are_read_as_they_are_written(url, media_type, content):
    """RFC 2397: percent-encoded or base64, with and without type, parameters and padding."""
    if content is None:
        with pytest.raises(InputError, match="no data URL"):
            decode_data_url(url)
    else:
        assert decode_data_url(url) == (media_type, content)


async def test_an_address_of_the_web_is_not_fetched(client, scripted, tmp_path):
    """It may be a parameter of a service, but nobody here goes there."""
    for address in ("http://example.org/x", "https://example.org/x", "urn:http://example.org/x"):
        for attempt in (client.artifacts.read(address), client.artifacts.download(address, tmp_path / "out")):
            with pytest.raises(InputError, match="not fetched"):
                await attempt
    assert scripted.calls == []


async def test_an_archive_with_a_wrong_digest_or_too_much_in_it_leaves_nothing(embedded, upload, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as out:
        for name in ("fine", "fine too"):
            out.addfile(tarfile.TarInfo(name))
    urn = (await upload(archive.getvalue(), name="good.tar.xz")).urn
    with pytest.raises(IntegrityError):
        await embedded.artifacts.untar(urn, tmp_path / "out", sha256="0" * 64)
    with pytest.raises(InputError, match="more than 1 members"):
        await embedded.artifacts.untar(urn, tmp_path / "out", max_members=1)
    assert list(tmp_path.iterdir()) == []
    assert sorted(os.listdir(await embedded.artifacts.untar(urn, tmp_path / "out"))) == ["fine", "fine too"]


@pytest.fixture
def blob(tmp_path):
    """A file, and the digest that its side-car has."""
    path = tmp_path / "blob.bin"
    path.write_bytes(CONTENT)
    return path


MD5 = hashlib.md5(CONTENT).hexdigest()


async def test_a_file_is_known_by_its_side_car(client, scripted, blob):
    """As ivcap-client ends it and as ivcap-cli does; only while file and artifact are what they were."""
    place = side_car_of(blob)
    assert place.name == ".ivcap-blob.bin.txt" and await client.artifacts.for_file(blob) is None
    for end in ("\n", "", "\r\n"):
        place.write_bytes(f"{MD5}|{A}{end}".encode())
        scripted.on(READ, record())
        assert (await client.artifacts.for_file(blob)).urn == A
        for answer in (record(status="pending"), Response(status_code=404)):
            scripted.on(READ, answer)
            assert await client.artifacts.for_file(blob) is None
    blob.write_bytes(b"something else")
    assert await client.artifacts.for_file(blob) is None
    with pytest.raises(InputError, match="missing"):
        await client.artifacts.for_file(blob.with_name("missing"))


DAMAGED = ["", "|", "x", f"{MD5}|", f"|{A}", f"{MD5}|{A}|more", f"{MD5}|urn:file:///etc/passwd", "\xff"]
DAMAGED += [f"{MD5}|../../x", f"{MD5}|{A} b", f"{MD5}|{A}/../../x", MD5 * 999]


async def test_a_damaged_side_car_is_none(client, scripted, blob):
    """Nothing is asked of the platform by it but by a URN of an artifact, nothing raises or waits for a pipe."""
    place = side_car_of(blob)
    for text in DAMAGED:
        place.write_bytes(text.encode("latin-1"))
        assert await client.artifacts.for_file(blob) is None, text
    for make in (os.mkfifo, lambda path: os.symlink(path, path), os.mkdir):
        place.unlink()
        make(place)
        assert read_side_car(blob) is None
        # A folder in its place, read-only media, or a name that would be too long: no side-car, and no error.
        assert write_side_car(blob, A) == (not place.is_dir())
    long = blob.with_name("n" * 250)
    blob.rename(long)
    assert not write_side_car(long, A) and read_side_car(long) is None
    assert scripted.calls == []


async def test_a_side_car_is_written_whole_and_for_an_unchanged_file_alone(client, blob):
    """It would else say that the new content is the old artifact. An older one is replaced; nothing else lies about."""
    state = FileState.of(blob)
    for urn in (A, A + "2"):
        assert await client.artifacts.write_side_car(blob, urn, state=state)
        assert side_car_of(blob).read_text() == f"{MD5}|{urn}\n" and read_side_car(blob) == urn
    assert len(list(blob.parent.iterdir())) == 2
    side_car_of(blob).unlink()
    blob.write_bytes(b"changed")
    with pytest.raises(SourceChangedError):
        await client.artifacts.write_side_car(blob, A, state=state)
    with pytest.raises(InputError, match="by its URN"):
        await client.artifacts.write_side_car(blob, "urn:file:///x")
    assert not side_car_of(blob).exists()
