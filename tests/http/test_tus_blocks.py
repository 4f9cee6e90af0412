"""Upload of blocks that come once: in bounded memory, of known and unknown size, each byte once and in order."""

import asyncio
import io
import os
import subprocess
import sys
import threading

import pytest
from starlette.responses import Response

from ivcap_flows.errors import BadRequestError, InputError, IntegrityError, NotFoundError, ProtocolError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.http.tus_blocks import send_blocks
from ivcap_flows.identity import digest

CONTENT = os.urandom(250_000)
BUFFER = 100_000


def blocks(content=CONTENT, size=7_000):
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def slow(content=CONTENT, size=7_000):
    for block in blocks(content, size):
        await asyncio.sleep(0)
        yield block


async def send(web, source, **options):
    async with web.session(**({"budget": 5} | options.pop("session", {}))) as session:
        return await send_blocks(session, "/blob", source, **({"buffer": BUFFER} | options))


class Deferred:
    """A tus endpoint of unknown length; `refuses` is the status of chunks that do not come by a deferred creation."""

    def __init__(self, web, *, refuses=None, location="/deferred"):
        self.web, self.refuses, self.location = web, refuses, location
        self.data, self.length, self.heads, self.posts = bytearray(), None, [], 0
        self.faults, self.tokens = [], set()
        web.on("* /blob", self)
        web.on("* /deferred", self)

    async def __call__(self, request):
        body = await request.body()
        self.tokens.add(request.headers.get("authorization"))
        if request.method == "HEAD":
            length = {} if self.length is None else {"Upload-Length": str(self.length)}
            return Response(headers={"Upload-Offset": str(len(self.data)), **length})
        if request.method == "POST":
            self.posts += 1
            assert request.headers["upload-defer-length"] == "1"
            return Response(status_code=201, headers={"Location": self.location} if self.location else {})
        if self.refuses and request.url.path == "/blob":
            return Response(status_code=self.refuses)
        if int(request.headers["upload-offset"]) != len(self.data) or self.length is not None:
            return Response(status_code=409)
        self.heads.append((len(body), request.headers.get("upload-defer-length"), request.headers.get("upload-length")))
        self.data += body
        if "upload-length" in request.headers:
            self.length = int(request.headers["upload-length"])
            assert self.length == len(self.data)
        if self.faults and self.faults.pop(0):
            return Response(status_code=502)
        return Response(status_code=204, headers={"Upload-Offset": str(len(self.data))})


@pytest.mark.parametrize("source", [blocks, slow, lambda: io.BytesIO(CONTENT), lambda: [CONTENT]])
async def test_blocks_of_known_size_are_sent_in_bounded_requests(web, source):
    """Generators, asynchronous ones, open files and lists alike; no request is longer than the buffer."""
    upload = web.upload("/blob")
    told = []
    assert await send(web, source(), size=250_000, offset=0, progress=told.append) == 250_000
    assert upload.data == CONTENT
    assert upload.patches == [(0, BUFFER), (BUFFER, BUFFER), (2 * BUFFER, 50_000)]
    assert told == [BUFFER, 2 * BUFFER, 250_000]


