"""The files that a call used and made. Its own declaration decides first, then what was seen.

A call *used* a file if it was seen to read it, or if it left the file unchanged. It *made* a file that is new or
changed if it was seen to write it, names it in its result, or is the only call that could have written it. The file
*derives* from the former content of its path only if that was read or kept. It derives from another file if it is a
copy, a link or a new name of that file. What these rules do not decide is recorded as unknown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ivcap_flows.capture import files
from ivcap_flows.capture.files import Digests, Seen
from ivcap_flows.capture.opened import KEPT, READ, REMOVED, WRITTEN, Opened
from ivcap_flows.provenance.graph import identifies

__all__ = ["FileEdge", "FileEdges", "Given"]

_SAID: Final = 16
"""The maximum number of unknown paths that are named. All are counted."""
_TOLD: Final = 256
"""If a call read more files in a folder, the folder is recorded as one thing."""


@dataclass(frozen=True)
class FileEdge:
    """One use or making of a file or folder.

    `origins` are the files that a made one derives from, each with `copy`, `link` or `rename` if that is known. `late`
    marks a file that was first seen in the result.
    """

    verb: Literal["used", "made"]
    seen: Seen
    origins: tuple[tuple[Seen, str | None], ...] = ()
    late: bool = False


@dataclass(frozen=True)
class Given:
    """The parameters that a call declares as only read, and those that it declares as only written."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@dataclass
