"""`once` for the running attempt: a value that the first attempt of a run computes, and that all attempts share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ivcap_flows import durable
from ivcap_flows.capture.context import current_attempt, journal

__all__ = ["aonce", "once"]

T = TypeVar("T")


def once(name: str, fn: Callable[[], T]) -> T:
    """Return the JSON value that the first attempt of this run computed with `fn` as `name`. A plan computes its own.

    Use it for values that change with each attempt and go into a request: a time, a random number, a listing. Raises
    InputError for a value that JSON cannot hold, and for one with a secret, since the value is stored as it is.
    """
    if durable.planning() is not None:
        return fn()
    return durable.once(name, fn, journal=journal(), run_id=current_attempt().run.id)


async def aonce(name: str, fn: Callable[[], Awaitable[T]]) -> T:
    """`once` for an asynchronous function."""
    if durable.planning() is not None:
        return await fn()
    return await durable.aonce(name, fn, journal=journal(), run_id=current_attempt().run.id)
