"""Files and folders before and after a call: what was there, what is new, and what changed in place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat as modes
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ivcap_flows.capture.file_activity import unseen
from ivcap_flows.capture.file_clock import FileClock
from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.file_state import FileState, reading
from ivcap_flows.forked import PerProcess
from ivcap_flows.handles import LocalFile
from ivcap_flows.identity import canonical, digest, flows_urn, path_text, utf8_safe
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.provenance.records import Record, entity, relation

__all__ = [
    "AT_ONCE",
    "HUGE",
    "Digests",
    "PathState",
    "blocks_read",
    "file_at",
    "file_record",
    "forget",
    "hash_all",
    "hash_members",
    "records_of",
    "remember",
    "settle",
    "snapshot",
    "state_at",
    "unchanged",
    "urn_at",
]

AT_ONCE: Final = 32 * 2**20
"""Files up to this size, in bytes, are hashed when they are seen. So their first version is known if they change."""
HUGE: Final = 16 * 2**30
"""Files above this size, in bytes, are never read only for the record."""
MAX_MEMBERS: Final = 10_000
"""A folder with more files is recorded without its content."""
MAX_FOLDER: Final = 4 * 2**30
"""A folder with more bytes is recorded without its content."""
_SHOWN_MEMBERS: Final = 256
_CHUNK: Final = 2**20
_DEAR: Final = 4 * 2**20
"""From this size on, in bytes, the journal keeps a digest. A smaller file is cheaper to read again."""
_KNOWN: Final = 20_000
_WRITINGS: Final = 16
"""The maximum number of writings of the same bytes to one path that are told apart."""
_ZARR: Final = ("zarr.json", ".zmetadata", ".zgroup", ".zarray")
"""The metadata files of Zarr stores. Each store has one of them (Zarr specifications, versions 2 and 3)."""
_MAX_METADATA: Final = 4 * 2**20


class Digests(Protocol):
    """A cache of the digests of unchanged files, as the journal keeps it."""

    def known_sha256(self, path: str, state: FileState) -> str | None: ...

    def remember_sha256(self, path: str, state: FileState, sha256: str) -> None: ...

    def forget(self, path: str) -> None: ...


@dataclass
class _Read:
    """The digests of files as this process last read them, and the clocks that set the times of files.

    `reading` has a lock for each large file that is being read. A second thread waits for the digest instead of reading
    it, too. `written` has the modification times under which each content at a path is recorded, the last one last.
    """

    digests: LruCache[str, tuple[FileState, str]] = field(default_factory=lambda: LruCache(_KNOWN))
    clock: FileClock = field(default_factory=FileClock)
    reading: dict[str, threading.Lock] = field(default_factory=dict)
    written: LruCache[tuple[str, str], tuple[int, ...]] = field(default_factory=lambda: LruCache(_KNOWN))


_read: Final = PerProcess(_Read)
_blocks = 0


def blocks_read() -> int:
    """Return how many blocks of files this process has read. A thread that waits for a digest sees progress by it."""
    return _blocks


@dataclass
class PathState:
    """A path at one moment. `stamp` is None if nothing was there; `sha256` and `reason` may not be known yet.

    `format` and `variables` describe a store that is known by its metadata. `read` is the number of bytes that were
    hashed: a file system such as that of `/proc` reports another size. `written_ns` is the time of the writing that the
    version is named by.
    """

    path: str
    role: str
    stamp: FileState | None = None
    folder: bool = False
    sha256: str | None = None
    reason: str | None = None
    members: dict[str, PathState] = field(default_factory=dict)
    format: str | None = None
    variables: list[dict[str, Any]] | None = None
    read: int | None = None
    written_ns: int | None = None

    @property
    def size(self) -> int:
        """The size in bytes: of a folder, of all files in it."""
        if self.folder:
            return sum(inner.size for inner in self.members.values())
        return self.read if self.read is not None else 0 if self.stamp is None else self.stamp.size

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it holds."""
        return 800 * (1 + len(self.members))


