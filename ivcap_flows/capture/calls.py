"""One recorded call: what was seen when it began and ended, and the records that follow from it.

What is seen must be seen at once, in the caller's thread; records are made later, in the recorder's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

from ivcap_flows.capture import files
from ivcap_flows.capture.files import Digests, Seen
from ivcap_flows.capture.values import Look
from ivcap_flows.identity import file_urn
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.records import Record, activity, relation
from ivcap_flows.secrets import scrub

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
    """An activity of ours. `parent` started it; `before` is the try that failed before this one.

    `found` are the URNs of things that were there already, though the call returns them; `reused` those of them that
    were asked for elsewhere.
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
    started: datetime = field(default_factory=now)
    ended: datetime | None = None
    outcome: str | None = None
    cause: str | None = None
    given: Look = field(default_factory=Look)
    returned: Look = field(default_factory=Look)
    entry: dict[str, Seen] = field(default_factory=dict)
    exit: dict[str, Seen] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    reused: set[str] = field(default_factory=set)
    written: bool = False

    def look_at_entry(self, digests: Digests | None) -> None:
        """See the files among the arguments as they are before the call."""
        for role, path in self.given.paths[:_MAX_PATHS]:
            seen = files.look(path, role, digests)
            if seen is not None:
                self.entry.setdefault(seen.path, seen)

    def look_at_exit(self, digests: Digests | None) -> None:
        """See those files again, and the ones among the results."""
        again = [(seen.role, path + os.sep if seen.folder else path) for path, seen in self.entry.items()]
        again += [(role, path) for role, path in self.given.paths if path.endswith(os.sep)]
        for role, path in (*again, *self.returned.paths[:_MAX_PATHS]):
            seen = files.look(path, role, digests, self.entry.get(os.path.abspath(path)))
            if seen is not None and seen.stamp is not None:
                self.exit.setdefault(seen.path, seen)


def records_of(call: Call, digests: Digests | None) -> list[Record]:
    """What a call states: itself, what it used, and once it has ended what it made."""
    found = [*_itself(call), *_given(call, digests)]
    if call.ended is not None:
        known = {record.id for record in found if record.kind != "relation"}
        # What has the content of an input is no product.
        known |= {file_urn(record.attributes["sha256"]) for record in found if "sha256" in record.attributes}
        found += _made(call, known, digests)
    return [_clean(record) for record in found]


def _clean(record: Record) -> Record:
    return record.model_copy(update={"attributes": scrub(record.attributes)}) if record.attributes else record


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
        elif thing.kind == "activity":
            yield relation("wasStartedBy", thing.id, call.id, born or call.ended)
        else:
            yield relation("wasGeneratedBy", thing.id, call.id, call.ended, role=role)
    for path, seen in call.exit.items():
        yield from _left(call, call.entry.get(path), seen, known, digests)


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
    if before is not None and before.stamp is not None and not before.folder:
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
        newest = max((inner.stamp.changed_ns for inner in seen.members.values() if inner.stamp), default=0)
        newest = max(newest, seen.stamp.changed_ns)
    else:
        newest = seen.stamp.changed_ns
    # The kernel stamps files with a clock that lags by up to a tick.
    return newest >= int(call.started.timestamp() * 1e9) - 20_000_000
