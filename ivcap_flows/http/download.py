"""Download in bounded memory: into a file that appears whole, verified and durable, or as a stream of blocks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ivcap_flows.errors import ConfigurationError, InputError, IntegrityError, UnavailableError, UnreachableError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.pauses import Retries, broke_off
from ivcap_flows.http.session import Session, StreamedReply
from ivcap_flows.secrets import logger_of
from ivcap_flows.threads import FILES
from ivcap_flows.whole_file import sync_folder

__all__ = ["BLOCK", "explained", "fetch", "save", "store", "stream", "verify"]

_log = logger_of(__name__)

BLOCK: Final = 1024 * 1024
"""Default bytes of a block."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def fetch(
    session: Session,
    source: str,
    target: str | os.PathLike[str],
    *,
    size: int | None = None,
    sha256: str | None = None,
    urn: str | None = None,
) -> LocalFile:
    """Download `source` into the file `target`, which is replaced only after the content is verified and on disk.

    A broken stream resumes where it broke, within the session's retry budget, which starts again with each progress.
    Raises IntegrityError if the size or sha256 differs from the given one, InputError for a target that cannot be
    written, ConfigurationError for a full disk. A failure leaves nothing behind.
    """
    what = urn or source.partition("?")[0]
    return await store(_pieces(session, source), target, size=size, sha256=sha256, urn=what)


async def store(
    pieces: AsyncGenerator[tuple[int, bytes], None],
    target: str | os.PathLike[str],
    *,
    size: int | None = None,
    sha256: str | None = None,
    urn: str,
) -> LocalFile:
    """Write pieces into the file `target` as they arrive, as `fetch` does. A piece at position 0 starts again."""
    with _Partial(Path(os.path.abspath(target))) as partial:  # noqa: ASYNC240 - reads the working directory only
        async with aclosing(pieces):
            await _store(pieces, partial)
        return await _finished(partial, size, sha256, urn)


async def save(
    content: bytes, target: str | os.PathLike[str], *, sha256: str | None = None, urn: str = "The content"
) -> LocalFile:
    """Write given bytes into a file, as `fetch` does."""
    with _Partial(Path(os.path.abspath(target))) as partial:  # noqa: ASYNC240
        await FILES.run(partial.write, content)
        return await _finished(partial, len(content), sha256, urn)


async def stream(
    session: Session,
    source: str,
    *,
    size: int | None = None,
    sha256: str | None = None,
    urn: str | None = None,
    block: int = BLOCK,
) -> AsyncGenerator[bytes, None]:
    """Yield the content of `source` in blocks of `block` bytes; the last may be shorter. One block is held in memory.

    Resumes as `fetch` does. Raises IntegrityError after the last block, or earlier, if the size or sha256 differs from
    the given one, or if a server that starts again sends other bytes.
    """
    what = urn or source.partition("?")[0]
    given = hashlib.sha256()
    count = end = 0
    gathered = bytearray()
    again = hashlib.sha256()
    async with aclosing(_pieces(session, source)) as pieces:
        async for position, piece in pieces:
            if position == 0:
                again = hashlib.sha256()
            end = position + len(piece)
            if position < count:  # started again: these bytes were yielded before
                known = piece[: count - position]
                again.update(known)
                if end >= count and again.digest() != given.digest():
                    raise _changed(what, given.hexdigest(), again.hexdigest())
                piece = piece[len(known) :]
            given.update(piece)
            count += len(piece)
            if size is not None and count > size:
                break
            gathered += piece
            while len(gathered) >= block:
                yield bytes(gathered[:block])
                del gathered[:block]
    if end < count:
        raise _changed(what, given.hexdigest(), again.hexdigest())
    if gathered:
        yield bytes(gathered)
    _verify(what, count, given.hexdigest(), size, sha256)


def _changed(what: str, expected: str, found: str) -> IntegrityError:
    fault = f"{what} changed while it was read: the bytes that were sent again differ."
    return IntegrityError(fault, urn=what, expected=expected, found=found)


async def _finished(partial: _Partial, size: int | None, sha256: str | None, what: str) -> LocalFile:
    """Verify the file and give it its name."""
    path = str(partial.target)
    _verify(what, partial.size, partial.sha256, size, sha256, path)
    await FILES.run(partial.finish)
    return LocalFile(path=path, sha256=partial.sha256, size=partial.size)


def verify(what: str, content: bytes, sha256: str | None) -> None:
    """Raise IntegrityError if content has another sha256 than the given one."""
    if sha256 is not None:
        _verify(what, len(content), hashlib.sha256(content).hexdigest(), None, sha256)


