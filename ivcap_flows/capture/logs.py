"""What the package says in a run is kept with the run: Prefect shows it beside the run's own log."""

from __future__ import annotations

import logging

__all__ = ["show_in_runs"]

_PACKAGE = logging.getLogger("ivcap_flows")


class _ToRun(logging.Handler):
    """Sends records of INFO and above to Prefect's API while a flow or task runs; the console is left to logging."""

    def __init__(self) -> None:
        from prefect.logging.handlers import APILogHandler

        super().__init__(logging.INFO)
        self._api = APILogHandler()

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.context import FlowRunContext, TaskRunContext

        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            self._api.emit(record)


def show_in_runs() -> None:
    """Let the package's records appear in Prefect's log of a run; calling it twice does nothing."""
    if not any(isinstance(handler, _ToRun) for handler in _PACKAGE.handlers):
        _PACKAGE.addHandler(_ToRun())
        if _PACKAGE.level == logging.NOTSET:
            _PACKAGE.setLevel(logging.INFO)
