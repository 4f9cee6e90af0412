"""Verify that what a run recorded is unchanged: hash every reachable byte again, read every remote record again."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Final

from ivcap_flows import loop
from ivcap_flows.capture import files
from ivcap_flows.capture.files import PathState
from ivcap_flows.errors import InputError
from ivcap_flows.identity import file_urn, path_of, path_text
from ivcap_flows.journal import Fact, Journal, RunRow
from ivcap_flows.provenance import Graph
from ivcap_flows.provenance.records import content_of
from ivcap_flows.reading.findings import Finding
from ivcap_flows.reading.remote import Platforms, verify_remote
from ivcap_flows.sinks import run_graph

__all__ = ["LOCAL", "digest_of", "verify_path", "verify_run"]

LOCAL: Final = frozenset({"file", "directory"})
"""Types of things that have a path."""
_EARLIEST: Final = datetime.min.replace(tzinfo=timezone.utc)


def verify_run(journal: Journal, run: RunRow, platforms: Platforms) -> list[Finding]:
    """Compare everything that a run recorded with what is there now. Findings for files come first."""
    graph = run_graph(journal, run.id)
    here = [_look(place) for place in _places(journal, run, graph)]
    there = loop.run(verify_remote(journal, run, graph, platforms))
    return [*_with_other_places(here, there), *there, *_unhashed(graph)]


def verify_path(journal: Journal, path: str) -> list[Finding]:
    """Return whether a file or a folder is on record, wherever it was. Of a folder that is not, say so of its files."""
    seen = files.state_at(path)
    found = _on_record(journal, seen)
    if found.state == "unknown" and seen.format is None and seen.members:
        return [_on_record(journal, inner) for inner in seen.members.values()]
    return [found]


def _on_record(journal: Journal, seen: PathState) -> Finding:
    finding = Finding("directory" if seen.folder else "file", files.records_of(seen)[0].id, "ok", path_text(seen.path))
    if seen.sha256 is None:
        return replace(finding, state="unreachable", note=f"it could not be hashed: {seen.reason}")
    finding = replace(finding, id=file_urn(seen.sha256), sha256=seen.sha256)
    if journal.lineages.knows(finding.id) or journal.lineages.with_version(seen.sha256):
        return replace(finding, note="the content is on record")
    return replace(finding, state="unknown", note="no run on record has used or made this content")


@dataclass(frozen=True)
class _Place:
    """A path as a run left it."""

    path: str
    type: str
    id: str
    digest: str
    host: str | None


def _places(journal: Journal, run: RunRow, graph: Graph) -> list[_Place]:
    """Return the paths of a run with the contents to expect: for each machine, the version that was there last.

    A folder whose files are all recorded is verified by these, since other files may have been added.
    """
    hosts = {attempt.id: attempt.process.host for attempt in journal.runs.attempts(run.id)}
    facts = [(hosts.get(fact.attempt_id or ""), fact) for fact in journal.facts.all_of_run(run.id)]
    times = _last_times(facts)
    found: dict[tuple[str | None, str], tuple[datetime, _Place]] = {}
    for host, fact in facts:
        record = fact.record
        path, digest = record.attributes.get("path"), content_of(record)
        if record.type == "directory" and len(graph.links_from(record.id, "hadMember")) >= record.attributes.get(
            "files", 0
        ):
            continue
        if record.type in LOCAL and isinstance(path, str) and isinstance(digest, str):
            path = path_of(path)
            at = times.get((host, record.id)) or fact.recorded_at or _EARLIEST
            if (host, path) not in found or found[host, path][0] <= at:
                found[host, path] = at, _Place(path, record.type, record.id, digest, host)
    return [place for _, place in found.values()]


def _last_times(facts: list[tuple[str | None, Fact]]) -> dict[tuple[str | None, str | None], datetime]:
    """Return when each version of a file or folder was last used, or was made, by machine and id.

    Facts of parallel tasks are written when the tasks end, so their order does not tell.
    """
    times: dict[tuple[str | None, str | None], datetime] = {}
    for host, fact in facts:
        link = fact.record
        at = link.time or fact.recorded_at
        if link.type in ("used", "wasGeneratedBy") and at is not None:
            version = host, link.target if link.type == "used" else link.source
            times[version] = max(at, times.get(version, at))
    for host, fact in facts:
        link = fact.record
        at = times.get((host, link.source))
        if link.type == "hadMember" and at is not None:
            times[host, link.target] = max(at, times.get((host, link.target), at))
    return times


def _look(place: _Place) -> Finding:
    finding = Finding(place.type, place.id, "ok", path_text(place.path), sha256=place.digest)
    foreign = place.host is not None and place.host != socket.gethostname()
    try:
        now = digest_of(place.path)
    except InputError as error:
        if foreign:
            return replace(finding, state="unreachable", note=f"it lies on the machine {place.host}")
        if os.path.exists(place.path):
            return replace(finding, state="unreachable", note=str(error))
        return replace(finding, state="missing", note="nothing is at this path")
    if now == place.digest:
        return finding
    if foreign:
        return replace(finding, state="unreachable", note=f"it lies on the machine {place.host}")
    return replace(finding, state="altered", note=f"its sha256 is now {now}")


def digest_of(path: str) -> str:
    """Return the digest of the file or folder at a path. It is always read again, and never remembered.

    Raises InputError, with the reason, if it cannot be read or is not hashed.
    """
    seen = files.state_at(path)
    if seen.sha256 is None:
        raise InputError(f"{path} could not be hashed: {seen.reason}.", path=path)
    return seen.sha256


def _with_other_places(here: list[Finding], there: list[Finding]) -> Iterator[Finding]:
    """Yield the findings. A thing that is gone from its path counts as found if another place had its content."""
    read = {found.sha256: found for found in (*there, *here) if found.state == "ok" and found.sha256}
    for finding in here:
        other = read.get(finding.sha256 or "") if finding.state in ("missing", "unreachable") else None
        if other is None:
            yield finding
        else:
            place = other.name if other.type in LOCAL else other.id
            yield replace(finding, state="elsewhere", note=f"{finding.note}; its content is in {place}")


def _unhashed(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes.values():
        if node.type == "unhashed":
            reason = str(node.attributes.get("reason") or "its content was not read")
            yield Finding(node.type, node.id, "unchecked", node.attributes.get("path"), reason)
