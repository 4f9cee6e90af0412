"""A connection that speaks HTTP/1.1: asyncio's own transport and the parser of httptools, under httpx's interface.

Those of httpcore take more of the processor than all else of a small request: h11 reads replies in Python, and anyio
starts and stops listening to the socket for each. Here a connection listens while it is open.

Source of the rules: RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
import time
from collections.abc import AsyncIterator
from typing import Final, cast

import anyio
import httptools
import httpx

from ivcap_flows.http.waiting import within

__all__ = ["Connection"]

_MOST_HELD: Final = 256 * 1024
"""Bytes of a body that came and are not read yet, before the peer has to wait."""

_LONGEST_HEAD: Final = 100 * 1024
"""Bytes of a reply before its body."""

_SMALL: Final = 16 * 1024
"""Bytes of a body that leave together with the head; joining is a copy, which a large one is spared."""

_JUST_NOW: Final = 0.02
"""Seconds for which a connection over which something came is taken to be open, unless the loop has heard otherwise."""

_NEXT_ADDRESS: Final = 0.25
"""Seconds until the next address of a host is tried beside the first (RFC 8305)."""

_NO_TOKEN: Final = re.compile(rb"[^\w!#$%&'*+.^`|~-]", re.ASCII)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMED: Final = frozenset({b"content-length", b"transfer-encoding"})


class Connection(httpx.AsyncBaseTransport):
    """A connection to one host, opened when a request needs it, for one request at a time.

    Encrypted where `trust` is given; after `kept` seconds without use another is opened. A request has the `timeout`
    extension of httpx, whole. Raises httpx's exceptions: ConnectError and ConnectTimeout before a byte has left,
    LocalProtocolError for what cannot be sent as HTTP.
    """

    def __init__(self, trust: ssl.SSLContext | None, kept: float) -> None:
        self._trust = trust
        self._kept = kept
        self._wire: _Wire | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        patience: dict[str, float | None] = request.extensions["timeout"]
        head = _head(request)
        if self._wire is None or not self._wire.is_usable(self._kept):
            await self.aclose()
            self._wire = await self._opened(request.url, patience["connect"])
        wire = self._wire
        wire.expect(request.method)
        wire.sent = await _send(wire, head, request, patience["write"])
        await wire.until_head(patience["read"])
        return httpx.Response(wire.status, headers=wire.headers, stream=_Body(wire, patience["read"]))

    async def aclose(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    async def _opened(self, url: httpx.URL, patience: float | None) -> _Wire:
        host = url.raw_host.decode("ascii")
        opening = asyncio.get_running_loop().create_connection(
            _Wire,
            host,
            url.port or (80 if self._trust is None else 443),
            ssl=self._trust,
            server_hostname=None if self._trust is None else host,
            happy_eyeballs_delay=_NEXT_ADDRESS,
        )
        try:
            with anyio.fail_after(patience):
                return (await opening)[1]
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:  # ssl.SSLError is one
            raise httpx.ConnectError(str(error)) from error


class _Body(httpx.AsyncByteStream):
    """The body of the reply at hand; a connection whose reply is not read to its end is closed."""

    def __init__(self, wire: _Wire, patience: float | None) -> None:
        self._wire = wire
        self._patience = patience

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while block := await self._wire.block(self._patience):
            yield block

    async def aclose(self) -> None:
        if not self._wire.is_over():
            self._wire.abort()


class _Wire(asyncio.Protocol):
    """The bytes of a connection: those of one request go out, and those that come are its reply."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False
        self._heard = time.monotonic()
        self._failure: Exception | None = None
        self._blocks: list[bytes] = []
        self._held = 0
        # As after a reply: it is usable from the start.
        self.whole = True
        self.sent = True
        self._kept = True

    def expect(self, method: str) -> None:
        """The next bytes are the reply to a request of this method."""
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = method == "HEAD"
        self._came = 0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole = self.sent = self._kept = False

    def is_over(self) -> bool:
        """Whether nothing of the request and its reply is still to come."""
        return self.whole and self.sent and not self._blocks

    def is_usable(self, kept: float) -> bool:
        """Whether another request may be sent, at most `kept` seconds after something came."""
        if not (self.is_over() and self._kept) or self._transport.is_closing():
            return False
        idle = time.monotonic() - self._heard
        # What an idle connection has to read is the end that its peer gave it, of which the loop may not know yet.
        return idle < _JUST_NOW or (idle < kept and not _readable(self._transport.get_extra_info("socket").fileno()))

    def abort(self) -> None:
        # A whole reply leaves nothing to be sent, and what a request that was broken off still has is wanted no more.
        self._transport.abort()

    async def write(self, data: bytes, patience: float | None) -> bool:
        """Hand bytes over, waiting while too many are still to be sent; whether any more make sense."""
        # Whether a reply came before the connection broke or the request was whole is seen by who reads.
        if self.whole or self._transport.is_closing():
            return False
        self._transport.write(data)
        if self._full:
            self._writer = asyncio.get_running_loop().create_future()
            await within(self._writer, patience, lambda: httpx.WriteTimeout("The peer takes no more."))
        return True

    async def until_head(self, patience: float | None) -> None:
        """Wait until status and headers are there."""
        while not self.status:
            await self._more(patience)

    async def block(self, patience: float | None) -> bytes:
        """What came of the body; empty at its end."""
        while not self._blocks:
            if self.whole:
                return b""
            await self._more(patience)
        block = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        self._blocks.clear()
        self._held = 0
        self._transport.resume_reading()
        return block

    async def _more(self, patience: float | None) -> None:
        if self._failure is not None:
            raise self._failure
        self._reader = asyncio.get_running_loop().create_future()
        await within(self._reader, patience, lambda: httpx.ReadTimeout("Nothing came."))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        if self.whole:
            # Nobody has asked for it.
            self._kept = False
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"The reply is no HTTP: {error}"))
        if not self.status:
            self._came += len(data)
            if self._came > _LONGEST_HEAD:
                self._fail(httpx.RemoteProtocolError(f"The head of the reply is larger than {_LONGEST_HEAD} bytes."))
        if self._held >= _MOST_HELD:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> None:
        # An orderly end, which is also that of a body without a length.
        if not self.whole and self._failure is None and self.status:
            self.whole = not _FRAMED.intersection(name.lower() for name, _ in self.headers)
        self._fail(httpx.RemoteProtocolError("The peer closed the connection before its reply was whole."))
        _wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._full = False
        self._fail(httpx.ReadError(str(exc or "The connection was closed.")))
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    def on_message_begin(self) -> None:
        if self.whole:
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are of no use here. The parser leaves the blanks behind a value to others.
        if not self.status:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self.status:
            self.status = status
            if self._bodiless:
                self._complete()

    def on_body(self, body: bytes) -> None:
        if not self.whole:
            self._blocks.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete()
        else:
            # An interim reply (1xx); the one that counts follows.
            self.headers.clear()

    def _complete(self) -> None:
        if not self.whole:
            self.whole = True
            self._kept = self._stays_after_head() if self._bodiless else self._parser.should_keep_alive()

    def _stays_after_head(self) -> bool:
        """Whether the peer keeps the connection; the parser takes a missing length for a body up to its end."""
        closing = any(name.lower() == b"connection" and value.lower() == b"close" for name, value in self.headers)
        return self._parser.get_http_version() == "1.1" and not closing

    def _fail(self, failure: Exception) -> None:
        self._kept = False
        if self._failure is None and not self.whole:
            self._failure = failure


