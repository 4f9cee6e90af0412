"""The contents behind a record, if they are unchanged and hold no secret: the source of codes, and files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ivcap_flows.identity import digest, path_of
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import LEFT_OUT, Record
from ivcap_flows.secrets import logger_of, place_of_secret

__all__ = ["LARGEST", "MOST", "Contents"]

LARGEST: Final = 32 * 2**20
"""Contents above this size, in bytes, are named by their sha256 only."""
MOST: Final = 256 * 2**20
"""The maximum number of bytes of an export's contents together. Further ones are named by their sha256 only."""
_SECONDS: Final = 20.0

log = logger_of("ivcap_flows.sinks")


class Contents:
    """Reads the contents behind one graph: at most MOST bytes together, none above LARGEST, and none with a secret.

    `left_out` are the ids of things whose content holds a secret, or something that looks like one.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._room = MOST
        self.left_out: set[str] = set()

    def sources(self, entry_point: str) -> dict[str, bytes]:
        """Return the source of each code in the graph that is found unchanged, by id: in its file, or else in git.

        `entry_point` is that of the run (`path:function`).
        """
        place = Path(path_of(entry_point.rpartition(":")[0]))
        found: dict[str, bytes] = {}
        for code in self._graph.nodes.values():
            if code.type == "code":
                sha256 = code.attributes.get("source_sha256")
                content = next((each for each in _versions(place, code) if digest(each) == sha256), None)
                if content is not None and self._takes(code.id, content, code.attributes["file"]):
                    found[code.id] = content
        return found

    def files(self) -> Iterator[tuple[Record, bytes]]:
        """Yield each file of the graph that is unchanged, with its content, the smallest first."""
        too_many = 0
        for node in sorted((node for node in self._graph.nodes.values() if node.type == "file"), key=_size):
            if _size(node) > self._room:
                too_many += _size(node) <= LARGEST
                continue
            name, sha256 = str(node.attributes.get("path")), node.attributes.get("sha256")
            content = _read(Path(path_of(name)))
            if content is not None and digest(content) == sha256 and self._takes(node.id, content, name):
                yield node, content
        if too_many:
            log.warning("%d files are named only, since an export has %d MiB at most.", too_many, MOST // 2**20)

    def with_reasons(self) -> Graph:
        """Return the graph with the reason at each thing whose content is left out."""
        reason = {LEFT_OUT: "it holds a secret, or something that looks like one"}
        return Graph(
            record.model_copy(update={"attributes": record.attributes | reason})
            if record.id in self.left_out
            else record
            for record in self._graph.records
        )

    def _takes(self, id_: str, content: bytes, name: str) -> bool:
        """Return whether a content may be exported, and there is room for it."""
        place = place_of_secret(content, name)
        if place is not None:
            self.left_out.add(id_)
            log.warning("%s is not exported: %s holds a secret, or something that looks like one.", name, place)
            return False
        if len(content) > self._room:
            return False
        self._room -= len(content)
        return True


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
            if content is not None and len(content) <= LARGEST:
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
