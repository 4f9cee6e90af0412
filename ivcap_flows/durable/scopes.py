"""Within what two equal requests are one effect, and the word to the user when that happens."""

from __future__ import annotations

import uuid
from typing import get_args

from ivcap_flows.errors import InputError
from ivcap_flows.identity import Scope
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["expand", "warn_shared"]

logger = logger_of("ivcap_flows.durable")

_warned: set[str] = set()


def expand(scope: Scope, *, run: str | None, flow: str | None) -> str:
    """The scope as it enters the key. Outside any run there is nothing to share with, so each call is its own.

    `flow` is what the run's flow is known by, wherever its code lies. Raises InputError for a scope that is none.
    """
    if scope not in get_args(Scope):
        raise InputError(f"A scope is one of {', '.join(map(repr, get_args(Scope)))}, not {scope!r}.")
    if scope == "account":
        return "account"
    if scope == "run" and run is not None:
        return f"run:{run}"
    if scope == "flow" and flow is not None:
        return f"flow:{flow}"
    return f"call:{uuid.uuid4()}"


def warn_shared(intent: IntentRow, scope: Scope) -> None:
    """Say, once per key and process, that two calls of one run share an effect. Scope account is meant to share."""
    if scope == "account" or intent.run_id is None or intent.key in _warned:
        return
    _warned.add(intent.key)
    subject = f" for {intent.subject}" if intent.subject else ""
    logger.warning(
        "Two calls in one run ask for the same %s%s, so they share one (%s). If two are meant, give each call its own "
        "discriminator='…', or scope='call' for one that is never shared.",
        intent.noun,
        subject,
        intent.urn or intent.key,
    )
