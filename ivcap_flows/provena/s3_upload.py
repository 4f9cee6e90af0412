"""Upload one file to an S3 object: at once, or in parts. Parts that an earlier upload sent are not sent again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple

from ivcap_flows.errors import (
    ForbiddenError,
    IvcapFlowsError,
    NotAuthorizedError,
    NotFoundError,
    SourceChangedError,
)
from ivcap_flows.file_state import reading
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.server_clock import date_of
from ivcap_flows.media_types import media_type_of
from ivcap_flows.provena.s3 import Bucket

__all__ = ["PART", "SHA256", "MemoryLimit", "send"]

PART: Final = 8 * 1024 * 1024
"""Bytes of a part, and of the largest file that is sent in one request."""
SHA256: Final = "sha256"
"""The metadata field with the sha256 of the content. S3's own checksums of large objects depend on their parts."""
_MOST_PARTS: Final = 10_000
_MIB: Final = 1024 * 1024
_ROOM: Final = 8 * PART
STALE: Final = timedelta(days=1)
"""Age at which an unfinished upload of other content is considered abandoned, and is removed."""
_TRIES: Final = 3


class MemoryLimit:
    """A memory limit for parts in transit: `take` waits until there is memory.

    A part above the limit gets the whole limit.
    """

    def __init__(self, size: int = _ROOM) -> None:
        self._size = self._left = size
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until there is memory, and take it."""
        while self._left < min(size, self._size):
            self._freed.clear()
            await self._freed.wait()
        self._left -= min(size, self._size)

    def give(self, size: int) -> None:
        """Return the memory that was taken."""
        self._left += min(size, self._size)
        self._freed.set()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Take memory while the block runs."""
        await self.take(size)
        try:
            yield
        finally:
            self.give(size)


class _Block(NamedTuple):
    content: bytes
    sha256: bytes

    @property
    def checksum(self) -> str:
        return base64.b64encode(self.sha256).decode("ascii")


class _Begun(NamedTuple):
    """An unfinished multipart upload, with its existing parts in the form that S3 wants at the end."""

    id: str
    parts: dict[int, dict[str, Any]]


async def send(bucket: Bucket, key: str, file: LocalFile, memory: MemoryLimit) -> None:
    """Create the object `key` from a file; S3 verifies the content by sha256.

    Parts that an earlier call sent before it was killed or lost its connection are not sent again. Raises
    SourceChangedError if the file's content differs from its handle; then nothing remains on the server.
    """
    adopt = True
    for left in reversed(range(_TRIES)):
        try:
            if file.size <= PART:
                await _whole(bucket, key, file, memory)
                return
            adopted = await _in_parts(bucket, key, file, memory, adopt=adopt)
        except NotFoundError as error:
            # Another call, or an earlier attempt of this one whose reply was lost, has completed or removed the upload.
            if error.data.get("code") != "NoSuchUpload" or not left:
                raise
            adopted = True
        if not adopted or await sha256_of(bucket, key) == file.sha256:
            return
        adopt = False


async def sha256_of(bucket: Bucket, key: str) -> str | None:
    """Return the sha256 in an object's metadata; None if there is no object or no sha256."""
    try:
        found = await bucket.ask("head_object", Key=key)
    except NotFoundError:
        return None
    stated: str | None = found.get("Metadata", {}).get(SHA256)
    return stated


def _begin(file: LocalFile, key: str) -> dict[str, Any]:
    return {"Key": key, "Metadata": {SHA256: file.sha256}, "ContentType": media_type_of(key)}


async def _whole(bucket: Bucket, key: str, file: LocalFile, memory: MemoryLimit) -> None:
    async with memory.of(file.size):
        block = await bucket.run(_read, file.path, 0, file.size + 1)
        if block.sha256.hex() != file.sha256:
            raise _changed(file)
        await bucket.ask("put_object", Body=block.content, ChecksumSHA256=block.checksum, **_begin(file, key))


async def _in_parts(bucket: Bucket, key: str, file: LocalFile, memory: MemoryLimit, *, adopt: bool) -> bool:
    """Send a file in parts; return whether it resumed an upload that may have started without the file's sha256."""
    size = _part_size(file.size)
    found = await _unfinished(bucket, key, file, size, memory) if adopt else None
    if found is None:
        begun = await bucket.ask("create_multipart_upload", ChecksumAlgorithm="SHA256", **_begin(file, key))
    upload = found or _Begun(begun["UploadId"], {})
    try:
        await _send_parts(bucket, key, file, memory, size, upload)
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        await bucket.ask("complete_multipart_upload", Key=key, UploadId=upload.id, MultipartUpload={"Parts": parts})
    except IvcapFlowsError as error:
        # Keep an upload that the next call can resume.
        if not (error.retryable or isinstance(error, NotAuthorizedError)):
            await _remove(bucket, key, upload.id)
        raise
    return found is not None


