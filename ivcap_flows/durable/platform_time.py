"""When an effect can have come about, by the platform's own clock: no clock of this side decides what is looked at.

The clocks of this machine and of the journal may be wrong by hours, and may be set while a request is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import IntentRow

__all__ = ["SPREAD", "PlatformClock", "Sent", "is_ahead", "look_since", "visibility_delay_left"]

SPREAD: Final = timedelta(seconds=60)
"""By how much the machines of one platform may differ among themselves: the one that writes the Date header, and the
one that stamps the record. Servers are kept to fractions of a second; this is for one that is not."""


class PlatformClock(Protocol):
    """The platform's own time, as its replies tell it. The clients of both platforms are such clocks."""

    @property
    def time(self) -> ServerTime | None:
        """What is known without asking; None before the first reply."""

    async def now(self) -> ServerTime | None:
        """The same, asking the platform where no reply has told it yet. None where the platform tells no time."""


def look_since(platform: ServerTime | None, *intents: IntentRow) -> datetime | None:
    """The platform's time before which no effect of these intents can have come about; `platform` is its time now.

    None where that is not known: then all that the platform has is read, however old it is.
    """
    known = [intent.platform_time for intent in intents]
    times = [moment for moment in known if moment is not None]
    first = min(times) if times and len(times) == len(known) else None
    return None if first is None or is_ahead(first, platform) else first - SPREAD


def is_ahead(moment: datetime, platform: ServerTime | None) -> bool:
    """Whether what was the platform's time is still to come: its clock was set back, and does not tell what is old."""
    return platform is not None and moment > platform.latest


class Sent(Protocol):
    """Something that was sent: an intent, or what a sink has on its way."""

    @property
    def sent_at(self) -> datetime | None:
        """The last moment at which a request may have left, by the journal's clock."""

    @property
    def sent_platform_time(self) -> datetime | None:
        """The same by the platform's clock, where it is known."""

    @property
    def may_send_until(self) -> datetime | None:
        """Until then a holder that is only presumed gone may still send; None where nobody may."""


def visibility_delay_left(
    sent: Iterable[Sent], visibility_delay: float, journal: datetime, platform: ServerTime | None
) -> float:
    """The seconds for which an effect of one of these may still be about to show.

    What has passed since the sending counts only as far as two clocks agree on it, the journal's and the platform's.
    So one that was set, however far, makes the wait longer and never shorter; and without the platform's, all of
    `visibility_delay` is waited for. It is longer than `visibility_delay` only by what a holder on another machine may
    still take to send.
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
    ahead = max(0.0, -there) if sent.may_send_until is not None else 0.0
    return min(visibility_delay + ahead, max(0.0, visibility_delay - min(here, there)))
