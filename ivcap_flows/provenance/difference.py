"""The differences between two runs, and for each result that differs what changed within its lineage."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Final, Literal

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.labels import name_of
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.rules import WORK

__all__ = ["Change", "Difference", "Result", "Side", "compare", "ends"]

_CODE: Final = frozenset({"commit", "diff_sha256", "source_sha256", "remote", "file", "name"})
_NO_FACT: Final = frozenset({"dirty", "branch", "packages"})
_NO_END: Final = frozenset({"parameters", "code", "service"})
_DIGESTS: Final = ("sha256", "manifest_sha256", "content_sha256")
_FRAMES: Final = frozenset({"flow-run", "attempt"})
_LOCAL: Final = frozenset({"file", "directory"})
_OWN: Final = ("urn:ivcap:artifact:", "urn:ivcap:order:", "urn:ivcap:job:", "urn:ivcap-flows:", "/")
_BEFORE: Final = timedelta(minutes=1)
"""A run may be given its time this long before it begins."""
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Side:
    """One of the two runs: its parameters, its outcome, and its whole record."""

    run: str
    outcome: str
    parameters: Mapping[str, Any]
    graph: Graph


@dataclass(frozen=True)
class Change:
    """A difference in one thing: its value in the first run and in the second, or None if it was not there."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.before)} → {_shown(self.after)}"


@dataclass(frozen=True)
class Result(Change):
    """An output that differs, or that only one run has.

    `why` are the changes within its lineage, causes first, or nothing if the record does not explain it.
    """

    why: tuple[str, ...] = ()


_Changed = tuple[Change, frozenset[str]]
"""A change, and the ids of the things that it is about, in either graph."""
_Call = Mapping[str, Any]
"""What a step, an order or a job was given, by name."""


@dataclass(frozen=True)
class Difference:
    """All changes, by place.

    `work` are the services and parameters of steps, orders and jobs. `compared` is the number of contents that either
    run made.
    """

    outcome: Change | None
    parameters: tuple[Change, ...]
    code: tuple[Change, ...]
    environment: tuple[Change, ...]
    packages: tuple[Change, ...]
    inputs: tuple[Change, ...]
    work: tuple[Change, ...]
    outputs: tuple[Result, ...]
    compared: int

    @property
    def same_results(self) -> bool:
        """Whether both runs ended alike and made the same."""
        return self.outcome is None and not self.outputs


def compare(first: Side, second: Side) -> Difference:
    """Return what changed from the first run to the second."""
    before, after = _Ends.of(first.graph), _Ends.of(second.graph)
    whole = _Comparison(first.graph, second.graph, (_Own(first.graph), _Own(second.graph)))
    parameters = _changes(_flat(first.parameters), _flat(second.parameters))
    inputs = list(_contents_changed(before, after, "inputs"))
    return Difference(
        outcome=None if first.outcome == second.outcome else Change("outcome", first.outcome, second.outcome),
        parameters=parameters,
        code=whole.code,
        environment=whole.environment,
        packages=whole.packages,
        inputs=tuple(change for change, _ in inputs),
        work=whole.work,
        outputs=tuple(
            Result(
                change.name, change.before, change.after, tuple(_reasons(whole.within(ids), whole, parameters, inputs))
            )
            for change, ids in _contents_changed(before, after, "results")
        ),
        compared=len({_digest(node) for node in (*before.results, *after.results)} - {None}),
    )


def _reasons(
    lineage: _Comparison, whole: _Comparison, parameters: Iterable[Change], inputs: Iterable[_Changed]
) -> Iterator[str]:
    """Yield the changes within a result's lineage in words: inputs, parameters and code, then what these may change."""
    reasons = {
        "input": [change for change, ids in inputs if not lineage.nodes.isdisjoint(ids)],
        "parameter": [
            change
            for change in parameters
            if not whole.is_own(change) and (_given(change, lineage.work) or not _given(change, whole.work))
        ],
        "code": lineage.code,
        "": lineage.work,
        "package": lineage.packages,
        "environment": lineage.environment,
    }
    for word, changes in reasons.items():
        yield from dict.fromkeys(f"{word} {change}".strip() for change in changes)


def _given(parameter: Change, work: Iterable[Change]) -> bool:
    """Whether a parameter of the run changed in just the way in which what a call was given changed."""
    return any((each.before, each.after) == (parameter.before, parameter.after) for each in work)


