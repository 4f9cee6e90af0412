"""Ask for permission right before each send of a request that must not be sent twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["AskLeave", "ask_leave", "asking_leave"]

AskLeave = Callable[[], Awaitable[None]]
"""Returns if the request may be sent now, and raises if not."""

_asked: Final[ContextVar[AskLeave | None]] = ContextVar("ivcap_flows_leave", default=None)


@contextmanager
def asking_leave(ask: AskLeave) -> Iterator[None]:
    """Call `ask` before each send of a request in the block that is not idempotent, including repeated sends."""
    before = _asked.set(ask)
    try:
        yield
    finally:
        _asked.reset(before)


async def ask_leave() -> None:
    """Return if a request may be sent now; otherwise raise what the block's `ask` raises."""
    ask = _asked.get()
    if ask is not None:
        await ask()
