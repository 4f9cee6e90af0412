"""Files and folders as a call found and left them: what was there, what is new, what changed in place."""

from __future__ import annotations

import hashlib
import os
import stat as modes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.identity import canonical, digest, file_urn, flows_urn
from ivcap_flows.provenance.records import Record, entity, relation

__all__ = ["AT_ONCE", "HUGE", "Digests", "Seen", "look", "records_of", "settle", "sha256_of", "unchanged"]

AT_ONCE: Final = 32 * 2**20
"""Files up to this size are hashed when they are seen, so that a change in place keeps its first version; in bytes."""
HUGE: Final = 16 * 2**30
"""Files above this size are never read for the record alone; in bytes."""
MAX_MEMBERS: Final = 2_000
"""A folder with more files is recorded without its content."""
MAX_FOLDER: Final = 4 * 2**30
"""So is a folder with more bytes."""
_SHOWN_MEMBERS: Final = 256
_CHUNK: Final = 2**20
_DEAR: Final = 4 * 2**20
"""From this size on a digest is remembered; below, reading the file again is cheaper than a write to the journal."""
_GRAIN_NS: Final = 50_000_000


class Digests(Protocol):
    """The digests of unchanged files, as the journal keeps them."""

    def known_sha256(self, path: str, *, size: int, mtime_ns: int, inode: int) -> str | None: ...

    def remember_sha256(self, path: str, *, size: int, mtime_ns: int, inode: int, sha256: str) -> None: ...


@dataclass(frozen=True)
class Stamp:
    """What tells a changed file from the same one without reading it."""

    size: int
    mtime_ns: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


@dataclass
class Seen:
    """A path at one moment. `stamp` is None where nothing was; `sha256` and `reason` may still be open."""

    path: str
    role: str
    stamp: Stamp | None = None
    folder: bool = False
    sha256: str | None = None
    reason: str | None = None
    members: dict[str, Seen] = field(default_factory=dict)
    at_ns: int = 0


def look(path: str, role: str, digests: Digests | None, before: Seen | None = None) -> Seen | None:
    """What lies at a path now; small files are hashed at once. None for what is no file or folder.

    A path that ends with a separator may be a folder; any other is looked at only if it is a file or nothing. A file
    that is just as it was `before` is not read again.
    """
    may_be_folder = path.endswith(os.sep)
    absolute = os.path.abspath(path)
    seen = Seen(absolute, role, at_ns=time.time_ns())
    try:
        found = os.stat(absolute)
    except OSError:
        return seen
    except ValueError:
        return None
    if modes.S_ISREG(found.st_mode):
        seen.stamp = Stamp.of(found)
        if before is not None and before.stamp == seen.stamp and before.at_ns - seen.stamp.changed_ns >= _GRAIN_NS:
            seen.sha256 = before.sha256
        if seen.sha256 is None:
            _hash(seen, digests, limit=AT_ONCE)
        return seen
    if modes.S_ISDIR(found.st_mode) and may_be_folder:
        seen.folder, seen.stamp = True, Stamp.of(found)
        _list(seen, digests)
        return seen
    return None


def unchanged(before: Seen, after: Seen) -> bool:
    """Whether a path was left as it was found; where the clock is too coarse to tell, by content."""
    if before.folder or after.folder:
        return (
            before.folder == after.folder
            and before.members.keys() == after.members.keys()
            and all(unchanged(inner, after.members[name]) for name, inner in before.members.items())
        )
    if before.stamp is None or after.stamp is None:
        return before.stamp is after.stamp
    if before.sha256 is not None and after.sha256 is not None:
        return before.sha256 == after.sha256
    return before.stamp == after.stamp


def settle(seen: Seen, digests: Digests | None) -> None:
    """Read what was not hashed when it was seen, if it still is what it was then."""
    if seen.folder:
        for inner in seen.members.values():
            settle(inner, digests)
        if seen.reason is None:
            seen.sha256 = _manifest(seen)
            if seen.sha256 is None:
                seen.reason = "a file in it was not hashed"
    elif seen.stamp is not None and seen.sha256 is None and seen.reason is None:
        _hash(seen, digests, limit=HUGE)


