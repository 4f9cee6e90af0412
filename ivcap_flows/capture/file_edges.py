"""The files and folders that a call used and made: what is known of each path, put before the rules of `edge_rules`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ivcap_flows.capture import files
from ivcap_flows.capture.edge_rules import Basis, Change, Declaration, EdgeFacts, Edges, Writer, edges_of
from ivcap_flows.capture.file_activity import FileActivity, Written, unseen
from ivcap_flows.capture.files import Digests, PathState
from ivcap_flows.file_state import FileState
from ivcap_flows.provenance.graph import identifies

__all__ = ["Declared", "FileEdge", "FileEdges"]

_SAID: Final = 16
"""The maximum number of unknown paths that are named. All are counted."""
_TOLD: Final = 256
"""If a call read more files in a folder, the folder is recorded as one thing."""
_TICK: Final = 20_000_000
"""Nanoseconds by which the clock that sets file times may lag."""
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True)
class FileEdge:
    """One use or making of a file or folder.

    `basis` says how a use is known. `origins` are the files that a made one derives from, each with `copy`, `link` or
    `rename` if that is known.
    """

    verb: Literal["used", "made"]
    seen: PathState
    basis: Basis | None = None
    origins: tuple[tuple[PathState, str | None], ...] = ()


@dataclass(frozen=True)
class Declared:
    """The parameters that a call declares as read, and those that it declares as written."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def of(self, role: str) -> Declaration:
        """Return what is declared of a parameter."""
        if role in self.reads:
            return "changed" if role in self.writes else "read"
        return "written" if role in self.writes else "nothing"


