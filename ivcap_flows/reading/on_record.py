"""The lineage of a thing as a user names it: by a path, too."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import InputError
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.reconcile import gone_on, unended
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Direction, Record
from ivcap_flows.provenance.data_view import first_view
from ivcap_flows.provenance.html import page
from ivcap_flows.provenance.labels import title
from ivcap_flows.reading.lineage import Lineage, lineage
from ivcap_flows.reading.names import is_path, starts_of
from ivcap_flows.reading.remote_records import RemoteRecords
from ivcap_flows.reading.verification import digest_of

__all__ = ["on_record", "page_of", "title_of"]

_TITLES: Final = {"up": "Lineage of {}", "down": "What came from {}", "both": "What is connected with {}"}


def on_record(
    journal: Journal, name: str, direction: Direction, elsewhere: RemoteRecords, *, runs: bool = True
) -> Lineage:
    """Return the lineage of a path or of what else a name means (`starts_of`). Raises InputError if there is none.

    What is at a path is found as what was written there last with its content, or else by its content. Runs whose
    process is gone are shown as lost.
    """
    known_as, is_here = name, is_path(journal, name)
    if is_here:
        # The digest is not stored in the journal: reading commands do not write to it.
        known_as = urn_at(name) or ""
        if not journal.lineages.knows(known_as):
            # Its times may have been set anew.
            sha256 = digest_of(name)
            known_as = journal.lineages.newest_at(os.path.abspath(name), sha256) or f"sha256:{sha256}"
    found = lineage(journal, known_as, direction, elsewhere, runs=runs)
    if found is None and starts_of(journal, known_as):
        raise InputError(
            f"Nothing is on record of the run {name}: it has just begun, or its process ended before anything was "
            f"written. `ivcap-flows show {name}` shows what it asked for."
        )
    if found is None and name == "latest":
        # Raises the error that says that there is no run yet.
        journal.runs.get(name)
    if found is None:
        begin = f"Nothing is on record of {name}. No" if is_here else "No"
        if not is_here and not name.startswith("urn:") and (Path(name).suffix or Path(name).name != name):
            before = journal.lineages.last_at(os.path.abspath(name))
            if before is not None:
                raise InputError(
                    f"There is no file {name} any more. What a run last had there is sha256 {before}: "
                    f"`ivcap-flows trace {before}`."
                )
            begin = f"There is no file {name}, and no"
        files = (
            f" `ivcap-flows verify {shlex.quote(name)}` looks up each file in it."
            if is_here and Path(name).is_dir()
            else ""
        )
        unasked = "".join(f" {trouble}" for trouble in elsewhere.troubles)
        raise InputError(f"{begin} run in the journal {journal.url} knows {known_as}.{files}{unasked}")
    _show_lost(journal, found)
    return found


def _show_lost(journal: Journal, found: Lineage) -> None:
    """Show runs and attempts whose process is gone, and their unfinished activities, as lost; runs that go on, as that.

    The journal does not say so until `sync` runs, or of the run and its attempts until the run is continued. Of a run
    that goes on it has the end of an earlier attempt.
    """
    within = any(
        node.type in ("attempt", "task-run", "call") and _is_open(node) for node in found.around.nodes.values()
    )
    runs = [id_ for id_, node in found.around.nodes.items() if node.type == "flow-run" and (within or _is_open(node))]
    for run in filter(None, (journal.runs.find(id_.rpartition(":")[2]) for id_ in runs)):
        now, attempts = journal.runs.standing(run)
        outcomes = {flows_urn("run", run.id): now.outcome} | {flows_urn("attempt", a.id): a.outcome for a in attempts}
        dead = (attempt for attempt in attempts if attempt.outcome == "lost")
        outcomes |= {record.id: "lost" for attempt in dead for record in unended(journal, attempt)}
        for nodes in (found.graph.nodes, found.around.nodes):
            for id_ in outcomes.keys() & nodes.keys():
                node = nodes[id_]
                if outcomes[id_] == "lost" and _is_open(node):
                    nodes[id_] = node.model_copy(update={"attributes": {**node.attributes, "outcome": "lost"}})
                elif node.type == "flow-run":
                    nodes[id_] = gone_on(node, now)


def _is_open(node: Record) -> bool:
    return node.attributes.get("outcome") in (None, "running")


def title_of(found: Lineage, direction: Direction) -> str:
    """Return what a lineage is of, in words."""
    first, *others = [title(found.graph.nodes[start]) for start in found.starts]
    return _TITLES[direction].format(f"{first} and {len(others)} more" if others else first)


def page_of(found: Lineage, direction: Direction) -> str:
    """Return an HTML page of a lineage: data and what was ordered at first, who and how by a button."""
    first = first_view(found.graph, found.starts)
    return page(found.graph, found.starts, title=title_of(found, direction), first=first)
