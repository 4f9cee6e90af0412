"""What a poller logs of a platform: when it is out of reach and when it answers again, and which lists it refuses."""

from __future__ import annotations

import time

from ivcap_flows.durable.wording import counted
from ivcap_flows.errors import PlatformError
from ivcap_flows.secrets import logger_of

__all__ = ["PollLog"]

logger = logger_of("ivcap_flows.waiting")


class PollLog:
    """The log of one poller. `what` is the plural noun of its work."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._silent: set[str] = set()
        """The lists and records that were asked for last without an answer."""
        self._silent_since = 0.0
        self._refused: set[str] = set()

    def answered(self, asked: str, failure: Exception | None, waits: int) -> None:
        """Note whether the platform answered, and log when it begins and when it ceases to be out of reach."""
        was = bool(self._silent)
        (self._silent.discard if failure is None else self._silent.add)(asked)
        if failure is not None and not was:
            self._silent_since = time.monotonic()
            logger.warning("Still waiting for %s: %s", counted(waits, self._what), failure)
        elif was and not self._silent:
            away = time.monotonic() - self._silent_since
            logger.warning("The platform answers again after %.0f s; waiting goes on.", away)

    def forget(self, asked: str) -> None:
        """Forget a record that is no longer asked for."""
        self._silent.discard(asked)

    def refused(self, name: str, error: Exception) -> None:
        """Log once for each list why it cannot be read. A fault of this package is shown with its traceback."""
        if name not in self._refused:
            self._refused.add(name)
            shown = None if isinstance(error, PlatformError) else error
            why = f"{type(error).__name__}: {error}"
            listed = f"list of {self._what} {name}".rstrip()
            logger.warning("The %s cannot be read, so the wait goes on without it. %s", listed, why, exc_info=shown)