@dataclass
class FileEdges:
    """Decides what a call did with its paths, from their states when it began (`entry`) and ended (`exit`).

    `named` are the paths in its result; `reachable` are those of its arguments that it may have read unseen. `is_flow`
    marks a flow, whose tasks do the work. `within` is what calls within this one made: each thing has one maker.
    `other_process` marks a call in a separate process, where other calls are not seen. `left_out` is the number of
    paths that were not looked at.
    """

    entry: Mapping[str, PathState]
    exit: Mapping[str, PathState]
    named: frozenset[str]
    reachable: frozenset[str]
    declared: Declared
    activity: FileActivity
    digests: Digests | None
    within: Mapping[str, PathState] = field(default_factory=dict)
    is_flow: bool = False
    other_process: bool = False
    left_out: int = 0
    edges: list[FileEdge] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    _used: dict[str, FileEdge] = field(default_factory=dict)
    _made: list[tuple[PathState, PathState | None]] = field(default_factory=list)
    _begins: dict[int, int] = field(default_factory=dict)

    def decide(self) -> FileEdges:
        """Fill `edges` and `unknown`. `unknown` says of a path what could not be decided about it."""
        paths = {**self.entry, **self.exit}
        # Files first: what the call did with one says something of a folder around it that has a path here, too.
        files_here: dict[str, Edges] = {}
        for path in sorted(paths, key=lambda path: paths[path].folder):
            before, after = self.entry.get(path), self.exit.get(path)
            before = before if before is not None and before.stamp is not None else None
            if not paths[path].folder:
                files_here[path] = self._file(path, before, after)
            elif before is not None or after is not None:
                self._folder(path, before, after, files_here)
        self._made = [each for each in self._made if not self._is_made_within(each[0])]
        files.hash_all((after for after, _ in self._made if not after.folder), self.digests)
        contents = {edge.seen.sha256: edge.seen for edge in self._used.values() if not edge.seen.folder}
        made = [self._made_edge(after, before, contents) for after, before in self._made]
        self.edges = [*self._used.values(), *made]
        return self

    def shown_unknown(self) -> dict[str, str] | None:
        """Return the unknowns for the record: some of the paths, how many there are, and what was not looked at."""
        more = [f"{len(self.unknown)} files in all"] if len(self.unknown) > _SAID else []
        if self.activity.lost:
            more.append(f"{self.activity.lost} more files were not looked at: the call opened too many")
        if self.left_out:
            more.append(f"{self.left_out} more paths were not looked at: the call was given or returned too many")
        shown = dict(list(self.unknown.items())[:_SAID]) | ({"…": "; ".join(more)} if more else {})
        return shown or None

    def _is_made_within(self, after: PathState) -> bool:
        inner = self.within.get(after.path)
        return inner is not None and files.unchanged(inner, after)

    # What is known of a path

    def _file(self, path: str, before: PathState | None, after: PathState | None) -> Edges:
        seen = after or before
        if seen is None:
            return Edges()
        decided = self._decide(path, before, after, self.declared.of(seen.role), was_snapshotted=path in self.entry)
        if decided.used is not None:
            self._use(before or seen, decided.used)
        return decided

    def _decide(
        self,
        path: str,
        before: PathState | None,
        after: PathState | None,
        declared: Declaration,
        *,
        was_snapshotted: bool,
    ) -> Edges:
        written, concurrent = self.activity.written(path), self.activity.last_concurrent(path)
        writer = _writer(written, concurrent)
        change = self._change(before, after, writer, declared, was_snapshotted=was_snapshotted)
        moved = change == "gone" and written is not None and written.gone == "renamed"
        decided = edges_of(
            EdgeFacts(
                change,
                read=moved or self.activity.read(path),
                writer=writer,
                kept=written is not None and not written.own,
                alone=writer != "unseen" or self._is_alone(path),
                declared=declared,
                named=path in self.named,
                given=path in self.reachable,
            )
        )
        if decided.unknown is not None:
            self.unknown[path] = decided.unknown
        if decided.made and after is not None:
            self._made.append((after, before if decided.derived else None))
        return decided

    def _change(
        self,
        before: PathState | None,
        after: PathState | None,
        writer: Writer,
        declared: Declaration,
        *,
        was_snapshotted: bool,
    ) -> Change:
        if before is None:
            assert after is not None
            new = was_snapshotted or writer in ("me", "several") or self._is_new(after)
            return "new" if new else "found"
        if after is None:
            return "gone"
        if before.stamp == after.stamp:
            return "same"
        # What is declared as written may be written with the content that it had.
        if writer == "unseen" and declared in ("nothing", "read"):
            files.hash_all([after], self.digests)
            if files.unchanged(before, after):
                return "same"
        return "changed"

    def _is_alone(self, path: str) -> bool:
        return not self.other_process and not self.activity.could_be_concurrent(path)

    def _is_new(self, seen: PathState) -> bool:
        """Whether a path that nobody had looked at was written since the call began, by the clock of its files."""
        if seen.stamp is None:
            return False
        if seen.stamp.device not in self._begins:
            self._begins[seen.stamp.device] = _begin_there(os.path.dirname(seen.path), self.activity.started)
        return seen.stamp.ctime_ns >= self._begins[seen.stamp.device]

    def _use(self, seen: PathState, basis: Basis) -> None:
        known = self._used.get(seen.path)
        if known is None or (known.basis == "given" and basis == "seen"):
            self._used[seen.path] = FileEdge("used", seen, basis)

    # A folder

    def _folder(
        self, path: str, before: PathState | None, after: PathState | None, files_here: Mapping[str, Edges]
    ) -> None:
        found = after or before
        assert found is not None
        declared = self.declared.of(found.role)
        if found.format is not None or found.reason is not None:
            self._store(path, before, after, declared)
            return
        old = before.members if before is not None else {}
        new = after.members if after is not None else {}
        used: list[tuple[PathState, Basis]] = []
        made, met = 0, False
        for name in {**old, **new}:
            member = os.path.join(path, *name.split("/"))
            if (alone := files_here.get(member)) is not None:
                # What a flow returns, its tasks have made.
                made += alone.made and name in new and not self.is_flow
                met = met or alone.unknown is not None or alone.used in ("seen", "declared")
                continue
            first, last = old.get(name), new.get(name)
            # What is declared of a folder holds for a file in it that changed, if nobody else can have changed it.
            changed = first is not None and last is not None and first.stamp != last.stamp and self._is_alone(member)
            of_member = declared if changed and declared != "read" else "nothing"
            decided = self._decide(member, first, last, of_member, was_snapshotted=path in self.entry)
            made += decided.made and name in new
            if decided.used is not None and declared != "written":
                used.append((first or new[name], decided.used))
        if made:
            self._whole_if_own(path, before, after, own=made == len(new))
        decided = self._decide_whole(before, after, declared) if not (used or made or met) else Edges()
        if before is not None and (decided.used is not None or len(used) > _TOLD):
            self._use(before, decided.used or "seen")
        else:
            for seen, basis in used:
                self._use(seen, basis)

    def _whole_if_own(self, path: str, before: PathState | None, after: PathState | None, *, own: bool) -> None:
        """Record a folder as made if all that is in it is the call's `own`.

        It put the folder there as a whole; or the folder is new or in the result, and no other running call may put
        files there. What is unknown is so of its files.
        """
        if after is None or not own:
            return
        others = self.activity.could_be_concurrent(path)
        facts = EdgeFacts(
            "new" if before is None else "changed",
            writer="unseen" if self.activity.written(path) is None else "me",
            alone=before is None and self._is_alone(path),
            named=path in self.named and not others,
        )
        if edges_of(facts).made:
            files.hash_members(after, self.digests)
            self._made.append((after, None))

    def _decide_whole(self, before: PathState | None, after: PathState | None, declared: Declaration) -> Edges:
        """Decide on a folder as it was, if the call was not seen to read or write anything in it."""
        if before is None or not before.members:
            return Edges()
        change: Change = "gone" if after is None else "same" if _stamps(before) == _stamps(after) else "changed"
        given = before.path in self.reachable and not self.is_flow
        writer: Writer = "unseen" if change == "same" else "another"
        decided = edges_of(EdgeFacts(change, writer=writer, declared=declared, given=given))
        if decided.unknown is not None:
            self.unknown[before.path] = decided.unknown
        return decided

    def _store(self, path: str, before: PathState | None, after: PathState | None, declared: Declaration) -> None:
        """Record a store of arrays, or a folder that is too large to look into, as one thing."""
        wrote, concurrent = self.activity.wrote_below(path), self.activity.last_concurrent(path, below=True)
        writer: Writer = "unseen" if concurrent is None else "another"
        if wrote:
            writer = "me" if concurrent is None else "several"
        old = before if before is not None and (before.members or before.reason is not None) else None
        decided = edges_of(
            EdgeFacts(
                self._change_of_store(path, old, after, writer),
                # What writes a store reads its metadata first.
                read=self.activity.read_below(path) and not wrote,
                writer=writer,
                kept=old is not None and after is not None and _shares(old, after),
                alone=self._is_alone(path),
                declared=declared,
                named=path in self.named,
                given=path in self.reachable and not self.is_flow,
            )
        )
        found = old or after
        if decided.unknown is not None:
            self.unknown[path] = decided.unknown
        elif found is not None and found.reason is not None and wrote:
            self.unknown[path] = f"it is not known what was changed in {found.reason}"
        if decided.used is not None and found is not None:
            self._use(found, decided.used)
        if decided.made and after is not None:
            files.hash_members(after, self.digests)
            self._made.append((after, old if decided.derived else None))

    def _change_of_store(self, path: str, before: PathState | None, after: PathState | None, writer: Writer) -> Change:
        if after is None:
            return "gone"
        if before is not None:
            return "same" if files.unchanged(before, after) else "changed"
        if path in self.entry or writer in ("me", "several"):
            return "new"
        return "new" if any(map(self._is_new, (after, *after.members.values()))) else "found"

    # What a file was made from

    def _made_edge(
        self, after: PathState, before: PathState | None, contents: Mapping[str | None, PathState]
    ) -> FileEdge:
        origins: list[tuple[PathState, str | None]] = [(before, None)] if before is not None else []
        written = None if after.folder else self.activity.written(after.path)
        place, how = written.origin if written is not None and written.origin is not None else (after.path, None)
        source = self._before(place) if place != after.path else None
        if source is not None:
            self._use(source, "seen")
            origins.append((source, how))
        elif not origins and not after.folder and identifies(after.size):
            # Copied by other means than those of the system.
            same = contents.get(after.sha256) if after.sha256 is not None else None
            origins += [(same, "copy")] if same is not None and same.path != after.path else []
        return FileEdge("made", after, origins=tuple(origins))

    def _before(self, path: str) -> PathState | None:
        """Return the state of a file when the call began, if the file or a folder around it was given."""
        found, folder = self.entry.get(path), os.path.dirname(path)
        while found is None and folder != os.path.dirname(folder):
            around = self.entry.get(folder)
            found = around.members.get(os.path.relpath(path, folder).replace(os.sep, "/")) if around else None
            folder = os.path.dirname(folder)
        return found if found is not None and found.stamp is not None and not found.folder else None


