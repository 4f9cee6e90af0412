"""How much is under way at once: each place is free again, however the request that had it has ended."""

import asyncio
import socket

import pytest
from starlette.responses import Response, StreamingResponse

from ivcap_flows.errors import UnreachableError
from ivcap_flows.http import concurrency_limit, pool
from ivcap_flows.http.session import Session


async def whole(session, query="", **options):
    return (await session.request("GET", f"/1/x{query}", repeat="idempotent", **options)).body


async def test_who_waits_gets_the_first_free_place(web, monkeypatch):
    monkeypatch.setattr(pool, "AT_ONCE", 2)
    held = asyncio.Event()

    async def slow(request):
        if request.url.query:
            await held.wait()
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", slow)
    async with web.session() as session:
        long = asyncio.create_task(whole(session, "?long"))
        await asyncio.sleep(0)
        for _ in range(4):
            assert await asyncio.gather(*[whole(session) for _ in range(3)]) == [b"x"] * 3
        held.set()
        assert await long == b"x"


async def test_a_place_that_comes_when_nobody_wants_it_any_more_is_the_next_ones(web, monkeypatch):
    """A request that is cancelled at the moment of its turn holds up no request behind it."""
    monkeypatch.setattr(pool, "AT_ONCE", 1)
    held = asyncio.Event()

    async def slow(request):
        await held.wait()
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", slow)

    async def first_one(session):
        body = await whole(session)
        gone.cancel()
        return body

    async with web.session(budget=0) as session:
        first = asyncio.create_task(first_one(session))
        await asyncio.sleep(0.05)
        gone, following = (asyncio.create_task(whole(session, timeout=5.0)) for _ in range(2))
        held.set()
        assert await first == await following == b"x"
        await asyncio.wait([gone])


async def test_a_wait_for_a_turn_is_no_failure(web, monkeypatch):
    """A request that waits for its turn longer than its timeout and budget is sent, and sent again after a 503."""
    monkeypatch.setattr(pool, "AT_ONCE", 1)
    waited = asyncio.Event()
    answers = [Response(status_code=503, headers={"Retry-After": "0"}), Response(b"x")]

    async def slow(request):
        if request.url.query:
            await waited.wait()
            return Response(b"first")
        return answers.pop(0)

    web.on("GET /1/x", slow)
    async with web.session(timeout=5.0, budget=1.0) as session:
        first = asyncio.create_task(whole(session, "?first"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(whole(session, timeout=0.5))
        await asyncio.sleep(1.2)
        waited.set()
        assert await first == b"first"
        assert await second == b"x"


async def test_a_wait_for_a_turn_is_no_late_reply(web, monkeypatch):
    """The limit of concurrent effects goes by the platform's replies, not by this client's own queue."""
    monkeypatch.setattr(pool, "AT_ONCE", 1)
    monkeypatch.setattr(concurrency_limit, "LATE", 0.4)
    limit = concurrency_limit.ConcurrencyLimit("Tests")

    async def slow(request):
        await asyncio.sleep(0.2)
        return Response(b"x")

    web.on("POST /1/x", slow)
    async with web.session() as session:

        async def effect():
            async with limit.turn():
                await session.request("POST", "/1/x", repeat="unsafe")

        await asyncio.gather(*(effect() for _ in range(4)))
    assert limit.at_once >= 4


async def test_cookies_are_shared(web):
    """A gateway that sets a cookie gets it with each later request, also with those at the same time."""
    cookies = []

    async def told(request):
        cookies.append(request.headers.get("cookie"))
        return Response(b"x", headers={"Set-Cookie": "place=one"})

    web.on("GET /1/x", told)
    async with web.session() as session:
        await whole(session)
        await asyncio.gather(*(whole(session) for _ in range(16)))
        async with session.stream("GET", "/1/x", repeat="idempotent"):
            pass
    assert cookies == [None, *["place=one"] * 17]


async def test_a_failure_leaves_its_place(monkeypatch):
    monkeypatch.setattr(pool, "AT_ONCE", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Session(f"http://127.0.0.1:{taken.getsockname()[1]}", platform="IVCAP", budget=0) as session:
            for _ in range(3):
                with pytest.raises(UnreachableError) as error:
                    await whole(session)
                assert error.value.data["sent"] is False


async def test_each_request_has_a_connection_of_its_own(web):
    """What an intermediary sends after a reply answers no other request."""
    callers = set()

    async def caller(request):
        callers.add(request.client.port)
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", caller)
    async with web.session() as session:
        for _ in range(6):
            await whole(session)
    assert len(callers) == 6


@pytest.mark.parametrize("later", range(12))
async def test_a_stream_whose_reader_is_cancelled_twice_leaves_its_place(web, monkeypatch, later):
    """Cancelled anew while it closes, a reader takes no connection from the next."""
    monkeypatch.setattr(pool, "STREAMS_AT_ONCE", 1)

    async def endless(request):
        async def blocks():
            yield b"first"
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)

        return StreamingResponse(blocks() if request.url.query else iter([b"x"]))

    web.on("GET /1/x", endless)
    async with web.session(timeout=20.0, budget=0) as session:
        read = asyncio.Event()

        async def reader():
            async with session.stream("GET", "/1/x?long", repeat="idempotent") as reply:
                async for _ in reply.blocks():
                    read.set()

        task = asyncio.create_task(reader())
        await read.wait()
        task.cancel()
        for _ in range(later):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with session.stream("GET", "/1/x", repeat="idempotent") as reply:
            assert [block async for block in reply.blocks()] == [b"x"]