def snapshot(path: str, role: str, digests: Digests | None, *, hashed: bool = True) -> PathState | None:
    """Return the state of a path, or None if it is neither a file nor a folder. Hash small files if `hashed` is set.

    A path that ends with a separator may be any folder but the root of all. Another text counts as a folder only if it
    contains a separator and the folder does not contain the user's home or the working directory, or if the folder is a
    Zarr store. A file that has not changed since this process read it is not read again, unless there are no `digests`.
    """
    absolute = os.path.abspath(path)
    seen = PathState(absolute, role)
    try:
        found = os.stat(absolute)
    except OSError:
        return seen
    except ValueError:
        return None
    if modes.S_ISREG(found.st_mode):
        seen.stamp = FileState.from_stat(found)
        if hashed:
            _hash(seen, digests, limit=AT_ONCE)
        return seen
    if modes.S_ISDIR(found.st_mode) and _may_be_folder(path, absolute):
        seen.folder, seen.stamp = True, FileState.from_stat(found)
        _list(seen, digests, room=AT_ONCE if hashed else 0)
        return seen
    return None


def hash_all(found: Iterable[PathState], digests: Digests | None) -> None:
    """Hash files that were only listed: small files, together up to the limit for one file."""
    left = AT_ONCE
    for seen in found:
        if seen.stamp is not None and seen.sha256 is None and seen.reason is None:
            left -= seen.stamp.size
            if left >= 0:
                _hash(seen, digests, limit=AT_ONCE)


def hash_members(folder: PathState, digests: Digests | None) -> None:
    """Hash the files of a folder, as `hash_all` does."""
    hash_all(folder.members.values(), digests)


def _may_be_folder(path: str, absolute: str) -> bool:
    if absolute == os.path.dirname(absolute):
        return False
    if path.endswith(os.sep) or any(os.path.exists(os.path.join(absolute, name)) for name in _ZARR):
        return True
    around = os.path.join(absolute, "")
    return os.sep in path and not any(
        os.path.join(inner, "").startswith(around) for inner in (os.getcwd(), os.path.expanduser("~"))
    )


def unchanged(before: PathState, after: PathState) -> bool:
    """Whether a path was left unchanged: by content if both digests are known, otherwise by its state."""
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


def settle(seen: PathState, digests: Digests | None) -> None:
    """Hash what was not hashed when it was seen, unless it has changed since."""
    if seen.folder:
        for inner in seen.members.values():
            settle(inner, digests)
        if seen.reason is None:
            seen.sha256 = _manifest(seen)
            if seen.sha256 is None:
                seen.reason = "a file in it was not hashed"
    elif seen.stamp is not None and seen.sha256 is None and seen.reason is None:
        _hash(seen, digests, limit=HUGE)


def records_of(seen: PathState, *, made: bool = False) -> list[Record]:
    """Return the entity for a settled path, of a writing of its own if it was `made`. For a folder, members follow."""
    path, size = path_text(seen.path), seen.size
    if seen.sha256 is None:
        name = flows_urn("unhashed", digest(f"{seen.path}\0{seen.stamp}".encode(errors="surrogatepass")))
        return [entity(name, "unhashed", path=path, size=None if seen.folder else size, reason=seen.reason)]
    if not seen.folder:
        assert seen.stamp is not None
        name = _version("file", seen, seen.stamp.mtime_ns, made=made)
        return [entity(name, "file", sha256=seen.sha256, size=size, path=path)]
    stamps = [inner.stamp for inner in seen.members.values() if inner.stamp is not None]
    name = _version("directory", seen, max((stamp.mtime_ns for stamp in stamps), default=0), made=made)
    facts: dict[str, Any] = {"manifest_sha256": seen.sha256, "files": len(seen.members), "size": size, "path": path}
    found = [entity(name, "directory", format=seen.format, variables=seen.variables, **facts)]
    if seen.format is not None:
        # The chunks of a store are not separate things.
        return found
    for inner in list(seen.members.values())[:_SHOWN_MEMBERS]:
        member = records_of(inner)
        found += [*member, relation("hadMember", name, member[0].id)]
    return found


