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

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
SHA = hashlib.sha256(CONTENT).hexdigest()
FIRST = 1_000_000


def whole(body=CONTENT, *, length=None, etag=""):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT) if length is None else length}\r\n{etag}\r\n"
    return head.encode() + body


def part(begin, end=None, *, claimed=None):
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(CONTENT) - begin}\r\n"
        f"Content-Range: bytes {begin if claimed is None else claimed}-{len(CONTENT) - 1}/{len(CONTENT)}\r\n\r\n"
    )
    return head.encode() + CONTENT[begin:end]


async def fetch(server, target, budget=5, **options):
    async with server.session(budget=budget) as session:
        return await download.fetch(session, "/blob", target, **options)


async def read(server, **options):
    async with server.session(budget=5) as session:
        return b"".join([block async for block in download.stream(session, "/blob", block=70_000, **options)])


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
    os.umask(mask := os.umask(0))
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    web.on("GET /blob", Response(b""))
    assert (await fetch(web, target, size=0)).sha256 == hashlib.sha256(b"").hexdigest()
    assert target.read_bytes() == b"" and left(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("wrong", [{"size": 5}, {"size": len(CONTENT) + 1}, {"sha256": "0" * 64}])
async def test_wrong_bytes_do_not_replace_right_ones(web, tmp_path, wrong):
    """IntegrityError holds both values; the older file stays and the temporary one is gone. A stream ends in it."""
    web.on("GET /blob", Response(CONTENT))
    target = tmp_path / "out.bin"
    target.write_bytes(b"older")
    with pytest.raises(IntegrityError, match="was not written") as error:
        await fetch(web, target, urn="urn:ivcap:artifact:1", **wrong)
    assert error.value.expected == next(iter(wrong.values()))
    assert error.value.urn == "urn:ivcap:artifact:1"
    assert target.read_bytes() == b"older" and left(tmp_path) == ["out.bin"]
    with pytest.raises(IntegrityError):
        await read(web, **wrong)


async def test_a_broken_transfer_is_resumed_where_it_broke(wire, tmp_path, quick_retries):
    """Cut twice: the next requests ask for the rest only, on the condition that it is the same content."""
    answers = [whole(CONTENT[:FIRST], etag='ETag: "v1"\r\n'), part(FIRST, 2 * FIRST), part(2 * FIRST)]
    wire.answers = [*answers]
    assert (await fetch(wire, tmp_path / "out", sha256=SHA)).size == len(CONTENT)
    wire.answers = [*answers]
    assert await read(wire, sha256=SHA) == CONTENT
    for first, second, third in (wire.requests[:3], wire.requests[3:]):
        assert b"range" not in first.lower()
        assert b"Range: bytes=1000000-\r\n" in second and b'If-Range: "v1"\r\n' in second
        assert b"Range: bytes=2000000-\r\n" in third


@pytest.mark.parametrize(
    "answers",
    [
        [None, whole()],
        [whole(CONTENT[:500]), whole()],
        [part(FIRST, claimed=5), whole()],
        [b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n", whole()],
    ],
    ids=["no ranges", "no ranges, and another break", "another range", "no such range"],
)
async def test_a_server_that_cannot_resume_begins_anew_and_nothing_is_glued_together(
    wire, tmp_path, quick_retries, answers
):
    wire.answers = [whole(CONTENT[:FIRST]), *answers]
    await fetch(wire, tmp_path / "out", sha256=SHA)
    assert (tmp_path / "out").read_bytes() == CONTENT
    wire.answers = [whole(CONTENT[:FIRST]), *answers]
    assert await read(wire, sha256=SHA) == CONTENT


@pytest.mark.parametrize(
    "again",
    [b"\1" + CONTENT[1:], CONTENT[: FIRST - 1] + b"\1" + CONTENT[FIRST:], CONTENT[:10]],
    ids=["another first byte", "another last byte", "fewer"],
)
async def test_a_stream_that_begins_again_with_other_bytes_is_refused(wire, quick_retries, again):
    """What was given can't be taken back, so it must be what the server still says: no other byte, and none less."""
    wire.answers = [whole(CONTENT[:FIRST]), whole(again, length=len(again))]
    with pytest.raises(IntegrityError, match="changed while it was read"):
        await read(wire)


@pytest.mark.parametrize(
    ("answer", "budget", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CONTENT[:1000], 5, IntegrityError),
        (whole(CONTENT[:1000]), 1.0, UnreachableError),
        (b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n", 5, NotFoundError),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 1.0, UnavailableError),
    ],
    ids=["too few without a length", "always broken off", "gone", "busy"],
)
async def test_a_failure_leaves_nothing(wire, tmp_path, quick_retries, answer, budget, error):
    """Without progress within the budget it ends in the error of the connection."""
    wire.answers = [answer]
    with pytest.raises(error):
        await fetch(wire, tmp_path / "out", budget, size=len(CONTENT))
    assert (len(wire.requests) > 1) == (budget == 1.0) and left(tmp_path) == []


async def test_a_target_that_cannot_be_written_is_named_before_a_request(web, tmp_path):
    """Nobody may create files in /proc, the superuser included."""
    for target, words in (
        (tmp_path / "no" / "out", str(tmp_path / "no" / "out")),
        (tmp_path, "is a folder"),
        ("/proc/out", "/proc/out cannot be written"),
    ):
        with pytest.raises(InputError, match=words):
            await fetch(web, target)
    assert web.calls == []


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