class FileEdges:
    """Decides what a call did with its paths, from their states when it began (`entry`) and ended (`exit`).

    `named` are the paths in its result; `began` is its start, in nanoseconds since the epoch. `frame` marks a flow,
    whose tasks do the work. `apart` marks a call in a separate process, where other calls are not seen.
    """

    entry: Mapping[str, Seen]
    exit: Mapping[str, Seen]
    named: frozenset[str]
    given: Given
    opened: Opened
    digests: Digests | None
    began: int
    frame: bool = False
    apart: bool = False
    edges: list[FileEdge] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    def decide(self) -> FileEdges:
        """Fill `edges` and `unknown`. `unknown` says of a path what could not be decided about it."""
        paths = {**self.entry, **self.exit}
        plain = [path for path, seen in paths.items() if not seen.folder]
        for path in plain:
            self._file(self.entry.get(path), self.exit.get(path))
        for path in paths.keys() - set(plain):
            self._folder(self.entry.get(path), self.exit.get(path), frozenset(plain))
        if self.opened.lost:
            self.unknown["…"] = f"{self.opened.lost} more files were not looked at: the call opened too many"
        return self

    def said(self) -> dict[str, str] | None:
        """Return the unknowns for the record: some of the paths, and how many there are."""
        if not self.unknown:
            return None
        shown = dict(list(self.unknown.items())[:_SAID])
        if len(self.unknown) > len(shown):
            shown["…"] = f"{len(self.unknown)} files in all"
        return shown

    # One file

    def _file(self, before: Seen | None, after: Seen | None) -> None:
        before = before if before is not None and before.stamp is not None else None
        seen = after or before
        if seen is None:
            return
        if before is not None and self._is_used(before, after):
            self.edges.append(FileEdge("used", before))
        if after is None or after.stamp is None:
            return
        looked = after.path in self.entry
        if self._is_made(before, after, looked=looked):
            self._make(before, after)
        elif not looked and before is None:
            # The call found it: it was there before, or another call has written it.
            self.edges.append(FileEdge("used", after, late=True))

    def _is_used(self, before: Seen, after: Seen | None) -> bool:
        if before.role in self.given.reads:
            return True
        bits = self.opened.at(before.path)
        if before.role in self.given.writes:
            return False
        if bits & READ or self._origin_of(before.path):
            return True
        changed = after is None or not files.unchanged(before, after)
        if bits & WRITTEN:
            return bool(bits & KEPT) and changed and after is not None
        if not changed:
            return True
        if not bits & REMOVED and not self._other_wrote(before.path):
            self._say(before.path, "whether it was read before it was overwritten or removed")
        return False

    def _is_made(self, before: Seen | None, after: Seen, *, looked: bool) -> bool:
        path, wrote = after.path, bool(self.opened.at(after.path) & WRITTEN)
        if before is not None:
            if before.stamp == after.stamp or (not wrote and files.unchanged(before, after)):
                return False
        elif not looked and not wrote and not self._is_new(after):
            return False
        if wrote or after.role in self.given.writes:
            return True
        wrote_other, could_other = self.opened.elsewhere(path)
        if wrote_other:
            return False
        if path in self.named:
            return True
        if could_other:
            self._say(path, "which of the concurrent calls wrote it")
        return not could_other

    def _make(self, before: Seen | None, after: Seen) -> None:
        origins: list[tuple[Seen, str | None]] = []
        if before is not None and self._keeps(before):
            origins.append((before, None))
        origin = self.opened.origins.get(after.path)
        source = self._before(origin[0]) if origin is not None else None
        if source is not None and origin is not None:
            origins.append((source, "copy" if origin[1] == "copying" else origin[1]))
        elif not origins:
            same = self._copied(after)
            origins += [(same, "copy")] if same is not None else []
        self.edges.append(FileEdge("made", after, tuple(origins)))

    def _keeps(self, before: Seen) -> bool:
        """Whether the present content of the path was made from the former one."""
        if before.role in self.given.writes:
            return False
        bits = self.opened.at(before.path)
        return bool(bits & (READ | KEPT)) or (not bits & WRITTEN and before.role in self.given.reads)

    def _copied(self, after: Seen) -> Seen | None:
        """Return a file that the call read and that has the content of one that it made."""
        size = after.stamp.size if after.stamp is not None else 0
        if after.sha256 is None or not identifies(size):
            return None
        used = [edge.seen for edge in self.edges if edge.verb == "used" and not edge.seen.folder]
        return next((seen for seen in used if seen.sha256 == after.sha256 and seen.path != after.path), None)

    def _before(self, path: str) -> Seen | None:
        """Return the state of a path at the begin of the call, if the path or a folder around it was given."""
        found = self.entry.get(path)
        if found is None:
            for place, folder in self.entry.items():
                if folder.folder and path.startswith(os.path.join(place, "")):
                    found = folder.members.get(os.path.relpath(path, place).replace(os.sep, "/"))
        return found if found is not None and found.stamp is not None and not found.folder else None

    def _origin_of(self, path: str) -> bool:
        return any(source == path for source, _ in self.opened.origins.values())

    def _other_wrote(self, path: str) -> bool:
        return self.opened.elsewhere(path)[0]

    def _is_new(self, seen: Seen) -> bool:
        """Whether a path that was not looked at before was written since the call began, by its change time."""
        # The kernel sets file times with a clock that lags by up to a tick.
        return seen.stamp is not None and seen.stamp.ctime_ns >= self.began - 20_000_000

    def _say(self, path: str, unknown: str) -> None:
        self.unknown[path] = f"it is not known {unknown}"

    # A folder

    def _folder(self, before: Seen | None, after: Seen | None, plain: frozenset[str]) -> None:
        before = before if before is not None and before.stamp is not None else None
        if after is None and before is None:
            return
        old = before.members if before is not None else {}
        new = after.members if after is not None else {}
        found = after or before
        assert found is not None
        if found.format is not None or found.reason is not None:
            self._store(before, after)
            return
        read, made = self._members(old, new, found, plain)
        if after is not None and made and len(made) == len(new) and self._is_folder_made(before, after):
            files.hash_members(after, self.digests)
            self.edges.append(FileEdge("made", after))
        for seen in made.values():
            self._make(old.get(_name(seen, found)), seen)
        if len(read) > _TOLD and before is not None:
            self.edges.append(FileEdge("used", before))
        else:
            self.edges += [FileEdge("used", seen) for seen in read.values()]
        if before is not None and old and not read and not made and self._is_used_whole(before, after):
            self.edges.append(FileEdge("used", before))
        if after is not None and before is None and new and not made and not read and after.path not in self.entry:
            self.edges.append(FileEdge("used", after, late=True))

    def _members(
        self, old: Mapping[str, Seen], new: Mapping[str, Seen], folder: Seen, plain: frozenset[str]
    ) -> tuple[dict[str, Seen], dict[str, Seen]]:
        """Return the files of a folder that the call was seen to read, and those that it made."""
        read: dict[str, Seen] = {}
        made: dict[str, Seen] = {}
        looked = folder.path in self.entry
        for name in [*old, *(name for name in new if name not in old)]:
            before, after = old.get(name), new.get(name)
            path = os.path.join(folder.path, *name.split("/"))
            if path in plain:
                continue
            bits = self.opened.at(path)
            taken = bits & READ or self._origin_of(path)
            appended = bits & KEPT and (after is None or before is None or before.stamp != after.stamp)
            if before is not None and (taken or appended) and folder.role not in self.given.writes:
                read[name] = before
            if after is not None and self._is_member_made(before, after, bits, looked=looked):
                made[name] = after
        files.hash_all(made.values(), self.digests)
        return read, made

    def _is_member_made(self, before: Seen | None, after: Seen, bits: int, *, looked: bool) -> bool:
        if before is not None and before.stamp == after.stamp:
            return False
        if bits & WRITTEN:
            return True
        if before is None and not looked and not self._is_new(after):
            return False
        wrote_other, could_other = self.opened.elsewhere(after.path)
        if wrote_other:
            return False
        if could_other or self.apart:
            self._say(after.path, "which of the concurrent calls wrote it")
            return False
        if before is not None:
            files.hash_all([after], self.digests)
            if files.unchanged(before, after):
                return False
            self._say(after.path, "whether it was read before it was overwritten")
        return True

    def _is_folder_made(self, before: Seen | None, after: Seen) -> bool:
        """Whether the call made a folder that holds only its own files.

        The folder must be new or in the result, and no other running call may put files there.
        """
        named = after.path in self.named
        new = before is None and not self.apart
        return (named or new) and not self.opened.elsewhere(after.path)[1]

    def _is_used_whole(self, before: Seen, after: Seen | None) -> bool:
        """Whether a folder is an input although no read was seen in it: it was given, and left unchanged."""
        if before.role in self.given.reads:
            return True
        if self.frame or before.role in self.given.writes or after is None:
            return False
        if before.members.keys() != after.members.keys() or any(
            seen.stamp != after.members[name].stamp for name, seen in before.members.items()
        ):
            self._say(before.path, "whether anything in it was read")
            return False
        return True

    def _store(self, before: Seen | None, after: Seen | None) -> None:
        """Record a store of arrays, or a folder that is too large to look into, as one thing."""
        place = (after or before).path  # type: ignore[union-attr]
        below = [bits for path, bits in self.opened.paths.items() if path.startswith(os.path.join(place, ""))]
        wrote, read = any(bits & WRITTEN for bits in below), any(bits & READ for bits in below)
        old = before is not None and (bool(before.members) or before.reason is not None)
        changed = after is not None and (before is None or not files.unchanged(before, after))
        made = changed and self._is_store_made(before, after, wrote=wrote)  # type: ignore[arg-type]
        keeps = made and old and before is not None and after is not None and self._is_kept(before, after)
        if before is not None and old and before.role not in self.given.writes:
            whole = not wrote and not changed and not self.frame
            if before.role in self.given.reads or keeps or whole or (read and not wrote):
                self.edges.append(FileEdge("used", before))
        if made and after is not None:
            files.hash_members(after, self.digests)
            self.edges.append(FileEdge("made", after, ((before, None),) if keeps and before is not None else ()))
        elif after is not None and before is None and after.path not in self.entry:
            self.edges.append(FileEdge("used", after, late=True))

    def _is_store_made(self, before: Seen | None, after: Seen, *, wrote: bool) -> bool:
        wrote_other, could_other = self.opened.elsewhere(after.path, below=True)
        if wrote and wrote_other:
            self._say(after.path, "what each of the concurrent calls wrote")
            return False
        if wrote or after.role in self.given.writes:
            return True
        newest = max((inner.stamp.ctime_ns for inner in after.members.values() if inner.stamp), default=0)
        new = max(newest, after.stamp.ctime_ns if after.stamp is not None else 0) >= self.began - 20_000_000
        if before is None and after.path not in self.entry and not new:
            return False
        if after.path in self.named or not (wrote_other or could_other or self.apart):
            return True
        self._say(after.path, "which of the concurrent calls wrote it")
        return False

    def _is_kept(self, before: Seen, after: Seen) -> bool:
        """Whether a part of the former store is still in the new one."""
        return any(
            name in after.members and after.members[name].stamp == inner.stamp for name, inner in before.members.items()
        )


def _name(seen: Seen, folder: Seen) -> str:
    return os.path.relpath(seen.path, folder.path).replace(os.sep, "/")
