"""The parameters of a flow as Prefect validates them, without its log line, which shows all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["validated"]


def validated(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the flow gets for these parameters. Raises what Prefect raises if it does not accept them."""
    if not flow.should_validate_parameters:
        return dict(parameters)
    with _quietly():
        return flow.validate_parameters(dict(parameters))


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop what this thread logs about flows in the block: of parameters, the error says what is wrong."""
    log, here = logging.getLogger("prefect.flows"), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(of_others)
    try:
        yield
    finally:
        log.removeFilter(of_others)
