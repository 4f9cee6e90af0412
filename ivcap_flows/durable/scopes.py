"""Scopes: within which range two equal requests are one effect, and a warning when two calls share one."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_args

from ivcap_flows.errors import InputError
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["Asker", "expand", "warn_shared"]

logger = logger_of("ivcap_flows.durable")

_warned: deque[str] = deque(maxlen=1_000)


@dataclass(frozen=True)
class Asker:
    """A try of a task run that requests effects: the outermost, or one that another called.

    The next try requests the same ones once more, and so does a Dask or Ray worker that takes it over. These are not
    second calls. Two equal requests within one try of the outermost task run are.
    """

    task_run: str
    """The outermost task run."""
    _outer: Asker | None = None
    _requests: Counter[str] = field(default_factory=Counter)
    _called: dict[str, Asker] = field(default_factory=dict)

    def try_of(self, task_run: str) -> Asker:
        """Return the asker for a try of a task run that this one called, which begins now."""
        before = self._called.pop(task_run, None)
        if before is not None:
            for each in self._lineage():
                each._requests.subtract(before._requests)
        self._called[task_run] = begun = Asker(self.task_run, self)
        return begun

    def call(self, key: str) -> str:
        """Name the call that now requests the effect with this key: the same name in each try of the task run."""
        for each in self._lineage():
            each._requests[key] += 1
        return f"{self.task_run}#{each._requests[key]}"

    def _lineage(self) -> Iterator[Asker]:
        """Yield this one, the one that called it, and so on to the outermost."""
        each: Asker | None = self
        while each is not None:
            yield each
            each = each._outer


def expand(once_per: OncePer, *, run: str | None, flow: str | None) -> str:
    """Return the scope as a part of the key. Outside a run, each call gets a scope of its own.

    `flow` is the flow's name, which does not depend on the place of its code. Raise InputError for another word.
    """
    if once_per not in get_args(OncePer):
        words = ", ".join(map(repr, get_args(OncePer)))
        raise InputError(f"The argument once_per is one of {words}, not {once_per!r}.")
    if once_per == "account":
        return "account"
    if once_per == "run" and run is not None:
        return f"run:{run}"
    if once_per == "flow" and flow is not None:
        return f"flow:{flow}"
    return f"call:{uuid.uuid4()}"


def warn_shared(intent: IntentRow, once_per: OncePer) -> None:
    """Warn, once per key and process, that two calls of one run share an effect. Once per account, that is intended."""
    if once_per == "account" or intent.run_id is None or intent.key in _warned:
        return
    _warned.append(intent.key)
    subject = f" for {intent.subject}" if intent.subject else ""
    logger.warning(
        "Two calls in one run ask for the same %s%s, so they share one (%s). If two are meant, give each call its own "
        "discriminator='…', or once_per='call' for one that is never shared.",
        intent.noun,
        subject,
        intent.urn or intent.key,
    )
