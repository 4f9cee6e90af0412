"""Keep errors in recording away from the flow: log them, and count what is missing from the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ivcap_flows.secrets import logger_of

__all__ = ["log_and_count"]

log = logger_of("ivcap_flows.capture")


@contextlib.contextmanager
def log_and_count(count: Callable[[], object], message: str, *arguments: object) -> Iterator[None]:
    """If the block raises, call `count` to count what is missing, and log `message % arguments`."""
    try:
        yield
    except Exception:
        count()
        log.warning(message, *arguments, exc_info=True)
