"""Confirm each send of a request that must not be sent twice, right before it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["ConfirmSend", "confirm_send", "confirming_sends"]

ConfirmSend = Callable[[], Awaitable[None]]
"""Returns if the request may be sent now, and raises if not."""

_confirm: Final[ContextVar[ConfirmSend | None]] = ContextVar("ivcap_flows_confirm_send", default=None)


@contextmanager
def confirming_sends(confirm: ConfirmSend) -> Iterator[None]:
    """Call `confirm` before each send of a request in the block that is not idempotent, including repeated sends."""
    before = _confirm.set(confirm)
    try:
        yield
    finally:
        _confirm.reset(before)


async def confirm_send() -> None:
    """Return if a request may be sent now; otherwise raise what the block's `confirm` raises."""
    confirm = _confirm.get()
    if confirm is not None:
        await confirm()
