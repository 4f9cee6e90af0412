"""Calls of coroutines to a journal, run in a thread. On SQLite, calls that queue up meanwhile share a commit."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from ivcap_flows.journal.store import Store
from ivcap_flows.threads import JOURNAL

__all__ = ["GroupCommit"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST: Final = 32
"""Maximum number of calls per transaction, since other processes wait for it to end."""


class _Asked:
    """A call and the future of its caller."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self._value: Any = None
        self._error: BaseException | None = None

    def do(self) -> None:
        if self.future.cancelled():
            # Skip calls that were cancelled before they started.
            return
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            self._error = error

    def lose(self, error: BaseException) -> None:
        """Replace the call's result by an error, since its writes are not on disk."""
        self._error = copy.copy(error)

    def answer(self) -> None:
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._value)


class GroupCommit:
    """Runs calls in their order, in one thread at a time. A call must not wait for another call."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._asked: deque[_Asked] = deque()
        self._busy = False
        self._process = os.getpid()

    async def ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call and return its result once its writes are on disk.

        If this coroutine is cancelled, the call may still run. Raise what the call raises, and JournalError if the
        shared commit fails.
        """
        if not self._store.is_sqlite:
            # The server groups commits itself.
            return await JOURNAL.run(call, *args, **kwargs)
        if self._process != os.getpid():
            self._begin_anew()
        asked = _Asked(partial(call, *args, **kwargs))
        with self._lock:
            self._asked.append(asked)
            begin, self._busy = not self._busy, True
        if begin:
            try:
                JOURNAL.begin(self._serve)
            except RuntimeError as error:
                self._refuse(error)
        value: T = await asked.future
        return value

    def _refuse(self, error: BaseException) -> None:
        """Fail all queued calls, of every loop, since no thread can run them."""
        with self._lock:
            some, self._busy = list(self._asked), False
            self._asked.clear()
        for asked in some:
            asked.lose(error)
        _tell(some)

    def _serve(self) -> None:
        while some := self._next():
            try:
                self._do(some)
            finally:
                _tell(some)

    def _next(self) -> list[_Asked]:
        with self._lock:
            some = [self._asked.popleft() for _ in range(min(_MOST, len(self._asked)))]
            self._busy = bool(some)
            return some

    def _do(self, some: list[_Asked]) -> None:
        if len(some) == 1:
            some[0].do()
            return
        try:
            with self._store.together():
                for asked in some:
                    asked.do()
        except BaseException as error:  # noqa: BLE001 - raised in the callers
            for asked in some:
                asked.lose(error)


def _tell(some: list[_Asked]) -> None:
    for loop in {asked.loop for asked in some}:
        # A loop that was closed meanwhile has no waiting callers.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, [asked for asked in some if asked.loop is loop])


def _answer(some: list[_Asked]) -> None:
    for asked in some:
        asked.answer()
