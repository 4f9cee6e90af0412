"""Download: whole and verified, or not at all."""

import asyncio
import errno
import hashlib
import os
import resource
import signal
import threading

import pytest
from starlette.responses import Response

from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http import download
from ivcap_flows.http.reader import Reader

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
SHA = hashlib.sha256(CONTENT).hexdigest()


def whole(body=CONTENT, *, length=None, etag=""):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT) if length is None else length}\r\n{etag}\r\n"
    return head.encode() + body


def part(begin, body=None, *, claimed=None):
    body = CONTENT[begin:] if body is None else body
    first = begin if claimed is None else claimed
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(CONTENT) - begin}\r\n"
        f"Content-Range: bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}\r\n\r\n"
    )
    return head.encode() + body


async def fetch(server, target, **options):
    async with server.session(**options.pop("session", {"budget": 5})) as session:
        return await download.fetch(session, "/blob", target, **options)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_a_file_appears_with_its_hash(web, tmp_path):
    """The value tells path, sha256 and size; an older file is replaced, and nothing else lies about."""
    web.on("GET /blob", Response(CONTENT))
    target = tmp_path / "out.bin"
    target.write_bytes(b"older")
    found = await fetch(web, target, size=len(CONTENT), sha256=SHA.upper())
    assert (found.path, found.sha256, found.size) == (str(target), SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert left(tmp_path) == ["out.bin"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("wrong", [{"size": 5}, {"sha256": "0" * 64}])
async def test_wrong_bytes_do_not_replace_right_ones(web, tmp_path, wrong):
    """IntegrityError holds both values; the older file stays and the temporary one is gone."""
    web.on("GET /blob", Response(CONTENT))
    target = tmp_path / "out.bin"
    target.write_bytes(b"older")
    with pytest.raises(IntegrityError, match="was not written") as error:
        await fetch(web, target, urn="urn:ivcap:artifact:1", **wrong)
    assert error.value.expected == next(iter(wrong.values()))
    assert error.value.urn == "urn:ivcap:artifact:1"
    assert target.read_bytes() == b"older"
    assert left(tmp_path) == ["out.bin"]


async def test_a_broken_stream_is_resumed_where_it_broke(wire, tmp_path, quick):
    """Cut twice: the next requests ask for the rest only, on the condition that it is the same content."""
    wire.answers = [
        whole(CONTENT[:1_000_000], etag='ETag: "v1"\r\n'),
        part(1_000_000, CONTENT[1_000_000:2_000_000]),
        part(2_000_000),
    ]
    assert (await fetch(wire, tmp_path / "out", sha256=SHA)).size == len(CONTENT)
    assert b"range" not in wire.requests[0].lower()
    assert b"Range: bytes=1000000-\r\n" in wire.requests[1]
    assert b'If-Range: "v1"\r\n' in wire.requests[1]
    assert b"Range: bytes=2000000-\r\n" in wire.requests[2]


async def test_a_server_without_ranges_sends_everything_again(wire, tmp_path, quick):
    """A 200 to a range request begins anew."""
    wire.answers = [whole(CONTENT[:1_000_000]), None, whole()]
    await fetch(wire, tmp_path / "out", sha256=SHA)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [part(1_000_000, bytes(len(CONTENT) - 1_000_000), claimed=5), b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n"],
    ids=["other", "416"],
)
async def test_a_wrong_range_begins_anew(wire, tmp_path, quick, answer):
    """Other bytes than those asked for, or none, are not glued together."""
    wire.answers = [whole(CONTENT[:1_000_000]), answer, whole()]
    await fetch(wire, tmp_path / "out", sha256=SHA)
    assert (tmp_path / "out").read_bytes() == CONTENT


async def test_too_few_bytes_are_noticed_without_a_length(wire, tmp_path):
    """A reply that ends with its connection is whole only if the size says so."""
    wire.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CONTENT[:1000]]
    with pytest.raises(IntegrityError):
        await fetch(wire, tmp_path / "out", size=len(CONTENT))
    assert left(tmp_path) == []


async def test_a_stream_that_always_breaks_is_given_up(wire, tmp_path, quick):
    """No progress within the budget ends in the error of the connection, and leaves nothing."""
    wire.answers = [whole(CONTENT[:1000])]
    with pytest.raises(UnreachableError):
        await fetch(wire, tmp_path / "out", session={"budget": 0.3})
    assert len(wire.requests) > 2
    assert left(tmp_path) == []


@pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (503, UnavailableError)])
async def test_a_refusal_leaves_nothing(web, tmp_path, quick, status, error):
    """The temporary file goes with the error."""
    web.on("GET /blob", Response(status_code=status))
    with pytest.raises(error):
        await fetch(web, tmp_path / "out", session={"budget": 0.1})
    assert left(tmp_path) == []


async def test_an_empty_download_is_a_file(web, tmp_path):
    """Zero bytes are content too."""
    web.on("GET /blob", Response(b""))
    assert (await fetch(web, tmp_path / "out", size=0)).sha256 == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "out").read_bytes() == b""


