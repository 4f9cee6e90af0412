"""The package's loggers: what they say holds no secret, whoever listens."""

from __future__ import annotations

import logging
from typing import Final

from ivcap_flows.secrets.scrubbing import scrub_text

__all__ = ["logger_of"]

_FORMATTER: Final = logging.Formatter()


def _without_secrets(record: logging.LogRecord) -> bool:
    """Put the message as it is shown in the place of what it is made of; every record passes."""
    said = record.getMessage()
    shown = scrub_text(said)
    if shown != said:
        record.msg, record.args = shown, ()
    if record.exc_info:
        # Formatters show this text where there is one.
        record.exc_text = scrub_text(_FORMATTER.formatException(record.exc_info))
    return True


def logger_of(name: str) -> logging.Logger:
    """The logger of this name; what is logged through it is scrubbed before any handler has it."""
    logger = logging.getLogger(name)
    if _without_secrets not in logger.filters:
        logger.addFilter(_without_secrets)
    return logger
