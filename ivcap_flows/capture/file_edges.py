"""What a call used and made of the files that it was given and gave back: by what it says, then by what was seen.

A file is *used* where the call was seen to read it, or left it as it was; *made* where it is new or changed and the
call was seen to write it, names it in its result, or is the only one that could have written it. It *derives* from what
was at the path before only where that was read or kept, and from another file of which it is a copy, a link or the new
name. What these do not decide is not stated, and said.
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
"""Of what is not known so many paths are named; all are counted."""
_TOLD: Final = 256
"""A folder of which more files were read or made is told as one thing."""


@dataclass(frozen=True)
class FileEdge:
    """One use or making of a file or folder. `origins` are what a made one derives from, and how where that is known:
    by `copy`, `link` or `rename`. `late`: it was come upon in the result."""

    verb: Literal["used", "made"]
    seen: Seen
    origins: tuple[tuple[Seen, str | None], ...] = ()
    late: bool = False


@dataclass(frozen=True)
class Given:
    """What a call says of its parameters: those that it only reads, and those that it only writes."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@dataclass
class FileEdges:
    """Decides over the paths of one call, from how they were when it began (`entry`) and ended (`exit`).

    `named` are the paths in its result, `began` is when it began in nanoseconds since the epoch. `frame` tells a flow,
    whose tasks do the work, and `apart` a call in a process of its own, whose siblings are not seen.
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
        """Fill `edges` and `unknown`, which says of a path what is not known of it."""
        paths = {**self.entry, **self.exit}
        plain = [path for path, seen in paths.items() if not seen.folder]
        for path in plain:
            self._file(self.entry.get(path), self.exit.get(path))
        for path in paths.keys() - set(plain):
            self._folder(self.entry.get(path), self.exit.get(path), frozenset(plain))
        if self.opened.lost:
            self.unknown["…"] = f"{self.opened.lost} more files were opened than are looked at in one call"
        return self

    def said(self) -> dict[str, str] | None:
        """What is not known, for the record: some of the paths, and how many there are."""
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
            # The call came upon it: it was there before, or another call has written it.
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
            self._say(path, "which of the calls that ran at once has written it")
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
        """Whether what is at the path now was made from what was there."""
        if before.role in self.given.writes:
            return False
        bits = self.opened.at(before.path)
        return bool(bits & (READ | KEPT)) or (not bits & WRITTEN and before.role in self.given.reads)

    def _copied(self, after: Seen) -> Seen | None:
        """The file that was read and has the content of one that was made."""
        size = after.stamp.size if after.stamp is not None else 0
        if after.sha256 is None or not identifies(size):
            return None
        used = [edge.seen for edge in self.edges if edge.verb == "used" and not edge.seen.folder]
        return next((seen for seen in used if seen.sha256 == after.sha256 and seen.path != after.path), None)

    def _before(self, path: str) -> Seen | None:
        """What was at a path when the call began, given as such or in a folder."""
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
        """Whether a path that nobody looked at before was written since the call began: by its own change time."""
        # The kernel stamps files with a clock that lags by up to a tick.
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
        """The files of a folder that the call was seen to read, and those that it made."""
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
            self._say(after.path, "which of the calls that ran at once has written it")
            return False
        if before is not None:
            files.hash_all([after], self.digests)
            if files.unchanged(before, after):
                return False
            self._say(after.path, "whether it was read before it was overwritten")
        return True

    def _is_folder_made(self, before: Seen | None, after: Seen) -> bool:
        """Whether a folder that holds the call's own files only is a thing that it made: it was not there before, or is
        the result, and no other call that ran may put its files there."""
        named = after.path in self.named
        new = before is None and not self.apart
        return (named or new) and not self.opened.elsewhere(after.path)[1]

    def _is_used_whole(self, before: Seen, after: Seen | None) -> bool:
        """Whether a folder of which no file was seen to be read is an input all the same: given, and left as it was."""
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
        """A store of arrays, or a folder that is too large to be looked into, is one thing."""
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
            self._say(after.path, "what each of the calls has written that wrote at once")
            return False
        if wrote or after.role in self.given.writes:
            return True
        newest = max((inner.stamp.ctime_ns for inner in after.members.values() if inner.stamp), default=0)
        new = max(newest, after.stamp.ctime_ns if after.stamp is not None else 0) >= self.began - 20_000_000
        if before is None and after.path not in self.entry and not new:
            return False
        if after.path in self.named or not (wrote_other or could_other or self.apart):
            return True
        self._say(after.path, "which of the calls that ran at once has written it")
        return False

    def _is_kept(self, before: Seen, after: Seen) -> bool:
        """Whether a part of the former store is in the new one."""
        return any(
            name in after.members and after.members[name].stamp == inner.stamp for name, inner in before.members.items()
        )


def _name(seen: Seen, folder: Seen) -> str:
    return os.path.relpath(seen.path, folder.path).replace(os.sep, "/")
