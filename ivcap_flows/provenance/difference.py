"""The differences between two runs, and why a result differs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from ivcap_flows.identity import fingerprint
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.reasons import Cause, Reasons
from ivcap_flows.provenance.records import Record

__all__ = ["Change", "Difference", "Result", "Side", "compare", "ends"]

_CODE: Final = frozenset({"commit", "diff_sha256", "source_sha256", "remote", "file", "name"})
_NO_FACT: Final = frozenset({"dirty", "branch", "packages"})
_NO_END: Final = frozenset({"parameters", "code", "service"})
_CONTENTS: Final = ("sha256", "manifest_sha256", "content_sha256")
_RUN_PARTS: Final = frozenset({"flow-run", "attempt"})
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

    `why` are the changes that led to it, or nothing if the record does not explain it.
    """

    why: tuple[str, ...] = ()


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
    one, two = _facts_of(first.graph), _facts_of(second.graph)
    parts = {
        "parameters": _changes(_flat(first.parameters), _flat(second.parameters)),
        "code": _changes(one.code, two.code),
        "environment": _changes(one.environment, two.environment),
        "packages": _changes(one.packages, two.packages),
    }
    ends_before, ends_after = _Ends.of(first.graph), _Ends.of(second.graph)
    inputs = _ends_changed(ends_before, ends_after, "inputs")
    work = _work_changed(first.graph, second.graph)
    outputs = _ends_changed(ends_before, ends_after, "results")
    causes = {part: [_cause(change, word=_WORDS[part]) for change in changes] for part, changes in parts.items()}
    reasons = Reasons(
        (first.graph, second.graph),
        inputs=[_cause(change, about, word="input") for change, about in inputs],
        asked=[_cause(change, about) for change, about in work],
        parameters=[
            cause
            for cause in causes["parameters"]
            if cause.before not in _Own(first.graph) or cause.after not in _Own(second.graph)
        ],
        code=causes["code"],
        common=[*causes["packages"], *causes["environment"]],
    )
    return Difference(
        outcome=None if first.outcome == second.outcome else Change("outcome", first.outcome, second.outcome),
        **parts,
        inputs=tuple(change for change, _ in inputs),
        work=tuple(change for change, _ in work),
        outputs=tuple(Result(change.name, change.before, change.after, reasons.of(about)) for change, about in outputs),
        compared=len({_content(node) for node in (*ends_before.results, *ends_after.results)} - {None}),
    )


_WORDS: Final = {"parameters": "parameter", "code": "code", "environment": "environment", "packages": "package"}
_Changed = list[tuple[Change, frozenset[str]]]
"""Changes, each with the ids of the things that it is about, in either graph."""


