"""Server-sent events (WHATWG HTML, section 9.2), decoded by httpx-sse, with a limit on an event's size."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from httpx_sse import EventSource, SSEError

from ivcap_flows.errors import ProtocolError
from ivcap_flows.http.reply import StreamedReply
from ivcap_flows.http.session import Session

__all__ = ["MAX_EVENT", "EventStream", "Sent", "event_stream"]

MAX_EVENT: Final = 1024 * 1024
"""Maximum bytes of one event; a stream with a larger one is refused."""

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_OVERLAP: Final = 3
"""Bytes at the end of a block that may belong to a blank line that continues in the next block."""


@dataclass(frozen=True)
class Sent:
    """An event as it was sent. `id` is the last id in the stream; a broken stream resumes after it."""

    id: str
    type: str
    data: str


class EventStream:
    """An open stream, or a reply with another status that the caller expects."""

    def __init__(self, session: Session, path: str, reply: StreamedReply) -> None:
        self.status = reply.status
        self._session, self._path, self._reply = session, path, reply

    async def events(self) -> AsyncIterator[Sent]:
        """Yield the events that have data, as they arrive.

        Raises UnreachableError if the stream breaks, and ProtocolError if it is not an event stream.
        """
        response = httpx.Response(self.status, headers=dict(self._reply.headers), content=self._bounded())
        try:
            async for event in EventSource(response).aiter_sse():
                if event.data:
                    yield Sent(event.id, event.event, event.data)
        except SSEError as error:
            raise self._violation("is no event stream") from error

    async def _bounded(self) -> AsyncIterator[bytes]:
        """Yield the blocks. Raise once more than `MAX_EVENT` bytes arrive without the blank line that ends an event."""
        held, tail = 0, b""
        async for block in self._reply.blocks():
            seen = tail + block
            held += len(block)
            for blank in _BLANK_LINE.finditer(seen):
                held = len(seen) - blank.end()
            if held > MAX_EVENT:
                # Pass on the complete events before the oversized one.
                yield block[: max(0, len(block) - held)]
                raise self._violation(f"holds an event larger than {MAX_EVENT} bytes")
            tail = seen[-_OVERLAP:]
            yield block

    def _violation(self, fault: str) -> ProtocolError:
        return ProtocolError(
            f"The reply of {self._session.platform} to GET {self._path} {fault}.",
            platform=self._session.platform,
            method="GET",
            path=self._path,
            status=self.status,
            detail=fault,
            sent=True,
        )


@asynccontextmanager
async def event_stream(
    session: Session,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    last_id: str | None = None,
    expect: Collection[int] = (200,),
    timeout: float | None = None,
) -> AsyncIterator[EventStream]:
    """Open a stream of events, from after `last_id` if given. `timeout` is the longest silence in seconds."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_id:
        headers["Last-Event-Id"] = last_id
    async with session.stream(
        "GET", path, repeat="idempotent", params=params, headers=headers, expect=expect, timeout=timeout
    ) as reply:
        yield EventStream(session, path, reply)
