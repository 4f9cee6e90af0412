"""Connections in lanes: as many as one pool would have, and each place is free again."""

import asyncio
import socket
from contextlib import AsyncExitStack, aclosing

import httpx
import pytest
from starlette.responses import StreamingResponse

from ivcap_flows.http.lanes import Lanes


def lanes(at_once):
    return Lanes(at_once, 4.0, lambda limits: httpx.AsyncHTTPTransport(limits=limits))


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
        for one, other in ((0, 4), (1, 5)):  # lanes are taken by turns, so that both are of one
            for ended in (one, other):
                await replies[ended].aclose()
                await replies[ended].aclose()  # as at the end of the list again
            for _ in range(2):
                ends.push_async_callback((await transport.handle_async_request(asked(url, 1.0))).aclose)


async def test_a_failure_leaves_its_place(web):
    """What got no reply takes no place."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with aclosing(lanes(8)) as transport:
            for _ in range(3):
                with pytest.raises(httpx.ConnectError):
                    await transport.handle_async_request(asked(f"http://127.0.0.1:{taken.getsockname()[1]}/"))
            assert not any(lane.requests for lane in transport._lanes)


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
