"""When an effect can have happened, by the platform's clock. Only that clock decides which effects to look at.

The clocks of this machine and of the journal may be wrong by hours, and may be changed while a request is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import IntentRow
from ivcap_flows.journal.rows import LEAVES_WITHIN

__all__ = ["SPREAD", "PlatformClock", "Sent", "is_ahead", "look_since", "visibility_delay_left"]

SPREAD: Final = timedelta(seconds=60)
"""Allowed difference between the clocks of one platform's machines: the one that writes the Date header, and the one
that stamps the record. Usually it is a fraction of a second; this is for a server whose clock is not synchronised."""


class PlatformClock(Protocol):
    """The platform's time, taken from its replies. The clients of both platforms implement this."""

    @property
    def time(self) -> ServerTime | None:
        """The platform's time as known without a request; None before the first reply."""

    async def now(self) -> ServerTime | None:
        """Return the platform's time, with a request if there was no reply yet. None if the platform gives no time."""


def look_since(platform: ServerTime | None, *intents: IntentRow) -> datetime | None:
    """Return the platform's time before which no effect of these intents can have happened; `platform` is its time now.

    Return None if that is not known. Then everything on the platform must be read, however old it is.
    """
    known = [intent.platform_time for intent in intents]
    times = [moment for moment in known if moment is not None]
    first = min(times) if times and len(times) == len(known) else None
    return None if first is None or is_ahead(first, platform) else first - SPREAD


def is_ahead(moment: datetime, platform: ServerTime | None) -> bool:
    """Return whether an earlier time of the platform is in its future: its clock was set back, so ages are unknown."""
    return platform is not None and moment > platform.latest


class Sent(Protocol):
    """Something that was sent: an intent, or a delivery of a sink."""

    @property
    def sent_at(self) -> datetime | None:
        """The last moment at which a request may have left, by the journal's clock."""

    @property
    def sent_platform_time(self) -> datetime | None:
        """The same moment by the platform's clock, if known."""

    @property
    def may_send_until(self) -> datetime | None:
        """The time until which a holder that only seems dead may still send; None if no holder may."""


def visibility_delay_left(
    sent: Iterable[Sent], visibility_delay: float, journal: datetime, platform: ServerTime | None
) -> float:
    """Return for how many seconds an effect of one of these may still become visible.

    The time since the sending counts only as far as the journal's clock and the platform's clock agree on it. So a
    clock that was changed makes the wait longer, never shorter. Without the platform's time, the wait is the whole
    `visibility_delay`. It exceeds `visibility_delay` only by the time that a holder on another machine may still take
    to send.
    """
    return max((_still(each, visibility_delay, journal, platform) for each in sent), default=0.0)


def _still(sent: Sent, visibility_delay: float, journal: datetime, platform: ServerTime | None) -> float:
    if sent.sent_at is None:
        return visibility_delay
    here = (journal - sent.sent_at).total_seconds()
    if sent.sent_platform_time is None or platform is None:
        there = min(0.0, here)
    else:
        there = (platform.earliest - sent.sent_platform_time).total_seconds()
    # A platform's clock that was set back says hours, but a request that leaves does so within LEAVES_WITHIN.
    ahead = min(LEAVES_WITHIN, max(0.0, -there)) if sent.may_send_until is not None else 0.0
    return min(visibility_delay + ahead, max(0.0, visibility_delay - min(here, there)))
