"""The contents behind a record, if they are unchanged and hold no secret: the source of codes, and files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ivcap_flows.identity import digest, path_of
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import LEFT_OUT, Record
from ivcap_flows.secrets import logger_of, place_of_secret

__all__ = ["LARGEST", "MOST", "Contents", "files", "sources"]

LARGEST: Final = 32 * 2**20
"""Files above this size, in bytes, are named by their sha256 only."""
MOST: Final = 256 * 2**20
"""The maximum number of bytes of a graph's files together. Further ones are named by their sha256 only."""
_SECONDS: Final = 20.0

log = logger_of("ivcap_flows.sinks")


@dataclass(frozen=True)
class Contents:
    """The contents that were found, by the ids of their things, and why others are left out."""

    found: dict[str, bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def stated(self, graph: Graph) -> Graph:
        """Return the graph with the reason at each thing whose content is left out."""
        return Graph(
            record.model_copy(update={"attributes": {**record.attributes, LEFT_OUT: self.left_out[record.id]}})
            if record.id in self.left_out
            else record
            for record in graph.records
        )

    def admits(self, id_: str, content: bytes, name: str) -> bool:
        """Return whether the content of a thing holds no secret. Otherwise note that it is left out."""
        place = place_of_secret(content, name)
        if place is None:
            return True
        self.left_out[id_] = "it holds a secret, or something that looks like one"
        log.warning("%s is not exported: %s holds a secret, or something that looks like one.", name, place)
        return False


def sources(entry_point: str, graph: Graph) -> Contents:
    """Return the source of each code in the graph that is found unchanged: in its file, or else in git.

    `entry_point` is that of the run (`path:function`).
    """
    place = Path(path_of(entry_point.rpartition(":")[0]))
    contents = Contents()
    for code in graph.nodes.values():
        if code.type == "code":
            for content in _versions(place, code):
                if digest(content) == code.attributes.get("source_sha256"):
                    if contents.admits(code.id, content, code.attributes["file"]):
                        contents.found[code.id] = content
                    break
    return contents


def _versions(place: Path, code: Record) -> Iterator[bytes]:
    name, commit = code.attributes.get("file"), code.attributes.get("commit")
    if not isinstance(name, str):
        return
    name = path_of(name)
    # The repository is a folder above the run's own code, from which the code's path leads to a file.
    roots = [root for root in place.parents if (root / name).is_file()]
    for root in roots:
        content = _read(root / name)
        if content is not None:
            yield content
    if isinstance(commit, str) and not commit.startswith("-"):
        for root in roots or list(place.parents)[:1]:
            content = _committed(root, commit, name)
            if content is not None:
                yield content


def _committed(root: Path, commit: str, name: str) -> bytes | None:
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", "show", f"{commit}:{name}"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def files(graph: Graph, contents: Contents) -> Iterator[tuple[Record, bytes]]:
    """Yield each file of the graph that is unchanged, with its content, the smallest first.

    Files above LARGEST, those with a secret, and those with which the contents would be above MOST are left out.
    `contents` is told of those with a secret.
    """
    left, too_many = MOST, 0
    for node in sorted((node for node in graph.nodes.values() if node.type == "file"), key=_size):
        path, sha256 = str(node.attributes.get("path")), node.attributes.get("sha256")
        if _size(node) > left:
            too_many += _size(node) <= LARGEST
            continue
        content = _read(Path(path_of(path)))
        if content is not None and digest(content) == sha256 and contents.admits(node.id, content, path):
            left -= len(content)
            yield node, content
    if too_many:
        log.warning("%d files are named only, since an export has %d MiB of files at most.", too_many, MOST // 2**20)


def _size(node: Record) -> int:
    size = node.attributes.get("size")
    return size if isinstance(size, int) else LARGEST


def _read(path: Path) -> bytes | None:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None
