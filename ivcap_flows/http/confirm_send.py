"""Confirm each send of a request that must not be sent twice, right before it leaves; note that one was accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["ConfirmSend", "Sends", "confirm_send", "confirming_sends", "note_accepted"]

ConfirmSend = Callable[[], Awaitable[None]]
"""Returns if the request may be sent now, and raises if not."""


class Sends:
    """The requests of a block that are not idempotent. `accepted`: the platform has answered one with success."""

    def __init__(self, confirm: ConfirmSend) -> None:
        self.confirm = confirm
        self.accepted = False


_sends: Final[ContextVar[Sends | None]] = ContextVar("ivcap_flows_sends", default=None)


@contextmanager
def confirming_sends(confirm: ConfirmSend) -> Iterator[Sends]:
    """Call `confirm` before each send of a request in the block that is not idempotent, including repeated sends."""
    sends = Sends(confirm)
    before = _sends.set(sends)
    try:
        yield sends
    finally:
        _sends.reset(before)


async def confirm_send() -> None:
    """Return if a request may be sent now; otherwise raise what the block's `confirm` raises."""
    sends = _sends.get()
    if sends is not None:
        await sends.confirm()


def note_accepted() -> None:
    """Note that the platform has answered a request that is not idempotent with success."""
    sends = _sends.get()
    if sends is not None:
        sends.accepted = True
