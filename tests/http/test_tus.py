"""Upload: bounded, resumed where the server stands, refused when the file changes."""

import asyncio
import os
import socket
import subprocess
import sys
import threading

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

CHUNK = 100_000


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(250_000))
    return path


@pytest.fixture
def upload(web, source):
    return web.upload("/blob")


async def send(web, source, **options):
    async with web.session(**({"budget": 5} | options.pop("session", {}))) as session:
        await tus.send(session, "/blob", source, **({"chunk": CHUNK} | options))


async def test_a_file_is_sent_in_bounded_requests(web, source, upload):
    """Each request holds one chunk; the offsets follow each other; progress is told."""
    told = []
    await send(web, source, offset=0, progress=told.append)
    assert upload.data == source.read_bytes()
    assert upload.patches == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 50_000)]
    assert told == [CHUNK, 2 * CHUNK, 250_000]


async def test_an_upload_begins_where_the_server_stands(web, source, upload):
    """Without an offset the server is asked for it."""
    upload.data += source.read_bytes()[:123_456]
    await send(web, source)
    assert upload.data == source.read_bytes()
    assert upload.patches[0] == (123_456, CHUNK)


async def test_an_upload_that_is_whole_sends_nothing(web, source, upload):
    """Nothing is missing, nothing is sent."""
    upload.data += source.read_bytes()
    await send(web, source)
    assert upload.patches == []


@pytest.mark.parametrize("fault", ["busy", "half", "lost"])
async def test_an_upload_outlives_each_fault(web, source, upload, quick, fault):
    """Refused, broken off half-way, or stored with the reply lost: the bytes arrive once and in order."""
    upload.faults = [fault, "", fault, fault]
    await send(web, source)
    assert upload.data == source.read_bytes()


@pytest.mark.parametrize("where", ["PATCH", "HEAD", "both"])
async def test_an_upload_that_is_locked_is_tried_again(web, source, quick, where):
    """A server keeps the lock of a connection that died for a while; the bytes wait for it, and arrive once."""
    upload, left = web.upload("/blob"), {"PATCH": 3 * (where != "HEAD"), "HEAD": 3 * (where != "PATCH")}

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


async def test_an_upload_that_stays_locked_is_given_up(web, source, quick):
    """Within the budget."""
    web.on("* /blob", Response(status_code=423))
    with pytest.raises(UnavailableError):
        await send(web, source, session={"budget": 0.3})


