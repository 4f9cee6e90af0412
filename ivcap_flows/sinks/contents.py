"""The contents behind a record, if they are unchanged: the source of codes, and files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ivcap_flows.identity import digest
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.secrets import holds_secret, logger_of

__all__ = ["LARGEST", "MOST", "files", "sources", "texts"]

LARGEST: Final = 32 * 2**20
"""Files above this size, in bytes, are named by their sha256 only."""
MOST: Final = 256 * 2**20
"""The maximum number of bytes of a graph's files together. Further ones are named by their sha256 only."""
_SECONDS: Final = 20.0

log = logger_of("ivcap_flows.sinks")


def sources(entry_point: str, graph: Graph) -> dict[str, bytes]:
    """Return the source of each code in the graph that is found unchanged: in its file, or else in git.

    `entry_point` is that of the run (`path:function`). A source that holds a secret is left out.
    """
    place = Path(entry_point.rpartition(":")[0])
    found: dict[str, bytes] = {}
    for code in graph.nodes.values():
        if code.type == "code":
            for content in _versions(place, code):
                if digest(content) == code.attributes.get("source_sha256"):
                    if _tells_no_secret(content, code.attributes["file"]):
                        found[code.id] = content
                    break
    return found


def texts(entry_point: str, graph: Graph) -> dict[str, str]:
    """Return the sources as text."""
    return {id_: content.decode(errors="replace") for id_, content in sources(entry_point, graph).items()}


def _versions(place: Path, code: Record) -> Iterator[bytes]:
    name, commit = code.attributes.get("file"), code.attributes.get("commit")
    if not isinstance(name, str):
        return
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


def files(graph: Graph) -> Iterator[tuple[Record, bytes]]:
    """Yield each file of the graph that is unchanged, with its content, the smallest first.

    Files above LARGEST, those with a secret, and those with which the contents would be above MOST are left out.
    """
    left, too_many = MOST, 0
    for node in sorted((node for node in graph.nodes.values() if node.type == "file"), key=_size):
        path, sha256 = str(node.attributes.get("path")), node.attributes.get("sha256")
        if _size(node) > left:
            too_many += _size(node) <= LARGEST
            continue
        content = _read(Path(path))
        if content is not None and digest(content) == sha256 and _tells_no_secret(content, path):
            left -= len(content)
            yield node, content
    if too_many:
        log.warning("%d files are named only, since an export has %d MiB of files at most.", too_many, MOST // 2**20)


def _size(node: Record) -> int:
    size = node.attributes.get("size")
    return size if isinstance(size, int) else LARGEST


def _tells_no_secret(content: bytes, name: str) -> bool:
    if holds_secret(content.decode(errors="replace")):
        log.warning("%s contains a token or another secret, so its content is not exported.", name)
        return False
    return True


def _read(path: Path) -> bytes | None:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None
