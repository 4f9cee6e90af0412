"""One recorded call: what was seen when it began and ended, and the records that follow from it.

What is seen must be seen at once, in the caller's thread; records are made later, in the recorder's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.capture import data as data_versions
from ivcap_flows.capture import files, makers
from ivcap_flows.capture.data import DataVersion
from ivcap_flows.capture.edge_rules import EdgeFacts, edges_of
from ivcap_flows.capture.file_activity import FileActivity
from ivcap_flows.capture.file_edges import Declared, FileEdge, FileEdges
from ivcap_flows.capture.files import Digests, PathState
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.informants import Informant, informants_of
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Collection, Dataset, Handle, LocalFile, Queue
from ivcap_flows.identity import file_urn
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.records import Record, activity, relation
from ivcap_flows.secrets import scrub_text

if TYPE_CHECKING:
    from ivcap_flows.durable.scopes import Tries

__all__ = ["Call", "CallKind", "Held", "digest_values", "now", "records_of"]

CallKind = Literal["attempt", "task-run", "call"]
Held = tuple[str, DataVersion]
"""A version of a table or an array, with the name of the parameter that it was given as."""

_SKEW: Final = timedelta(seconds=60)
"""If a platform made a thing this long before the call, the call found it. Clocks may differ by less than this."""
_MAX_PATHS: Final = 256
"""The maximum number of paths that are looked at, of the arguments of a call and of its result."""
_MOST_MADE: Final = 20_000
"""The number of files beyond which a flow may state again what calls within it made, since not all are kept in mind."""
_MAX_CAUSE: Final = 2_000
_RECEIVERS: Final = (Collection, Dataset, Queue)
"""Things that calls put something into. What they put in is a thing of its own."""


def now() -> datetime:
    """Return the time for records: now, in UTC."""
    return datetime.now(timezone.utc)


@dataclass(eq=False)
class Call:
    """An activity of ours.

    `parent` started it. `before` is the failed try before this one. `given` are its arguments as long as it runs, and
    `informants` the calls whose values are among them.

    `declared` are the parameters that it declares as read or written; `file_activity` is what it was seen to do to
    files. `entry` are the given paths in their state at the beginning; `files` are the files that it used and made,
    `made` those that it made, by their paths, and `made_within` those that calls within it made; `unknown` is what
    could not be decided about them. `left_out` is the number of paths that were not looked at.

    `tries` are the task runs that the call is part of. `outer` is the call around it. Of collections, datasets and
    queues, calls within it only wrote to those in `put_into`, and read those in `taken`.

    `found` are the URNs of things that it returns but that existed before; `reused` are those among them that were
    requested elsewhere. `data` are tables and arrays as they were given, each with its parameter; `data_left` are, by
    id, the versions that the call gave away: those that it returned, changed, or gave to a call within it.
    `data_within` are the ids of those that calls within it made.
    """

    id: str
    kind: CallKind
    name: str
    run_id: str
    attempt_id: str
    parent: str | None
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    before: str | None = None
    outer: Call | None = None
    tries: Tries = ()
    given: Given = field(default_factory=lambda: Given({}))
    informants: list[Informant] = field(default_factory=list)
    started: datetime = field(default_factory=now)
    ended: datetime | None = None
    outcome: str | None = None
    cause: str | None = None
    arguments: ValueScan = field(default_factory=ValueScan)
    returned: ValueScan = field(default_factory=lambda: ValueScan(wanted=False))
    declared: Declared = field(default_factory=Declared)
    file_activity: FileActivity = field(default_factory=FileActivity)
    entry: dict[str, PathState] = field(default_factory=dict)
    files: list[FileEdge] = field(default_factory=list)
    made: dict[str, PathState] = field(default_factory=dict)
    made_within: dict[str, PathState] = field(default_factory=dict)
    unknown: dict[str, str] | None = None
    left_out: int = 0
    data: list[Held] = field(default_factory=list)
    data_left: dict[str, Held] = field(default_factory=dict)
    data_within: set[str] = field(default_factory=set)
    put_into: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    reused: set[str] = field(default_factory=set)
    written: bool = False

    @property
    def weight(self) -> int:
        """The approximate number of bytes that the call holds until it is written."""
        seen = sum(each.weight for each in (*self.entry.values(), *(edge.seen for edge in self.files)))
        return 4_000 + self.arguments.weight + self.returned.weight + seen + 300 * len(self.informants)

    def take(self, values: Mapping[str, Any], function: Any, outer: Call | None, task: Any = None) -> None:
        """Note the arguments for a function within the call `outer`, and whose values are among them.

        `task` is Prefect's context of a task run.
        """
        self.outer = outer
        self.informants = informants_of(values, task, writes=self.declared.writes - self.declared.reads)
        self.given = Given(values, {informant.id for informant in self.informants}, function)

    def uses(self, role: str, handle: Handle | LocalFile) -> bool:
        """Return whether a handle among the arguments is an input, as far as is known yet."""
        # What a call only passed on to others that write to it is no input.
        passed_on = isinstance(handle, _RECEIVERS) and handle.urn in self.put_into - self.taken
        return edges_of(EdgeFacts("same", read=not passed_on, declared=self.declared.of(role))).used is not None

    def tell_outer(self) -> None:
        """Tell the call around this one what it made, and which collections and the like it read or wrote to."""
        if self.outer is not None:
            for role, handle in self.arguments.handles:
                if isinstance(handle, _RECEIVERS):
                    (self.outer.taken if self.uses(role, handle) else self.outer.put_into).add(handle.urn)
            self.outer.taken |= self.taken
            self.outer.put_into |= self.put_into
            if len(self.outer.made_within) < _MOST_MADE:
                self.outer.made_within |= {**self.made_within, **self.made}
            if len(self.outer.data_within) < _MOST_MADE:
                made = {id_ for id_, (_, version) in self.data_left.items() if version.maker == self.id}
                self.outer.data_within |= self.data_within | made

    def snapshot_entry(self, digests: Digests | None) -> None:
        """Read the files and the data among the arguments as they are before the call."""
        self.data += digest_values(self.arguments, self.outer)
        self.arguments.paths += _sources(self.data)
        given, self.left_out = _looked_at(self.arguments.paths)
        for role, path in given:
            if os.path.abspath(path) in self.entry:
                continue
            # A file that the call only writes is not hashed: its old content is not recorded.
            seen = files.snapshot(path, role, digests, hashed=self.declared.of(role) != "written")
            if seen is not None:
                self.entry[seen.path] = seen
        self.file_activity.reachable = tuple(self.entry)

    def snapshot_exit(self, digests: Digests | None, *, other_process: bool) -> None:
        """Read the arguments again, and the results. Decide what the call used and made.

        Set `other_process` if it ran in a separate process.
        """
        self._look_at_data()
        for value in self.given.changed(self._look_at_new_data) if self.kind != "attempt" else ():
            makers.note_changed(value, self.id, self.given, self.wrote)
        if not self.arguments.paths and not self.returned.paths:
            return
        # What a text names may be there only now.
        given, left_out = _looked_at(self.arguments.paths)
        returned, not_returned = _looked_at(self.returned.paths)
        self.left_out = max(self.left_out, left_out) + not_returned
        folders = {os.path.abspath(path) for _, path in given if path.endswith(os.sep)}
        folders |= {path for path, seen in self.entry.items() if seen.folder}
        again = [(seen.role, path + os.sep if path in folders else path) for path, seen in self.entry.items()]
        found: dict[str, PathState] = {}
        for role, path in (*again, *given, *returned):
            if os.path.abspath(path) in found:
                continue
            # In a folder, hash only the files that the call made: other calls may be writing the rest.
            seen = files.snapshot(path, role, digests, hashed=not os.path.isdir(path))
            if seen is not None and seen.stamp is not None:
                found[seen.path] = seen
        named = frozenset(os.path.abspath(path) for _, path in self.returned.paths)
        decided = FileEdges(
            self.entry,
            found,
            named,
            _may_have_read(self.arguments.paths, named),
            self.declared,
            self.file_activity,
            digests,
            self.made_within,
            is_flow=self.kind == "attempt",
            other_process=other_process,
            left_out=self.left_out,
        ).decide()
        self.files, self.unknown = decided.edges, decided.shown_unknown()
        self.made = {edge.seen.path: edge.seen for edge in decided.edges if edge.verb == "made"}
        # Only what the flow itself holds of a result is followed.
        self.returned.paths.clear()

    def end(self, outcome: str, cause: str | None) -> None:
        """State how and when it ended, and tell the call around it."""
        self.tell_outer()
        self.outcome = outcome
        self.cause = scrub_text(cause)[:_MAX_CAUSE] if cause is not None else None
        # Set `ended` last, since the recorder takes a call with an end as finished. Never before the start: the clock
        # may have been set back, and the start of an attempt comes from the journal's clock.
        self.ended = max(now(), self.started)

    def wrote(self, path: str) -> bool:
        """Whether it made the file or folder at an absolute path, as far as is known."""
        written = self.file_activity.written(path)
        return path in self.made or (written is not None and written.gone is None)

    def _look_at_data(self) -> None:
        given = {id(version.value): version for _, version in self.data if version.value is not None}
        for role, version in {id(version): (role, version) for role, version in self.data}.values():
            after = data_versions.left(version, self.id)
            # Another call may have changed it meanwhile.
            if after.maker == self.id:
                self.data_left[after.id] = role, after
        for role, value, _ in self.returned.data:
            found = data_versions.returned(value, self.id, given=given.get(id(value)), of_flow=self.kind == "attempt")
            self.data_left.setdefault(found.id, (role, found))
        self.returned.data.clear()
        self.returned.paths += _sources(self.data_left.values())

    def _look_at_new_data(self, look: ValueScan) -> None:
        """Complete a scan of the arguments at the end of the call with the stand-ins of the data in them.

        The call may have put a table or an array of its own into a list or a dict that it was given.
        """
        known = {id(version.value) for _, version in self.data}
        for role, value, slot in look.data:
            version = data_versions.returned(value, self.id, given=None, of_flow=False)
            slot.update(version.shown)
            if id(value) not in known and version.maker == self.id:
                self.data_left[version.id] = role, version


def _sources(held: Iterable[Held]) -> list[tuple[str, str]]:
    # The trailing separator says that it may be a folder.
    lazy = ((role, each.source) for role, each in held if each.sha256 is None)
    return [(role, os.path.join(source, "")) for role, source in lazy if source is not None]


def _looked_at(paths: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int]:
    """Return the paths to look at, and the number of those left out: `Path`s, and texts that name what is there."""
    if len(paths) <= _MAX_PATHS:
        return paths, 0
    there = {each: each[1].endswith(os.sep) or os.path.exists(each[1]) for each in paths}
    first = sorted(there, key=there.__getitem__, reverse=True)[:_MAX_PATHS]
    return first, max(0, sum(there.values()) - _MAX_PATHS)


def _may_have_read(given: Sequence[tuple[str, str]], named: Set[str]) -> frozenset[str]:
    """Return the given paths whose files a call may have read unseen. A name without a separator may be any text.

    Nor are those counted of which the result names one of the same parameter: the call may only have chosen it.
    """
    chosen_from = {role for role, path in given if os.path.abspath(path) in named}
    return frozenset(os.path.abspath(path) for role, path in given if os.sep in path and role not in chosen_from)


def digest_values(look: ValueScan, outer: Call | None) -> list[Held]:
    """Read the tables and arrays that were found. Put their content into their stand-ins among the parameters.

    What the call `outer` gives away for the first time, or after a change, it has made. Of a flow that is not said.
    """
    maker = outer.id if outer is not None and outer.kind != "attempt" else None
    seen: dict[int, DataVersion] = {}
    for role, value, slot in look.data:
        if id(value) not in seen:
            version = seen[id(value)] = data_versions.given(value, maker)
            if outer is not None and version.maker == outer.id:
                outer.data_left.setdefault(version.id, (role, version))
        slot.update(seen[id(value)].shown)
    held = [(role, seen[id(value)]) for role, value, _ in look.data]
    # The call may wait in the queue, and must not keep alive what the flow has released.
    look.data.clear()
    return held


def records_of(call: Call, digests: Digests | None) -> list[Record]:
    """Return the records of a call: the call itself, what it used, and once it has ended what it made."""
    found = [*_itself(call), *_given(call, digests)]
    if call.ended is not None:
        known = {record.id for record in found if record.kind != "relation"}
        # A returned file that is not at its path is known by its content. It is no product if an input has that
        # content.
        known |= {file_urn(record.attributes["sha256"]) for record in found if "sha256" in record.attributes}
        found += _made(call, known, digests)
    return found


def _itself(call: Call) -> Iterator[Record]:
    yield activity(
        call.id,
        call.kind,
        call.started,
        call.ended,
        name=call.name,
        outcome=call.outcome or "running",
        cause=call.cause,
        parameters=call.parameters or None,
        unknown=call.unknown,
        **call.attributes,
    )
    if call.parent is not None:
        yield relation("wasStartedBy", call.id, call.parent, call.started)
    if call.before is not None:
        yield relation("wasInformedBy", call.id, call.before)
    for informant in call.informants:
        yield from informant.stated(call.id)


def _given(call: Call, digests: Digests | None) -> Iterator[Record]:
    for role, handle in call.arguments.handles:
        if _is_seen(call, handle):
            continue
        stated = describe(handle)
        yield from stated
        # Which collections and the like are inputs is known when the call has ended.
        if call.uses(role, handle) and not (call.ended is None and isinstance(handle, _RECEIVERS)):
            yield _took(call, stated[0], role)
    # The end of the call decides which paths are inputs; until then `files` is empty.
    for edge in call.files:
        if edge.verb == "used":
            yield from _stated(edge.seen, digests)
            thing = files.records_of(edge.seen)[0].id
            # A file that is only returned may have been made after the call began.
            at = call.ended if edge.seen.role == "result" else call.started
            yield relation("used", call.id, thing, at, role=edge.seen.role, basis=edge.basis)
    yield from _data_given(call, digests)


def _is_seen(call: Call, handle: Handle | LocalFile) -> bool:
    """Whether a handle is a file that was looked at by its path."""
    if not isinstance(handle, LocalFile):
        return False
    path = os.path.abspath(handle.path)
    return path in call.entry or any(edge.seen.path == path for edge in call.files)


def _stated(seen: PathState, digests: Digests | None, *, made: bool = False) -> list[Record]:
    files.settle(seen, digests)
    return files.records_of(seen, made=made)


def _data_given(call: Call, digests: Digests | None) -> Iterator[Record]:
    for role, version in call.data:
        yield version.record()
        yield relation("used", call.id, version.id, call.started, role=role)
        yield from _derived(version)
        yield from _opened_from(version, call, digests)


def _derived(version: DataVersion) -> Iterator[Record]:
    if version.origin is not None:
        yield version.origin
        yield relation("wasDerivedFrom", version.id, version.origin.id)


def _opened_from(version: DataVersion, call: Call, digests: Digests | None) -> Iterator[Record]:
    """Yield the relation of a lazy value to the file that it was opened from."""
    opened = version.source is not None and version.origin is None
    place = os.path.abspath(version.source) if opened and version.source is not None else None
    seen = next((edge.seen for edge in call.files if edge.seen.path == place), None)
    if seen is not None:
        stated = _stated(seen, digests)
        yield from stated
        yield relation("wasDerivedFrom", version.id, stated[0].id)


def _took(call: Call, thing: Record, role: str) -> Record:
    if thing.kind == "activity":
        return relation("wasInformedBy", call.id, thing.id, role="reused" if thing.id in call.reused else role)
    return relation("used", call.id, thing.id, call.started, role=role)


def _made(call: Call, known: set[str], digests: Digests | None) -> Iterator[Record]:
    for role, handle in call.returned.handles:
        if _is_seen(call, handle):
            continue
        stated = describe(handle)
        yield from stated
        thing = stated[0]
        if thing.id in known:
            continue
        known.add(thing.id)
        born = _asked_at(thing)
        edges = edges_of(_facts_of_returned(call, handle, thing, born))
        if edges.used is not None:
            yield _took(call, thing, role)
        if edges.made and thing.kind == "activity":
            yield relation("wasStartedBy", thing.id, call.id, born or call.ended)
        elif edges.made:
            yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=role)
    for edge in call.files:
        if edge.verb == "made":
            yield from _made_file(call, edge, digests)
    yield from _data_left(call, digests)


def _facts_of_returned(call: Call, handle: Handle | LocalFile, thing: Record, born: datetime | None) -> EdgeFacts:
    """Return what is known of a handle in the result. What a flow returns was made by one of its tasks."""
    if call.kind == "attempt":
        return EdgeFacts("new", writer="another")
    # The work of a model run was done before it was registered.
    was_there = thing.id in call.found or thing.type == "model-run"
    if was_there or (born is not None and born < call.started - _SKEW):
        # Who finds a collection or a queue has not read what is in it.
        return EdgeFacts("found", read=not isinstance(handle, Collection | Queue))
    return EdgeFacts("new", writer="me")


def _data_left(call: Call, digests: Digests | None) -> Iterator[Record]:
    """Yield the records of data in memory: what the call made, and what it returned that was there before."""
    known = {version.id for _, version in call.data}
    for role, version in call.data_left.values():
        if version.id in known:
            continue
        yield version.record()
        # What a flow gives away, or a call within made, was another's to use.
        taken = call.kind != "attempt" and version.id not in call.data_within
        edges = edges_of(EdgeFacts("new", writer="me") if version.maker == call.id else EdgeFacts("found", read=taken))
        if edges.made:
            yield relation("wasGeneratedBy", version.id, call.id, call.ended, role=role)
            yield from _derived(version)
            yield from _opened_from(version, call, digests)
        if edges.used is not None:
            yield relation("used", call.id, version.id, call.ended, role=role)


def _asked_at(thing: Record) -> datetime | None:
    asked = thing.attributes.get("requested_at")
    return datetime.fromisoformat(asked) if isinstance(asked, str) else thing.time


def _made_file(call: Call, edge: FileEdge, digests: Digests | None) -> Iterator[Record]:
    stated = _stated(edge.seen, digests, made=True)
    thing = stated[0]
    yield from stated
    yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=edge.seen.role)
    for origin, how in edge.origins:
        # An origin is also an input, and has been recorded as one.
        yield relation("wasDerivedFrom", thing.id, _stated(origin, digests)[0].id, how=how)
