"""What a session makes of a peer that leaves, answers early, or breaks off: above all, whether a request was sent."""

import asyncio

import pytest
from eventually import auntil

from ivcap_flows.errors import PlatformError
from ivcap_flows.http.confirm_send import confirming_sends
from ivcap_flows.http.session import Session

OK = b"HTTP/1.1 200 OK\r\n"


async def test_leave_is_asked_for_when_the_connection_is_there(wire):
    """What comes between leave and request, such as connecting, could take as long as it likes."""
    wire.answers = [wire.reply()]
    there = []

    async def ask():
        await asyncio.sleep(0.05)
        there.append((wire.connections, len(wire.requests)))

    async with wire.session(budget=0) as session:
        with confirming_sends(ask):
            await session.request("POST", "/1/x", repeat="unsafe", json=1)
    assert there == [(1, 0)]


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="reset"),
        pytest.param("silence", id="silent"),
        pytest.param(b"", id="closed"),
        pytest.param(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", id="busy"),
        pytest.param(b"HTTP/1.1 20", id="half a line"),
        pytest.param(OK + b"Content-Length: 10\r\n\r\n{}", id="short"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}", id="no end"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", id="no chunk"),
        pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", id="two lengths"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no HTTP"),
        pytest.param(OK + b"X: " + b"x" * 300_000 + b"\r\n\r\n", id="a large head"),
    ],
)
async def test_a_write_that_may_have_been_processed_is_sent_once(wire, quick_retries, answer, repeat):
    wire.answers = [answer]
    # Only silence is to end by the timeout.
    async with wire.session(timeout=0.5 if answer == "silence" else 60) as session:
        with pytest.raises(PlatformError) as error:
            await session.request("POST", "/1/x", repeat=repeat, json=1)
    await auntil(lambda: wire.requests)
    assert error.value.data["sent"] is True and len(wire.requests) == 1


async def test_a_reply_before_the_end_of_the_request_is_taken():
    """A server that refuses an upload says so at once, and drops what still comes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        while await reader.read(2**20):
            pass
        writer.close()

    async def endless():
        for _ in range(200):
            yield b"x" * 65_536
            await asyncio.sleep(0)

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, Session(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", platform="IVCAP") as session:
        reply = await session.request("POST", "/1/x", repeat="unsafe", content=endless, expect=(413,))
    assert reply.status == 413
