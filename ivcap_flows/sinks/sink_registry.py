"""The sinks that the settings name: one table of kinds, with how each is named and made."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows import loop
from ivcap_flows.errors import ConfigurationError, IvcapFlowsError
from ivcap_flows.sinks.base import Sink
from ivcap_flows.sinks.folder import ENDINGS, ExportFormat, FolderSink
from ivcap_flows.sinks.ivcap import IvcapSink

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["KINDS", "NAMES", "Clients", "Kind", "Opened", "check_sinks", "open_sinks"]


@dataclass(frozen=True)
class Clients:
    """Functions that return the client of a platform. They raise ConfigurationError if there is none."""

    ivcap: Callable[[], Coroutine[Any, Any, IvcapClient]]
    provena: Callable[[], Coroutine[Any, Any, ProvenaClient]]


@dataclass(frozen=True)
class Kind:
    """One kind of sink. A name is the kind alone (`bare`), or the kind, a colon and a place, which `place` describes.

    `make` gets the place and returns a sink whose `name` begins with the kind and a colon, and contains the place as an
    absolute path.

    `adds_facts` says that what the sink makes of a run becomes part of the run's record. Such sinks go first, so that
    the others get those facts in the same pass.
    """

    make: Callable[[str, Journal, Clients], Sink]
    bare: bool = False
    place: str | None = None
    adds_facts: bool = False


def _ivcap(place: str, journal: Journal, clients: Clients) -> Sink:
    client = loop.run(clients.ivcap())
    return IvcapSink(client, journal, f"ivcap:{loop.run(client.platform())}")


def _provena(place: str, journal: Journal, clients: Clients) -> Sink:
    # Import Provena's client only when it is needed: commands that only read the record start faster.
    from ivcap_flows.registration.workflows import Workflows
    from ivcap_flows.sinks.provena import ProvenaSink

    if place and not Workflows.is_in_code(place):
        place = str(_absolute(place))
    workflows = Workflows.named(place) if place else None
    client = loop.run(clients.provena())
    name = f"provena:{loop.run(client.platform())}" + (f":{place}" if place else "")
    return ProvenaSink(client, journal, name, workflows)


def _folder(format: ExportFormat) -> Callable[[str, Journal, Clients], Sink]:  # noqa: A002 - as in `export`
    return lambda place, journal, clients: FolderSink(_absolute(place), format)


def _absolute(place: str) -> Path:
    # As `absolute` does, but without `..`: a sink is known by its name.
    return Path(os.path.abspath(Path(place).expanduser()))


def _openlineage(place: str, journal: Journal, clients: Clients) -> Sink:
    # Its client is an extra, and is slow to import.
    from ivcap_flows.sinks.openlineage import OpenLineageSink

    return OpenLineageSink()


KINDS: Final[Mapping[str, Kind]] = {
    "ivcap": Kind(_ivcap, bare=True),
    "provena": Kind(_provena, bare=True, place="<workflows.yaml>", adds_facts=True),
    **{name: Kind(_folder(name), place="<folder>") for name in ENDINGS},
    "openlineage": Kind(_openlineage, bare=True),
}

NAMES: Final = tuple(
    text
    for name, kind in KINDS.items()
    for text in (*([name] if kind.bare else []), *([f"{name}:{kind.place}"] if kind.place else []))
)
"""How IVCAP_FLOWS_SINKS names each kind of sink."""


@dataclass(frozen=True)
class Opened:
    """The sinks that can be delivered to, and the errors of the others, by name."""

    sinks: list[Sink] = field(default_factory=list)
    unusable: dict[str, IvcapFlowsError] = field(default_factory=dict)


def check_sinks(names: Sequence[str]) -> None:
    """Raise ConfigurationError for a name that is not a sink."""
    for name in names:
        kind, colon, place = name.partition(":")
        known = KINDS.get(kind)
        if known is None or not ((known.bare and not colon) or (known.place and place)):
            raise ConfigurationError(
                f"There is no sink {name!r}. IVCAP_FLOWS_SINKS accepts {', '.join(NAMES)}, separated by commas."
            )


def open_sinks(names: Sequence[str], journal: Journal, clients: Clients) -> Opened:
    """Open the sinks with these names. One that cannot be reached or logged in to does not block the others."""
    check_sinks(names)
    opened = Opened()
    for name in sorted(names, key=lambda name: not KINDS[name.partition(":")[0]].adds_facts):
        kind, _, place = name.partition(":")
        try:
            opened.sinks.append(KINDS[kind].make(place, journal, clients))
        except IvcapFlowsError as error:
            opened.unusable[name] = error
    return opened