async def test_a_folder_that_is_not_there_is_named(web, tmp_path):
    """The path is in the message, and no request was made."""
    with pytest.raises(InputError, match=str(tmp_path / "no" / "out")):
        await fetch(web, tmp_path / "no" / "out")
    with pytest.raises(InputError, match="is a folder"):
        await fetch(web, tmp_path)
    assert web.seen == []


async def test_a_folder_that_may_not_be_written_is_named(web):
    """Nobody may create files in /proc, the superuser included."""
    with pytest.raises(InputError, match="/proc/out cannot be written"):
        await fetch(web, "/proc/out")


async def test_a_full_disk_is_a_clear_error(web, tmp_path):
    """The file's size limit stands for the disk's: the path is named, the temporary file goes."""
    web.on("GET /blob", Response(CONTENT))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(ConfigurationError, match=f"no room for {tmp_path / 'out'}") as error:
            await fetch(web, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert error.value.__cause__.errno == errno.EFBIG
    assert left(tmp_path) == []


async def read(server, **options):
    async with server.session(**options.pop("session", {"budget": 5})) as session:
        return [part async for part in download.stream(session, "/blob", **options)]


async def test_a_stream_comes_in_blocks(web):
    """All of one length but the last, and verified."""
    web.on("GET /blob", Response(CONTENT))
    parts = await read(web, block=1_000_000, size=len(CONTENT), sha256=SHA)
    assert [len(part) for part in parts] == [1_000_000, 1_000_000, 1_000_000, 72_000]
    assert b"".join(parts) == CONTENT


async def test_a_broken_stream_of_blocks_is_resumed(wire, quick):
    """The reader sees nothing of two breaks, one answered by the rest and one by everything again."""
    wire.answers = [
        whole(CONTENT[:1_000_000], etag='ETag: "v1"\r\n'),
        part(1_000_000, CONTENT[1_000_000:2_000_000]),
        whole(CONTENT[:500]),
        whole(),
    ]
    assert b"".join(await read(wire, block=70_000, sha256=SHA)) == CONTENT
    assert b"Range: bytes=1000000-\r\n" in wire.requests[1]
    assert b'If-Range: "v1"\r\n' in wire.requests[1]


@pytest.mark.parametrize("changed", [0, 999_999])
async def test_a_stream_that_begins_again_with_other_bytes_is_refused(wire, quick, changed):
    """What was given can't be taken back, so it must be what the server still says."""
    other = bytearray(CONTENT)
    other[changed] ^= 1
    wire.answers = [whole(CONTENT[:1_000_000]), whole(bytes(other))]
    with pytest.raises(IntegrityError, match="changed while it was read"):
        await read(wire)


async def test_a_stream_that_begins_again_and_is_shorter_is_refused(wire, quick):
    """The second reply is whole and has less than the first had."""
    wire.answers = [whole(CONTENT[:1_000_000]), whole(CONTENT[:10], length=10)]
    with pytest.raises(IntegrityError, match="changed while it was read"):
        await read(wire)


@pytest.mark.parametrize("wrong", [{"size": len(CONTENT) + 1}, {"size": 5}, {"sha256": "0" * 64}])
async def test_a_stream_of_wrong_bytes_ends_in_an_error(web, wrong):
    """After the last block, or as soon as there are too many."""
    web.on("GET /blob", Response(CONTENT))
    with pytest.raises(IntegrityError):
        await read(web, **wrong)


async def test_a_reader_reads_what_it_is_asked_for(web):
    """Head, middle and rest; nothing behind the end; iteration goes on where reading stopped."""
    web.on("GET /blob", Response(CONTENT))
    async with web.session() as session:
        reader = Reader(download.stream(session, "/blob", block=1000))
        assert await reader.read(0) == b""
        assert await reader.read(10) == CONTENT[:10]
        assert await reader.read(5000) == CONTENT[10:5010]
        assert await reader.read() == CONTENT[5010:]
        assert await reader.read(5) == await reader.read() == b""
        reader = Reader(download.stream(session, "/blob", block=1000))
        assert await reader.read(7) == CONTENT[:7]
        assert b"".join([part async for part in reader]) == CONTENT[7:]
        assert await reader.read() == b""


async def test_a_cancelled_download_writes_to_no_other_file(web, tmp_path, monkeypatch):
    """Its thread is still at it: the file is closed when that has written, and not under it."""
    writing, go = threading.Event(), threading.Event()
    steps, write, close = [], os.write, os.close

    def slowly(descriptor, block):
        writing.set()
        assert go.wait(10)
        steps.append(("write", descriptor))
        return write(descriptor, block)

    def closing(descriptor):
        steps.append(("close", descriptor))
        close(descriptor)

    web.on("GET /1/x", Response(CONTENT))
    async with web.session() as session:
        monkeypatch.setattr(download.os, "write", slowly)
        monkeypatch.setattr(download.os, "close", closing)
        fetching = asyncio.create_task(download.fetch(session, "/1/x", tmp_path / "x"))
        await asyncio.to_thread(writing.wait, 10)
        asyncio.get_running_loop().call_later(0.05, fetching.cancel)
        threading.Timer(0.2, go.set).start()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        monkeypatch.undo()
    [done, mine] = steps[0]
    assert done == "write" and [step for step in steps if step[1] == mine][-1] == ("close", mine)
    assert list(tmp_path.iterdir()) == []
