"""Whether a request may leave now: asked right before each send of one that must not be sent twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["AskLeave", "ask_leave", "asking_leave"]

AskLeave = Callable[[float], Awaitable[None]]
"""Told within how many seconds the request will have left, returns if it may leave, and raises if not."""

_asked: Final[ContextVar[AskLeave | None]] = ContextVar("ivcap_flows_leave", default=None)


@contextmanager
def asking_leave(ask: AskLeave) -> Iterator[None]:
    """Ask this for leave before each request of the block that is not idempotent, and before each repetition of it."""
    before = _asked.set(ask)
    try:
        yield
    finally:
        _asked.reset(before)


async def ask_leave(leaves_within: float) -> None:
    """Return if a request that has left within so many seconds may leave; raises what the block says otherwise."""
    ask = _asked.get()
    if ask is not None:
        await ask(leaves_within)
