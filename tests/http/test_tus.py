"""Upload: bounded, resumed where the server stands, refused when the file changes."""

import asyncio
import os
import subprocess
import sys

import pytest
from starlette.responses import Response

from ivcap_flows.errors import (
    BadRequestError,
    ConflictError,
    InputError,
    IntegrityError,
    NotFoundError,
    ProtocolError,
    SourceChangedError,
    UnavailableError,
)
from ivcap_flows.file_state import FileState
from ivcap_flows.http import tus
from ivcap_flows.identity import digest

CHUNK, SIZE = 100_000, 250_000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


async def send(web, source, **options):
    async with web.session(**({"budget": 5} | options.pop("session", {}))) as session:
        await tus.send(session, "/blob", source, **({"chunk": CHUNK} | options))


@pytest.mark.parametrize(
    ("there", "options", "patches"),
    [
        (0, {"offset": 0}, [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 50_000)]),
        (123_456, {}, [(123_456, CHUNK), (223_456, SIZE - 223_456)]),
        (1000, {"offset": 0}, [(1000, CHUNK), (101_000, CHUNK), (201_000, 49_000)]),
        (SIZE, {}, []),
    ],
    ids=["anew", "where the server stands", "a stale offset", "whole already"],
)
async def test_a_file_is_sent_in_bounded_requests_from_where_the_server_stands(
    web, source, quick_retries, there, options, patches
):
    upload, told = web.upload("/blob"), []
    upload.data += source.read_bytes()[:there]
    await send(web, source, progress=told.append, **options)
    assert upload.data == source.read_bytes()
    assert upload.patches == patches
    assert told[-len(patches) :] == [offset + length for offset, length in patches]


@pytest.mark.parametrize("fault", ["busy", "half", "lost", "silent"])
async def test_a_broken_upload_goes_on_and_its_bytes_are_hashed_once_and_in_order(web, quick_retries, tmp_path, fault):
    """Refused, broken off half-way, stored with the reply lost, or answered without an offset; whoever sent the
    beginning. Bytes of another sha256 never arrive whole."""
    path, content = tmp_path / "source.bin", os.urandom(5_000_000)
    path.write_bytes(content)
    for sha256 in ("0" * 64, digest(content)):
        # Another one each time: the first may still take in what was on its way.
        upload = web.upload("/blob")
        upload.data += content[:1_234_567]
        upload.faults = [fault, "", fault, fault]
        if sha256 == digest(content):
            await send(web, path, chunk=2**21 + 1, sha256=sha256)
            assert upload.data == content
        else:
            with pytest.raises(IntegrityError, match=str(path)) as caught:
                await send(web, path, chunk=2**21 + 1, sha256=sha256)
            assert (caught.value.expected, caught.value.found) == (sha256, digest(content))
            assert upload.data == content[: len(upload.data)] != content


async def test_an_upload_that_is_locked_is_tried_again(web, source, quick_retries):
    """A server keeps the lock of a connection that died for a while; the bytes wait for it, and arrive once."""
    upload, left = web.upload("/blob"), {"PATCH": 3, "HEAD": 3}

    async def locked(request):
        if left[request.method]:
            left[request.method] -= 1
            await request.body()
            return Response(status_code=423)
        return await upload(request)

    web.on("* /blob", locked)
    await send(web, source)
    assert upload.data == source.read_bytes()
    assert [length for _, length in upload.patches] == [CHUNK, CHUNK, 50_000]


async def unexplained(request):
    """Refuse the very offset that is named."""
    return Response(status_code=200 if request.method == "HEAD" else 409, headers={"Upload-Offset": "0"})


async def beyond(request):
    return Response(status_code=200 if request.method == "HEAD" else 204, headers={"Upload-Offset": "100007"})


async def longer(request):
    return Response(headers={"Upload-Offset": "300000"})


@pytest.mark.parametrize(
    ("answer", "offset", "error", "words"),
    [
        (Response(status_code=404), None, NotFoundError, "404"),
        (Response(status_code=413), 0, BadRequestError, "413"),
        (unexplained, None, ConflictError, "409"),
        (beyond, 0, ProtocolError, "Upload-Offset 100007"),
        (longer, None, SourceChangedError, "another upload"),
    ],
    ids=["gone", "too long though short", "a conflict that explains nothing", "more than was sent", "another upload"],
)
async def test_what_no_other_try_can_mend_is_final(web, source, quick_retries, answer, offset, error, words):
    web.on("* /blob", answer)
    with pytest.raises(error, match=words):
        await send(web, source, offset=offset)
    assert len(web.to("PATCH /blob")) <= 1


@pytest.mark.parametrize("status", [423, 503])
async def test_an_upload_that_gets_nowhere_is_given_up_within_the_budget(web, source, quick_retries, status):
    web.on("* /blob", Response(status_code=status))
    web.on("HEAD /blob", Response(headers={"Upload-Offset": "0"}))
    with pytest.raises(UnavailableError):
        await send(web, source, session={"budget": 0.3})


