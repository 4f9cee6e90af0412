"""Verify that what a run recorded is unchanged: hash every reachable byte again, read every remote record again."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ivcap_flows import loop
from ivcap_flows.capture import files
from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.identity import file_urn
from ivcap_flows.journal import Fact, Journal, RunRow
from ivcap_flows.provenance import Graph
from ivcap_flows.reading.findings import Finding
from ivcap_flows.reading.remote import Platforms, verify_remote
from ivcap_flows.sinks import run_graph

__all__ = ["LOCAL", "digest_of", "facts_of", "verify_file", "verify_run"]

LOCAL: Final = frozenset({"file", "directory"})
"""Types of things that have a path."""


def verify_run(journal: Journal, run: RunRow, platforms: Platforms) -> list[Finding]:
    """Compare everything that a run recorded with what is there now. Findings for files come first."""
    graph = run_graph(journal, run.id)
    here = [_look(place) for place in _places(journal, run, graph)]
    there = loop.run(verify_remote(journal, run, graph, platforms))
    return [*_elsewhere(here, there), *there, *_unhashed(graph)]


def verify_file(journal: Journal, path: Path) -> Finding:
    """Return whether the content of a file is on record."""
    sha256 = files.sha256_of(path, None)
    urn = file_urn(sha256)
    if journal.lineages.knows(urn) or journal.lineages.with_version(sha256):
        return Finding("file", urn, "ok", str(path), "the content is on record", sha256)
    return Finding("file", urn, "altered", str(path), "no run on record has used or made this content", sha256)


@dataclass(frozen=True)
class _Place:
    """A path as a run left it, according to the run's last fact about it."""

    path: str
    type: str
    id: str
    digest: str
    host: str | None


def _places(journal: Journal, run: RunRow, graph: Graph) -> list[_Place]:
    """Return the paths of a run with the contents to expect.

    A file that the run changed in place is expected as it was at the end. A folder whose files are all recorded is
    verified by these, since other files may have been added.
    """
    members = Counter(link.source for link in graph.relations.values() if link.type == "hadMember")
    hosts = {attempt.id: attempt.process.host for attempt in journal.runs.attempts(run.id)}
    found: dict[tuple[str | None, str], _Place] = {}
    for fact in facts_of(journal, run):
        record = fact.record
        path = record.attributes.get("path")
        digest = record.attributes.get("sha256" if record.type == "file" else "manifest_sha256")
        if record.type == "directory" and members[record.id] >= record.attributes.get("files", 0):
            continue
        if record.type in LOCAL and isinstance(path, str) and isinstance(digest, str):
            host = hosts.get(fact.attempt_id or "")
            # A run may restore a former content, so the last fact counts.
            found.pop((host, path), None)
            found[host, path] = _Place(path, record.type, record.id, digest, host)
    return list(found.values())


def facts_of(journal: Journal, run: RunRow) -> Iterator[Fact]:
    """Yield all facts of a run, oldest first."""
    after = 0
    while page := journal.facts.of_run(run.id, after=after):
        yield from page
        after = page[-1].seq


def _look(place: _Place) -> Finding:
    finding = Finding(place.type, place.id, "ok", place.path, sha256=place.digest)
    foreign = place.host is not None and place.host != socket.gethostname()
    try:
        now = digest_of(place.path, place.type)
    except (InputError, SourceChangedError) as error:
        if foreign:
            return replace(finding, state="unreachable", note=f"it lies on the machine {place.host}")
        if Path(place.path).exists():
            return replace(finding, state="unreachable", note=str(error))
        return replace(finding, state="missing", note="nothing is at this path")
    if now == place.digest:
        return finding
    if foreign:
        return replace(finding, state="unreachable", note=f"it lies on the machine {place.host}")
    return replace(finding, state="altered", note=f"its sha256 is now {now}")


def digest_of(path: str, kind: str) -> str | None:
    """Return the digest of the file or folder at a path. It is always read again, and never remembered."""
    if kind == "file":
        return files.sha256_of(path, None)
    seen = files.look(path.rstrip("/\\") + "/", "", None)
    if seen is None or seen.stamp is None or not seen.folder:
        raise InputError(f"{path} is no folder.")
    files.settle(seen, None)
    digest = files.records_of(seen)[0].attributes.get("manifest_sha256")
    return digest if isinstance(digest, str) else None


def _elsewhere(here: list[Finding], there: list[Finding]) -> Iterator[Finding]:
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
