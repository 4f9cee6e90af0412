"""The package's event loop."""

import asyncio
import os
import signal
import threading
import time
from contextvars import ContextVar

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import resolve


async def where() -> str:
    return threading.current_thread().name


def test_synchronous_callers_block_on_the_one_loop_and_not_from_it():
    """A synchronous call on the loop would wait for itself for ever, so it is an error."""
    assert loop.run(where()) == loop.run(where()) == "ivcap-flows"

    async def inner() -> None:
        loop.run(where())

    with pytest.raises(RuntimeError, match="await the coroutine"):
        loop.run(inner())


async def test_an_asynchronous_caller_is_not_held():
    """While work blocks the package's loop, the caller's own loop goes on."""
    ticks = 0

    async def hold() -> None:
        end = time.monotonic() + 30
        while ticks < 3 and time.monotonic() < end:
            time.sleep(0.01)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    await loop.arun(hold())
    ticker.cancel()
    assert ticks > 2


async def test_cancelling_the_caller_cancels_the_work():
    """A cancelled await does not leave its work running."""
    begun, seen = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.set()
            raise

    task = asyncio.create_task(loop.arun(work()))
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(seen.wait, 20)


async def test_work_whose_caller_was_cancelled_at_once_never_begins():
    """It is given up before the loop had a turn for it."""
    begun = []

    async def work() -> None:
        begun.append(1)

    for _ in range(20):
        held = threading.Event()
        loop._loop().call_soon_threadsafe(held.wait)
        given_up = loop.submit(work())
        given_up.cancel()
        held.set()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    await loop.arun(asyncio.sleep(0))
    assert not begun


async def test_work_is_done_as_if_it_were_awaited_on_the_callers_own_loop():
    """It knows the caller's context variables; its errors and cancellations are the caller's."""
    said: ContextVar[str] = ContextVar("said")
    said.set("here")

    async def do(error: BaseException | None = None) -> str:
        if error is not None:
            raise error
        return said.get()

    assert await loop.arun(do()) == "here"
    for error in (LookupError("there"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await loop.arun(do(error))


@pytest.mark.timeout(20)
def test_who_leaves_holds_up_nobody():
    """Neither a caller whose loop was closed, nor an exit within a task, as of a log whose console is gone, which is
    its caller's: others are served."""

    async def leave() -> None:
        loop.submit(asyncio.sleep(0.05))

    async def end() -> None:
        raise SystemExit(1)

    asyncio.run(leave())
    time.sleep(0.1)
    assert loop.run(asyncio.sleep(0, "there")) == "there"
    with pytest.raises(SystemExit):
        loop.run(end())
    assert loop.run(asyncio.sleep(0, "there")) == "there"


def test_a_child_that_was_forked_meanwhile_has_a_loop_of_its_own():
    """Though a thread of its parent held what decides about the loop, and clients of the parent's are open."""
    resolve._clients().of_loops.setdefault(loop._loop(), {})
    with loop._of_process().lock, resolve._clients().lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            resolve._close_all()
            os._exit(loop.run(asyncio.sleep(0, 7)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_so_many_are_done_at_a_time_and_given_in_their_order():
    """However long each takes."""
    under_way, most = 0, 0

    async def do(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01 * (5 - number % 5))
        under_way -= 1
        return 2 * number

    assert await loop.all_of(do, iter(range(10)), 3) == [2 * number for number in range(10)]
    assert most == 3 and await loop.all_of(do, []) == []


def test_a_function_that_blocks_is_called_in_so_many_threads_in_the_callers_context():
    """What waits for the loop in them does not wait for ever. After a failure none is begun, and all that ran ended."""
    told, under_way, most, begun = ContextVar[str]("told"), [], [], []
    told.set("here")
    failing = threading.Event()

    def do(number: int) -> tuple[int, str]:
        begun.append(number)
        under_way.append(number)
        most.append(len(under_way))
        if number == 12:
            assert failing.wait(60)
        loop.run(asyncio.to_thread(time.sleep, 0.02))
        under_way.remove(number)
        if number == 13:
            failing.set()
            raise KeyError(number)
        return number, told.get()

    assert loop.all_in_threads(do, range(12), 4) == [(number, "here") for number in range(12)] and max(most) == 4
    begun.clear()
    with pytest.raises(KeyError):
        loop.all_in_threads(do, range(12, 30), 2)
    assert len(begun) < 9 and under_way == []


async def test_after_a_failure_or_a_cancellation_none_is_begun_and_none_is_left_under_way():
    """What was sent is waited for; the first failure is raised."""
    begun, ended = [], []

    async def do(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0.01 if number == 1 else 0.1)
        if number == 1:
            raise KeyError(number)
        ended.append(number)

    with pytest.raises(KeyError):
        await loop.all_of(do, range(10), 3)
    assert begun == [0, 1, 2] and ended == [0, 2]

    async def last(number: int) -> None:
        begun.append(number)
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(number)

    begun.clear(), ended.clear()
    asked = asyncio.create_task(loop.all_of(last, range(10), 2))
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert begun == ended == [0, 1]
