"""Upload blocks that can be read only once, of known or unknown size, in bounded memory (tus 1.0.0, deferred length).

A stream cannot be read again, so one buffer keeps what is not acknowledged yet. If the size is unknown, the chunks say
so and a closing request gives the length, as ivcap-cli does (`pkg/artifact.go`). If a server refuses this, an upload of
deferred length is created at the data path, as ivcap-client 0.47.21 does for archives (`artifact.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final, cast

from ivcap_flows.errors import (
    BadRequestError,
    ConflictError,
    InputError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PlatformError,
)
from ivcap_flows.http.session import Session
from ivcap_flows.http.tus import BLOCK, VERSION, Steps, announce_empty, digest_differs, offset_of, patch, server_offset
from ivcap_flows.secrets import logger_of

__all__ = ["BUFFER", "Blocks", "send_blocks"]

_log = logger_of(__name__)

BUFFER: Final = 8 * 1024 * 1024
"""Bytes to keep until they are acknowledged, and of one request; near the 10 MB that ivcap-cli sends."""

Blocks = Iterable[bytes] | AsyncIterable[bytes] | BinaryIO
"""Blocks of bytes of any length, or an open binary file, which is read from its current position."""

_END: Final = cast(bytes, object())
"""A sentinel for the end of blocks. None is a possible block: a non-blocking file returns it."""

_REFUSED: Final = (BadRequestError, NotFoundError, ConflictError, InvalidParameterError)


async def send_blocks(
    session: Session,
    target: str,
    blocks: Blocks,
    *,
    size: int | None = None,
    sha256: str | None = None,
    offset: int | None = None,
    progress: Callable[[int], None] | None = None,
    buffer: int = BUFFER,
) -> int:
    """Send blocks to the upload at `target`; return how many bytes it has in all.

    The blocks are the whole content: those before `offset` (default: the server's offset) are skipped. Each block is
    read once; a broken request is repeated from the buffer. Raises InputError if the number of bytes is not `size`, and
    IntegrityError if their `sha256` differs, both before the last of them is sent; and any error that the blocks raise.
    """
    position = offset if offset is not None else await server_offset(session, target)
    steps = Steps(session, target, "a stream", chunk=buffer, progress=progress)
    headers = {"Upload-Defer-Length": "1"} if size is None else {}
    async with _Source(blocks, hashed=sha256 is not None) as source:
        await source.skip(position)
        while part := await source.take(buffer):
            begin, end = position, position + len(part)
            if source.exhausted:
                source.check(sha256)
            if size is not None and (end > size or (end == size) != source.exhausted):
                raise InputError(
                    f"The stream has {'more' if not source.exhausted or end > size else 'fewer'} bytes than the {size} "
                    "that were announced; its upload stays incomplete."
                )
            while position < end:
                try:
                    position = await steps.step(position, end - position, partial(_cut, part, begin), headers)
                except _REFUSED as refusal:
                    if size is not None or position or "Upload-Defer-Length" not in headers:
                        raise
                    steps.target, headers = await _deferred(session, target, refusal), {}
                if not begin <= position <= end:
                    raise IntegrityError(
                        f"The platform stands at {position} bytes of a stream of which {begin} to {end} are at hand.",
                        urn=target,
                        expected=begin,
                        found=position,
                    )
        source.check(sha256)
    if size is None:
        await _close(session, target, steps.target, position, headers)
    elif position == 0 == size:
        await announce_empty(session, target)
    elif position < size:
        raise InputError(f"The stream ended after {position} of the {size} bytes that were announced.")
    return position


async def _close(session: Session, target: str, upload: str, total: int, headers: dict[str, str]) -> None:
    """Send the length of an upload whose length was deferred."""
    length = {"Upload-Length": str(total)}
    try:
        await patch(session, upload, total, headers=length)
    except _REFUSED as refusal:
        if await _length(session, upload) == total:
            return  # a repeated request finds the upload already closed
        if total or not headers:
            raise
        await patch(session, await _deferred(session, target, refusal), 0, headers=length)


async def _deferred(session: Session, target: str, refusal: PlatformError) -> str:
    """Create an upload of deferred length for the record at `target`; return its URL. Raises `refusal` if refused."""
    try:
        reply = await session.request(
            "POST", target, headers={**VERSION, "Upload-Defer-Length": "1"}, content=b"", repeat="unsafe"
        )
    except _REFUSED:
        raise refusal from None
    location = reply.headers.get("location")
    if not location:
        raise reply.violation("has no Location")
    _log.info("Chunks without a length are refused at %s; going on at %s.", target, location.partition("?")[0])
    return session.own(location)


async def _length(session: Session, target: str) -> int | None:
    try:
        reply = await session.request("HEAD", target, headers=VERSION, repeat="idempotent")
    except PlatformError:
        return None
    return offset_of(reply, "upload-length")


async def _cut(part: bytearray, begin: int, position: int, length: int) -> AsyncIterator[bytes]:
    end = position + length - begin
    for at in range(position - begin, end, BLOCK):
        yield bytes(part[at : min(at + BLOCK, end)])


class _Source:
    """Collects blocks into parts of a given length. It holds one part, and the rest of its last block."""

    def __init__(self, blocks: Blocks, *, hashed: bool) -> None:
        self._held = bytearray()
        self._hash = hashlib.sha256() if hashed else None
        self.ended = False
        self._step = threading.Lock()
        self._slow: AsyncIterator[bytes] | None = None
        self._quick: Iterator[bytes] = iter(())
        self._generator = blocks if inspect.isgenerator(blocks) or inspect.isasyncgen(blocks) else None
        if isinstance(blocks, AsyncIterable):
            self._slow = aiter(blocks)
        elif hasattr(blocks, "read"):
            self._quick = iter(partial(cast(BinaryIO, blocks).read, BLOCK), b"")
        else:
            self._quick = iter(blocks)

    @property
    def exhausted(self) -> bool:
        """Whether no more bytes come after those taken."""
        return self.ended and not self._held

    def check(self, sha256: str | None) -> None:
        """Raise IntegrityError unless all bytes read have this sha256."""
        if self._hash is not None and sha256 is not None and (found := self._hash.hexdigest()) != sha256:
            raise digest_differs("the stream", sha256, found)

    async def __aenter__(self) -> _Source:
        return self

    async def __aexit__(self, *_: object) -> None:
        if inspect.isasyncgen(self._generator):
            await self._generator.aclose()
        elif inspect.isgenerator(self._generator):
            await asyncio.to_thread(self._close, self._generator)

    async def take(self, size: int) -> bytearray:
        """Return the next `size` bytes, fewer at the end, then none. Reads one block ahead to notice the end."""
        if self._slow is None:
            await asyncio.to_thread(self._gather, size)
        else:
            while len(self._held) <= size and not self.ended:
                try:
                    self._add(await anext(self._slow))
                except StopAsyncIteration:
                    self.ended = True
        part, self._held = self._held[:size], self._held[size:]
        return part

    async def skip(self, count: int) -> None:
        """Skip the first bytes. Raises InputError if there are not that many."""
        left = count
        while left > 0:
            part = await self.take(min(left, BUFFER))
            if not part:
                raise InputError(
                    f"The stream has {count - left} bytes, of which {count} are to be on the platform already."
                )
            left -= len(part)

    def _gather(self, size: int) -> None:
        with self._step:
            while len(self._held) <= size and not self.ended:
                block = next(self._quick, _END)
                if block is _END:
                    self.ended = True
                else:
                    self._add(block)

    def _close(self, generator: Generator[Any, Any, Any]) -> None:
        # A thread that runs the generator continues after a cancelled upload; the generator cannot be closed meanwhile.
        self.ended = True
        with self._step:
            generator.close()

    def _add(self, block: bytes) -> None:
        if not isinstance(block, bytes | bytearray | memoryview):
            raise InputError(f"A stream to upload gives blocks of bytes, not {type(block).__name__}.")
        if self._hash is not None:
            self._hash.update(block)
        self._held += block
