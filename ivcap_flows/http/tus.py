"""Upload a file in requests of limited size, and resume at the server's offset (tus 1.0.0 core protocol)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
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
from ivcap_flows.file_state import FileState, reading
from ivcap_flows.http.pauses import Retries, broke_off
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.secrets import logger_of
from ivcap_flows.threads import FILES

__all__ = ["BLOCK", "CHUNK", "patch", "send", "server_offset"]

_log = logger_of(__name__)

CHUNK: Final = 64 * 1024 * 1024
"""Bytes of one PATCH request: the most that is lost if a server discards partial requests."""

_LEAST: Final = 1024 * 1024
"""Requests are not made shorter than this number of bytes."""

BLOCK: Final = 1024 * 1024
"""Bytes to read and write at once. Measured over loopback: 64 KiB halves the throughput, 4 MiB gains nothing."""

_SILENCE: Final = 120.0
"""Seconds that a server may take to store a chunk."""

_VERSION: Final = {"Tus-Resumable": "1.0.0"}

Body = Callable[[int, int], AsyncIterator[bytes]]
"""Takes a position and a length, and returns an iterator over the blocks there, a new one for each request."""


async def server_offset(session: Session, target: str) -> int:
    """Return how many bytes the server has of the upload at `target`."""
    reply = await session.request("HEAD", target, headers=_VERSION, repeat="idempotent")
    offset = _offset_of(reply)
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
    """Send a file to the upload at `target`, from `offset` (default: the server's offset) to its end; return its size.

    `state` is the file's state when it was hashed (default: its current state). If the file differs, SourceChangedError
    is raised, and its last block is never sent. With `sha256`, the bytes are hashed while they are sent, and
    IntegrityError is raised before the last of them if the hash differs; the part that the server already has is read
    from the file. After a transient failure, the upload resumes at the server's offset, and the session's retry budget
    starts again with each progress. `progress` is called with each new offset. An empty file is announced by one empty
    request, which a server may refuse.
    """
    state = state or FileState.to_send(path)
    if state.size == 0:
        if sha256 is not None and sha256 != _Hash().hexdigest():
            raise _digest_differs(os.fspath(path), sha256, _Hash().hexdigest())
        await _announce_empty(session, target)
        return 0
    position = offset if offset is not None else await server_offset(session, target)
    sender = _ChunkSender(session, target, os.fspath(path), chunk=chunk, progress=progress)
    async with _Source(path, state, sha256) as source:
        while position < state.size:
            # Before the request, since the server would wait for its first block meanwhile.
            await source.hash_before(position)
            position = await sender.step(position, state.size - position, source.blocks)
    if position > state.size:
        raise SourceChangedError(
            f"The platform holds {position} bytes of {os.fspath(path)}, which has {state.size}; it is another upload.",
            path=os.fspath(path),
        )
    return state.size


async def _announce_empty(session: Session, target: str) -> None:
    """Tell the server that an upload is empty. A server that refuses empty requests has the complete record anyway."""
    try:
        await patch(session, target, 0)
    except (BadRequestError, ConflictError, InvalidParameterError) as error:
        _log.debug("An upload of no bytes needs no request here: %s", error)


class _ChunkSender:
    """The requests that advance one upload, each no longer than `chunk` bytes.

    A request that fails without progress is followed by shorter ones, for a link too slow for a whole chunk and for a
    gateway that accepts less (413). After a success they get longer again.
    """

    def __init__(
        self, session: Session, target: str, what: str, *, chunk: int, progress: Callable[[int], None] | None
    ) -> None:
        self._target = target
        self._session, self._chunk, self._progress = session, chunk, progress
        self._length = chunk
        self._retries = Retries(session.backoff, broke_off(f"upload of {what}"))

    async def step(self, position: int, left: int, body: Body) -> int:
        """Send the blocks of `body(position, length)`, at most `left` bytes; return the server's offset afterwards.

        Raises the error of a failure that is final, or that outlasts the session's budget.
        """
        length = min(self._length, left)
        try:
            reached = await patch(self._session, self._target, position, length, lambda: body(position, length))
        except (UnreachableError, UnavailableError, ConflictError, BadRequestError) as error:
            if isinstance(error, BadRequestError) and (error.data.get("status") != 413 or length <= _LEAST):
                raise
            await self._retries.wait(error)
            reached = await server_offset(self._session, self._target)
            if isinstance(error, ConflictError) and reached == position:
                raise
            if reached == position and length > _LEAST:
                self._length = max(_LEAST, length // 2)
        else:
            self._length = min(self._chunk, 2 * self._length)
        if reached > position:
            self._retries.begin_anew()
        if self._progress is not None:
            self._progress(reached)
        return reached


async def patch(
    session: Session,
    target: str,
    position: int,
    length: int = 0,
    body: Callable[[], AsyncIterator[bytes]] | None = None,
) -> int:
    """Send one PATCH request, empty without a body; return the offset that the server reached."""
    reply = await session.request(
        "PATCH",
        target,
        headers={
            **_VERSION,
            "Upload-Offset": str(position),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(length),
        },
        content=b"" if body is None else body,
        repeat="idempotent" if body is None else "unsafe",
        timeout=_SILENCE,
    )
    reached = _offset_of(reply)
    if reached is None:
        reached = await server_offset(session, target)
    if not position <= reached <= position + length:
        raise reply.violation(f"has the Upload-Offset {reached} after bytes {position} to {position + length}")
    return reached


def _digest_differs(what: str, expected: str, found: str) -> IntegrityError:
    """Return the error for bytes whose sha256 differs from the expected one."""
    return IntegrityError(
        f"The bytes of {what} have the sha256 {found}, not {expected} as before, so the last of them were not sent. "
        "Upload it again when nothing writes to it.",
        path=what,
        expected=expected,
        found=found,
    )


def _offset_of(reply: Reply) -> int | None:
    """Return the offset in a reply; None if it is absent or unreadable."""
    text = reply.headers.get("upload-offset", "").strip()
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
    """A file that is read in blocks, one ahead. Each block is given only while the file is still the announced one.

    With a `sha256`, the last block of the file is given only if the whole file matches it.
    """

    def __init__(self, path: str | os.PathLike[str], state: FileState, sha256: str | None) -> None:
        self._path = os.fspath(path)
        self._state = state
        self._sha256 = sha256
        self._before = _Hash()
        """The hash of the bytes before the current request."""
        self._hash = _Hash()
        self._file: BinaryIO | None = None
        self._ahead: asyncio.Task[bytes] | None = None
        self._closed = False
        self._step = threading.Lock()

    async def __aenter__(self) -> _Source:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wait_for_read()
        # A thread that reads continues after the upload is cancelled, so wait before closing its file.
        with self._step:
            self._closed = True
            if self._file is not None:
                self._file.close()

    async def blocks(self, position: int, length: int) -> AsyncIterator[bytes]:
        await self.hash_before(position)
        end = position + length
        reading = self._ahead = self._begin(position, end)
        while position < end:
            block = await reading
            position += len(block)
            if position < end:
                reading = self._ahead = self._begin(position, end)
            yield block

    def _begin(self, position: int, end: int) -> asyncio.Task[bytes]:
        return asyncio.create_task(FILES.run(self._block, position, min(BLOCK, end - position), self._hash))

    async def hash_before(self, position: int) -> None:
        """Hash the bytes before a request. Read them again if a request broke off, or if another process sent them."""
        await self._wait_for_read()
        if self._sha256 is None:
            return
        if self._hash.at != position:
            # A thread may still update the old hash, so continue with a copy.
            self._hash = self._before.copy() if self._before.at <= position else _Hash()
            while self._hash.at < position:
                self._ahead = self._begin(self._hash.at, position)
                await self._ahead
        self._before = self._hash.copy()

    async def _wait_for_read(self) -> None:
        """Wait for the read of a body that broke off."""
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    def _block(self, position: int, size: int, hashed: _Hash) -> bytes:
        with reading(self._path), self._step:
            if self._closed:
                return b""
            # The first read opens the file, since it runs in a thread anyway.
            self._file = self._file or open(self._path, "rb", 0)  # noqa: SIM115 - closed at the end of the upload
            block = os.pread(self._file.fileno(), size, position)
        # Check after the read, so that only bytes of the announced file are sent.
        if not block or self._now() != self._state:
            raise SourceChangedError(
                f"{self._path} changed while it was sent. Upload it again when nothing writes to it.", path=self._path
            )
        if self._sha256 is not None:
            hashed.add(block)
            if hashed.at == self._state.size and (found := hashed.hexdigest()) != self._sha256:
                raise _digest_differs(self._path, self._sha256, found)
        return block

    def _now(self) -> FileState | None:
        try:
            return FileState.of(self._path)
        except InputError:
            return None
