"""The files of a run: each path that it read, with what was there then, and each path that it wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from ivcap_flows.identity import flows_urn, path_of
from ivcap_flows.journal import Fact, Journal, RunRow
from ivcap_flows.provenance import Record
from ivcap_flows.reading.verification import LOCAL

__all__ = ["Input", "Inputs", "inputs_of"]


@dataclass(frozen=True)
class Input:
    """A file or folder as the run first found it, with the name of the argument through which it came."""

    path: str
    type: str
    digest: str
    role: str


@dataclass(frozen=True)
class Inputs:
    """`read` are the inputs, without what the run itself wrote before or after.

    `given` are the paths in the run's own arguments, by argument, including those that the run made.
    """

    read: tuple[Input, ...]
    given: dict[str, set[str]]


def inputs_of(journal: Journal, run: RunRow) -> Inputs:
    """Return what a run read, from all facts of the run."""
    leading = {flows_urn("attempt", attempt.id) for attempt in journal.runs.attempts(run.id) if attempt.leads}
    met = _Met(leading)
    for fact in journal.facts.all_of_run(run.id):
        met.take(fact)
    return Inputs(tuple(met.read()), met.given)


@dataclass
class _Met:
    """Collects the paths of a run from its facts.

    A path is stated just before the relation that says what became of it. A path without a relation was left with the
    content of an input, so it was written.
    """

    leading: set[str]
    given: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _found: dict[str, Input] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)
    _stated: dict[tuple[str | None, str | None], Record] = field(default_factory=dict)
    _members: dict[tuple[str | None, str | None], Record] = field(default_factory=dict)

    def take(self, fact: Fact) -> None:
        record, attempt = fact.record, fact.attempt_id
        if record.type in LOCAL and isinstance(record.attributes.get("path"), str):
            self._leave(self._stated.pop((attempt, record.id), None))
            self._stated[attempt, record.id] = record
        elif record.type == "hadMember":
            member = self._stated.pop((attempt, record.target), None)
            if member is not None:
                self._members[attempt, record.target] = member
        elif record.type == "used":
            thing = self._stated.pop((attempt, record.target), None)
            if thing is not None:
                self._use(thing, record)
        elif record.type == "wasGeneratedBy":
            place = attempt, record.source
            thing = self._stated.pop(place, None) or self._members.pop(place, None)
            if thing is not None:
                self._written.add(_path(thing))
                self._give(record.target, record, thing)

    def read(self) -> Iterator[Input]:
        for record in self._stated.values():
            self._leave(record)
        new = self._written - self._found.keys()
        above = {str(folder) for path in self._written for folder in PurePath(path).parents}
        for path, found in self._found.items():
            made = path in self._written or any(str(folder) in new for folder in PurePath(path).parents)
            if not made and not (found.type == "directory" and path in above):
                yield found

    def _leave(self, thing: Record | None) -> None:
        if thing is not None and _path(thing) not in self._found:
            self._written.add(_path(thing))

    def _use(self, thing: Record, link: Record) -> None:
        digest = thing.attributes.get("sha256" if thing.type == "file" else "manifest_sha256")
        if isinstance(digest, str):
            self._found.setdefault(_path(thing), Input(_path(thing), thing.type, digest, _role(link)))
        self._give(link.source, link, thing)

    def _give(self, activity: str | None, link: Record, thing: Record) -> None:
        if activity in self.leading:
            self.given[_role(link)].add(_path(thing))


def _path(thing: Record) -> str:
    return path_of(str(thing.attributes["path"]))


def _role(link: Record) -> str:
    role = link.attributes.get("role")
    return str(role[0] if isinstance(role, list) else role or "")
