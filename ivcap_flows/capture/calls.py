"""One recorded call: what was seen when it began and ended, and the records that follow from it.

What is seen must be seen at once, in the caller's thread; records are made later, in the recorder's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

from ivcap_flows.capture import data, files
from ivcap_flows.capture.data import Held
from ivcap_flows.capture.files import Digests, Seen
from ivcap_flows.capture.informants import Informant
from ivcap_flows.capture.values import Look
from ivcap_flows.identity import file_urn
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.records import Record, activity, relation

__all__ = ["Call", "CallKind", "now", "records_of"]

CallKind = Literal["attempt", "task-run", "call"]

_SKEW: Final = timedelta(seconds=60)
"""A thing that its platform made so long before the call was found by the call, not made. Clocks may differ by less."""
_MAX_PATHS: Final = 256


def now() -> datetime:
    """The time as it is recorded."""
    return datetime.now(timezone.utc)


@dataclass(eq=False)
class Call:
    """An activity of ours. `parent` started it; `before` is the try that failed before this one; `informants` are the
    calls whose values it was given.

    `found` are the URNs of things that were there already, though the call returns them; `reused` those of them that
    were asked for elsewhere. `held` are tables and arrays as they were given, `changed` those that were left with
    another content, and `kept` those that were returned.
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
    informants: list[Informant] = field(default_factory=list)
    started: datetime = field(default_factory=now)
    ended: datetime | None = None
    outcome: str | None = None
    cause: str | None = None
    given: Look = field(default_factory=Look)
    returned: Look = field(default_factory=Look)
    entry: dict[str, Seen] = field(default_factory=dict)
    exit: dict[str, Seen] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    changed: list[tuple[Held, Held]] = field(default_factory=list)
    kept: list[Held] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    reused: set[str] = field(default_factory=set)
    written: bool = False

    @property
    def weight(self) -> int:
        """About how many bytes the call holds while it waits to be written."""
        seen = sum(each.weight for each in (*self.entry.values(), *self.exit.values()))
        return 4_000 + self.given.weight + self.returned.weight + seen

    def look_at_entry(self, digests: Digests | None) -> None:
        """See the files and the data among the arguments as they are before the call."""
        self.held += seen_in(self.given)
        self.given.paths += _sources(self.held)
        for role, path in self.given.paths[:_MAX_PATHS]:
            seen = files.look(path, role, digests)
            if seen is not None:
                self.entry.setdefault(seen.path, seen)

    def look_at_exit(self, digests: Digests | None) -> None:
        """See those again, and what is among the results."""
        self._look_at_data()
        again = [(seen.role, path + os.sep if seen.folder else path) for path, seen in self.entry.items()]
        again += [(role, path) for role, path in self.given.paths if path.endswith(os.sep)]
        for role, path in (*again, *self.returned.paths[:_MAX_PATHS]):
            seen = files.look(path, role, digests)
            if seen is not None and seen.stamp is not None:
                self.exit.setdefault(seen.path, seen)

    def _look_at_data(self) -> None:
        again: dict[int, Held] = {}
        for before in self.held:
            value = before.value
            if value is None or id(value) in again:
                continue
            # What was not read at the beginning is not read at the end either, and stays the same thing.
            after = data.look(before.role, value) if before.sha256 is not None else before
            again[id(value)] = after
            if after.sha256 is not None and after.id != before.id:
                self.changed.append((before, after))
        for role, value, _ in self.returned.data:
            known = again.get(id(value))
            self.kept.append(known if known is not None else data.look(role, value))
        self.returned.data.clear()
        self.returned.paths += _sources(self.kept)


def _sources(held: Iterable[Held]) -> list[tuple[str, str]]:
    # A trailing separator: it may be a folder.
    return [(each.role, os.path.join(each.source, "")) for each in held if each.source is not None]


def seen_in(look: Look) -> list[Held]:
    """The tables and arrays that were found, read; what stands for them among the parameters says so."""
    seen: list[Held] = []
    for role, value, slot in look.data:
        held = next((each for each in seen if each.value is value), None)
        if held is None:
            held = data.look(role, value)
            seen.append(held)
        slot.update(held.shown)
    # The call may wait to be written, and must not keep what the flow has let go of.
    look.data.clear()
    return seen


def records_of(call: Call, digests: Digests | None) -> list[Record]:
    """What a call states: itself, what it used, and once it has ended what it made."""
    found = [*_itself(call), *_given(call, digests)]
    if call.ended is not None:
        known = {record.id for record in found if record.kind != "relation"}
        # What has the content of an input is no product.
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
        **call.attributes,
    )
    if call.parent is not None:
        yield relation("wasStartedBy", call.id, call.parent, call.started)
    if call.before is not None:
        yield relation("wasInformedBy", call.id, call.before)
    for informant in call.informants:
        yield from informant.stated(call.id)


