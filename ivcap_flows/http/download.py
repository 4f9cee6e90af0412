"""Download into a file that appears whole, verified and durable, or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ivcap_flows.errors import ConfigurationError, InputError, IntegrityError, UnavailableError, UnreachableError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.session import Session, StreamedReply

__all__ = ["fetch"]

_log = logging.getLogger(__name__)

_BLOCK: Final = 1024 * 1024
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
    """Download `source` into the file `target`, which is replaced only by bytes that were verified and written out.

    A broken stream is resumed where it broke, within the session's retry budget counted from each progress. Raises
    IntegrityError when the bytes have another size or sha256 than given, InputError for a target that cannot be
    written, ConfigurationError for a full disk. Nothing is left behind on failure.
    """
    path = Path(os.path.abspath(target))  # noqa: ASYNC240 - reads the working directory only
    with _Partial(path) as partial:
        await _receive(session, source, partial)
        _verify(partial, size, sha256, urn or source.partition("?")[0])
        await asyncio.to_thread(partial.finish)
    return LocalFile(path=str(path), sha256=partial.sha256, size=partial.size)


def _verify(partial: _Partial, size: int | None, sha256: str | None, what: str) -> None:
    data = {"urn": what, "path": str(partial.target)}
    if size is not None and partial.size != size:
        raise IntegrityError(
            f"{what} gave {partial.size} bytes instead of {size}; {partial.target} was not written.",
            expected=size,
            found=partial.size,
            **data,
        )
    if sha256 is not None and partial.sha256 != sha256.lower():
        raise IntegrityError(
            f"{what} gave bytes with the sha256 {partial.sha256} instead of {sha256.lower()}; "
            f"{partial.target} was not written.",
            expected=sha256.lower(),
            found=partial.sha256,
            **data,
        )


async def _receive(session: Session, source: str, partial: _Partial) -> None:
    attempt, since, best = 0, time.monotonic(), 0
    validator: str | None = None
    while True:
        attempt += 1
        headers = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        if headers and validator:
            headers["If-Range"] = validator
        try:
            async with session.stream(
                "GET", source, headers=headers, repeat="idempotent", expect=(200, 206, 416) if headers else (200,)
            ) as reply:
                if reply.status == 200:
                    partial.restart()
                    validator = _strong(reply.headers.get("etag"))
                elif _first_byte(reply) != partial.size:
                    # 416 or other bytes than those asked for: begin anew, without a range.
                    partial.restart()
                    continue
                await _store(reply, partial)
                return
        except (UnreachableError, UnavailableError) as error:
            if partial.size > best:
                attempt, since, best = 1, time.monotonic(), partial.size
            wait = session.backoff.delay(attempt, error.data.get("retry_after"))
            if session.backoff.exhausted(time.monotonic() - since, wait):
                raise
            _log.info("The download of %s broke off: %s Going on in %.1f s.", partial.target, error, wait)
            await asyncio.sleep(wait)


def _first_byte(reply: StreamedReply) -> int | None:
    found = _RANGE.match(reply.headers.get("content-range", "").strip())
    return int(found[1]) if found else None


def _strong(etag: str | None) -> str | None:
    """An ETag that If-Range may carry: a strong one (RFC 9110, section 13.1.5)."""
    return etag if etag and etag.startswith('"') and len(etag) > 2 else None


async def _store(reply: StreamedReply, partial: _Partial) -> None:
    """Write the body as it arrives: one block is hashed and written in a thread while the next one is received."""
    gathered = bytearray()
    writing: asyncio.Future[None] | None = None
    try:
        async for block in reply.blocks():
            gathered += block
            if len(gathered) >= _BLOCK:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(partial.write, gathered))
                gathered = bytearray()
    finally:
        # What arrived before a break counts: the next request begins behind it.
        if writing is not None:
            await writing
        if gathered:
            await asyncio.to_thread(partial.write, gathered)


class _Partial:
    """The temporary file beside the target, with the size and sha256 of what it holds."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.size = 0
        self._hash = hashlib.sha256()
        self._temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.part")
        self._descriptor = -1

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __enter__(self) -> _Partial:
        if self.target.is_dir():
            raise InputError(f"{self.target} is a folder; name a file.", path=str(self.target))
        with self._explained():
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def write(self, block: bytes | bytearray) -> None:
        view = memoryview(block)
        with self._explained():
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._hash.update(block)
        self.size += len(block)

    def restart(self) -> None:
        with self._explained():
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.truncate(self._descriptor, 0)
        self._hash, self.size = hashlib.sha256(), 0

    def finish(self) -> None:
        """Make the bytes durable and give the file its name."""
        with self._explained():
            os.fsync(self._descriptor)
            os.replace(self._temporary, self.target)
        with suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if error.errno in _FULL:
                raise ConfigurationError(
                    f"There is no room for {self.target}: {reason}. Free space or choose another folder.",
                    path=str(self.target),
                ) from error
            raise InputError(
                f"{self.target} cannot be written: {reason}. Choose a folder that exists and may be written.",
                path=str(self.target),
            ) from error