def ends(graph: Graph) -> tuple[list[Record], list[Record]]:
    """Return the entities that the run used and nothing in it made, and those that it made."""
    nodes = [node for node in graph.nodes.values() if node.kind == "entity" and node.type not in _NO_END]
    made = [node for node in nodes if graph.links_from(node.id, "wasGeneratedBy")]
    own = {node.id for node in made}
    return [node for node in nodes if node.id not in own and graph.links_to(node.id, "used")], made


@dataclass(frozen=True)
class _Ends:
    """The inputs and the results of a run.

    A folder counts as the files in it. Results on a platform that merely hold an input file are left out. `met` are the
    contents of both, also of what was left out, or the ids of things without a digest.
    """

    inputs: list[Record]
    results: list[Record]
    met: frozenset[str]

    @classmethod
    def of(cls, graph: Graph) -> _Ends:
        used, made = ends(graph)
        own = {node.id for node in made}
        inputs = [node for node in _in_files(graph, used) if node.id not in own]
        taken = {node.id for node in inputs}
        held = {_digest(node) for node in inputs if node.type in _LOCAL} - {None}
        results = [
            node
            for node in _in_files(graph, made)
            if node.id not in taken and (node.type in _LOCAL or _digest(node) not in held)
        ]
        return cls(inputs, results, frozenset(_digest(node) or node.id for node in (*inputs, *made, *results)))


def _in_files(graph: Graph, nodes: Iterable[Record]) -> list[Record]:
    """Replace each folder by the files in it, if all of them are on record."""
    found: dict[str, Record] = {}
    for node in nodes:
        members = graph.targets(node.id, "hadMember") if node.type == "directory" else []
        whole = len(members) > 0 and len(members) >= node.attributes.get("files", 0)
        found.update((each.id, each) for each in (members if whole else [node]))
    return list(found.values())


def _contents_changed(before: _Ends, after: _Ends, part: Literal["inputs", "results"]) -> Iterator[_Changed]:
    """Yield the things with one name whose contents differ, or that only one run has.

    A content that the other run met in any way is no difference, since an existing result is an input of the later run.
    Inputs without a digest are compared by id; results without one are not compared.
    """

    def by_label(nodes: Iterable[Record]) -> dict[str, dict[str | None, set[str]]]:
        found: dict[str, dict[str | None, set[str]]] = defaultdict(lambda: defaultdict(set))
        for node in nodes:
            content = _digest(node) or (node.id if part == "inputs" else None)
            if content is not None:
                found[name_of(node) or str(node.attributes.get("schema") or node.type)][content].add(node.id)
        return found

    one, two = by_label(getattr(before, part)), by_label(getattr(after, part))
    for label in dict.fromkeys([*one, *two]):
        gone = [content for content in one[label] if content not in after.met]
        new = [content for content in two[label] if content not in before.met]
        for old, now in zip_longest(gone, new):
            yield Change(label, old, now), frozenset(one[label].get(old, ())) | frozenset(two[label].get(now, ()))


def _digest(node: Record) -> str | None:
    return next((str(node.attributes[name]) for name in _DIGESTS if node.attributes.get(name)), None)


class _Comparison:
    """What differs between two graphs, without their inputs and results. `own` are the values that each run names anew.

    `work` is how steps, orders and jobs of one name differ: in their number, or in the values that they were given,
    whichever of them was given which.
    """

    def __init__(self, first: Graph, second: Graph, own: tuple[_Own, _Own]) -> None:
        self._graphs = first, second
        self._own = own
        self.nodes = first.nodes.keys() | second.nodes.keys()
        one, two = _facts_of(first), _facts_of(second)
        self.code = _changes(one.code, two.code)
        self.environment = _changes(one.environment, two.environment)
        self.packages = _changes(one.packages, two.packages)
        self.work = tuple(_work_changed(_calls(first, own[0]), _calls(second, own[1])))

    def within(self, ids: frozenset[str]) -> _Comparison:
        """Return the comparison of the lineages of a result. What only one run made may come from any difference."""
        known = [[id_ for id_ in ids if id_ in graph.nodes] for graph in self._graphs]
        if not all(known):
            return self
        first, second = (graph.lineage(here, "up") for graph, here in zip(self._graphs, known, strict=True))
        return _Comparison(first, second, self._own)

    def is_own(self, change: Change) -> bool:
        """Whether each run names this value anew."""
        return change.before in self._own[0] and change.after in self._own[1]


