"""Reads share connections, sends do not, and what comes on a connection never answers what was sent on it later."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.responses import Response

from ivcap_flows.errors import MisfitReplyError, NotFoundError, ProtocolError, UnreachableError
from ivcap_flows.http import pool
from ivcap_flows.http.session import Session

LISTS = "/1/things"


class Line:
    """A server that keeps its connections. `script` has for each request by number what its connection gets."""

    def __init__(self) -> None:
        self.url = ""
        self.script: dict[int, str] = {}
        self.connections: list[int] = []
        """How many requests each connection brought."""
        self.number = 0
        self.id: str | None = None
        """What each reply says that it is of."""

    def session(self, **options: object) -> Session:
        return Session(self.url, platform="IVCAP", **options)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(self.connections)
        self.connections.append(0)
        late = b""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := re.search(rb"content-length: (\d+)", head, re.I):
                    await reader.readexactly(int(length[1]))
                self.connections[place] += 1
                self.number += 1
                asked = head.split(b" ")[1].decode()
                reply = self.reply(asked)
                match self.script.get(self.number, ""):
                    case "dies":
                        break
                    case "early":
                        reply += reply
                    case "late":
                        writer.write(reply)
                        late = reply
                        continue
                    case "idle":
                        writer.write(reply)
                        await asyncio.sleep(0.05)
                writer.write(late + reply)
                late = b""
        writer.close()

    def reply(self, asked: str) -> bytes:
        status = "404 Not Found" if "missing" in asked else "200 OK"
        body = json.dumps({"message" if "missing" in asked else "items": [{"name": asked}], "id": self.id}).encode()
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )


@asynccontextmanager
async def listening() -> AsyncIterator[Line]:
    scripted = Line()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield scripted
    server.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with listening() as scripted:
        yield scripted


async def read(session: Session, query: object, **options: object) -> str:
    reply = await session.request("GET", f"{LISTS}?{query}", repeat="idempotent", **options)
    return str(reply.json()["items"][0]["name"]).partition("?")[2]


@pytest.mark.catches("a connection for each read")
async def test_reads_share_a_connection(line):
    """One after the other takes one connection, and what writes a state is no other than a read."""
    async with line.session() as session:
        for number in range(5):
            assert await read(session, number) == str(number)
        await session.request("PUT", LISTS, repeat="idempotent", json={})
    assert line.connections == [6]


async def test_each_host_of_a_platform_has_its_connection(line):
    """Requests to the hosts in turn, as Provena has several, close nothing; those at once have a connection each."""
    shared = pool.Pool()
    async with listening() as other, line.session(pool=shared) as first, other.session(pool=shared) as second:
        for number in range(3):
            assert (await read(first, number), await read(second, number)) == (str(number), str(number))
        assert (line.connections, other.connections) == ([3], [3])
        for begin in (10, 20):
            await asyncio.gather(*(read(first, begin + number) for number in range(4)))
        assert sorted(line.connections) == [2, 2, 2, 5]
        await shared.aclose()


@pytest.mark.catches("connections kept")
@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
async def test_each_send_has_a_new_connection(line, repeat):
    """Whatever is kept: before it, after it, and for the next send."""
    async with line.session() as session:
        await read(session, 1)
        for _ in range(2):
            await session.request("POST", LISTS, repeat=repeat, json={})
        await read(session, 2)
    assert line.connections == [2, 1, 1]


async def test_what_cannot_be_judged_has_a_new_connection(line):
    """The content of users, and what is read block by block."""
    async with line.session() as session:
        await read(session, 1)
        await read(session, 2, raw=True)
        async with session.stream("GET", LISTS, repeat="idempotent"):
            pass
    assert line.connections == [1, 1, 1]


@pytest.mark.catches("copies taken")
@pytest.mark.parametrize("when", ["early", "late", "idle"])
async def test_a_doubled_reply_answers_no_other_request(line, when):
    """Whether it comes with the first, after the next request was sent, or between the two. A list names nothing by
    which it could be told whose reply it is."""
    line.script = {2: when, 5: when}
    async with line.session(budget=0) as session:
        assert [await read(session, number) for number in range(6)] == [str(number) for number in range(6)]
    assert max(line.connections) >= 2


@pytest.mark.catches("copies taken")
async def test_a_copy_of_a_refusal_refuses_nothing_else(line):
    """What is there is not taken for missing."""
    line.script = {2: "late"}
    async with line.session(budget=0) as session:
        await read(session, 1)
        with pytest.raises(NotFoundError):
            await read(session, "missing")
        assert await read(session, 2) == "2"


@pytest.mark.catches("misfits' connections kept")
async def test_a_connection_with_a_misfit_is_used_no_more(line):
    """What follows on it answers other requests as well."""
    line.id = "urn:ivcap:order:1"
    async with line.session(budget=0) as session:
        with pytest.raises(MisfitReplyError):
            await session.request("GET", "/1/orders/urn:ivcap:order:2", repeat="idempotent")
        await session.request("GET", "/1/orders/urn:ivcap:order:1", repeat="idempotent")
    assert line.connections == [1, 1]


@pytest.mark.catches("dead connections count")
async def test_a_kept_connection_that_ends_costs_nothing(line, caplog):
    """The request is sent again at once: no wait, no retry that counts, no word in the log."""
    caplog.set_level(logging.INFO, "ivcap_flows")
    line.script = {2: "dies"}
    async with line.session(budget=0) as session:
        assert [await read(session, number) for number in range(3)] == ["0", "1", "2"]
    assert line.connections[0] == 2 and not [each for each in caplog.records if each.name != "httpx"]


async def test_a_new_connection_that_ends_is_a_failure(line):
    """It was not kept, so the platform did not answer."""
    line.script = {1: "dies"}
    async with line.session(budget=0) as session:
        with pytest.raises(UnreachableError):
            await read(session, 1)
    assert line.connections == [1]


async def test_a_connection_is_not_kept_for_long(line, monkeypatch):
    """A server that closes it later than that finds it closed."""
    monkeypatch.setattr(pool, "_KEPT", pool.httpx.Limits(keepalive_expiry=0.05))
    async with line.session() as session:
        await read(session, 1)
        await asyncio.sleep(0.1)
        await read(session, 2)
    assert line.connections == [1, 1]


@pytest.mark.catches("connections shared with a fork")
def test_a_forked_child_does_not_use_its_parents_connections(web):
    """Even on the event loop that it was forked with, between two requests."""
    ports = []

    async def told(request):
        ports.append(request.client.port)
        return Response(f'{{"number": {len(ports)}}}', media_type="application/json")

    web.on("GET /1/x", told)
    loop = asyncio.new_event_loop()
    session = web.session(budget=0)

    def read():
        return loop.run_until_complete(session.request("GET", "/1/x", repeat="idempotent")).json()["number"]

    assert read() == 1
    child = os.fork()
    if child == 0:
        os._exit(0 if read() == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0 and read() == 3
    loop.run_until_complete(session.aclose())
    loop.close()
    assert ports[0] == ports[2] != ports[1]


@pytest.mark.catches("unknown events pass")
async def test_a_send_by_another_protocol_is_refused(web, monkeypatch):
    """Only the steps of HTTP/1.1 are confirmed, so anything else is not sent."""
    web.on("POST /1/x", Response())
    monkeypatch.setattr(logging.getLogger("httpcore.http11"), "name", "httpcore.http2")
    async with web.session(budget=0) as session:
        with suppress(ProtocolError):
            await session.request("POST", "/1/x", repeat="keyed", json=1)
        assert not web.calls
        with pytest.raises(ProtocolError, match="no send can be confirmed") as error:
            await session.request("POST", "/1/x", repeat="keyed", json=1)
    assert error.value.sent is False
