"""Follow a job's events until it ends (IVCAP OpenAPI 0.48, `/jobs/{id}/events`; server-sent events in practice)."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from ivcap_flows.errors import UnreachableError
from ivcap_flows.handles import TERMINAL, JobEvent
from ivcap_flows.http.session import Session
from ivcap_flows.http.sse import Sent, event_stream

__all__ = ["STATUS_EVENT", "follow", "is_status"]

STATUS_EVENT: Final = "ivcap.job.status"
"""The type of the platform's own events; all other events come from the service."""

GRACE: Final = 2.0
"""Seconds to wait in silence after the event that reports a job's end, since a service may still send events."""
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between reads of a job whose end was reported: its record may say `executing` for another moment."""
_BRIEF: Final = 1.0
"""Seconds. A reply without news that came sooner was not held by the platform, so the next request waits first."""
_REMEMBERED: Final = 10_000
"""Number of events to remember, to recognise those that a platform sends again."""


def is_status(event: JobEvent) -> bool:
    """Return whether an event reports the job's status, and so comes from the platform."""
    return event.type == STATUS_EVENT or (event.schema_urn or "").startswith("urn:ivcap:schema:job.status")


async def follow(
    session: Session,
    path: str,
    is_over: Callable[[], Awaitable[bool]],
    *,
    last_id: str | None = None,
    wait: int = 30,
    over: bool = False,
) -> AsyncGenerator[JobEvent, None]:
    """Yield each event once, in order, until the job ends.

    `wait` is the number of seconds that the platform may hold a request. Set `over` if the job is known to have ended.
    A broken stream is opened again after the last event. Raises NotFoundError and BadRequestError (501) if the platform
    has no events, and UnreachableError if nothing arrives for the session's whole budget.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    idle, failing_since = 0, None
    while True:
        began, fresh, told_end = time.monotonic(), False, False
        try:
            async with event_stream(
                session,
                path,
                params={"max-wait-time": 1 if over else wait},
                last_id=last_id,
                expect=(200, 204, 504),
                timeout=wait + 30.0,
            ) as stream:
                sent = stream.events() if stream.status == 200 else _none()
                while (each := await _next(sent, GRACE if told_end else None)) is not None:
                    event, key, resume = _event(each)
                    last_id = resume or last_id
                    if key in seen:
                        continue
                    seen[key] = None
                    if len(seen) > _REMEMBERED:
                        seen.popitem(last=False)
                    fresh, told_end = True, told_end or _tells_end(event)
                    yield event
            failing_since = None
        except UnreachableError:
            failing_since = began if fresh or failing_since is None else failing_since
            if time.monotonic() - failing_since > session.backoff.budget:
                raise
        if told_end:
            for pause in PAUSES:
                if await is_over():
                    break
                await asyncio.sleep(pause)
            return
        if over and not fresh:
            return
        # The last events may arrive between this request and the end of the job, so read once more after its end.
        over = await is_over()
        idle = 0 if fresh or over or time.monotonic() - began > _BRIEF else idle + 1
        if idle:
            await asyncio.sleep(session.backoff.delay(idle))


async def _next(sent: AsyncIterator[Sent], within: float | None) -> Sent | None:
    """Return the next event; None at the end of the stream, or if no event arrives within that many seconds."""
    try:
        return await asyncio.wait_for(anext(sent), within)
    except (StopAsyncIteration, asyncio.TimeoutError):
        return None


async def _none() -> AsyncIterator[Sent]:
    return
    yield  # makes it a generator


def _event(sent: Sent) -> tuple[JobEvent, str, str | None]:
    """Return the event, a key that identifies it, and the id to resume the stream after.

    The field names are compared without case, because some deployments have capitalised them.
    """
    try:
        body = json.loads(sent.data)
    except ValueError:
        body = sent.data
    given: Mapping[str, Any] = body if isinstance(body, Mapping) else {"data": body}
    named = {str(key).lower().replace("-", "").replace("_", ""): value for key, value in given.items()}
    number, own = _text(named.get("seqid")), _text(named.get("eventid"))
    resume = sent.id or number
    event = JobEvent(
        id=resume or own or "",
        type=_text(named.get("type")) or sent.type,
        schema_urn=_text(named.get("schema")),
        at=_time(named.get("timestamp")),
        data=named.get("data"),
    )
    return event, own or number or f"{sent.id}\n{sent.data}", resume


def _tells_end(event: JobEvent) -> bool:
    """Return whether an event reports the end of the job."""
    return is_status(event) and isinstance(event.data, Mapping) and event.data.get("status") in TERMINAL


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    # Events carry nanoseconds, which a Python datetime cannot hold.
    whole, dot, fraction = value.replace("Z", "+00:00").partition(".")
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    text = f"{whole}.{digits[:6]:0<6}{fraction[len(digits) :]}" if dot else whole
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
