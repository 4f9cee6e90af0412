"""Connections for httpcore on asyncio itself, where its own go through anyio.

For every reply anyio starts and stops listening to the socket and asks it who its peer is: system calls that each let
another thread take the interpreter, and cost more than all else of a small request. Here a connection listens while it
is open and is asked for nothing, and the head of a request leaves together with a small body.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import anyio
import httpcore

__all__ = ["Network"]

_MOST_HELD: Final = 256 * 1024
"""Bytes that came and are not read yet, before the peer has to wait."""

_SMALL: Final = 16 * 1024
"""Bytes that wait for more to leave together with; the next read sends them."""

_JUST_NOW: Final = 0.02
"""Seconds for which a connection over which something came is taken to be open, unless the loop has heard otherwise."""

_NEXT_ADDRESS: Final = 0.25
"""Seconds until the next address of a host is tried beside the first (RFC 8305)."""


class Network(httpcore.AsyncNetworkBackend):
    """Opens connections by TCP, which may be encrypted afterwards."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        connecting = asyncio.get_running_loop().create_connection(
            _Stream,
            host,
            port,
            local_addr=None if local_address is None else (local_address, 0),
            happy_eyeballs_delay=_NEXT_ADDRESS,
        )
        try:
            with anyio.fail_after(timeout):
                _, stream = await connecting
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for option in socket_options or ():
            stream.socket.setsockopt(*option)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """The bytes of one connection, read by one reader and written by one writer at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._came = bytearray()
        self._held = bytearray()
        self._ended = False
        self._heard = 0.0
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False

    @property
    def socket(self) -> socket.socket:
        return cast("socket.socket", self._transport.get_extra_info("socket"))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What came, at most `max_bytes` of it; empty at the end."""
        if self._held:
            self._transport.write(self._taken())
        if not self._came and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            await _within(self._reader, timeout, httpcore.ReadTimeout)
        if not self._came and self._failure is not None:
            raise httpcore.ReadError(str(self._failure)) from self._failure
        with memoryview(self._came) as came:
            block = bytes(came[:max_bytes])
        del self._came[:max_bytes]
        if len(self._came) < _MOST_HELD:
            self._transport.resume_reading()
        return block

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hand bytes over; waits while too many are still to be sent."""
        if not self._transport.is_closing():
            if len(self._held) + len(buffer) < _SMALL:
                self._held += buffer
                return
            # Joining is a copy, which a large block that comes alone is spared.
            self._transport.write(self._taken() + buffer if self._held else buffer)
            if self._full:
                self._writer = asyncio.get_running_loop().create_future()
                await _within(self._writer, timeout, httpcore.WriteTimeout)
        if self._transport.is_closing():
            raise httpcore.WriteError(str(self._failure or "The connection was closed.")) from self._failure

    def _taken(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    async def aclose(self) -> None:
        # A whole reply leaves nothing to be sent, and what a request that was broken off still has is wanted no more.
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        turning = loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
        try:
            with anyio.fail_after(timeout):
                transport = await turning
        except TimeoutError as error:
            self._transport.abort()
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:  # ssl.SSLError is one
            self._transport.abort()
            raise httpcore.ConnectError(str(error)) from error
        if transport is None:
            raise httpcore.ConnectError("The connection was closed while it was being encrypted.")
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # An idle connection that has something to read was closed by its peer, of which the loop may not know yet.
            if self._ended or self._came or self._transport.is_closing():
                return True
            return time.monotonic() - self._heard > _JUST_NOW and _readable(self.socket.fileno())
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        self._heard = time.monotonic()
        if len(self._came) >= _MOST_HELD:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._failure = exc
        self._full = False
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def _within(waiting: asyncio.Future[None], timeout: float | None, late: Callable[[], Exception]) -> None:
    """Await a future for at most so many seconds; `wait_for` would make a task of it."""

    def expire() -> None:
        if not waiting.done():
            waiting.set_exception(late())

    alarm = None if timeout is None else waiting.get_loop().call_later(timeout, expire)
    try:
        await waiting
    finally:
        if alarm is not None:
            alarm.cancel()


def _readable(fileno: int) -> bool:
    if fileno < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([fileno], [], [], 0)[0])
    look = select.poll()
    look.register(fileno, select.POLLIN)
    return bool(look.poll(0))
