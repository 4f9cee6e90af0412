"""What a session makes of a peer that leaves, answers early, or breaks off: above all, whether a request was sent."""

import asyncio

import pytest

from ivcap_flows.errors import PlatformError, UnreachableError
from ivcap_flows.http.confirm_send import confirming_sends
from ivcap_flows.http.session import Session

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_connection_that_the_peer_has_closed_is_not_used_for_another_request(wire):
    """It looked as if it would be kept. What may not be sent twice must not meet a dead connection."""
    wire.answers = [OK]
    async with wire.session(budget=0) as session:
        for _ in range(5):
            assert (await session.request("POST", "/1/x", repeat="unsafe", json=1)).status == 200
            await asyncio.sleep(0.05)
    assert len(wire.requests) == 5


async def test_leave_is_asked_for_when_the_connection_is_there(wire):
    """What comes between leave and request, such as connecting, could take as long as it likes."""
    wire.answers = [OK]
    there = []

    async def ask():
        await asyncio.sleep(0.05)
        there.append((wire.connections, len(wire.requests)))

    async with wire.session(budget=0) as session:
        with confirming_sends(ask):
            await session.request("POST", "/1/x", repeat="unsafe", json=1)
    assert there == [(1, 0)]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    ],
    ids=["reset", "closed", "half a line", "short", "no end", "no chunk", "two lengths", "no HTTP", "a large head"],
)
async def test_a_broken_reply_may_have_been_to_a_request_that_was_processed(wire, answer):
    wire.answers = [answer]
    async with wire.session(budget=0) as session:
        with pytest.raises(PlatformError) as error:
            await session.request("POST", "/1/x", repeat="unsafe", json=1)
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


async def test_a_silent_peer_may_have_processed_what_it_was_sent():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Session(url, platform="IVCAP", timeout=0.2, budget=0) as session:
        with pytest.raises(UnreachableError) as error:
            await session.request("POST", "/1/x", repeat="unsafe", json=1)
    assert error.value.data["sent"] is True


async def test_a_body_is_made_anew_for_a_second_send(wire):
    wire.answers = [b"HTTP/1.1 429 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", OK]
    made = []

    def body():
        made.append(1)

        async def blocks():
            yield b"abc"

        return blocks()

    async with wire.session() as session:
        await session.request("POST", "/1/x", repeat="keyed", content=body)
    assert len(made) == 2
