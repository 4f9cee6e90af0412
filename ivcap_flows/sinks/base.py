"""The interface of sinks. A sink is one outside system that gets the record of a run, whenever it can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InputError,
    InvalidParameterError,
    RegistrationFailedError,
)
from ivcap_flows.identity import EMBEDDED, last_part, made_for_trial
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record

if TYPE_CHECKING:
    from ivcap_flows.journal import RunRow

__all__ = ["REFUSALS", "TRIAL", "Delivery", "Sink", "is_trial", "shareable", "without_emails"]

REFUSALS: Final = (BadRequestError, InvalidParameterError, ForbiddenError, InputError, RegistrationFailedError)
"""Errors whose cause a user must remove before another try makes sense. Any other error may be a fault of the code."""


@dataclass(frozen=True)
class Delivery:
    """The outcome of one try. `pending` is tried again later; `dead` is not, until a user asks for it.

    `facts` become part of the run's record, such as what the sink made of the run. `next_try` is the time of the next
    try of a pending delivery, by default after a wait that grows with each try.
    """

    state: Literal["delivered", "pending", "dead"]
    reason: str | None = None
    facts: Sequence[Record] = ()
    next_try: datetime | None = None


TRIAL: Final = "nothing was sent: the run is a trial, since it used another platform, an embedded one"
"""The reason of a delivery after which the sink has nothing of the run."""


async def is_trial(graph: Graph, platform: Callable[[], Awaitable[str]]) -> bool:
    """Whether a run was made on another, embedded platform. Such a trial must not be reported to a real platform.

    `platform` is called only if the run was made on an embedded one.
    """
    platforms = {str(record.attributes.get("platform", "")) for record in graph.nodes.values()}
    embedded = {name for name in platforms if name.startswith(EMBEDDED)}
    target = await platform() if embedded else ""
    return any(made_for_trial(name, target) for name in embedded)


class Sink(Protocol):
    """Delivers runs. Delivering a run twice has the effect of once. The outbox handles the errors of `deliver`."""

    @property
    def name(self) -> str:
        """The name under which deliveries are kept: the kind, a colon, and the target.

        Two targets of one kind have two names.
        """

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Update the outside system to what is known of a run now."""


_PATH: Final = re.compile(
    r"\bfile://[^\s'\"<>|]+"
    r"|\b[A-Za-z][\w+.-]+:/{3,}[^\s'\"<>|]+"  # a URL without a host, such as SQLite's
    r"|(?<![\w/.\]])(?:/[^\s/'\":,;<>|()]+){2,}"
    r"|\b[A-Za-z]:[\\/][^\s'\"<>|]+"
)
_HOME: Final = re.compile(r"(?:/home|/Users|[A-Za-z]:[\\/]Users)[\\/][^\\/]+[\\/]?$")
"""A path whose last part is the user's name."""
_PROCESS: Final = re.compile(r"\b(process \d+) on \S+ is gone")
"""The journal's words for a lost attempt, with the host that it ran on."""
_EMAIL: Final = re.compile(r"(?<![\w.+-])(?!git@)[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}")
"""`git@` is part of the addresses of repositories, and not a person's."""


def shareable(graph: Graph) -> Graph:
    """Return what may leave this machine: no local user or host, no e-mail address, only the last part of a path."""
    shared = graph.where(lambda record: not record.attributes.get("local"))
    return Graph(
        record.model_copy(update={"attributes": _shareable_value(_without_host(record))}) for record in shared.records
    )


def _without_host(record: Record) -> dict[str, Any]:
    """Return the attributes of a record without the process that ran a task, which is named by its machine."""
    return {name: value for name, value in record.attributes.items() if (record.type, name) != ("task-run", "process")}


def _shareable_value(value: Any) -> Any:
    if isinstance(value, str):
        return _shareable_text(value)
    if isinstance(value, dict):
        shared: dict[str, Any] = {}
        for name, inner in value.items():
            shared[_free(_shareable_text(name), shared)] = _shareable_value(inner)
        return shared
    if isinstance(value, list):
        return [_shareable_value(inner) for inner in value]
    return value


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken, by a number after it: paths may differ in their folders alone."""
    return next(each for each in chain([name], (f"{name} ({n})" for n in count(2))) if each not in taken)


def _shareable_text(text: str) -> str:
    if (os.path.isabs(text) or PureWindowsPath(text).is_absolute()) and "\n" not in text:
        return _shareable_path(text)
    text = _PATH.sub(lambda found: _shareable_path(found.group()), text)
    return _PROCESS.sub(r"\1 is gone", without_emails(text))


def without_emails(text: str) -> str:
    """Return a text in which no e-mail address shows."""
    return _EMAIL.sub("<e-mail>", text)


def _shareable_path(path: str) -> str:
    return "~" if _HOME.search(path) else last_part(path)