def ends(graph: Graph) -> tuple[list[Record], list[Record]]:
    """Return the entities that the run used and nothing in it made, and those that it made."""
    made = {link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    used = {link.target for link in graph.relations.values() if link.type == "used"}
    nodes = [node for node in graph.nodes.values() if node.kind == "entity" and node.type not in _NO_END]
    return [node for node in nodes if node.id in used - made], [node for node in nodes if node.id in made]


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
        taken, made = ends(graph)
        own = {node.id for node in made}
        inputs = [node for node in _in_files(graph, taken) if node.id not in own]
        given = {node.id for node in inputs}
        held = {_content(node) for node in inputs if node.type in _LOCAL} - {None}
        results = [
            node
            for node in _in_files(graph, made)
            if node.id not in given and (node.type in _LOCAL or _content(node) not in held)
        ]
        return cls(inputs, results, frozenset(_content(node) or node.id for node in (*inputs, *made, *results)))


def _in_files(graph: Graph, nodes: list[Record]) -> list[Record]:
    """Replace each folder by the files in it, if all of them are on record."""
    members: dict[str, list[str]] = defaultdict(list)
    for link in graph.relations.values():
        if link.type == "hadMember" and link.source and link.target in graph.nodes:
            members[link.source].append(link.target)
    found: dict[str, Record] = {}
    for node in nodes:
        inner = members[node.id] if node.type == "directory" else []
        whole = len(inner) > 0 and len(inner) >= node.attributes.get("files", 0)
        found.update((name, graph.nodes[name]) for name in (inner if whole else [node.id]))
    return list(found.values())


@dataclass(frozen=True)
class _Facts:
    code: dict[str, Any]
    environment: dict[str, Any]
    packages: dict[str, Any]


def _facts_of(graph: Graph) -> _Facts:
    """Return the newest version of each flow's code, the environment and the packages."""
    codes: dict[tuple[Any, Any], dict[str, Any]] = {}
    found = _Facts({}, {}, {})
    for node in graph.nodes.values():
        if node.type not in ("code", "environment"):
            continue
        said = node.attributes
        packages = said.get("packages")
        found.packages.update(packages if isinstance(packages, Mapping) else {})
        if node.type == "code":
            codes[said.get("file"), said.get("name")] = {name: said[name] for name in said if name in _CODE}
        found.environment.update(
            (name, said[name]) for name in said if name not in _NO_FACT and (node.type != "code" or name not in _CODE)
        )
    for (file, name), facts in codes.items():
        # The first is the root flow's. Subflows have mostly the same commit, which is told once.
        if not found.code:
            found.code.update(facts)
            continue
        above = ":".join(str(part) for part in (file, name) if part is not None)
        found.code.update((f"{above}, {fact}", facts[fact]) for fact in facts if found.code.get(fact) != facts[fact])
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


def _content(node: Record) -> str | None:
    return next((str(node.attributes[name]) for name in _CONTENTS if node.attributes.get(name)), None)


def _label(node: Record) -> str:
    said = node.attributes
    path = said.get("path")
    if isinstance(path, str):
        return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return str(said.get("name") or said.get("schema") or node.type)


def _ends_changed(before: _Ends, after: _Ends, part: Literal["inputs", "results"]) -> _Changed:
    """Return the things with one name whose contents differ, or that only one run has.

    A content that the other run met in any way is no difference, since an existing result is an input of the later run.
    Inputs without a digest are compared by id; results without one are not compared.
    """

    def known(nodes: list[Record]) -> dict[str, dict[str, set[str]]]:
        named: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for node in nodes:
            content = _content(node) or (node.id if part == "inputs" else None)
            if content is not None:
                named[_label(node)][content].add(node.id)
        return named

    one, two = known(getattr(before, part)), known(getattr(after, part))
    found: _Changed = []
    for label in dict.fromkeys([*one, *two]):
        gone = [content for content in one.get(label, ()) if content not in after.met]
        new = [content for content in two.get(label, ()) if content not in before.met]
        for number in range(max(len(gone), len(new))):
            old, now = (each[number] if number < len(each) else None for each in (gone, new))
            ids = (one[label][old] if old else set()) | (two[label][now] if now else set())
            found.append((Change(label, old, now), frozenset(ids)))
    return found


def _work_changed(first: Graph, second: Graph) -> _Changed:
    """Return how steps, orders and jobs of one name differ: in what was requested, or in the service."""
    one, two = _asked(first), _asked(second)
    found: _Changed = []
    for name in dict.fromkeys([*one, *two]):
        pairs, rest = _paired(one.get(name, []), two.get(name, []))
        for left, right in pairs:
            found += [
                (Change(f"{name}, {change.name}", change.before, change.after), frozenset((left.id, right.id)))
                for change in _changes(left.facts, right.facts)
            ]
        for side, change in zip(rest, (Change(name, "there", None), Change(name, None, "there")), strict=True):
            found += [(change, frozenset((each.id,))) for each in side]
    return found


@dataclass(frozen=True)
class _Asked:
    """A step, order or job: what was requested, and the contents that it was given, by their roles."""

    id: str
    facts: dict[str, Any]
    given: frozenset[tuple[str, str]]

    @property
    def whole(self) -> str:
        return fingerprint([self.facts, sorted(self.given)])

    def likeness(self, other: _Asked) -> int:
        """Return how many requested values and given contents two have in common."""
        same = [name for name, value in self.facts.items() if name in other.facts and other.facts[name] == value]
        return len(same) + len(self.given & other.given)


def _asked(graph: Graph) -> dict[str, list[_Asked]]:
    plans = {link.source: link.target for link in graph.relations.values() if link.type == "hadPlan"}
    given: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for link in graph.relations.values():
        if link.type == "used" and link.target in graph.nodes:
            content = _content(graph.nodes[link.target])
            if content is not None:
                given[link.source or ""].add((str(link.attributes.get("role")), content))
    own = _Own(graph)
    named: dict[str, list[_Asked]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.kind != "activity" or node.type in _RUN_PARTS:
            continue
        said = node.attributes
        values = said.get("parameters")
        facts = _flat(values) if isinstance(values, Mapping) else {}
        called = said.get("name")
        if node.type in ("order", "job"):
            facts |= _flat({"request": said.get("request")})
            facts["service"] = plans.get(node.id)
            called = said.get("service_name")
        asked = _Asked(node.id, {n: v for n, v in facts.items() if v not in own}, frozenset(given[node.id]))
        named[f"{node.type} {called or ''}".strip()].append(asked)
    return named


def _paired(
    before: list[_Asked], after: list[_Asked]
) -> tuple[list[tuple[_Asked, _Asked]], tuple[list[_Asked], list[_Asked]]]:
    """Pair calls of one name that differ. Return the pairs, and the calls without a partner.

    Calls that were given the same are left out first. Of the others, the most similar ones become pairs.
    """
    waiting: dict[str, list[_Asked]] = defaultdict(list)
    for each in after:
        waiting[each.whole].append(each)
    left = []
    for each in before:
        if waiting[each.whole]:
            waiting[each.whole].pop(0)
        else:
            left.append(each)
    right = [each for rest in waiting.values() for each in rest]
    # Of equally similar ones, those at the same place are pairs. Few are left in two runs of one flow.
    order = sorted(
        ((one.likeness(two), -abs(i - j), i, j) for i, one in enumerate(left) for j, two in enumerate(right)),
        reverse=True,
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, i, j in order:
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    found = [(left[i], right[pairs[i]]) for i in sorted(pairs)]
    return found, (
        [each for i, each in enumerate(left) if i not in pairs],
        [each for j, each in enumerate(right) if j not in taken],
    )


class _Own:
    """Values that each run names anew: ids, paths, times, and things, which are compared by content instead."""

    def __init__(self, graph: Graph) -> None:
        times = [time for node in graph.nodes.values() for time in (node.time, node.ended) if time is not None]
        self._span = (min(times) - _BEFORE, max(times)) if times else None

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        return value.startswith(_OWN) or _UUID.fullmatch(value) is not None or self._is_within(value)

    def _is_within(self, text: str) -> bool:
        """Whether a text is a moment during the run."""
        try:
            moment = datetime.fromisoformat(text) if ":" in text else None
        except ValueError:
            return False
        return moment is not None and self._span is not None and self._span[0] <= moment.astimezone() <= self._span[1]


def _cause(change: Change, about: frozenset[str] = frozenset(), *, word: str = "") -> Cause:
    return Cause(f"{word} {change}".strip(), change.before, change.after, about)


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else repr(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_digest else text if len(text) <= 120 else text[:119] + "…"
