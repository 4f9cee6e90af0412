"""The log of a run: show the package's messages in it, as `get_run_logger` does for a user's, and errors briefly."""

from __future__ import annotations

import logging
from typing import Final
from weakref import ref

from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.secrets import scrub_text

__all__ = ["show_in_runs"]

_PACKAGE = logging.getLogger("ivcap_flows")
_TELL_ERRORS: Final = ("prefect.task_runs", "prefect.flow_runs", "prefect.engine")
"""The loggers by which Prefect reports the error that ended a task run, its flow run, and the flow's process."""

_PARKED: Final = "Finished in state Parked("

_said: list[ref[IvcapFlowsError]] = []
"""The errors that a log has, as long as they live. Threads add to a list, and copy it, without a lock."""


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


def _briefly(record: logging.LogRecord) -> bool:
    """Say an error of the package once, by its message, which names the thing and the next step. Let all records pass.

    Prefect would show it several times with its traceback, as it still does at level DEBUG.
    """
    if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
        return True
    message = record.getMessage()
    said = [each() for each in tuple(_said)]
    for logged in said:
        name = type(logged).__name__
        if name in message:
            for text in (str(logged), repr(str(logged))[1:-1]):
                message = message.replace(f"{name}: {text}", f"{name}, see above")
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, IvcapFlowsError):
        kind, of_prefect = type(error).__name__, str(record.msg).partition(":")[0].rstrip(".")
        message = f"{of_prefect}: {kind}, see above." if error in said else f"{kind}: {scrub_text(str(error))}"
        record.exc_info = None
        if error not in said:
            _said.append(ref(error, _said.remove))
    if message != record.getMessage():
        record.msg, record.args = message, ()
    return True


def _parked_is_no_error(record: logging.LogRecord) -> bool:
    """Tell at INFO that a run has parked. Prefect takes each end of an asynchronous run but completion for an error."""
    if record.levelno == logging.ERROR and record.getMessage().startswith(_PARKED):
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


def show_in_runs() -> None:
    """Show the package's records in the log of the run, and its errors briefly. A second call does nothing."""
    if _PACKAGE.level == logging.NOTSET:
        _PACKAGE.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToRun) for handler in _PACKAGE.handlers):
        _PACKAGE.addHandler(_ToRun())
        for name in _TELL_ERRORS:
            logging.getLogger(name).addFilter(_briefly)
            logging.getLogger(name).addFilter(_parked_is_no_error)