@pytest.mark.parametrize("change", ["touch", "append", "replace", "rewrite", "remove"])
async def test_a_file_that_changed_since_its_hash_is_not_sent(web, source, change):
    """Size, times and inode are those of the hash, or nothing is sent."""
    upload, state, content = web.upload("/blob"), FileState.of(source), source.read_bytes()
    if change == "append":
        source.write_bytes(content + b"x")
    elif change == "rewrite":
        source.write_bytes(content[::-1])
    elif change in ("replace", "remove"):
        source.rename(source.with_suffix(".old"))
    if change == "replace":
        source.write_bytes(content)
    if change in ("touch", "replace", "rewrite"):
        os.utime(source, ns=(1, state.mtime_ns + (change == "touch")))
    with pytest.raises((SourceChangedError, InputError)):
        await send(web, source, offset=0, state=state)
    assert not upload.patches


async def test_a_file_that_changes_while_it_is_sent_never_arrives_whole(web, source):
    """A write between two chunks stops the upload before its last byte."""
    upload = web.upload("/blob")

    def touch(offset):
        with source.open("r+b") as file:
            file.write(b"changed")

    with pytest.raises(SourceChangedError, match="changed while it was sent"):
        await send(web, source, offset=0, progress=touch)
    assert len(upload.data) < SIZE


async def test_a_beginning_that_the_file_does_not_have(web, tmp_path):
    """What another process sent is read again; where the file has other bytes there, nothing is completed."""
    path, content = tmp_path / "source.bin", os.urandom(3_000_000)
    path.write_bytes(b"x" * 1_000_000 + content[1_000_000:])
    upload = web.upload("/blob")
    upload.data += content[:1_500_000]
    with pytest.raises(IntegrityError):
        await send(web, path, sha256=digest(content))
    assert len(upload.data) < 3_000_000


async def test_an_empty_file_is_announced_by_one_request(web, tmp_path):
    """It may be refused: a platform that takes no empty chunk has the record of an empty file all the same."""
    empty = tmp_path / "empty"
    empty.touch()
    endpoint = web.upload("/blob")
    with pytest.raises(IntegrityError):
        await send(web, empty, offset=0, sha256="0" * 64)
    assert endpoint.patches == []
    await send(web, empty, offset=0, sha256=digest(b""))
    assert endpoint.patches == [(0, 0)]
    web.on("* /blob", Response(status_code=409))
    await send(web, empty, offset=0)
    assert len(web.to("PATCH /blob")) == 1


async def test_what_is_no_file_is_named_and_not_sent_as_empty(web, tmp_path):
    for path, words in (
        (tmp_path, str(tmp_path)),
        (tmp_path / "missing", str(tmp_path / "missing")),
        ("/proc/version", r"/proc/version has content.*open\('/proc/version', 'rb'\)"),
    ):
        with pytest.raises(InputError, match=words):
            await send(web, path, offset=0)
    assert web.calls == []


SENDER = """
import asyncio, resource, sys
from ivcap_flows.http import tus
from ivcap_flows.http.session import Session

async def main():
    async with Session(sys.argv[1], platform="IVCAP") as session:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await tus.send(session, "/blob", sys.argv[2], offset=0)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


@pytest.mark.long
async def test_memory_does_not_grow_with_the_file(tmp_path):
    """Half a gibibyte is sent with less than 32 MiB more than before."""
    size = 512 * 1024 * 1024
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(size)

    async def sink(reader, writer):
        head = dict(line.lower().split(b": ", 1) for line in (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1:-2])
        left = int(head[b"content-length"])
        offset = int(head[b"upload-offset"]) + left
        while left:
            left -= len(await reader.read(min(left, 1 << 20)))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\nUpload-Offset: %d\r\n\r\n" % offset)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0, limit=1 << 20)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, url, str(big), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    server.close()
    assert process.returncode == 0, errors.decode()
    assert int(output) < 32 * 1024


async def test_a_request_that_is_too_long_is_followed_by_shorter_ones(web, tmp_path, quick_retries):
    """A gateway that takes 1 MiB at once (413) gets no more; one that takes any keeps whole chunks."""
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(5_000_000))
    received, lengths = bytearray(), []

    async def gateway(request):
        if request.method == "HEAD":
            return Response(headers={"Upload-Offset": str(len(received))})
        body = await request.body()
        lengths.append(len(body))
        if len(body) > 2**20:
            return Response(status_code=413)
        received.extend(body)
        return Response(status_code=204, headers={"Upload-Offset": str(len(received))})

    web.on("* /blob", gateway)
    await send(web, big, offset=0, chunk=4 * 2**20)
    assert received == big.read_bytes()
    assert lengths[:3] == [4 * 2**20, 2 * 2**20, 2**20]
