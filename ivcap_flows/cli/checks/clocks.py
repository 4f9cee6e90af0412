"""The clocks: how far this machine's is from those of the platforms and of the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Final

from ivcap_flows.cli.checks import Wrong, platforms
from ivcap_flows.cli.platform import in_time, ivcap, provena
from ivcap_flows.cli.records import read_journal
from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.wording import duration
from ivcap_flows.errors import IvcapFlowsError

__all__ = ["APART", "ahead_of", "check_clocks"]

APART: Final = 60.0
"""Seconds between two clocks from which on it matters: tokens are renewed half a minute before their end."""


def check_clocks() -> list[str]:
    """Compare this machine's clock with the others. A clock that cannot be read is left to the check of its own."""
    ahead: dict[str, float] = {}
    clocks: dict[str, Callable[[], float | None]] = {
        "IVCAP": lambda: in_time("IVCAP", _ahead_at(ivcap), platforms.TIMEOUT),
        "Provena": lambda: in_time("Provena", _ahead_at(provena), platforms.TIMEOUT),
        "the journal": _ahead_of_journal,
    }
    for name, read in clocks.items():
        with contextlib.suppress(IvcapFlowsError):
            seconds = read()
            if seconds is not None:
                ahead[name] = seconds
    wrong = [
        f"{duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} that of {name}"
        for name, seconds in ahead.items()
        if abs(seconds) > APART
    ]
    if wrong:
        return [
            Wrong(
                f"This machine's clock is {', and '.join(wrong)}. No look-up uses this clock, so nothing is sent "
                "twice. But times in records are wrong by as much, tokens are renewed at the wrong time, and parked "
                "runs and deliveries wait for the wrong moment. Set the clock that is wrong, with NTP if possible."
            )
        ]
    return [f"this machine's is within a minute of that of {', '.join(ahead)}" if ahead else "no other could be read"]


async def _ahead_at(client_of: Callable[[], Awaitable[PlatformClock]]) -> float | None:
    return await ahead_of(await client_of())


async def ahead_of(clock: PlatformClock) -> float | None:
    """Return the seconds by which this machine's clock is surely ahead of a platform's, negative if it is behind.

    None if the platform gives no time.
    """
    platform = await clock.now()
    own = datetime.now(timezone.utc)
    if platform is None:
        return None
    return max(0.0, (own - platform.latest).total_seconds()) + min(0.0, (own - platform.earliest).total_seconds())


def _ahead_of_journal() -> float:
    with read_journal() as journal:
        return (datetime.now(timezone.utc) - journal.now()).total_seconds()