@pytest.mark.parametrize("length", [BUFFER // 2, BUFFER, 2 * BUFFER])
@pytest.mark.parametrize("make", [blocks, slow])
async def test_blocks_that_end_with_a_request_are_whole(web, make, length):
    """The end is known before the last request, also where blocks and requests end together."""
    upload = web.upload("/blob")
    assert await send(web, make(CONTENT[: 2 * BUFFER], length), size=2 * BUFFER, offset=0) == 2 * BUFFER
    assert upload.patches == [(0, BUFFER), (BUFFER, BUFFER)]
    with pytest.raises(InputError, match="more bytes"):
        await send(web, make(CONTENT[: 2 * BUFFER], length), size=BUFFER, offset=0)


@pytest.mark.parametrize("fault", ["busy", "half", "lost"])
async def test_a_stream_outlives_each_fault(web, quick, fault):
    """Refused, broken off half-way, or stored with the reply lost: the buffer gives the rest, each byte once."""
    upload = web.upload("/blob")
    upload.faults = [fault, "", fault, fault]
    await send(web, slow(), size=250_000)
    assert upload.data == CONTENT


async def test_a_stream_goes_on_where_the_server_stands(web):
    """The same blocks from the beginning: what is there already is passed over."""
    upload = web.upload("/blob")
    upload.data += CONTENT[:123_456]
    assert await send(web, blocks(), size=250_000) == 250_000
    assert upload.data == CONTENT
    assert upload.patches[0] == (123_456, BUFFER)
    await send(web, blocks(), size=250_000)
    assert sum(length for _, length in upload.patches) == 250_000 - 123_456


async def test_a_server_that_lost_bytes_is_not_fed_others(web, quick):
    """What was acknowledged and is gone cannot be sent again: an error, not a hole."""
    upload = web.upload("/blob")

    def lose(position):
        if position == 2 * BUFFER:
            del upload.data[10:]
            upload.faults = ["busy"]

    with pytest.raises(IntegrityError, match="stands at 10 bytes"):
        await send(web, blocks(), size=250_000, offset=0, progress=lose)
    assert len(upload.data) == 10


@pytest.mark.parametrize(("size", "word"), [(200_000, "more"), (250_001, "fewer"), (249_999, "more")])
async def test_a_stream_of_another_size_never_arrives_whole(web, size, word):
    """More or fewer bytes than announced are noticed before the last of them is sent."""
    upload = web.upload("/blob")
    with pytest.raises(InputError, match=f"{word} bytes than the {size}"):
        await send(web, blocks(), size=size, offset=0)
    assert len(upload.data) < size


@pytest.mark.parametrize("make", [blocks, slow])
@pytest.mark.parametrize("size", [len(CONTENT), None])
async def test_the_bytes_of_a_stream_are_hashed(web, make, size):
    """Blocks of another sha256 never arrive whole; those of the right one do, also behind a beginning that is there."""
    upload = Deferred(web) if size is None else web.upload("/blob")
    with pytest.raises(IntegrityError, match="the stream"):
        await send(web, make(), size=size, offset=0, sha256="0" * 64)
    assert 0 < len(upload.data) < len(CONTENT)
    await send(web, make(), size=size, sha256=digest(CONTENT))
    assert upload.data == CONTENT
    with pytest.raises(IntegrityError, match="the stream"):
        await send(web, [], size=0, offset=0, sha256="0" * 64)


async def test_an_empty_stream_that_was_to_be_longer_is_refused(web):
    """No block at all is fewer than announced; and a shorter stream than the server has is another."""
    upload = web.upload("/blob")
    with pytest.raises(InputError, match="ended after 0 of the 5 bytes"):
        await send(web, [], size=5)
    upload.data += b"12345"
    with pytest.raises(InputError, match="has 3 bytes, of which 5"):
        await send(web, [b"abc"], size=9)
    assert upload.patches == []


async def test_what_is_no_bytes_is_refused(web):
    """A text file gives text, a file that does not wait None: that is not the end."""
    web.upload("/blob")
    with pytest.raises(InputError, match="not str"):
        await send(web, io.StringIO("text"), size=4)
    with pytest.raises(InputError, match="not NoneType"):
        await send(web, [b"abc", None, b"def"])


async def test_an_error_of_the_stream_is_the_callers_and_closes_it(web):
    """It passes through unchanged; a generator is closed when its upload fails, wherever it stands."""
    upload = web.upload("/blob")
    closed = []

    async def broken():
        yield CONTENT[:150_000]
        raise RuntimeError("the instrument is gone")

    with pytest.raises(RuntimeError, match="instrument"):
        await send(web, broken(), size=250_000)
    assert len(upload.data) <= BUFFER

    def watched():
        try:
            yield from blocks()
        finally:
            closed.append(True)

    with pytest.raises(InputError):
        await send(web, watched(), size=10)
    assert closed == [True]


@pytest.mark.parametrize("content", [CONTENT, CONTENT[:BUFFER], b"x", b""], ids=["long", "buffer", "byte", "empty"])
async def test_an_unknown_size_is_told_at_the_end(web, content):
    """Chunks say that their length is deferred; an empty request closes with it, as ivcap-cli does."""
    upload = Deferred(web)
    assert await send(web, slow(content), offset=0) == len(content)
    assert (upload.data, upload.length, upload.posts) == (content, len(content), 0)
    *chunks, last = upload.heads
    assert last == (0, None, str(len(content)))
    assert all(deferred == "1" and length is None and 0 < size <= BUFFER for size, deferred, length in chunks)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 422])
@pytest.mark.parametrize("content", [CONTENT, b""], ids=["long", "empty"])
async def test_a_server_that_refuses_is_asked_for_a_deferred_upload(web, quick, status, content):
    """The way of ivcap-client's archives: POST to the data path, chunks at its Location, the length at the end."""
    upload = Deferred(web, refuses=status)
    assert await send(web, blocks(content), offset=0) == len(content)
    assert (upload.data, upload.length, upload.posts) == (content, len(content), 1)
    assert all(deferred is None for _, deferred, _ in upload.heads)


