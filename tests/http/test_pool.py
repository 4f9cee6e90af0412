"""How much is under way at once: each place is free again, however the request that had it has ended."""

import asyncio

import pytest
from starlette.responses import Response, StreamingResponse

from ivcap_flows.errors import UnreachableError
from ivcap_flows.http import concurrency_limit, pool


@pytest.fixture
def one_place(monkeypatch):
    monkeypatch.setattr(pool, "AT_ONCE", 1)
    monkeypatch.setattr(pool, "STREAMS_AT_ONCE", 1)


async def whole(session, query="", **options):
    return (await session.request("GET", f"/1/x{query}", repeat="idempotent", **options)).body


async def test_a_request_that_is_cancelled_at_the_moment_of_its_turn_holds_up_none_behind_it(web, one_place):
    held = asyncio.Event()

    async def slow(request):
        await held.wait()
        return Response(b"x")

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


async def test_a_wait_for_a_turn_is_no_failure(web, one_place):
    """A request that waits for its turn longer than its timeout and budget is sent, and sent again after a 503."""
    waited = asyncio.Event()
    answers = [Response(status_code=503, headers={"Retry-After": "0"}), Response(b"x")]

    async def slow(request):
        if request.url.query:
            await waited.wait()
            return Response(b"first")
        return answers.pop(0)

    web.on("GET /1/x", slow)
    async with web.session(timeout=60, budget=1.0) as session:
        first = asyncio.create_task(whole(session, "?first"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(whole(session, timeout=3.0))
        await asyncio.sleep(3.5)
        waited.set()
        assert await first == b"first"
        assert await second == b"x"


async def test_a_wait_for_a_turn_is_no_late_reply(web, one_place, monkeypatch):
    """The limit of concurrent effects goes by the platform's replies, not by this client's own queue."""
    monkeypatch.setattr(concurrency_limit, "LATE", 3.0)
    limit = concurrency_limit.ConcurrencyLimit("Tests")

    async def slow(request):
        await asyncio.sleep(0.9)
        return Response(b"x")

    web.on("POST /1/x", slow)
    async with web.session() as session:

        async def effect():
            async with limit.turn():
                await session.request("POST", "/1/x", repeat="unsafe")

        await asyncio.gather(*(effect() for _ in range(4)))
    assert limit.at_once >= 4


async def test_all_requests_bear_the_cookies_of_all(web):
    """A gateway that sets a cookie gets it with each later request, also with those at the same time and with sends: it
    may tell by it which of its servers has an upload."""
    cookies = []

    async def told(request):
        cookies.append(request.headers.get("cookie"))
        return Response(f"{len(cookies)}", headers={"Set-Cookie": "place=one"})

    web.on("* /1/x", told)
    async with web.session() as session:
        await whole(session)
        await asyncio.gather(*(whole(session) for _ in range(16)))
        await session.request("POST", "/1/x", repeat="keyed")
        async with session.stream("GET", "/1/x", repeat="idempotent"):
            pass
    assert cookies == [None, *["place=one"] * 18]


async def test_streams_leave_connections_to_all_else_and_too_many_are_told_so(web, one_place):
    """The network is not to blame when this client has no connection left."""
    web.on("GET /1/x", Response(b"x"))
    async with web.session(budget=0.1) as session, session.stream("GET", "/1/x", repeat="idempotent"):
        assert await whole(session) == b"x"
        with pytest.raises(UnreachableError, match="all connections of this client.* Do less at once") as error:
            async with session.stream("GET", "/1/x", repeat="idempotent", timeout=0.2):
                pass
    assert "network" not in str(error.value)


@pytest.mark.parametrize("later", range(12))
async def test_a_stream_whose_reader_is_cancelled_twice_leaves_its_place(web, one_place, later):
    """Cancelled anew while it closes, a reader takes no connection from the next."""

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
