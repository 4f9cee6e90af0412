"""Scopes: within which range two equal requests are one effect, and a warning when two calls share one."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

from ivcap_flows.errors import InputError
from ivcap_flows.identity import Scope
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["Asker", "expand", "warn_shared"]

logger = logger_of("ivcap_flows.durable")

_warned: set[str] = set()


@dataclass(frozen=True)
class Asker:
    """The outermost task run that requests effects.

    Its next try requests the same ones once more, and so does a Dask or Ray worker that takes it over. These are not
    second calls. Two equal requests within one try are.
    """

    task_run: str
    _requests: Counter[str] = field(default_factory=Counter)

    def call(self, key: str) -> str:
        """Name the call that now requests the effect with this key: the same name in each try of the task run."""
        self._requests[key] += 1
        return f"{self.task_run}#{self._requests[key]}"


def expand(scope: Scope, *, run: str | None, flow: str | None) -> str:
    """Return the scope as a part of the key. Outside a run, each call gets a scope of its own.

    `flow` is the flow's name, which does not depend on the place of its code. Raise InputError if `scope` is unknown.
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
    """Warn, once per key and process, that two calls of one run share an effect. In scope account, that is intended."""
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
