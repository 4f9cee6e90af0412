"""Read a stream of blocks as an asynchronous binary file."""

from __future__ import annotations

from collections.abc import AsyncIterator

__all__ = ["Reader"]


class Reader:
    """Reads forward only. A block is fetched when it is needed."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._held = bytearray()
        self._ended = False

    async def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end, and none after it. A negative `size` returns all the rest."""
        while not self._ended and (size < 0 or len(self._held) < size):
            block = await anext(self._blocks, None)
            if block is None:
                self._ended = True
            else:
                self._held += block
        wanted = len(self._held) if size < 0 else size
        part = bytes(self._held[:wanted])
        del self._held[:wanted]
        return part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the rest, in blocks."""
        if self._held:
            yield await self.read(len(self._held))
        async for block in self._blocks:
            yield block
        self._ended = True
