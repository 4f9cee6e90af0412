"""Connections kept open, each by itself, since a pool of httpcore gets slow with their number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import httpx

from ivcap_flows.http.waiting import within

__all__ = ["Lanes"]


class Lanes(httpx.AsyncBaseTransport):
    """At most `at_once` connections, each a lane that `make` gives; a request takes the one that was free last.

    For each request httpcore looks through all connections of its pool, with a system call for each idle one and
    another round over all for each: with 32 that takes twice the time of a small request itself.
    """

    def __init__(self, at_once: int, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._places = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._make = make
        self._all: set[httpx.AsyncBaseTransport] = set()
        self._free: list[httpx.AsyncBaseTransport] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises PoolTimeout when no lane is free within the request's `pool` timeout."""
        await self._place(request)
        try:
            lane = self._free.pop() if self._free else self._new()
        except BaseException:
            self._give_back()
            raise
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._leave(lane, whole=False)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, lambda whole: self._leave(lane, whole=whole))
        return response

    async def aclose(self) -> None:
        for lane in list(self._all):
            await lane.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _new(self) -> httpx.AsyncBaseTransport:
        lane = self._make()
        self._all.add(lane)
        return lane

    def _leave(self, lane: httpx.AsyncBaseTransport, *, whole: bool) -> None:
        """Free a place, and keep its lane for the next request where the last one ended whole.

        No connection is left of a reply that broke off. One of httpx is closed in a task that nobody cancels: cancelled
        while it ends, it would take itself to be in use for ever.
        """
        if whole:
            self._free.append(lane)
        else:
            self._all.discard(lane)
            closing = asyncio.ensure_future(lane.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._give_back()

    async def _place(self, request: httpx.Request) -> None:
        """Take a place, in the order of asking."""
        if self._places:
            self._places -= 1
            return
        patience = request.extensions["timeout"]["pool"]
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await within(turn, patience, lambda: httpx.PoolTimeout("No connection is free.", request=request))
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It came at the moment of being cancelled.
                self._give_back()
            raise

    def _give_back(self) -> None:
        """Free a place, for the next who waits for one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._places += 1


class _Body(httpx.AsyncByteStream):
    """The body of a reply, whose end frees its lane; a response of httpx closes it once."""

    def __init__(self, body: httpx.AsyncByteStream, leave: Callable[[bool], None]) -> None:
        self._body = body
        self._leave = leave
        self._whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._body:
            yield block
        self._whole = True

    async def aclose(self) -> None:
        whole = False
        try:
            await self._body.aclose()
            whole = self._whole
        finally:
            self._leave(whole)