async def _send_parts(
    bucket: Bucket, key: str, file: LocalFile, memory: MemoryLimit, size: int, upload: _Begun
) -> None:
    total = hashlib.sha256()
    sending: list[asyncio.Task[None]] = []

    async def put(number: int, block: _Block) -> None:
        reply = await bucket.ask(
            "upload_part",
            Key=key,
            UploadId=upload.id,
            PartNumber=number,
            Body=block.content,
            ChecksumSHA256=block.checksum,
        )
        upload.parts[number] = _told(number, reply)

    there = frozenset(upload.parts)
    try:
        for number, offset in enumerate(range(0, file.size, size), 1):
            await memory.take(size)
            try:
                block = await bucket.run(_read, file.path, offset, size, total)
            except BaseException:
                memory.give(size)
                raise
            if number in there:
                memory.give(size)
            else:
                sending.append(asyncio.ensure_future(put(number, block)))
                sending[-1].add_done_callback(lambda _: memory.give(size))
            del block
            if any(task.done() and task.exception() for task in sending):
                break
            sending = [task for task in sending if not task.done()]
        results = await asyncio.gather(*sending, return_exceptions=True)
    except Exception:
        # Wait for parts in transit: they would arrive after the others are removed, and stay.
        await asyncio.gather(*sending, return_exceptions=True)
        raise
    except asyncio.CancelledError:
        for task in sending:
            task.cancel()
        raise
    for result in results:
        if isinstance(result, BaseException):
            raise result
    if total.hexdigest() != file.sha256:
        raise _changed(file)


def _told(number: int, part: dict[str, Any]) -> dict[str, Any]:
    told = {"PartNumber": number, "ETag": part["ETag"]}
    return told | ({"ChecksumSHA256": part["ChecksumSHA256"]} if part.get("ChecksumSHA256") else {})


async def _unfinished(bucket: Bucket, key: str, file: LocalFile, size: int, memory: MemoryLimit) -> _Begun | None:
    """Find the newest unfinished upload of the object that has parts, all of which match the file."""
    try:
        answer = await bucket.ask("list_multipart_uploads", Prefix=key)
    except ForbiddenError:
        return None  # the keys may not allow this request
    found = [each for each in answer.get("Uploads", ()) if each["Key"] == key]
    now = date_of(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"))
    for each in sorted(found, key=lambda each: str(each["Initiated"]), reverse=True):
        begun = _Begun(each["UploadId"], {})
        try:
            if await _is_of(bucket, key, begun, file, size, memory):
                return begun
        except (ForbiddenError, NotFoundError):
            continue
        # Use S3's own clock: by another clock, an upload that has just started might look old.
        if now is not None and now - each["Initiated"] > STALE:
            await _remove(bucket, key, begun.id)
    return None


async def _is_of(bucket: Bucket, key: str, begun: _Begun, file: LocalFile, size: int, memory: MemoryLimit) -> bool:
    """Return whether an upload has parts and all of them match the file; add them to `begun`."""
    after = 0
    while True:
        page = await bucket.ask("list_parts", Key=key, UploadId=begun.id, PartNumberMarker=after)
        for part in page.get("Parts", ()):
            number = after = int(part["PartNumber"])
            async with memory.of(size):
                block = await bucket.run(_read, file.path, (number - 1) * size, size)
                if not (block.content and part["Size"] == len(block.content) and _has(part, block)):
                    return False
            begun.parts[number] = _told(number, part)
        if not page.get("IsTruncated"):
            return bool(begun.parts)


def _has(part: dict[str, Any], block: _Block) -> bool:
    """Return whether a part has this content, by its sha256 if the server keeps it, else by its MD5."""
    if checksum := part.get("ChecksumSHA256"):
        return bool(checksum == block.checksum)
    return bool(part["ETag"].strip('"') == hashlib.md5(block.content, usedforsecurity=False).hexdigest())


async def _remove(bucket: Bucket, key: str, id: str) -> None:  # noqa: A002 - S3's own word
    """Remove an unfinished upload, since its parts cost money for ever. Ignore a failure: the first error is raised."""
    with contextlib.suppress(IvcapFlowsError):
        await bucket.ask("abort_multipart_upload", Key=key, UploadId=id)


def _part_size(size: int) -> int:
    """Return the part size, which is the same for the same file size, so that another call finds the same parts."""
    return max(PART, -(-size // _MOST_PARTS // _MIB) * _MIB)


def _read(path: str, offset: int, size: int, total: Any = None) -> _Block:
    with reading(path), open(path, "rb", buffering=0) as file:
        file.seek(offset)
        content = file.read(size) or b""
        while len(content) < size and (more := file.read(size - len(content))):
            content += more
    if total is not None:
        total.update(content)
    return _Block(content, hashlib.sha256(content).digest())


def _changed(file: LocalFile) -> SourceChangedError:
    return SourceChangedError(
        f"{file.path} changed after its sha256 was taken, so it was not uploaded. Run it again when nothing writes.",
        path=file.path,
    )
