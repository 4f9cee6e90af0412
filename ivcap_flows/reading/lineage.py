"""The lineage of things, upwards and downwards, through all runs of this journal and of other machines."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ivcap_flows import loop
from ivcap_flows.identity import file_urn
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Direction, Graph, Record
from ivcap_flows.reading.names import SHA256, starts_of
from ivcap_flows.reading.parts import newest_run_states
from ivcap_flows.reading.remote_records import ASKED, RemoteRecords

__all__ = ["Lineage", "lineage"]

_PLATFORMS: Final = frozenset({"artifact", "order", "job", "dataset", "model-run"})
"""Types that a platform may know more about."""
_ORIGINS: Final = ("wasGeneratedBy", "wasDerivedFrom", "used", "wasStartedBy")


@dataclass(frozen=True)
class Lineage:
    """The lineage of `starts` (`graph`), and everything that was read for it (`around`).

    `around` also has who started what on the way, from which code and for whom. `unasked` says what could not be found
    out.
    """

    starts: tuple[str, ...]
    graph: Graph
    around: Graph
    unasked: tuple[str, ...] = ()


def lineage(
    journal: Journal, name: str, direction: Direction, remote: RemoteRecords | None = None, *, runs: bool = False
) -> Lineage | None:
    """Return the lineage of the things that a name means (`starts_of`), or None if none is on record.

    The journal is read first. Then `remote` is asked: upwards about things that no run in the journal made,
    downwards about everything that another run may have used. The journal is read again for what that adds. With
    `runs`, `around` has the runs that the things are part of also if the direction is `down`.
    """
    with _without_collector():
        return _lineage(journal, name, direction, remote, runs)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switch the garbage collector off: records have no cycles, and it would visit very many of them repeatedly."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _lineage(
    journal: Journal, name: str, direction: Direction, remote: RemoteRecords | None, runs: bool
) -> Lineage | None:
    starts = starts_of(journal, name)
    if not starts and remote is not None:
        starts = loop.run(remote.starts(name))
    here: list[Record] = []
    there: list[Record] = []
    read: set[str] = set()
    asked: set[str] = set()
    fresh = set(starts)
    more = ""
    while True:
        here += journal.lineages.around(fresh, direction)
        # What this machine saw itself comes last, since it knows more about that.
        around = Graph([*there, *here, *newest_run_states(there, here)])
        found = _found(around, starts, name, direction)
        read |= fresh | set(found.nodes)
        if remote is None:
            break
        ask = [id_ for id_ in _open(found, starts, direction) if id_ not in asked]
        if len(asked) + len(ask) > ASKED:
            more = f"Only {ASKED} things were asked about on the platforms; there are more."
            ask = ask[: ASKED - len(asked)]
        asked |= set(ask)
        runs_read = (id_ for id_, node in around.nodes.items() if node.type == "flow-run" and id_ in read)
        remote.leave_out(runs_read, journal.id)
        new = loop.run(remote.about(ask, direction)) if ask else []
        if not new:
            break
        there += new
        found = _found(Graph([*there, *here, *newest_run_states(there, here)]), starts, name, direction)
        fresh = set(found.nodes) - read
    if runs and direction == "down":
        acts = [id_ for id_, node in found.nodes.items() if node.kind == "activity"]
        here += journal.lineages.around(acts, "runs")
        around = Graph([*there, *here, *newest_run_states(there, here)])
    troubles = [*(remote.troubles if remote is not None else ()), *([more] if more else ())]
    known = tuple(start for start in starts if start in found.nodes)
    return Lineage(known, found, around, tuple(troubles)) if known else None


def _found(graph: Graph, starts: Iterable[str], name: str, direction: Direction) -> Graph:
    known = [start for start in starts if start in graph.nodes]
    content = SHA256.fullmatch(name)
    if content is not None and file_urn(content.group(1).lower()) in graph.nodes:
        known = [file_urn(content.group(1).lower())]
    return graph.lineage(known, direction) if known else Graph()


def _open(found: Graph, starts: Iterable[str], direction: Direction) -> list[str]:
    """Return the ids that the platforms may know more about.

    Upwards these are things without an origin, otherwise everything that others may have used. They include a run that
    is asked about, which another machine may have continued.
    """
    ids = [id_ for id_, node in found.nodes.items() if node.type in _PLATFORMS]
    if direction == "up":
        ids = [id_ for id_ in ids if not any(found.links_from(id_, type_) for type_ in _ORIGINS)]
    asked = [id_ for id_ in starts if id_ not in found.nodes or found.nodes[id_].type == "flow-run"]
    return list(dict.fromkeys([*asked, *ids]))
