"""Many connections in several small pools, since a pool of httpcore gets slow with their number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx

__all__ = ["Lanes"]

_WIDTH: Final = 2
"""Connections of one lane."""


class Lanes(httpx.AsyncBaseTransport):
    """At most `at_once` connections, kept open for `keep` seconds, in lanes: a request takes the emptiest.

    For each request httpcore looks through all connections of its pool, with a system call for each idle one and
    another round over all for each: with 32 that takes twice the time of a small request itself. `make` gives the
    transport of a lane.
    """

    def __init__(self, at_once: int, keep: float, make: Callable[[httpx.Limits], httpx.AsyncHTTPTransport]) -> None:
        width = min(_WIDTH, at_once)
        # All that were needed at once are kept: with fewer, each of many requests would open and close a connection.
        limits = httpx.Limits(max_connections=width, max_keepalive_connections=width, keepalive_expiry=keep)
        self._lanes = [_Lane(make(limits)) for _ in range(at_once // width)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lane = min(self._lanes, key=_Lane.load)
        lane.requests += 1
        try:
            response = await lane.transport.handle_async_request(request)
        except BaseException:
            lane.requests -= 1
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, lane)
        return response

    async def aclose(self) -> None:
        for lane in self._lanes:
            await lane.transport.aclose()


class _Lane:
    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.requests = 0

    def load(self) -> int:
        """The requests that were sent or wait to be, until their replies are closed."""
        return self.requests


class _Body(httpx.AsyncByteStream):
    """The body of a reply, whose end frees a place in its lane; a response of httpx closes it once."""

    def __init__(self, body: httpx.AsyncByteStream, lane: _Lane) -> None:
        self._body = body
        self._lane = lane

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._lane.requests -= 1
