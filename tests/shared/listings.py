"""Read lists that a client gets page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def all_of(listing: AsyncIterator[T]) -> list[T]:
    return [item async for item in listing]