def _version(noun: str, seen: PathState, mtime_ns: int, *, made: bool) -> str:
    """Return the name of a version: what is at a path, as it was written there.

    Equal bytes at two paths, or written there twice, are two things. They share their content. If only the times of a
    file were set anew, as by `touch`, it is still the last writing of these bytes that this process knows.
    """
    if seen.written_ns is None:
        key = seen.path, str(seen.sha256)
        known = _read().written.get(key) or ()
        if mtime_ns not in known and (made or not known):
            known = (*known[-_WRITINGS:], mtime_ns)
            _read().written.put(key, known)
        seen.written_ns = mtime_ns if mtime_ns in known else known[-1]
    return flows_urn(noun, digest(f"{seen.path}\0{seen.sha256}\0{seen.written_ns}".encode(errors="surrogatepass")))


def state_at(path: str | os.PathLike[str]) -> PathState:
    """Return what is at a path now, hashed. It is read again, and its digest is not remembered.

    Raises InputError if there is no file and no folder.
    """
    with reading(path):
        os.stat(path)
    # The separator says that it may be a folder.
    seen = snapshot(os.path.join(path, "") if os.path.isdir(path) else os.fspath(path), "", None)
    if seen is None or seen.stamp is None:
        raise InputError(f"{os.fspath(path)} is neither a file nor a folder that is recorded.", path=os.fspath(path))
    settle(seen, None)
    return seen


def urn_at(path: str | os.PathLike[str]) -> str | None:
    """Return the name under which the file or folder at a path is recorded now, or None if there is none."""
    try:
        return records_of(state_at(path))[0].id
    except InputError:
        return None


def file_at(path: str | os.PathLike[str], digests: Digests | None) -> LocalFile:
    """Return a file with its content. Read it again only if its state has changed, or without `digests`.

    Raises InputError if it is not a readable file, and SourceChangedError if it changes while it is read.
    """
    seen = _file_seen(path, digests)
    assert seen.sha256 is not None
    return LocalFile(path=seen.path, sha256=seen.sha256, size=seen.size)


def file_record(path: str | os.PathLike[str], digests: Digests | None) -> Record:
    """Return the record of a file as it is now. Reads and raises as `file_at`."""
    return records_of(_file_seen(path, digests))[0]


def _file_seen(path: str | os.PathLike[str], digests: Digests | None) -> PathState:
    with reading(path):
        os.stat(path)
    seen = snapshot(os.fspath(path), "", digests)
    if seen is None or seen.stamp is None or seen.folder:
        raise InputError(f"{os.fspath(path)} is not a readable file.", path=os.fspath(path))
    if seen.sha256 is None and seen.reason is None:
        _hash(seen, digests, limit=sys.maxsize)
    if seen.sha256 is None:
        error = SourceChangedError if "changed" in (seen.reason or "") else InputError
        raise error(f"{os.fspath(path)} could not be hashed: {seen.reason}.", path=os.fspath(path))
    return seen


def remember(path: str, sha256: str, size: int, digests: Digests | None) -> None:
    """Take the digest of a file from the code that wrote it, so that the file need not be read."""
    path = os.path.abspath(path)
    with contextlib.suppress(OSError):
        found = os.stat(path)
        state = FileState.from_stat(found)
        if modes.S_ISREG(found.st_mode) and state.size == size and _read().clock.is_past(path, state):
            _remember(path, state, sha256, digests)


def forget(path: str | os.PathLike[str], digests: Digests) -> None:
    """Forget the digest of a file, since its content differs from it. The next request computes it again."""
    absolute = os.path.abspath(path)
    _read().digests.pop(absolute)
    _quietly(lambda: digests.forget(absolute))


def _remember(path: str, state: FileState, sha256: str, digests: Digests | None) -> None:
    _read().digests.put(path, (state, sha256))
    if digests is not None and state.size >= _DEAR:
        _quietly(lambda: digests.remember_sha256(path, state, sha256))


