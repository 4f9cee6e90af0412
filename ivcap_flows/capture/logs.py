"""Show the package's messages in Prefect, beside the run's own log."""

from __future__ import annotations

import logging

__all__ = ["show_in_runs"]

_PACKAGE = logging.getLogger("ivcap_flows")


class _ToRun(logging.Handler):
    """Sends records of INFO and above to Prefect's API while a flow or task runs. Writes nothing to the console."""

    def __init__(self) -> None:
        from prefect.logging.handlers import APILogHandler

        super().__init__(logging.INFO)
        self._api = APILogHandler()

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.context import FlowRunContext, TaskRunContext

        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            self._api.emit(record)


def show_in_runs() -> None:
    """Show the package's records in Prefect's log of a run. A second call does nothing."""
    if not any(isinstance(handler, _ToRun) for handler in _PACKAGE.handlers):
        _PACKAGE.addHandler(_ToRun())
        if _PACKAGE.level == logging.NOTSET:
            _PACKAGE.setLevel(logging.INFO)