def records_of(seen: Seen) -> list[Record]:
    """The entity that a settled path is, first, and for a folder its members."""
    path, size = seen.path, seen.stamp.size if seen.stamp is not None else None
    if seen.sha256 is None:
        name = flows_urn("unhashed", digest(f"{path}\0{seen.stamp}".encode()))
        return [entity(name, "unhashed", path=path, size=None if seen.folder else size, reason=seen.reason)]
    if not seen.folder:
        return [entity(file_urn(seen.sha256), "file", sha256=seen.sha256, size=size, path=path)]
    name = flows_urn("directory", f"sha256:{seen.sha256}")
    found = [entity(name, "directory", manifest_sha256=seen.sha256, files=len(seen.members), path=path)]
    for inner in list(seen.members.values())[:_SHOWN_MEMBERS]:
        member = records_of(inner)
        found += [*member, relation("hadMember", name, member[0].id)]
    return found


def sha256_of(path: str | os.PathLike[str], digests: Digests | None, before: Seen | None = None) -> str:
    """The sha256 of a file, computed again only when its stat has changed since it was remembered, or seen `before`.

    Raises InputError for what is no readable file, SourceChangedError for one that changes while it is read.
    """
    seen = look(os.fspath(path), "", digests, before)
    if seen is None or seen.stamp is None or seen.folder:
        raise InputError(f"{os.fspath(path)} is no file that can be read.", path=os.fspath(path))
    if seen.sha256 is None and seen.reason is None:
        _hash(seen, digests, limit=sys.maxsize)
    if seen.sha256 is None:
        error = SourceChangedError if "changed" in (seen.reason or "") else InputError
        raise error(f"{os.fspath(path)} has no sha256: it is {seen.reason}.", path=os.fspath(path))
    return seen.sha256


def _hash(seen: Seen, digests: Digests | None, *, limit: int) -> None:
    stamp = seen.stamp
    assert stamp is not None
    kept = digests if stamp.size >= _DEAR and seen.at_ns - stamp.mtime_ns >= _GRAIN_NS else None
    if kept is not None:
        seen.sha256 = _quietly(
            lambda: kept.known_sha256(seen.path, size=stamp.size, mtime_ns=stamp.mtime_ns, inode=stamp.inode)
        )
    if seen.sha256 is not None or (stamp.size > limit and limit < HUGE):
        return
    if stamp.size > limit:
        seen.reason = f"larger than {HUGE // 2**30} GiB"
        return
    try:
        with open(seen.path, "rb", buffering=0) as file:
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                seen.reason = "changed before it could be hashed"
                return
            hasher = hashlib.sha256()
            while block := file.read(_CHUNK):
                hasher.update(block)
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                seen.reason = "changed while it was hashed"
                return
    except OSError as error:
        seen.reason = "gone before it could be hashed" if isinstance(error, FileNotFoundError) else "not readable"
        return
    seen.sha256 = sha256 = hasher.hexdigest()
    if kept is not None:
        _quietly(
            lambda: kept.remember_sha256(
                seen.path, size=stamp.size, mtime_ns=stamp.mtime_ns, inode=stamp.inode, sha256=sha256
            )
        )


def _list(seen: Seen, digests: Digests | None) -> None:
    root, left, size = seen.path, AT_ONCE, 0
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                found = os.stat(path)
            except OSError:
                continue
            if not modes.S_ISREG(found.st_mode):
                continue
            size += found.st_size
            if len(seen.members) >= MAX_MEMBERS or size > MAX_FOLDER:
                limit = f"{MAX_MEMBERS} files" if size <= MAX_FOLDER else f"{MAX_FOLDER // 2**30} GiB"
                seen.members, seen.reason = {}, f"a folder of more than {limit}"
                return
            inner = Seen(path, seen.role, Stamp.of(found), at_ns=seen.at_ns)
            left -= found.st_size
            if left >= 0:
                _hash(inner, digests, limit=AT_ONCE)
            seen.members[str(Path(path).relative_to(root).as_posix())] = inner


def _manifest(seen: Seen) -> str | None:
    lines: list[list[Any]] = []
    for name, inner in sorted(seen.members.items()):
        if inner.sha256 is None or inner.stamp is None:
            return None
        lines.append([name, inner.stamp.size, inner.sha256])
    return digest(canonical(lines))


def _quietly(call: Callable[[], Any]) -> Any:
    """The cache is a help only: without it the file is read."""
    try:
        return call()
    except Exception:  # noqa: BLE001
        return None