def _hash(seen: PathState, digests: Digests | None, *, limit: int) -> None:
    stamp = seen.stamp
    assert stamp is not None
    if _is_known(seen, stamp, digests):
        return
    dear = stamp.size >= _DEAR
    if dear and digests is not None:
        seen.sha256 = _quietly(lambda: digests.known_sha256(seen.path, stamp))
    if seen.sha256 is not None or (stamp.size > limit and limit < HUGE):
        return
    if stamp.size > limit:
        seen.reason = f"larger than {HUGE // 2**30} GiB"
        return
    if stamp.size <= AT_ONCE:
        _read_content(seen, stamp, digests)
        return
    with _read().reading.setdefault(seen.path, threading.Lock()):
        if not _is_known(seen, stamp, digests):
            _read_content(seen, stamp, digests)
    _read().reading.pop(seen.path, None)


def _is_known(seen: PathState, stamp: FileState, digests: Digests | None) -> bool:
    known = _read().digests.get(seen.path) if digests is not None else None
    if known is None or known[0] != stamp:
        return False
    seen.sha256 = known[1]
    return True


def _read_content(seen: PathState, stamp: FileState, digests: Digests | None) -> None:
    # Ask before reading. Then any change while the file is read, or after, gives it another state.
    tells = _read().clock.is_past(seen.path, stamp)
    global _blocks
    try:
        with unseen(), open(seen.path, "rb", buffering=0) as file:
            if FileState.from_stat(os.fstat(file.fileno())) != stamp:
                seen.reason = "changed before it could be hashed"
                return
            hasher, count = hashlib.sha256(), 0
            while block := file.read(_CHUNK):
                hasher.update(block)
                count += len(block)
                _blocks += 1
            if FileState.from_stat(os.fstat(file.fileno())) != stamp:
                seen.reason = "changed while it was hashed"
                return
    except OSError as error:
        seen.reason = "removed before it could be hashed" if isinstance(error, FileNotFoundError) else "not readable"
        return
    seen.sha256, seen.read = hasher.hexdigest(), count
    if tells:
        _remember(seen.path, stamp, seen.sha256, digests)


def _list(seen: PathState, digests: Digests | None, *, room: int) -> None:
    top, left, size = os.path.join(seen.path, ""), room, 0
    for folder, folders, names in os.walk(seen.path):
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
            inner = PathState(path, seen.role, FileState.from_stat(found))
            left -= found.st_size
            if room and left >= 0:
                _hash(inner, digests, limit=AT_ONCE)
            seen.members[path[len(top) :].replace(os.sep, "/")] = inner
    if any(name in seen.members for name in _ZARR):
        seen.format, seen.variables = "zarr", _variables(seen)


def _variables(seen: PathState) -> list[dict[str, Any]] | None:
    """Return the names, shapes and types of the arrays, if the store's metadata has them in one place."""
    found: list[dict[str, Any]] = []
    for name in ("zarr.json", ".zmetadata"):
        member = seen.members.get(name)
        if member is None or member.stamp is None or member.stamp.size > _MAX_METADATA:
            continue
        try:
            with unseen():
                metadata = json.loads(Path(member.path).read_bytes())
            inner = metadata.get("consolidated_metadata") or metadata
            for array, metadata in (inner.get("metadata") or {}).items():
                if "shape" in metadata:
                    of, kind = array.removesuffix("/.zarray"), metadata.get("data_type", metadata.get("dtype"))
                    found.append({"name": of, "shape": metadata["shape"], "type": str(kind)})
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return found[:_SHOWN_MEMBERS] or None


def _manifest(seen: PathState) -> str | None:
    lines: list[list[Any]] = []
    for name, inner in sorted(seen.members.items()):
        if inner.sha256 is None:
            return None
        lines.append([utf8_safe(name), inner.size, inner.sha256])
    return digest(canonical(lines))


def _quietly(call: Callable[[], Any]) -> Any:
    """Call, and ignore errors. The cache only helps: without it the file is read."""
    try:
        return call()
    except Exception:  # noqa: BLE001
        return None
