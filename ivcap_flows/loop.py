"""The one event loop of a process. It runs all clients, in its own thread.

A synchronous caller blocks until its coroutine ends. An asynchronous caller awaits it from its own loop, which keeps
running.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from ivcap_flows.forked import PerProcess

__all__ = ["all_in_threads", "all_of", "arun", "asked_once", "run", "submit"]

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 8
"""How many things are done at a time, unless a caller says otherwise."""


_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, asyncio.Task[Any]]] = WeakKeyDictionary()


async def asked_once(question: Any, answer: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the answer to a question. Those who ask the same meanwhile, on this loop, share it."""
    running = asyncio.get_running_loop()
    asked = _asked.setdefault(running, {})
    answering = asked.get(question)
    if answering is None:
        answering = asked[question] = running.create_task(answer())
        answering.add_done_callback(lambda task: _answered(asked, question, task))
    found: T = await asyncio.shield(answering)
    return found


def _answered(asked: dict[Any, asyncio.Task[Any]], question: Any, task: asyncio.Task[Any]) -> None:
    del asked[question]
    if not task.cancelled():
        task.exception()  # read the error, since every caller may have been cancelled


@dataclass
class _Loop:
    lock: threading.Lock = field(default_factory=threading.Lock)
    loop: asyncio.AbstractEventLoop | None = None


_of_process: Final = PerProcess(_Loop)


def _loop() -> asyncio.AbstractEventLoop:
    known = _of_process()
    with known.lock:
        if known.loop is None or known.loop.is_closed():
            known.loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(known.loop,), name="ivcap-flows", daemon=True).start()
        return known.loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # The exit reaches the coroutine's caller. The loop goes on, or other callers would wait for ever. One
            # source of
            # SystemExit is rich, which Prefect logs with: it exits if the console is gone, as after a worker was
            # killed.
            continue
        return


def submit(coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Start a coroutine on the loop. Call it on another running loop; it returns a future of that loop.

    Cancelling the future cancels the coroutine. asyncio's own bridge, `run_coroutine_threadsafe`, adds a thread-safe
    future in between, which costs more time and memory than the rest of a small task.
    """
    there, here = _loop(), asyncio.get_running_loop()
    answer: asyncio.Future[T] = here.create_future()
    task: asyncio.Task[T] | None = None

    def begin() -> None:
        nonlocal task
        if answer.cancelled():
            coroutine.close()
            return
        task = there.create_task(coroutine)
        task.add_done_callback(tell)

    def tell(ended: asyncio.Task[T]) -> None:
        # If the caller's loop was closed, nobody waits for the result.
        with suppress(RuntimeError):
            here.call_soon_threadsafe(_hand_over, answer, ended)

    def cancel(given_up: asyncio.Future[T]) -> None:
        if given_up.cancelled():
            there.call_soon_threadsafe(lambda: task and task.cancel())

    answer.add_done_callback(cancel)
    there.call_soon_threadsafe(begin)
    return answer


def _hand_over(answer: asyncio.Future[T], ended: asyncio.Task[T]) -> None:
    if answer.done():
        return
    if ended.cancelled():
        answer.cancel()
    elif (error := ended.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(ended.result())


async def arun(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and await its result. Cancelling the caller cancels the coroutine."""
    if asyncio.get_running_loop() is _loop():
        return await coroutine
    return await submit(coroutine)


async def all_of(do: Callable[[T], Awaitable[R]], things: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """What `do` gives for each, in their order, so many at a time.

    After a failure none is begun, and what is under way comes to its end before it is raised: a request that was sent
    and not waited for would be a doubt.
    """
    waiting = enumerate(things)
    given: dict[int, R] = {}
    failed: list[Exception] = []

    async def work() -> None:
        for number, thing in waiting:
            try:
                given[number] = await do(thing)
            except Exception as error:  # noqa: BLE001 - raised below, when the others have ended
                failed.append(error)
            if failed:
                return

    workers = [asyncio.ensure_future(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
    if failed:
        raise failed[0]
    return [given[number] for number in sorted(given)]


def all_in_threads(do: Callable[[T], R], things: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """Do what `all_of` does, for a function that blocks: each call has a thread, in the caller's context.

    Blocks until all have ended.
    """
    # Not above: it cannot be imported any more while the interpreter ends, and then the end of a run is recorded.
    from concurrent.futures import ThreadPoolExecutor

    # Threads of their own: in those of the loop, calls that wait for the loop would keep what they wait for from them.
    with ThreadPoolExecutor(at_once, thread_name_prefix="ivcap-flows-call") as threads:

        def begin(thing: T) -> asyncio.Future[R]:
            return asyncio.get_running_loop().run_in_executor(threads, copy_context().run, do, thing)

        return run(all_of(begin, things, at_once))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and block until its result. An interrupt cancels the coroutine.

    Raises RuntimeError if called on the loop itself, where it would block for ever.
    """
    loop = _loop()
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        coroutine.close()
        raise RuntimeError("run() called on the loop it would wait for; await the coroutine instead")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
