"""Decompress a stream as it is read (gzip, bzip2 or xz, by its first bytes), with limits on memory and size."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Final, Protocol, cast

from ivcap_flows.errors import InputError

__all__ = ["inflated"]

_BLOCK: Final = 256 * 1024
_DICTIONARY: Final = 256 * 1024 * 1024
"""Maximum bytes of memory for an xz stream; `xz -9` needs 65 MiB."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """Adapts zlib's object to the interface of the other two: it keeps input that it has not decompressed yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_KINDS: Final[tuple[tuple[bytes, Callable[[], _Decompressor]], ...]] = (
    (b"\x1f\x8b", _Gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=_DICTIONARY)),
)


def inflated(source: BinaryIO, limit: int) -> BinaryIO:
    """Return the decompressed content of a stream. Reading more than `limit` bytes raises InputError."""
    buffered: io.BufferedReader[Any] = io.BufferedReader(cast(Any, source), _BLOCK)
    head = buffered.peek(8)
    make = next((make for magic, make in _KINDS if head.startswith(magic)), None)
    return cast(BinaryIO, _Inflated(buffered, make, limit))


class _Inflated(io.RawIOBase):
    """The decompressed stream. Raises EOFError if the source ends early, InputError if it is damaged or too long."""

    def __init__(self, source: io.BufferedReader[Any], make: Callable[[], _Decompressor] | None, limit: int) -> None:
        self._source, self._make, self._left = source, make, limit
        self._part = make() if make else None
        self._unused = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._plain(len(buffer)) if self._part is None else self._unpacked(self._part, len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise InputError("The archive is refused and nothing was unpacked: its content is larger than allowed.")
        buffer[: len(block)] = block
        return len(block)

    def _plain(self, size: int) -> bytes:
        return self._source.read1(size) if self._make is None else b""

    def _unpacked(self, part: _Decompressor, size: int) -> bytes:
        ended = False
        while True:
            try:
                block = part.decompress(self._unused, size)
            except (OSError, zlib.error, lzma.LZMAError) as error:
                raise InputError(f"The archive cannot be unpacked: {error}.") from error
            self._unused = b""
            if part.eof:
                # Several concatenated streams count as one; zeros after the last are padding.
                rest = part.unused_data or self._source.read1(_BLOCK)
                rest = rest if rest.strip(b"\0") else b""
                self._unused = rest
                self._part = part = self._make() if rest and self._make else None  # type: ignore[assignment]
                if block or self._part is None:
                    return block
                continue
            if block:
                return block
            if ended:
                raise EOFError("it ends early")
            self._unused = self._source.read1(_BLOCK)
            ended = not self._unused
