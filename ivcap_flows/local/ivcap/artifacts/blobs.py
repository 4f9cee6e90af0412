"""Bytes of artifacts on disk: received in large blocks, synced to disk before they are acknowledged, sent in ranges."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ivcap_flows.local.directory import FULL_DISK, need_space, sync_folder
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.replies import media_type

__all__ = ["BlobResponse", "BodyTooLongError", "receive"]

_BLOCK: Final = 4 * 1024 * 1024
_SYNC_EVERY: Final = 64 * 1024 * 1024
_SEND_BLOCK: Final = 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_pool: Final = ThreadPoolExecutor(8, thread_name_prefix="blob")


class BodyTooLongError(Exception):
    """The body has more bytes than the artifact may have."""


class _Writer:
    """Writes blocks one after another. `at` is its position, even if a write fails half-way."""

    def __init__(self, path: Path, offset: int) -> None:
        new = not path.exists()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.at = self.synced = offset
        try:
            # The bytes after the offset were never acknowledged.
            os.ftruncate(self._fd, offset)
            if new:
                sync_folder(path.parent)
                sync_folder(path.parent.parent)
        except OSError:
            os.close(self._fd)
            raise

    def write(self, parts: list[bytes]) -> None:
        while parts:
            done = os.pwritev(self._fd, parts[:512], self.at)
            self.at += done
            while parts and done >= len(parts[0]):
                done -= len(parts.pop(0))
            if done:
                parts[0] = parts[0][done:]

    def sync(self) -> int:
        at = self.at
        os.fdatasync(self._fd)
        self.synced = max(self.synced, at)
        return at

    def close(self) -> None:
        os.close(self._fd)


async def receive(
    stream: AsyncIterator[bytes],
    path: Path,
    offset: int,
    limit: int | None,
    commit: Callable[[int], Awaitable[Any]],
) -> int:
    """Write a body from `offset` on; return the new offset, up to which everything is on disk.

    `commit` is called with the progress on the way, so that a killed server keeps most of a long body. If the caller
    disconnects, the received bytes are kept. Raises Problem 507 on a full disk, after committing what fits, and
    BodyTooLongError.
    """
    loop = asyncio.get_running_loop()
    try:
        writer = await loop.run_in_executor(_pool, _Writer, path, offset)
    except OSError as error:
        raise _refusal(error) from error
    writing: asyncio.Future[None] | None = None
    syncing: asyncio.Future[int] | None = None
    parts: list[bytes] = []
    held = taken = 0

    async def flush() -> None:
        nonlocal writing, parts, held
        if writing is not None:
            await writing
        need_space()
        block, parts, held = parts, [], 0
        writing = loop.run_in_executor(_pool, writer.write, block)

    try:
        try:
            async for part in stream:
                taken += len(part)
                if limit is not None and offset + taken > limit:
                    raise BodyTooLongError
                parts.append(part)
                held += len(part)
                if held >= _BLOCK:
                    await flush()
                    if syncing is not None and syncing.done():
                        await commit(syncing.result())
                        syncing = None
                    if syncing is None and writer.at - writer.synced >= _SYNC_EVERY:
                        syncing = loop.run_in_executor(_pool, writer.sync)
        finally:
            if parts:
                await flush()
            if writing is not None:
                await writing
    except OSError as error:
        raise _refusal(error) from error
    finally:
        try:
            if syncing is not None:
                await syncing
            if writer.at > offset:
                await commit(await loop.run_in_executor(_pool, writer.sync))
        except OSError as error:
            raise _refusal(error) from error
        finally:
            writer.close()
    return writer.at


def _refusal(error: OSError) -> Exception:
    if error.errno in FULL_DISK:
        return errors.full("The disk of the embedded platform is full. Earlier bytes are kept; free space and resume.")
    return error


class BlobResponse(Response):
    """The bytes of a complete artifact, or the requested range.

    They never change, so the id is a strong ETag.
    """

    def __init__(self, path: Path, size: int, mime: str | None, tag: str, request_headers: Mapping[str, str]) -> None:
        self._path = path
        self.status_code, self._first, self._count = 200, 0, size
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{tag}"'}
        wanted = self._wanted(size, tag, request_headers)
        if wanted is not None:
            first, last = wanted
            if first > last:
                raise errors.Problem(
                    416,
                    "bad-request",
                    {"message": "The range begins beyond the end."},
                    {"Content-Range": f"bytes */{size}"},
                )
            self.status_code, self._first, self._count = 206, first, last - first + 1
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        headers["Content-Length"] = str(self._count)
        headers["Content-Type"] = media_type(mime)
        self.background = None
        self.body = b""
        self.init_headers(headers)

    @staticmethod
    def _wanted(size: int, tag: str, headers: Mapping[str, str]) -> tuple[int, int] | None:
        """Return first and last byte; None (all bytes) for several ranges, other units or an outdated `If-Range`."""
        found = _RANGE.fullmatch(headers.get("Range", "").strip())
        if found is None or headers.get("If-Range", f'"{tag}"') != f'"{tag}"':
            return None
        first, last = found.groups()
        if not first:
            return (max(0, size - int(last)), size - 1) if last else None
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last), size - 1) if last else size - 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if not self._count:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        fd = await loop.run_in_executor(_pool, os.open, self._path, os.O_RDONLY)
        try:
            at, end = self._first, self._first + self._count
            ahead = loop.run_in_executor(_pool, os.pread, fd, min(_SEND_BLOCK, end - at), at)
            block = await ahead
            await send(start)
            while at < end:
                if not block:
                    raise OSError(f"{self._path.name} is shorter than its record says")
                at += len(block)
                ahead = loop.run_in_executor(_pool, os.pread, fd, min(_SEND_BLOCK, end - at), at)
                try:
                    await send({"type": "http.response.body", "body": block, "more_body": at < end})
                finally:
                    block = await ahead
        finally:
            os.close(fd)
