"""Connections in lanes: as many as one pool would have, and each place is free again."""

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing

import httpx
import pytest
from starlette.responses import StreamingResponse

from ivcap_flows.http.lanes import Lanes


def lanes(at_once):
    return Lanes(at_once, lambda: httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1)))


def asked(url, patience=5.0):
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), patience)
    return httpx.Request("GET", url, extensions={"timeout": timeout})


async def test_all_places_are_used_and_free_again(web):
    """As many as allowed are open at once, the next waits in vain, and takes the place of whichever has ended."""
    held = asyncio.Event()

    async def endless(request):
        async def blocks():
            yield b"first"
            while not held.is_set():
                await asyncio.sleep(0.01)

        return StreamingResponse(blocks())

    web.on("GET /1/x", endless)
    url = f"{web.url}/1/x"
    async with aclosing(lanes(8)) as transport, AsyncExitStack() as ends:
        ends.callback(held.set)
        replies = [await transport.handle_async_request(asked(url)) for _ in range(8)]
        for reply in replies:
            ends.push_async_callback(reply.aclose)
        with pytest.raises(httpx.PoolTimeout):
            await transport.handle_async_request(asked(url, 0.05))
        for ended in (5, 0):
            await replies[ended].aclose()
            await replies[ended].aclose()  # as at the end of the list again
        for _ in range(2):
            ends.push_async_callback((await transport.handle_async_request(asked(url, 1.0))).aclose)
        with pytest.raises(httpx.PoolTimeout):
            await transport.handle_async_request(asked(url, 0.05))


async def test_whoever_waits_gets_the_first_free_place(web):
    """A request that waits takes the connection that is free first, whichever that is."""
    held = asyncio.Event()

    async def slow(request):
        if request.url.query:
            await held.wait()
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", slow)
    url = f"{web.url}/1/x"
    async with aclosing(lanes(2)) as transport:
        long = asyncio.create_task(transport.handle_async_request(asked(f"{url}?long")))
        await asyncio.sleep(0)
        for _ in range(4):

            async def whole():
                reply = await transport.handle_async_request(asked(url, 1.0))
                return await reply.aread()

            assert await asyncio.gather(whole(), whole(), whole()) == [b"x"] * 3
        held.set()
        await (await long).aclose()


async def test_a_place_that_comes_when_nobody_wants_it_any_more_is_the_next_ones(web):
    """Whoever is cancelled at the moment of its turn, or has waited too long before, holds up nobody behind."""
    held = asyncio.Event()

    async def slow(request):
        await held.wait()
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", slow)
    url = f"{web.url}/1/x"

    async def whole(patience=5.0):
        reply = await transport.handle_async_request(asked(url, patience))
        return await reply.aread()

    async def first_one():
        reply = await whole()
        gone.cancel()  # which has been told of its turn, and had none yet
        return reply

    async with aclosing(lanes(1)) as transport:
        first = asyncio.create_task(first_one())
        await asyncio.sleep(0.05)
        late, gone, next_one = (asyncio.create_task(whole(patience)) for patience in (0.05, 5.0, 5.0))
        with pytest.raises(httpx.PoolTimeout):
            await late
        held.set()
        assert await first == await next_one == b"x"
        with pytest.raises(asyncio.CancelledError):
            await gone


async def test_a_failure_leaves_its_place(web):
    """What got no reply takes no place."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with aclosing(lanes(8)) as transport:
            for _ in range(9):
                with pytest.raises(httpx.ConnectError):
                    await transport.handle_async_request(asked(f"http://127.0.0.1:{taken.getsockname()[1]}/"))


async def test_one_after_the_other_needs_one_connection(web):
    """Requests that are not at once share a connection, whatever the number of lanes."""
    callers = set()

    async def caller(request):
        callers.add(request.client.port)
        return StreamingResponse(iter([b"x"]))

    web.on("GET /1/x", caller)
    async with aclosing(lanes(32)) as transport:
        for _ in range(6):
            reply = await transport.handle_async_request(asked(f"{web.url}/1/x"))
            await reply.aread()
    assert len(callers) == 1


@pytest.mark.parametrize("later", range(12))
async def test_a_request_that_is_cancelled_twice_leaves_its_place(web, later):
    """Cancelled anew while it closes, which httpx then never ends, a reader takes no connection from the next."""

    async def endless(request):
        async def blocks():
            yield b"first"
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)

        return StreamingResponse(blocks() if request.url.query else iter([b"x"]))

    web.on("GET /1/x", endless)
    async with aclosing(lanes(1)) as transport:

        async def read():
            reply = await transport.handle_async_request(asked(f"{web.url}/1/x?endless"))
            try:
                await reply.aread()
            finally:
                await reply.aclose()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        reading.cancel()
        for _ in range(later):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        reply = await transport.handle_async_request(asked(f"{web.url}/1/x", 1.0))
        assert await reply.aread() == b"x"