def _head(request: httpx.Request) -> bytes:
    """The request line and the headers. Raises LocalProtocolError where one of them would end its line."""
    headers = request.headers.raw
    target = request.url.raw_path
    if (
        _NO_TOKEN.search(request.method.encode() + b"".join([name for name, _ in headers]))
        or _CONTROL.search(b"".join([value for _, value in headers]))
        or _CONTROL.search(target)
        or b" " in target
    ):
        raise httpx.LocalProtocolError("A header or the URL holds a character that HTTP does not allow there.")
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), target)]
    lines += [b"%s: %s" % header for header in headers]
    return b"\r\n".join([*lines, b"\r\n"])


async def _send(wire: _Wire, head: bytes, request: httpx.Request, patience: float | None) -> bool:
    """Whether all of it has left; not where the reply came before the end, or the connection is gone."""
    if isinstance(request.stream, httpx.ByteStream):
        body = request.content
        if len(body) < _SMALL:
            return await wire.write(head + body, patience)
        return await wire.write(head, patience) and await wire.write(body, patience)
    declared = request.headers.get("content-length")
    left = None if declared is None else int(declared)
    assert isinstance(request.stream, httpx.AsyncByteStream)
    await wire.write(head, patience)
    async for block in request.stream:
        if left is not None:
            left -= len(block)
            if left < 0:
                break
        # A chunk of no bytes would be the last one.
        told = block if left is not None or not block else b"%x\r\n%s\r\n" % (len(block), block)
        if block and not await wire.write(told, patience):
            return False
    if left:
        raise httpx.LocalProtocolError(f"The body is not as long as its Content-Length, {declared}, says.")
    return left is not None or await wire.write(b"0\r\n\r\n", patience)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _readable(fileno: int) -> bool:
    if fileno < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([fileno], [], [], 0)[0])
    look = select.poll()
    look.register(fileno, select.POLLIN)
    return bool(look.poll(0))