async def test_a_server_that_knows_neither_way_says_why(web, quick):
    """The first refusal is the error, not the one of the second way."""

    async def refuse(request):
        await request.body()
        return Response(status_code=405 if request.method == "POST" else 400)

    web.on("* /blob", refuse)
    with pytest.raises(BadRequestError) as caught:
        await send(web, blocks(), offset=0)
    assert caught.value.status == 400
    web.on("* /blob", Response(status_code=404))
    with pytest.raises(NotFoundError):
        await send(web, blocks(), offset=0)


async def test_a_refusal_in_the_middle_is_final(web):
    """Only an upload that has not begun may go another way."""
    upload = Deferred(web)

    def refuse(position):
        upload.refuses = 400

    with pytest.raises(BadRequestError):
        await send(web, blocks(), offset=0, progress=refuse)
    assert upload.posts == 0


async def test_a_closing_request_whose_reply_was_lost_is_not_an_error(web, quick):
    """Repeated, it meets a closed upload, whose length then says that all is well."""
    upload = Deferred(web)
    upload.faults = [False, False, False, True]
    assert await send(web, blocks(), offset=0) == 250_000
    assert upload.length == 250_000


@pytest.mark.parametrize("location", ["http://evil.example/x", "//evil.example/x", "ftp://evil.example/x"])
async def test_a_foreign_location_is_refused(web, quick, location):
    """Neither bytes nor token go where a reply's Location leads, if that is another host."""
    upload = Deferred(web, refuses=400, location=location)
    with pytest.raises(ProtocolError, match="not followed"):
        await send(web, blocks(), offset=0)
    assert upload.data == b""


async def test_a_token_never_follows_a_location_to_another_server(web, wire, quick):
    """Another port is another server: it is not even connected to, while the own one gets the token."""
    wire.answers = [b"HTTP/1.1 204 No Content\r\nUpload-Offset: 1\r\n\r\n"]
    upload = Deferred(web, refuses=400, location=f"{wire.url}/deferred")
    auth = StaticToken("t0ken")
    with pytest.raises(ProtocolError, match="not followed"):
        await send(web, blocks(), offset=0, session={"auth": auth})
    assert wire.requests == []
    upload.location = f"{web.url}/deferred?signed=1"
    await send(web, blocks(), offset=0, session={"auth": auth})
    assert upload.data == CONTENT
    assert upload.tokens == {"Bearer t0ken"}


async def test_a_deferred_upload_without_a_location_is_a_violation(web, quick):
    """There is nowhere to go."""
    Deferred(web, refuses=400, location=None)
    with pytest.raises(ProtocolError, match="no Location"):
        await send(web, blocks(), offset=0)


SENDER = """
import asyncio, resource, sys
from ivcap_flows.http.session import Session
from ivcap_flows.http.tus_blocks import send_blocks

async def main():
    async with Session(sys.argv[1], platform="IVCAP") as session:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        block = bytes(1 << 20)
        assert await send_blocks(session, "/blob", (block for _ in range(256)), offset=0) == 256 << 20
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


@pytest.mark.long
async def test_memory_does_not_grow_with_the_stream():
    """A quarter of a gibibyte of unknown size is sent with less than 48 MiB more than before."""

    async def sink(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            left = int(fields[b"content-length"])
            offset = int(fields[b"upload-offset"]) + left
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            writer.write(b"HTTP/1.1 204 No Content\r\nUpload-Offset: %d\r\n\r\n" % offset)
            if b"upload-length" in fields:
                break
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(sink, "127.0.0.1", 0, limit=1 << 20)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    server.close()
    assert process.returncode == 0, errors.decode()
    assert int(output) < 48 * 1024


async def test_a_generator_is_closed_when_its_upload_is_cancelled(web):
    """Though a thread is still in it: what it holds open is given back, and the cancellation is what is raised."""
    inside, go, closed = threading.Event(), threading.Event(), threading.Event()

    def source():
        try:
            while True:
                inside.set()
                assert go.wait(10)
                yield b"x" * 10
        finally:
            closed.set()

    Deferred(web)
    sending = asyncio.create_task(send(web, source()))
    await asyncio.to_thread(inside.wait, 10)
    sending.cancel()
    threading.Timer(0.2, go.set).start()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert closed.is_set()