async def test_a_reset_connection_is_resumed(web, source, quick):
    """The connection is cut in the middle of the bytes; the rest follows from the server's offset."""
    server = socket.create_server(("127.0.0.1", 0))
    received = bytearray()

    def serve():
        cuts = [120_000, None]
        while cuts:
            connection, _ = server.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                if head.startswith(b"HEAD"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nUpload-Offset: %d\r\n\r\n" % len(received))
                    continue
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                assert int(head.lower().split(b"upload-offset: ")[1].split(b"\r\n")[0]) == len(received)
                cut = cuts.pop(0)
                end = cut or len(received) + length
                while len(received) < end:
                    received.extend(connection.recv(end - len(received)))
                if cut:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nUpload-Offset: %d\r\n\r\n" % len(received))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    web.url, url = f"http://127.0.0.1:{server.getsockname()[1]}", web.url
    try:
        await send(web, source, offset=0, chunk=10**6)
    finally:
        web.url = url
    thread.join(5)
    server.close()
    assert received == source.read_bytes()


async def test_a_server_without_offset_in_its_reply_is_asked(web, source, upload):
    """A PATCH reply without Upload-Offset is followed by a HEAD."""
    upload.faults = ["silent", "silent"]
    await send(web, source)
    assert upload.data == source.read_bytes()


async def test_a_wrong_offset_is_a_violation(web, source, upload):
    """A server that claims more than it was sent is not believed."""
    upload.faults = ["liar"]
    with pytest.raises(ProtocolError, match="Upload-Offset 100007"):
        await send(web, source)


async def test_a_stale_offset_is_corrected(web, source, upload, quick):
    """A conflict makes us ask where the server stands; only a conflict without difference is final."""
    upload.data += source.read_bytes()[:1000]
    await send(web, source, offset=0)
    assert upload.data == source.read_bytes()


async def test_a_conflict_that_explains_nothing_is_final(web, source, quick):
    """The server refuses the very offset that it names."""

    async def refuse(request):
        return Response(status_code=200 if request.method == "HEAD" else 409, headers={"Upload-Offset": "0"})

    web.on("* /blob", refuse)
    with pytest.raises(ConflictError):
        await send(web, source)
    assert len(web.sent("PATCH /blob")) == 1


async def test_no_progress_ends_within_the_budget(web, source, upload, quick):
    """A server that is always busy is given up."""
    upload.faults = ["busy"] * 10_000
    with pytest.raises(UnavailableError):
        await send(web, source, session={"budget": 0.3})


async def test_an_upload_that_is_gone_is_final(web, source):
    """404 is not tried again."""
    with pytest.raises(NotFoundError):
        await send(web, source)


async def test_an_upload_of_something_else_is_refused(web, source, upload):
    """A server that holds more bytes than the file has is another upload."""
    upload.data += bytes(300_000)
    with pytest.raises(SourceChangedError, match="another upload"):
        await send(web, source)


@pytest.mark.parametrize("change", ["touch", "append", "replace", "rewrite", "remove"])
async def test_a_file_that_changed_since_its_hash_is_not_sent(web, source, upload, change):
    """Size, times and inode are those of the hash, or nothing is sent."""
    state = FileState.of(source)
    if change == "touch":
        os.utime(source, ns=(1, state.mtime_ns + 1))
    elif change == "append":
        source.write_bytes(source.read_bytes() + b"x")
    elif change == "replace":
        content = source.read_bytes()
        source.rename(source.with_suffix(".old"))
        source.write_bytes(content)
        os.utime(source, ns=(1, state.mtime_ns))
    elif change == "rewrite":
        source.write_bytes(source.read_bytes()[::-1])
        os.utime(source, ns=(1, state.mtime_ns))
    else:
        source.unlink()
    with pytest.raises((SourceChangedError, InputError)):
        await send(web, source, offset=0, state=state)
    assert not upload.patches


async def test_a_file_that_changes_while_it_is_sent_never_arrives_whole(web, source, upload):
    """A write between two chunks stops the upload before its last byte."""

    def touch(offset):
        with source.open("r+b") as file:
            file.write(b"changed")

    with pytest.raises(SourceChangedError, match="changed while it was sent"):
        await send(web, source, offset=0, progress=touch)
    assert len(upload.data) < 250_000


@pytest.mark.parametrize("size", [1000, 250_000, 3_000_000])
async def test_the_bytes_that_leave_are_hashed(web, tmp_path, size):
    """Bytes of another sha256 never arrive whole; those of the right one do."""
    path, content = tmp_path / "source.bin", os.urandom(size)
    path.write_bytes(content)
    upload = web.upload("/blob")
    with pytest.raises(IntegrityError, match=str(path)) as caught:
        await send(web, path, offset=0, sha256="0" * 64)
    assert (caught.value.expected, caught.value.found) == ("0" * 64, digest(content))
    assert len(upload.data) < size
    upload = web.upload("/blob")
    await send(web, path, sha256=digest(content))
    assert upload.data == content


@pytest.mark.parametrize("fault", ["busy", "half", "lost", "silent"])
async def test_a_broken_upload_is_hashed_on(web, quick, tmp_path, fault):
    """Wherever a request broke off, and whoever sent the beginning: all bytes are hashed once and in order."""
    path, content = tmp_path / "source.bin", os.urandom(5_000_000)
    path.write_bytes(content)
    upload = web.upload("/blob")
    upload.data += content[:1_234_567]
    upload.faults = [fault, "", fault, fault]
    with pytest.raises(IntegrityError):
        await send(web, path, chunk=2**21 + 1, sha256="0" * 64)
    assert upload.data == content[: len(upload.data)] != content
    # Another one: the first may still take in what was on its way.
    upload = web.upload("/blob")
    upload.data += content[:1_234_567]
    upload.faults = [fault, "", fault, fault]
    await send(web, path, chunk=2**21 + 1, sha256=digest(content))
    assert upload.data == content


async def test_a_beginning_that_the_file_does_not_have(web, tmp_path):
    """What another process sent is read again; where the file has other bytes there, nothing is completed."""
    path, content = tmp_path / "source.bin", os.urandom(3_000_000)
    path.write_bytes(b"x" * 1_000_000 + content[1_000_000:])
    upload = web.upload("/blob")
    upload.data += content[:1_500_000]
    with pytest.raises(IntegrityError):
        await send(web, path, sha256=digest(content))
    assert len(upload.data) < 3_000_000


async def test_an_empty_file_is_announced(web, tmp_path):
    """Zero bytes are one empty request."""
    empty = tmp_path / "empty"
    empty.touch()
    endpoint = web.upload("/blob")
    with pytest.raises(IntegrityError):
        await send(web, empty, offset=0, sha256="0" * 64)
    assert endpoint.patches == []
    await send(web, empty, offset=0, sha256=digest(b""))
    assert endpoint.patches == [(0, 0)]


@pytest.mark.parametrize("what", ["missing", "folder"])
async def test_what_is_no_file_is_named(web, tmp_path, what):
    """The error names the path."""
    path = tmp_path if what == "folder" else tmp_path / "missing"
    with pytest.raises(InputError, match=str(path)):
        await send(web, path)


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
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            left = int(fields[b"content-length"])
            offset = int(fields[b"upload-offset"]) + left
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            writer.write(b"HTTP/1.1 204 No Content\r\nUpload-Offset: %d\r\n\r\n" % offset)
            if offset == size:
                break
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


async def test_a_request_that_is_too_long_is_followed_by_shorter_ones(web, tmp_path, quick):
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


async def test_a_refusal_of_the_shortest_request_is_final(web, source, quick):
    """413 for what could hardly be shorter is no matter of length."""
    web.on("* /blob", Response(status_code=413))
    with pytest.raises(BadRequestError):
        await send(web, source, offset=0)
    assert len(web.sent("PATCH /blob")) == 1


async def test_an_empty_request_may_be_refused(web, tmp_path):
    """A platform that takes no empty chunk has the record of an empty file all the same."""
    empty = tmp_path / "empty"
    empty.touch()
    web.on("* /blob", Response(status_code=409))
    await send(web, empty, offset=0)
    assert len(web.sent("PATCH /blob")) == 1


async def test_a_file_that_reports_no_size_is_not_sent_as_empty(web):
    """The error says how to pass its content."""
    with pytest.raises(InputError, match=r"/proc/version has content.*open\('/proc/version', 'rb'\)"):
        await send(web, "/proc/version", offset=0)
    assert web.seen == []
