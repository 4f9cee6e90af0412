"""What the package says reaches the log of the Prefect run in which it is said."""

from __future__ import annotations

import logging

__all__ = ["show_in_runs"]

_PACKAGE = logging.getLogger("ivcap_flows")


class _ToRun(logging.Handler):
    """Hands records to Prefect's run logger; outside of a run, does as logging does without any handler."""

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        try:
            run = get_run_logger()
        except MissingContextError:
            last = logging.lastResort
            if last is not None and record.levelno >= last.level and not logging.getLogger().handlers:
                last.handle(record)
            return
        run.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def show_in_runs() -> None:
    """Let the package's records of INFO and above appear in Prefect's logs; calling it twice does nothing."""
    if any(isinstance(handler, _ToRun) for handler in _PACKAGE.handlers):
        return
    _PACKAGE.addHandler(_ToRun())
    if _PACKAGE.level == logging.NOTSET:
        _PACKAGE.setLevel(logging.INFO)
