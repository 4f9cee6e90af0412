"""Write into the flow's log, while it waits, what the services say: the lines of their logs and the events of jobs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Final

from ivcap_flows.errors import PlatformError
from ivcap_flows.forked import PerProcess
from ivcap_flows.handles import JobEvent
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.pool import STREAMS_AT_ONCE
from ivcap_flows.identity import ivcap_urn, urn_id
from ivcap_flows.journal.rows import Wait
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.plain_text import visible
from ivcap_flows.secrets import logger_of
from ivcap_flows.tasks.call import IvcapCall

__all__ = ["following"]

logger = logger_of("ivcap_flows.waiting")

MOST: Final = 8
"""The maximum number of orders and jobs that one wait follows: nobody reads more at a time."""
PLACES: Final = STREAMS_AT_ONCE // 2
"""How many logs and events all waits of this process read at once. They may take as long as the work, and downloads
need streams, too."""
PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between two readings of a log, from one that had new lines to one that had none for long."""
LAST: Final = 2.0
"""Maximum number of seconds, after the wait is over, for the last lines and events."""
_LINE: Final = 1_000
"""The maximum number of characters of an event."""


@dataclass
class _Logged:
    """How much of an order or job this process has logged, for all its waits for it: lines, and the last event."""

    lines: int = 0
    event: str | None = None


_logged: Final[LruCache[str, _Logged]] = LruCache(1_000)
_places: Final = PerProcess(lambda: threading.Semaphore(PLACES))


@asynccontextmanager
async def _place() -> AsyncIterator[None]:
    """Wait for a place, and hold it in the block. The loops of this process share the places."""
    places, pauses = _places(), Pauses(PAUSES[0], PAUSES[-1])
    while not places.acquire(blocking=False):
        await pauses.sleep()
    try:
        yield
    finally:
        places.release()


@asynccontextmanager
async def following(call: IvcapCall, waits: Sequence[Wait], *, asked: bool) -> AsyncIterator[None]:
    """While the block runs, log what orders and jobs say, if that is asked. What cannot be read is left out."""
    over = asyncio.Event()
    followed = waits[:MOST] if asked else ()
    if len(followed) < len(waits) and any(_logged.get(wait.urn) is None for wait in followed):
        logger.info("The log follows the first %d of %d.", MOST, len(waits))
    alike = Counter(wait.name for wait in followed)
    readers = [
        asyncio.ensure_future(reader)
        for wait in followed
        for reader in _readers(call, wait, _called(wait, alike[wait.name]), over)
    ]
    try:
        yield
        over.set()
        if readers:
            await asyncio.wait(readers, timeout=LAST)
    finally:
        for reader in readers:
            reader.cancel()
        for failed in await asyncio.gather(*readers, return_exceptions=True):
            if isinstance(failed, Exception):
                logger.warning("The log cannot follow the services: %s: %s", type(failed).__name__, failed)


def _called(wait: Wait, alike: int) -> str:
    """Return how the log names an order or job, of which so many are followed under one name."""
    name = wait.name or wait.urn
    return name if alike == 1 else f"{name} {urn_id(wait.urn)[:8]}"


def _readers(call: IvcapCall, wait: Wait, name: str, over: asyncio.Event) -> list[Awaitable[None]]:
    logged = _logged.get(wait.urn) or _Logged()
    _logged.put(wait.urn, logged)

    def say(text: str) -> None:
        logger.info("%s | %s", name, visible(text))

    readers: list[Awaitable[None]] = [_read_log(call, wait, logged, say, over)]
    if wait.noun == "job":
        readers.append(_read_events(call, wait, logged, say))
    return readers


async def _read_log(
    call: IvcapCall, wait: Wait, logged: _Logged, say: Callable[[str], None], over: asyncio.Event
) -> None:
    """Read a log again and again, and say its new lines. A platform may send it while it grows, or as it is now."""
    quiet, last = -1, False
    while not last:
        last, before, number = over.is_set(), logged.lines, 0
        try:
            order = await _order_of(call, wait)
            async with _place(), aclosing(call.client.orders.logs(order)) as lines:
                async for line in lines:
                    number += 1
                    if number > logged.lines:
                        logged.lines = number
                        say(line)
        except PlatformError as error:
            logger.debug("The log of %s cannot be read now: %s", wait.urn, error)
        quiet = 0 if logged.lines > before else min(quiet + 1, len(PAUSES) - 1)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), PAUSES[quiet])


async def _order_of(call: IvcapCall, wait: Wait) -> str:
    """Return the order whose log has what the work says: a job has one."""
    if wait.noun == "order":
        return wait.urn
    job = await call.client.jobs.read(wait.service, wait.urn, with_result=False)
    return ivcap_urn("order", job.order or wait.urn)


async def _read_events(call: IvcapCall, wait: Wait, logged: _Logged, say: Callable[[str], None]) -> None:
    try:
        async with (
            _place(),
            aclosing(call.client.jobs.events(wait.service, wait.urn, last_id=logged.event)) as events,
        ):
            async for event in events:
                logged.event = event.id or logged.event
                say(_said(event))
    except PlatformError as error:
        logger.debug("The events of %s cannot be read: %s", wait.urn, error)


def _said(event: JobEvent) -> str:
    from ivcap_flows.ivcap.job_events import is_status

    data: Any = event.data
    if is_status(event) and isinstance(data, Mapping) and "status" in data:
        return str(data["status"])
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{event.type}: {shorten(text, _LINE, placeholder=' …')}"
