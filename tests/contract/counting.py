"""Counts the calls of an official client: each by its name, and only where it is called from outside of the client."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from contextvars import ContextVar
from typing import Any

calls: Counter[str] = Counter()
inside: ContextVar[bool] = ContextVar("inside", default=False)


def counted(name: str, function: Any) -> Any:
    """The function, counted where it is called from outside of the client, from 0 on."""
    calls[name] += 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += not inside.get()
        token = inside.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            inside.reset(token)

    @functools.wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        calls[name] += not inside.get()
        token = inside.set(True)
        try:
            return await function(*args, **kwargs)
        finally:
            inside.reset(token)

    return acall if inspect.iscoroutinefunction(function) else call
