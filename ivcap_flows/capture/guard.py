"""Nothing that goes wrong in recording reaches the flow: it is logged, and counted as missing from the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ivcap_flows.secrets import logger_of

__all__ = ["unraised"]

log = logger_of("ivcap_flows.capture")


@contextlib.contextmanager
def unraised(count: Callable[[], object], told: str, *arguments: object) -> Iterator[None]:
    """`count` what is missing for what the block raises, and log it as `told % arguments`."""
    try:
        yield
    except Exception:
        count()
        log.warning(told, *arguments, exc_info=True)