def _writer(written: Written | None, concurrent: int | None) -> Writer:
    """Return who was seen to write a path: the call itself as `written`, another one last at the tick `concurrent`."""
    if written is None:
        return "unseen" if concurrent is None else "another"
    return "me" if concurrent is None or (written.own and written.tick > concurrent) else "several"


def _stamps(folder: PathState) -> dict[str, FileState | None]:
    return {name: seen.stamp for name, seen in folder.members.items()}


def _shares(before: PathState, after: PathState) -> bool:
    """Whether a part of the former store is still in the new one."""
    return any(
        name in after.members and after.members[name].stamp == inner.stamp for name, inner in before.members.items()
    )


def _begin_there(folder: str, started: int) -> int:
    """Return the time at which a call `started`, by the clock that stamps the files of a folder, in nanoseconds.

    That clock may be another machine's, and be set at any time. So it is read from a new file, and compared with no
    other clock; `started` is by the monotonic one.
    """
    try:
        with unseen(), tempfile.TemporaryFile(dir=folder, prefix=".ivcap-flows-") as probe:
            now, elapsed = os.fstat(probe.fileno()).st_ctime_ns, time.monotonic_ns() - started
    except OSError:
        # Who cannot write there now did not do so before.
        return sys.maxsize
    return now - elapsed - (_TICK if now % _SECOND else _SECOND)
