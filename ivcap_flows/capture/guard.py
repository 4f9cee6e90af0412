"""Keep errors in recording away from the flow: log them, and count what is missing from the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ivcap_flows.secrets import logger_of

__all__ = ["unraised"]

log = logger_of("ivcap_flows.capture")


@contextlib.contextmanager
def unraised(count: Callable[[], object], told: str, *arguments: object) -> Iterator[None]:
    """If the block raises, call `count` to count what is missing, and log `told % arguments`."""
    try:
        yield
    except Exception:
        count()
        log.warning(told, *arguments, exc_info=True)
