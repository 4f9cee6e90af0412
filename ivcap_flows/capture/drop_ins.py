"""`flow` and `task`: Prefect's decorators, which also record the calls of the function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import prefect
from prefect.flows import FlowDecorator

from ivcap_flows.capture.decorator import record
from ivcap_flows.capture.wrapping import is_followed

__all__ = ["flow", "task"]

Decorator = TypeVar("Decorator", bound=Callable[..., Any])


def _recording(prefects: Decorator) -> Decorator:
    """Return Prefect's decorator, with the same options, applied to the recorded function."""

    def decorate(function: Any = None, /, **options: Any) -> Any:
        if function is None:
            return partial(decorate, **options)
        return prefects(_recorded(function), **options)

    decorate.__name__, decorate.__doc__ = prefects.__name__, prefects.__doc__
    same: Any = decorate
    return same  # type: ignore[no-any-return]


def _recorded(function: Any) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_recorded(function.__func__))
    # What cannot be called is left to Prefect, which says so.
    return function if is_followed(function) or not callable(function) else record(function)


class _Flow(FlowDecorator):
    """Prefect's `flow`, which also records the calls of the function. `flow.from_source` is Prefect's own."""

    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        if function is None:
            return partial(self, **options)
        return super().__call__(_recorded(function), **options)


task = _recording(prefect.task)
"""Prefect's `task`, with the same options. The calls of the function are also recorded."""

flow: FlowDecorator = _Flow()
"""Prefect's `flow`, with the same options. The calls of the function are also recorded, and its runs are continued."""
