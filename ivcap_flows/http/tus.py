"""Upload of a file in bounded requests that resumes where the server stands (tus 1.0.0 core protocol)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, BinaryIO, Final

from ivcap_flows.errors import (
    BadRequestError,
    ConflictError,
    InputError,
    IntegrityError,
    InvalidParameterError,
    SourceChangedError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.file_state import FileState
from ivcap_flows.http.pauses import Breaks
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.secrets import logger_of

__all__ = [
    "BLOCK",
    "CHUNK",
    "VERSION",
    "Body",
    "Steps",
    "announce_empty",
    "digest_differs",
    "offset_of",
    "patch",
    "send",
    "server_offset",
]

_log = logger_of(__name__)

CHUNK: Final = 64 * 1024 * 1024
"""Bytes of one PATCH request: what a server that keeps no partial request loses at most when a connection breaks."""

_LEAST: Final = 1024 * 1024
"""Bytes below which a request is not made shorter."""

BLOCK: Final = 1024 * 1024
"""Bytes read and written at once. Measured over loopback: 64 KiB costs half the throughput, 4 MiB gains nothing."""

_SILENCE: Final = 120.0
"""Seconds that a server may take to store a chunk."""

VERSION: Final = {"Tus-Resumable": "1.0.0"}

Body = Callable[[int, int], AsyncIterator[bytes]]
"""Gives the blocks of so many bytes from a position on, anew for each request."""


async def server_offset(session: Session, target: str) -> int:
    """How many bytes the server has of the upload at `target`."""
    reply = await session.request("HEAD", target, headers=VERSION, repeat="idempotent")
    offset = offset_of(reply)
    if offset is None:
        raise reply.violation("has no Upload-Offset")
    return offset


async def send(
    session: Session,
    target: str,
    path: str | os.PathLike[str],
    *,
    offset: int | None = None,
    state: FileState | None = None,
    sha256: str | None = None,
    progress: Callable[[int], None] | None = None,
    chunk: int = CHUNK,
) -> int:
    """Send a file to the upload at `target`, from `offset` (default: where the server stands) to its end; its size.

    `state` is what the file was when it was hashed (default: what it is now); a file that differs raises
    SourceChangedError, and its last block is then never sent. With `sha256`, the bytes are hashed as they leave, and
    IntegrityError is raised before the last of them where they have another; what the server has already is read from
    the file. After a transient failure the server's offset decides where to go on; the session's retry budget counts
    anew from each progress. `progress` is told each new offset. An empty file is announced by one empty request, which
    a server may refuse.
    """
    state = state or FileState.of(path)
    if state.size == 0:
        if sha256 is not None and sha256 != _Hash().hexdigest():
            raise digest_differs(os.fspath(path), sha256, _Hash().hexdigest())
        await announce_empty(session, target)
        return 0
    position = offset if offset is not None else await server_offset(session, target)
    steps = Steps(session, target, os.fspath(path), chunk=chunk, progress=progress)
    async with _Source(path, state, sha256) as source:
        while position < state.size:
            position = await steps.step(position, state.size - position, source.blocks)
    if position > state.size:
        raise SourceChangedError(
            f"The platform holds {position} bytes of {os.fspath(path)}, which has {state.size}; it is another upload.",
            path=os.fspath(path),
        )
    return state.size


async def announce_empty(session: Session, target: str) -> None:
    """Say that an upload has no bytes. A server that takes no empty request has had its record all the same."""
    try:
        await patch(session, target, 0)
    except (BadRequestError, ConflictError, InvalidParameterError) as error:
        _log.info("An upload of no bytes needs no request here: %s", error)


class Steps:
    """The requests that bring one upload forward, each no longer than `chunk` bytes.

    A request that fails without progress is followed by shorter ones: for a link too slow for a whole chunk, and for
    a gateway that takes less (413). Success makes them longer again.
    """

    def __init__(
        self, session: Session, target: str, what: str, *, chunk: int, progress: Callable[[int], None] | None
    ) -> None:
        self.target = target
        self._session, self._what, self._chunk, self._progress = session, what, chunk, progress
        self._length = chunk
        self._breaks = Breaks(session.backoff)

    async def step(self, position: int, left: int, body: Body, headers: Mapping[str, str] | None = None) -> int:
        """Send what `body(position, length)` gives, at most `left` bytes; where the server stands afterwards.

        Raises the error of a failure that is final, or that lasts beyond the session's budget.
        """
        length = min(self._length, left)
        try:
            reached = await patch(
                self._session, self.target, position, length, lambda: body(position, length), headers or {}
            )
        except (UnreachableError, UnavailableError, ConflictError, BadRequestError) as error:
            if isinstance(error, BadRequestError) and (error.data.get("status") != 413 or length <= _LEAST):
                raise
            await self._breaks.wait(error, f"upload of {self._what}")
            reached = await server_offset(self._session, self.target)
            if isinstance(error, ConflictError) and reached == position:
                raise
            if reached == position and length > _LEAST:
                self._length = max(_LEAST, length // 2)
        else:
            self._length = min(self._chunk, 2 * self._length)
        if reached > position:
            self._breaks.begin_anew()
        if self._progress is not None:
            self._progress(reached)
        return reached


async def patch(
    session: Session,
    target: str,
    position: int,
    length: int = 0,
    body: Callable[[], AsyncIterator[bytes]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """One PATCH request, empty without a body; the offset that the server reached."""
    reply = await session.request(
        "PATCH",
        target,
        headers={
            **VERSION,
            "Upload-Offset": str(position),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(length),
            **(headers or {}),
        },
        content=b"" if body is None else body,
        repeat="idempotent" if body is None else "unsafe",
        timeout=_SILENCE,
    )
    reached = offset_of(reply)
    if reached is None:
        reached = await server_offset(session, target)
    if not position <= reached <= position + length:
        raise reply.violation(f"has the Upload-Offset {reached} after bytes {position} to {position + length}")
    return reached


def digest_differs(what: str, expected: str, found: str) -> IntegrityError:
    """The error for bytes that have another sha256 than the one under which they were to be sent."""
    return IntegrityError(
        f"The bytes of {what} have the sha256 {found}, not {expected} as before, so the last of them were not sent. "
        "Upload it again when nothing writes to it.",
        path=what,
        expected=expected,
        found=found,
    )


def offset_of(reply: Reply, header: str = "upload-offset") -> int | None:
    """The number of bytes in a header of a reply; None when absent or unreadable."""
    text = reply.headers.get(header, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


class _Hash:
    """The sha256 of all bytes up to a position."""

    def __init__(self, at: int = 0, hasher: Any = None) -> None:
        self.at = at
        self._hasher = hashlib.sha256() if hasher is None else hasher

    def add(self, block: bytes) -> None:
        self._hasher.update(block)
        self.at += len(block)

    def copy(self) -> _Hash:
        return _Hash(self.at, self._hasher.copy())

    def hexdigest(self) -> str:
        found: str = self._hasher.hexdigest()
        return found


class _Source:
    """A file that is read in blocks, one ahead, and checked to be the one that was announced before each is given.

    The block that is the last of the file is given only if all of them have the `sha256`.
    """

    def __init__(self, path: str | os.PathLike[str], state: FileState, sha256: str | None) -> None:
        self._path = os.fspath(path)
        self._state = state
        self._sha256 = sha256
        self._before = _Hash()
        """Of what lies before the request."""
        self._hash = _Hash()
        self._file: BinaryIO | None = None
        self._ahead: asyncio.Task[bytes] | None = None
        self._closed = False
        self._step = threading.Lock()

    async def __aenter__(self) -> _Source:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._visibility_delay()
        # A thread that reads goes on when the upload is cancelled; the file is not closed under it.
        with self._step:
            self._closed = True
            if self._file is not None:
                self._file.close()

    async def blocks(self, position: int, length: int) -> AsyncIterator[bytes]:
        await self._visibility_delay()
        await self._hash_before(position)
        end = position + length
        reading = self._ahead = self._begin(position, end)
        while position < end:
            block = await reading
            position += len(block)
            if position < end:
                reading = self._ahead = self._begin(position, end)
            yield block

    def _begin(self, position: int, end: int) -> asyncio.Task[bytes]:
        return asyncio.create_task(asyncio.to_thread(self._block, position, min(BLOCK, end - position), self._hash))

    async def _hash_before(self, position: int) -> None:
        """Hash what lies before a request. It is read again where one broke off, or where another process sent it."""
        if self._sha256 is None:
            return
        if self._hash.at != position:
            # A thread may still be at the other.
            self._hash = self._before.copy() if self._before.at <= position else _Hash()
            while self._hash.at < position:
                self._ahead = self._begin(self._hash.at, position)
                await self._ahead
        self._before = self._hash.copy()

    async def _visibility_delay(self) -> None:
        """Wait for a read of a body that broke off."""
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    def _block(self, position: int, size: int, hashed: _Hash) -> bytes:
        try:
            with self._step:
                if self._closed:
                    return b""
                # Opened by the first read, which is in a thread anyway.
                self._file = self._file or open(self._path, "rb", 0)  # noqa: SIM115 - closed at the end of the upload
                block = os.pread(self._file.fileno(), size, position)
        except OSError as error:
            raise self._unreadable(error) from error
        # After the read: what was read is what was announced, or it is not sent.
        if not block or self._now() != self._state:
            raise SourceChangedError(
                f"{self._path} changed while it was sent. Upload it again when nothing writes to it.", path=self._path
            )
        if self._sha256 is not None:
            hashed.add(block)
            if hashed.at == self._state.size and (found := hashed.hexdigest()) != self._sha256:
                raise digest_differs(self._path, self._sha256, found)
        return block

    def _now(self) -> FileState | None:
        try:
            return FileState.of(self._path)
        except InputError:
            return None

    def _unreadable(self, error: OSError) -> InputError:
        reason = error.strerror or type(error).__name__
        return InputError(f"{self._path} cannot be read: {reason}.", path=self._path)
