"""Show the package's messages in the log of the run that they belong to, as `get_run_logger` does for a user's own."""

from __future__ import annotations

import logging

__all__ = ["show_in_runs"]

_PACKAGE = logging.getLogger("ivcap_flows")


class _ToRun(logging.Handler):
    """Makes records of INFO and above records of the running flow or task: Prefect's API gets each once from here.

    It goes on to the handlers of the root logger, such as Prefect's console, which show it once, as one of the run.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.context import FlowRunContext, TaskRunContext
        from prefect.logging import get_run_logger
        from prefect.logging.handlers import APILogHandler

        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            return
        run = get_run_logger()
        if not isinstance(run, logging.LoggerAdapter):
            return
        vars(record).update(run.extra or {}, name=run.logger.name)
        # A user who names the package in PREFECT_LOGGING_EXTRA_LOGGERS has Prefect's own handler here.
        if not any(isinstance(handler, APILogHandler) for handler in _PACKAGE.handlers):
            for handler in run.logger.handlers:
                handler.handle(record)


def show_in_runs() -> None:
    """Show the package's records in the log of the run. A second call does nothing."""
    if not any(isinstance(handler, _ToRun) for handler in _PACKAGE.handlers):
        _PACKAGE.addHandler(_ToRun())
        if _PACKAGE.level == logging.NOTSET:
            _PACKAGE.setLevel(logging.INFO)