def _given(call: Call, digests: Digests | None) -> Iterator[Record]:
    for role, handle in call.given.handles:
        stated = describe(handle)
        yield from stated
        yield _took(call, stated[0], role)
    for seen in call.entry.values():
        if seen.stamp is None:
            continue
        if call.ended is not None:
            files.settle(seen, digests)
        elif seen.folder or seen.sha256 is None:
            continue
        if seen.folder and not seen.members and seen.reason is None:
            continue
        stated = files.records_of(seen)
        yield from stated
        yield relation("used", call.id, stated[0].id, call.started, role=seen.role)
    yield from _data_given(call)


def _data_given(call: Call) -> Iterator[Record]:
    for held in call.held:
        yield held.record()
        yield relation("used", call.id, held.id, call.started, role=held.role)
        yield from _opened_from(held, call.entry)


def _opened_from(held: Held, seen: dict[str, Seen]) -> Iterator[Record]:
    """A lazy value comes from the file that it was opened from."""
    file = seen.get(os.path.abspath(held.source)) if held.source is not None else None
    if file is not None and file.stamp is not None and (file.sha256 is not None or file.reason is not None):
        stated = files.records_of(file)
        yield from stated
        yield relation("wasDerivedFrom", held.id, stated[0].id)


def _took(call: Call, thing: Record, role: str) -> Record:
    if thing.kind == "activity":
        return relation("wasInformedBy", call.id, thing.id, role="reused" if thing.id in call.reused else role)
    return relation("used", call.id, thing.id, call.started, role=role)


def _made(call: Call, known: set[str], digests: Digests | None) -> Iterator[Record]:
    for role, handle in call.returned.handles:
        stated = describe(handle)
        yield from stated
        thing = stated[0]
        if thing.id in known or call.kind == "attempt":
            # What a flow returns was made by the task that it has it from.
            continue
        known.add(thing.id)
        born = _asked_at(thing)
        if thing.id in call.found or (born is not None and born < call.started - _SKEW):
            yield _took(call, thing, role)
        elif thing.type == "model-run":
            # The work was done before it was registered.
            yield _took(call, thing, role)
        elif thing.kind == "activity":
            yield relation("wasStartedBy", thing.id, call.id, born or call.ended)
        else:
            yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=role)
    for path, seen in call.exit.items():
        yield from _left(call, call.entry.get(path), seen, known, digests)
    yield from _data_made(call, known)


def _data_made(call: Call, known: set[str]) -> Iterator[Record]:
    """What was left in memory: a new version of what was given, and what is new among the results."""
    for before, after in call.changed:
        yield after.record()
        if after.id not in known:
            known.add(after.id)
            yield relation("wasGeneratedBy", after.id, call.id, call.ended, role=after.role)
            yield relation("wasDerivedFrom", after.id, before.id)
    for held in call.kept:
        yield held.record()
        if held.id not in known:
            known.add(held.id)
            yield relation("wasGeneratedBy", held.id, call.id, call.ended, role=held.role)
        yield from _opened_from(held, {**call.entry, **call.exit})


def _asked_at(thing: Record) -> datetime | None:
    asked = thing.attributes.get("requested_at")
    return datetime.fromisoformat(asked) if isinstance(asked, str) else thing.time


def _left(call: Call, before: Seen | None, seen: Seen, known: set[str], digests: Digests | None) -> Iterator[Record]:
    """What the call left at a path: nothing new, a new file, a newer version, or new members of a folder."""
    if before is not None and files.unchanged(before, seen):
        return
    files.settle(seen, digests)
    stated = files.records_of(seen)
    thing = stated[0]
    yield from stated
    if thing.id in known:
        return
    known.add(thing.id)
    if before is None and not _is_new(call, seen):
        yield relation("used", call.id, thing.id, call.ended, role=seen.role)
        return
    yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=seen.role)
    if before is not None and before.stamp is not None and (before.members or not before.folder):
        yield relation("wasDerivedFrom", thing.id, files.records_of(before)[0].id)
    yield from _new_members(call, before, seen, known)


def _new_members(call: Call, before: Seen | None, seen: Seen, known: set[str]) -> Iterable[Record]:
    stated = {record.id for record in files.records_of(seen)}
    for name, inner in seen.members.items():
        old = before.members.get(name) if before is not None else None
        if old is not None and files.unchanged(old, inner):
            continue
        thing = files.records_of(inner)[0]
        if thing.id in stated and thing.id not in known:
            known.add(thing.id)
            yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=seen.role)


def _is_new(call: Call, seen: Seen) -> bool:
    """Whether a path that was not among the arguments was written by the call: by the file's own change time."""
    assert seen.stamp is not None
    if seen.folder:
        newest = max((inner.stamp.ctime_ns for inner in seen.members.values() if inner.stamp), default=0)
        newest = max(newest, seen.stamp.ctime_ns)
    else:
        newest = seen.stamp.ctime_ns
    # The kernel stamps files with a clock that lags by up to a tick.
    return newest >= int(call.started.timestamp() * 1e9) - 20_000_000
