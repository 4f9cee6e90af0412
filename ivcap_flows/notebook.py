"""`trace`: the lineage of a thing, for a notebook."""

from __future__ import annotations

import os
from html import escape

from ivcap_flows.blocks.configured_platforms import configured_platforms
from ivcap_flows.handles import Handle
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Direction, Graph
from ivcap_flows.reading import Lineage
from ivcap_flows.reading.on_record import on_record, page_of, title_of
from ivcap_flows.settings import Settings

__all__ = ["Trace", "trace"]


class Trace:
    """A lineage that a notebook draws. `graph` has its records, `html` a page that needs no network."""

    def __init__(self, found: Lineage, direction: Direction) -> None:
        self._found, self._direction = found, direction

    @property
    def graph(self) -> Graph:
        return self._found.graph

    @property
    def html(self) -> str:
        return page_of(self._found, self._direction)

    def __repr__(self) -> str:
        return f"<{title_of(self._found, self._direction)}: {self.graph.size}>"

    def _repr_html_(self) -> str:
        # A page of its own: it shares no style and no script with the notebook.
        frame = "width: 100%; height: 36rem; border: 1px solid #8886"
        return f'<iframe sandbox="allow-scripts" style="{frame}" srcdoc="{escape(self.html)}"></iframe>'


def trace(thing: Handle | str | os.PathLike[str], /, *, up: bool = False, down: bool = False) -> Trace:
    """Return what a thing came from (`up`, the default), what came from it (`down`), or all that is connected (both).

    `thing` is a handle, or what `ivcap-flows trace` takes: a path, a URN, a Provena handle, a run by its name or
    `latest`, a sha256, or the beginning of a git commit. The journal of the settings is read first, then the platforms
    are asked. Raises InputError if nothing is on record.
    """
    direction: Direction = "both" if up and down else "down" if down else "up"
    name = thing.urn if isinstance(thing, Handle) else os.fspath(thing)
    with Journal.or_empty(Settings.current().journal) as journal:
        return Trace(on_record(journal, name, direction, configured_platforms()), direction)
