"""The package's loggers. Their messages hold no secret, whichever handler gets them."""

from __future__ import annotations

import logging
from typing import Final

from ivcap_flows.secrets.scrubbing import scrub_text

__all__ = ["logger_of"]

_FORMATTER: Final = logging.Formatter()


def _without_secrets(record: logging.LogRecord) -> bool:
    """Replace the message and its arguments by the scrubbed message. Let every record pass."""
    said = record.getMessage()
    shown = scrub_text(said)
    if shown != said:
        record.msg, record.args = shown, ()
    if record.exc_info:
        # Formatters show this text if there is one.
        record.exc_text = scrub_text(_FORMATTER.formatException(record.exc_info))
    return True


def logger_of(name: str) -> logging.Logger:
    """Return the logger with this name. Its records are scrubbed before any handler gets them."""
    logger = logging.getLogger(name)
    if _without_secrets not in logger.filters:
        logger.addFilter(_without_secrets)
    return logger
