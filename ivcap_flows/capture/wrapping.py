"""Wrap a function to follow its calls: plain and asynchronous functions, and generators of both kinds."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from ivcap_flows.capture.call_scope import CallScope
from ivcap_flows.capture.likeness import function_within, liken
from ivcap_flows.threads import alone

__all__ = ["followed", "is_followed", "is_ours"]

_MARK: Final = "__ivcap_flows_followed__"


Enter = Callable[[Any, tuple[Any, ...], dict[str, Any]], CallScope | None]
"""Begins to follow a call of the wrapper. Returns None for a call that is not followed."""


def is_followed(function: Any) -> bool:
    """Whether calls of this very function are followed. A function that only calls a followed one does not count."""
    function = function_within(function)
    return getattr(function, _MARK, None) is function


def is_ours(function: Any) -> bool:
    """Whether a function is one of the package itself, and not a user's."""
    return str(getattr(function, "__module__", "")).startswith("ivcap_flows.")


def followed(function: Callable[..., Any], enter: Enter) -> Callable[..., Any]:
    """Return a function whose calls are followed by what `enter` returns. It has the same kind, name and signature."""
    wrapper: Any
    if inspect.isasyncgenfunction(function):
        wrapper = _asynchronous_generator(function, enter)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, enter)
    elif inspect.iscoroutinefunction(function):
        wrapper = _asynchronous(function, enter)
    else:
        wrapper = _synchronous(function, enter)
    setattr(wrapper, _MARK, wrapper)
    returned: Callable[..., Any] = liken(wrapper, function)
    return returned


def _finished(scope: CallScope, value: Any) -> Any:
    try:
        return scope.finish(value)
    finally:
        scope.close()


def _failed(scope: CallScope, error: BaseException) -> None:
    scope.fail(error)
    scope.close()


async def _closed(scope: CallScope) -> None:
    """Close a scope in a thread, so that the event loop goes on."""
    # A loop that is ending has no threads any more, and one that is cancelled may not get to it.
    with contextlib.suppress(RuntimeError):
        try:
            await alone(scope.close)
        finally:
            scope.close()


def _synchronous(function: Callable[..., Any], enter: Enter) -> Callable[..., Any]:
    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        scope = enter(synchronous, args, kwargs)
        if scope is None:
            return function(*args, **kwargs)
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            _failed(scope, error)
            raise
        return _finished(scope, value)

    return synchronous


def _asynchronous(function: Callable[..., Any], enter: Enter) -> Callable[..., Any]:
    @functools.wraps(function)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        scope = enter(asynchronous, args, kwargs)
        if scope is None:
            return await function(*args, **kwargs)
        try:
            value = await function(*args, **kwargs)
        except Exception as error:
            scope.fail(error)
            if scope.closes:
                await _closed(scope)
            raise
        except BaseException as error:
            # It may be about to end the coroutine or the process, neither of which waits.
            _failed(scope, error)
            raise
        try:
            return scope.finish(value)
        finally:
            if scope.closes:
                await _closed(scope)

    return asynchronous


def _generator(function: Callable[..., Any], enter: Enter) -> Callable[..., Any]:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        scope = enter(generator, args, kwargs)
        if scope is None:
            return (yield from inner)
        scope.leave()
        step, given = inner.send, None
        while True:
            try:
                with scope.inside():
                    value = step(given)
            except StopIteration as stop:
                return _finished(scope, stop.value)
            except GeneratorExit:
                # Its caller takes no more of it.
                _finished(scope, None)
                raise
            except BaseException as error:
                _failed(scope, error)
                raise
            try:
                step, given = inner.send, (yield scope.yielded(value))
            except BaseException as error:  # noqa: BLE001 - thrown into the generator by its caller
                step, given = inner.throw, error

    return generator


def _asynchronous_generator(function: Callable[..., Any], enter: Enter) -> Callable[..., Any]:
    @functools.wraps(function)
    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        scope = enter(generator, args, kwargs)
        if scope is not None:
            scope.leave()
        step, given = inner.asend, None
        while True:
            try:
                if scope is None:
                    value = await step(given)
                else:
                    with scope.inside():
                        value = await step(given)
            except StopAsyncIteration:
                if scope is not None:
                    _finished(scope, None)
                return
            except GeneratorExit:
                if scope is not None:
                    _finished(scope, None)
                raise
            except BaseException as error:
                if scope is not None:
                    _failed(scope, error)
                raise
            try:
                step, given = inner.asend, (yield value if scope is None else scope.yielded(value))
            except BaseException as error:  # noqa: BLE001 - thrown into the generator by its caller
                step, given = inner.athrow, error

    return generator
