"""Sources of uploads: a file, bytes or a stream, each hashed before the first byte is sent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from ivcap_flows.capture.files import Digests, file_at, forget
from ivcap_flows.errors import InputError, IntegrityError
from ivcap_flows.file_state import FileState, reading
from ivcap_flows.threads import JOURNAL, WHOLE_FILES, alone

__all__ = ["SourceLike", "UploadSource", "name_of", "opened", "spooled"]

SourceLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]
"""A path, bytes, a binary stream, or an iterable of blocks of bytes."""

_BLOCK: Final = 1024 * 1024
_DECOMPRESS: Final = frozenset({"bz2", "compression", "gzip", "lzma"})
"""The modules of Python whose streams decompress a file."""


@dataclass(frozen=True)
class UploadSource:
    """A file to upload, with its state at the time when it was hashed."""

    path: Path
    sha256: str
    state: FileState

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.state.size


def name_of(source: SourceLike) -> str | None:
    """Return the name of a source's file; None for bytes, for streams without a name, and for those that decompress.

    Such a stream has another content than its file, and only from Python 3.13 on has each of them the file's name.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return None
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    if type(source).__module__.partition(".")[0] in _DECOMPRESS:
        return None
    named = getattr(source, "name", None)
    return os.path.basename(named) or None if isinstance(named, str) else None


@asynccontextmanager
async def opened(source: SourceLike, digests: Digests) -> AsyncIterator[UploadSource]:
    """Yield a file with the source's content and its digest. It exists while the block runs.

    A path is used directly, if its file system reports its size (that of `/proc` does not). Everything else is written
    to a temporary file in blocks, whatever its size, so that its digest is known before the first byte is sent and an
    interrupted upload can go back. A stream is read to its end; a seekable one is then set back to its old position.
    Raises InputError for any other source.
    """
    file = await WHOLE_FILES.run(_file, Path(source), digests) if isinstance(source, str | os.PathLike) else None
    if file is None:
        async with spooled(_blocks(source)) as spool:
            yield spool
        return
    try:
        yield file
    except IntegrityError:
        await JOURNAL.run(forget, file.path, digests)
        raise


def _file(path: Path, digests: Digests) -> UploadSource | None:
    """Return the file, or None if it has not as many bytes as its file system reports."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: upload it with upload_directory.", path=str(path))
    state = FileState.of(path)
    file = file_at(path, digests)
    return UploadSource(path, file.sha256, state) if file.size == state.size else None


@asynccontextmanager
async def spooled(blocks: Iterable[bytes]) -> AsyncIterator[UploadSource]:
    """Write blocks of bytes to a temporary file that exists while the block runs."""
    with tempfile.TemporaryDirectory(prefix="ivcap-flows-") as folder:
        yield await alone(_spool, blocks, Path(folder, "spool"))


def _spool(blocks: Iterable[bytes], path: Path) -> UploadSource:
    hasher = hashlib.sha256()
    with contextlib.closing(_plain(blocks)) as plain, open(path, "xb") as file:
        for block in plain:
            hasher.update(block)
            try:
                file.write(block)
            except OSError as error:
                raise InputError(
                    f"The stream does not fit into a temporary file: {error.strerror}. Free space in "
                    f"{path.parent.parent}, or name another folder in TMPDIR.",
                    path=str(path),
                ) from error
    return UploadSource(path, hasher.hexdigest(), FileState.of(path))


def _plain(blocks: Iterable[Any]) -> Generator[bytes, None, None]:
    for block in blocks:
        if not isinstance(block, bytes | bytearray | memoryview):
            raise InputError(f"A stream must give bytes, not {type(block).__name__}. Open a file in binary mode.")
        yield bytes(block)


def _blocks(source: Any) -> Iterable[bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return [bytes(source)]
    if isinstance(source, str | os.PathLike):
        return _of_file(source)
    if callable(getattr(source, "read", None)):
        return _read(source)
    if isinstance(source, Iterable):
        return source
    raise InputError(f"Pass a path, bytes, a binary stream or an iterator over blocks of bytes, not {source!r:.200}.")


def _of_file(path: str | os.PathLike[str]) -> Iterator[bytes]:
    with reading(path), open(path, "rb") as file:
        yield from _read(file)


def _read(stream: BinaryIO) -> Iterator[bytes]:
    if getattr(stream, "closed", False):
        # As after `with open(…) as stream: upload_artifact.submit(stream)`.
        raise InputError("The stream is closed. Keep it open until the task has ended, or pass the path of the file.")
    begin = stream.tell() if getattr(stream, "seekable", bool)() else None
    try:
        while block := stream.read(_BLOCK):
            yield block
    finally:
        if begin is not None:
            stream.seek(begin)
