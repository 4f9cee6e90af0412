"""When an effect can have happened, by the platform's clock. Only that clock decides which effects to look at.

The clocks of this machine and of the journal may be wrong by hours, and may be changed while a request is on its way.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Protocol

from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import IntentRow

__all__ = ["SPREAD", "PlatformClock", "is_ahead", "look_since"]

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
