"""The threads in which coroutines have done what blocks, by what it waits for.

The default threads of an event loop are few, and asyncio looks up the name of each host in them. Whatever else held
them would keep every new connection waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from ivcap_flows.forked import PerProcess

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["FILES", "JOURNAL", "UNPACKING", "WHOLE_FILES", "Threads", "alone"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """At most so many threads of this process, shared by its event loops. A call beyond them waits for one.

    A call must not wait for another that needs one of the same threads; `alone` runs what may.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._pool: PerProcess[list[ThreadPoolExecutor]] = PerProcess(list)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a thread, in the caller's context. If the caller is cancelled, the call may go on."""
        return await self.begin(call, *args, **kwargs)

    def begin(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begin a call as `run` does. Raises RuntimeError while the interpreter ends, which gives no more threads."""
        pools = self._pool()
        if not pools:
            # Two threads may both make one. The pool that is not first gets no call and so has no thread.
            pools.append(_threads(self._name, self._most))
        return _begin(pools[0], call, *args, **kwargs)


async def alone(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call in a thread of its own, which waits for no other.

    For what waits for more than the disk: another server, a lock, a user's iterator, which may call this package again.
    """
    thread = _threads("alone", 1)
    try:
        begun = _begin(thread, call, *args, **kwargs)
    finally:
        # The thread ends after the call.
        thread.shutdown(wait=False)
    return await begun


def _threads(name: str, most: int) -> ThreadPoolExecutor:
    # Not above: it takes time to import, and cannot be imported any more while the interpreter ends.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(most, thread_name_prefix=f"ivcap-flows-{name}")


def _begin(threads: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    bound: Callable[[], T] = partial(copy_context().run, partial(call, *args, **kwargs))
    return asyncio.get_running_loop().run_in_executor(threads, bound)


JOURNAL: Final = Threads("journal", 8)
"""For calls of a journal, as many as its database has connections kept for."""

FILES: Final = Threads("file", 8)
"""For a block of a file or a small file: a request that is under way may wait for it."""

WHOLE_FILES: Final = Threads("whole-file", 8)
"""For what reads files to their end, such as for their digest, or walks through a folder. No request waits for it."""

UNPACKING: Final = Threads("unpacking", 16)
"""For archives that are unpacked while they arrive. Each waits for its download, which is opened from its thread."""