@dataclass(frozen=True)
class _CodeFacts:
    code: dict[str, Any]
    environment: dict[str, Any]
    packages: dict[str, Any]


def _facts_of(graph: Graph) -> _CodeFacts:
    """Return the newest version of each flow's code, the environment and the packages."""
    codes: dict[tuple[Any, Any], dict[str, Any]] = {}
    found = _CodeFacts({}, {}, {})
    for node in graph.nodes.values():
        if node.type != "code":
            continue
        attributes = node.attributes
        packages = attributes.get("packages")
        found.packages.update(packages if isinstance(packages, Mapping) else {})
        key = attributes.get("file"), attributes.get("name")
        codes[key] = {name: value for name, value in attributes.items() if name in _CODE}
        found.environment.update((n, v) for n, v in attributes.items() if n not in _NO_FACT | _CODE)
    for (file, name), facts in codes.items():
        # The first is the root flow's. Subflows mostly have the same commit, which is named once.
        above = ":".join(str(part) for part in (file, name) if part is not None) + ", " if found.code else ""
        found.code.update({above + fact: facts[fact] for fact in facts if found.code.get(fact) != facts[fact]})
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    names = dict.fromkeys([*before, *after])
    return tuple(
        Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested parameters by their paths, such as `outer.inner`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{path}.")
        else:
            found[path] = value
    return found


def _calls(graph: Graph, own: _Own) -> dict[str, list[_Call]]:
    """Return the calls of each name; those of services first, since a step's own values may be what it orders with."""
    found: dict[str, list[_Call]] = defaultdict(list)
    for node in sorted(graph.nodes.values(), key=lambda node: node.type not in WORK):
        if node.kind != "activity" or node.type in _FRAMES:
            continue
        name, asked = node.attributes.get("name"), node.attributes.get("parameters")
        facts = _flat(asked) if isinstance(asked, Mapping) else {}
        if node.type in WORK:
            name = node.attributes.get("service_name")
            plans = graph.targets(node.id, "hadPlan")
            facts |= _flat({"request": node.attributes.get("request")}) | {"service": plans[-1].id if plans else None}
        found[f"{node.type} {name or ''}".strip()].append({n: v for n, v in facts.items() if v not in own})
    return found


def _work_changed(before: Mapping[str, list[_Call]], after: Mapping[str, list[_Call]]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        one, two = before.get(name, []), after.get(name, [])
        if len(one) != len(two):
            yield Change(f"{name}, number", len(one) or None, len(two) or None)
        if one and two:
            for fact in dict.fromkeys(fact for call in (*one, *two) for fact in call):
                gone, new = _only(fact, one, two), _only(fact, two, one)
                yield from (Change(f"{name}, {fact}", old, now) for old, now in zip_longest(gone, new))


def _only(fact: str, calls: Collection[_Call], others: Collection[_Call]) -> list[Any]:
    """Return the values of a fact that calls have and others have not, or of as many others not as often."""
    left = Counter(repr(call[fact]) for call in others if fact in call)
    if len(calls) != len(others):
        own = {repr(call[fact]): call[fact] for call in calls if call.get(fact) is not None}
        return [value for text, value in own.items() if text not in left]
    found = []
    for value in (call[fact] for call in calls if call.get(fact) is not None):
        if left[repr(value)] > 0:
            left[repr(value)] -= 1
        else:
            found.append(value)
    return found


class _Own:
    """Values that each run names anew: ids, paths, times, and things, which are compared by content instead."""

    def __init__(self, graph: Graph) -> None:
        times = [time for node in graph.nodes.values() for time in (node.time, node.ended) if time is not None]
        self._span = (min(times) - _BEFORE, max(times)) if times else None

    def __contains__(self, value: object) -> bool:
        if isinstance(value, list | tuple):
            return bool(value) and all(each in self for each in value)
        if not isinstance(value, str):
            return False
        return value.startswith(_OWN) or _UUID.fullmatch(value) is not None or self._is_within(value)

    def _is_within(self, text: str) -> bool:
        """Whether a text is a moment during the run."""
        if self._span is None or ":" not in text:
            return False
        try:
            return self._span[0] <= datetime.fromisoformat(text).astimezone() <= self._span[1]
        except (ValueError, OverflowError):
            return False


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else repr(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_digest else text if len(text) <= 120 else text[:119] + "…"