def _verify(
    what: str, size: int, sha256: str, wanted_size: int | None, wanted_sha256: str | None, path: str | None = None
) -> None:
    data = {"urn": what, **({"path": path} if path else {})}
    unwritten = f"; {path} was not written." if path else "."
    if wanted_size is not None and size != wanted_size:
        found = f"more than {wanted_size} bytes" if size > wanted_size else f"{size} bytes instead of {wanted_size}"
        raise IntegrityError(f"{what} gave {found}{unwritten}", expected=wanted_size, found=size, **data)
    if wanted_sha256 is not None and sha256 != wanted_sha256.lower():
        raise IntegrityError(
            f"{what} gave bytes with the sha256 {sha256} instead of {wanted_sha256.lower()}{unwritten}",
            expected=wanted_sha256.lower(),
            found=sha256,
            **data,
        )


async def _pieces(session: Session, source: str) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield the content as it arrives, each piece with its position.

    After a break, continue where the last piece ended. If the server cannot resume there, it starts again: the next
    position is 0, and that piece may be empty.
    """
    retries = Retries(session.backoff, broke_off(f"download of {source.partition('?')[0]}"))
    best = position = 0
    validator: str | None = None
    while True:
        headers = {"Range": f"bytes={position}-"} if position else {}
        if headers and validator:
            headers["If-Range"] = validator
        try:
            async with session.stream(
                "GET", source, headers=headers, repeat="idempotent", expect=(200, 206, 416) if headers else (200,)
            ) as reply:
                if reply.status == 200:
                    validator = _strong(reply.headers.get("etag"))
                if reply.status == 200 or _first_byte(reply) != position:
                    position = 0
                    yield 0, b""
                if reply.status != 200 and position == 0:
                    continue  # 416, or another range than requested: ask again without a range
                async for block in reply.blocks():
                    yield position, block
                    position += len(block)
                return
        except (UnreachableError, UnavailableError) as error:
            if position > best:
                best = position
                retries.begin_anew()
            await retries.wait(error)


def _first_byte(reply: StreamedReply) -> int | None:
    found = _RANGE.match(reply.headers.get("content-range", "").strip())
    return int(found[1]) if found else None


def _strong(etag: str | None) -> str | None:
    """Return an ETag that If-Range may contain, which is a strong one (RFC 9110, section 13.1.5); else None."""
    return etag if etag and etag.startswith('"') and len(etag) > 2 else None


async def _store(pieces: AsyncIterator[tuple[int, bytes]], partial: _Partial) -> None:
    """Write the body as it arrives. A thread hashes and writes one block while the next one is received."""
    gathered = bytearray()
    writing: asyncio.Future[None] | None = None
    try:
        async for position, piece in pieces:
            if position == 0:
                if writing is not None:
                    await writing
                writing, gathered = None, bytearray()
                partial.restart()
            gathered += piece
            if len(gathered) >= BLOCK:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(FILES.run(partial.write, gathered))
                gathered = bytearray()
    finally:
        if writing is not None:
            await writing
    if gathered:
        await FILES.run(partial.write, gathered)


class _Partial:
    """The temporary file beside the target, with the size and sha256 of its content.

    A thread that writes continues after the download is cancelled. The file's descriptor may then be closed and its
    number be reused for another file. So each step holds the lock and does nothing after the file is closed.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.size = 0
        self._hash = hashlib.sha256()
        self._temporary = target.parent / f".{target.name[:100]}.{secrets.token_hex(6)}.part"
        self._descriptor = -1
        self._step = threading.Lock()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __enter__(self) -> _Partial:
        if os.path.isdir(self.target):
            raise InputError(f"{self.target} is a folder; name a file.", path=str(self.target))
        with explained(self.target):
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        with self._step:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def write(self, block: bytes | bytearray) -> None:
        view = memoryview(block)
        with self._step, explained(self.target):
            if self._descriptor < 0:
                return
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._hash.update(block)
        self.size += len(block)

    def restart(self) -> None:
        with explained(self.target):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.truncate(self._descriptor, 0)
        self._hash, self.size = hashlib.sha256(), 0

    def finish(self) -> None:
        """Sync the content to disk and give the file its name."""
        with self._step, explained(self.target):
            if self._descriptor < 0:
                return
            os.fsync(self._descriptor)
            os.replace(self._temporary, self.target)
            sync_folder(self.target.parent)


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn failures to write below `target` into errors that name it.

    ConfigurationError for a full disk, otherwise InputError.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        # A path with a NUL or half a surrogate pair is a ValueError.
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _FULL:
            raise ConfigurationError(
                f"There is no room for {target}: {reason}. Free space or choose another folder.", path=str(target)
            ) from error
        raise InputError(
            f"{target} cannot be written: {reason}. Choose a folder that exists and may be written.", path=str(target)
        ) from error
