"""What a sink is: one outside system that gets the record of a run, whenever it can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InputError,
    InvalidParameterError,
    RegistrationFailedError,
)
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record

if TYPE_CHECKING:
    from ivcap_flows.journal import RunRow

__all__ = ["EMBEDDED", "REFUSALS", "Delivery", "Sink", "is_trial", "shareable"]

REFUSALS: Final = (
    BadRequestError,
    InvalidParameterError,
    ForbiddenError,
    InputError,
    RegistrationFailedError,
    ValueError,
)
"""What a user has to put right before it is worth another try."""


@dataclass(frozen=True)
class Delivery:
    """How one try went. `pending` is tried again later, `dead` not before `reason` is put right.

    `facts` are what the run states from now on, such as what the sink has made of it. `next_try` is when what is
    pending is tried again, by default after a time that grows with each try.
    """

    state: Literal["delivered", "pending", "dead"]
    reason: str | None = None
    facts: Sequence[Record] = ()
    next_try: datetime | None = None


EMBEDDED: Final = "urn:ivcap-flows:embedded:"
"""How the id of an embedded platform begins."""


async def is_trial(graph: Graph, platform: Callable[[], Awaitable[str]]) -> bool:
    """Whether a run was made on another, embedded platform: a trial, which no real platform is to be told of.

    `platform` is asked only where the run was made on an embedded one.
    """
    on = {str(record.attributes.get("platform", "")) for record in graph.nodes.values()}
    embedded = {name for name in on if name.startswith(EMBEDDED)}
    return bool(embedded) and embedded != {await platform()}


class Sink(Protocol):
    """Delivering the same run twice has the effect of once. Errors are the outbox's to judge."""

    @property
    def name(self) -> str:
        """What its deliveries are kept under; two targets of one kind have two names."""

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Bring the outside system to what is known of a run now."""


_PATH: Final = re.compile(
    r"\bfile://[^\s'\"<>|]+"
    r"|\b[A-Za-z][\w+.-]+:/{3,}[^\s'\"<>|]+"  # a URL without a host, such as SQLite's
    r"|(?<![\w/.\]])(?:/[^\s/'\":,;<>|()]+){2,}"
    r"|\b[A-Za-z]:[\\/][^\s'\"<>|]+"
)
_HOME: Final = re.compile(r"(?:/home|/Users|[A-Za-z]:[\\/]Users)[\\/][^\\/]+[\\/]?$")
"""Where the last part of a path is the user's name."""
_PROCESS: Final = re.compile(r"\b(process \d+) on \S+ is gone")
"""How the journal words that an attempt was lost, with the host that it ran on."""
_EMAIL: Final = re.compile(r"(?<![\w.+-])(?!git@)[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}")
"""`git@` is what the hosts of repositories are called by, and nobody's address."""


def shareable(graph: Graph) -> Graph:
    """What may leave this machine: no local user or host, no absolute path (its last part stays), no e-mail address."""
    shared = graph.where(lambda record: not record.attributes.get("local"))
    return Graph(
        record.model_copy(update={"attributes": _each_text(record.attributes, _bare)}) for record in shared.records
    )


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _each_text(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_each_text(inner, change) for inner in value]
    return value


def _last(path: str) -> str:
    return "~" if _HOME.search(path) else re.split(r"[/\\]+", path.rstrip("/\\"))[-1]


def _bare(text: str) -> str:
    if (os.path.isabs(text) or PureWindowsPath(text).is_absolute()) and "\n" not in text:
        return _last(text)
    text = _PATH.sub(lambda found: _last(found.group()), text)
    return _PROCESS.sub(r"\1 is gone", _EMAIL.sub("<e-mail>", text))
