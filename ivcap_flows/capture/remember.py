"""`once` for the running attempt: a value that every attempt of a run sees as the first one computed it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ivcap_flows import durable
from ivcap_flows.capture.context import current_attempt, journal

__all__ = ["aonce", "once"]

T = TypeVar("T")


def once(name: str, fn: Callable[[], T]) -> T:
    """The JSON value of `fn` as this run's first attempt computed it under `name`; while planning, a value of now.

    For what changes with each attempt and goes into a request: a time, a random number, a listing. InputError for a
    value that JSON cannot hold, or that holds a secret: it would be kept as it is.
    """
    if durable.planning() is not None:
        return fn()
    return durable.once(name, fn, journal=journal(), run_id=current_attempt().run.id)


async def aonce(name: str, fn: Callable[[], Awaitable[T]]) -> T:
    """`once` for an asynchronous function."""
    if durable.planning() is not None:
        return await fn()
    return await durable.aonce(name, fn, journal=journal(), run_id=current_attempt().run.id)
