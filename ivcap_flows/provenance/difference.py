"""What is different between two runs, and why a result of theirs is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ivcap_flows.identity import fingerprint
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record

__all__ = ["Change", "Difference", "Result", "Side", "compare", "ends"]

_CODE: Final = frozenset({"commit", "diff_sha256", "source_sha256", "remote", "file", "name"})
_NO_FACT: Final = frozenset({"dirty", "branch", "packages"})
_NO_END: Final = frozenset({"parameters", "code", "service"})
_CONTENTS: Final = ("sha256", "manifest_sha256", "content_sha256")
_RUN_PARTS: Final = frozenset({"flow-run", "attempt"})
_LOCAL: Final = frozenset({"file", "directory"})


@dataclass(frozen=True)
class Side:
    """One of the two runs: what it was asked, how it ended, and all that it states."""

    run: str
    outcome: str
    parameters: Mapping[str, Any]
    graph: Graph


@dataclass(frozen=True)
class Change:
    """What a thing was in the first run and in the second; None where it was not there."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.before)} → {_shown(self.after)}"


@dataclass(frozen=True)
class Result(Change):
    """An output that differs, or is there in one run only; `why` are the changes on its way, none where nothing on
    record explains it."""

    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """All that changed, by where. `work` are the services and parameters of steps, orders and jobs; `compared` is the
    number of contents that either run made."""

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
        """Whether both ended alike and made the same."""
        return self.outcome is None and not self.outputs


def compare(first: Side, second: Side) -> Difference:
    """What changed from the first run to the second."""
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
    common = [f"{_WORDS[part]} {change}" for part, changes in parts.items() for change in changes]
    return Difference(
        outcome=None if first.outcome == second.outcome else Change("outcome", first.outcome, second.outcome),
        **parts,
        inputs=tuple(change for change, _ in inputs),
        work=tuple(change for change, _ in work),
        outputs=tuple(
            Result(change.name, change.before, change.after, _why(ids, first, second, common, inputs, work))
            for change, ids in outputs
        ),
        compared=len({_content(node) for node in (*ends_before.results, *ends_after.results)} - {None}),
    )


_WORDS: Final = {"parameters": "parameter", "code": "code", "environment": "environment", "packages": "package"}
_Changed = list[tuple[Change, frozenset[str]]]
"""Changes, each with the ids of the things that it is about, in either graph."""


def ends(graph: Graph) -> tuple[list[Record], list[Record]]:
    """Entities that the run used and nothing in it made, and those that it made."""
    made = {link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    used = {link.target for link in graph.relations.values() if link.type == "used"}
    nodes = [node for node in graph.nodes.values() if node.kind == "entity" and node.type not in _NO_END]
    return [node for node in nodes if node.id in used - made], [node for node in nodes if node.id in made]


@dataclass(frozen=True)
class _Ends:
    """What a run took and made: folders as the files in them, and nothing that merely holds an input file. `met` are
    the contents of both, also of what was left out, or ids where there is no digest."""

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
    """Folders as the files in them, where all of these are on record: others may have lain beside them."""
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
    """What the newest attempt that followed code ran: its version, the environment, the packages."""
    found = _Facts({}, {}, {})
    for node in graph.nodes.values():
        if node.type not in ("code", "environment"):
            continue
        said = node.attributes
        packages = said.get("packages")
        found.packages.update(packages if isinstance(packages, Mapping) else {})
        for name, value in said.items():
            if node.type == "code" and name in _CODE:
                found.code[name] = value
            elif name not in _NO_FACT:
                found.environment[name] = value
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    names = dict.fromkeys([*before, *after])
    return tuple(
        Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested parameters by the names that lead to them."""
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
    """Things of one name whose contents differ, or that are there on one side only. A result that was there already is
    an input of the other run, so what the other met in any way is no difference. Of inputs without a digest the id
    tells; of results without one nothing is said."""

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
    """Steps, orders and jobs of one name that were asked for something else, or of another service."""

    def asked(graph: Graph) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        plans = {link.source: link.target for link in graph.relations.values() if link.type == "hadPlan"}
        named: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for node in graph.nodes.values():
            if node.kind != "activity" or node.type in _RUN_PARTS:
                continue
            said = node.attributes
            facts: dict[str, Any] = {}
            if node.type in ("order", "job"):
                facts = _flat(said.get("parameters") or {}) | _flat({"request": said.get("request")})
                facts["service"] = plans.get(node.id)
                named[f"{node.type} {said.get('service_name') or ''}".strip()].append((node.id, _without_urns(facts)))
            else:
                values = said.get("parameters")
                facts = _flat(values) if isinstance(values, Mapping) else {}
                named[f"{node.type} {said.get('name') or ''}".strip()].append((node.id, _without_urns(facts)))
        return named

    one, two = asked(first), asked(second)
    found: _Changed = []
    for name in dict.fromkeys([*one, *two]):
        before, after = list(one.get(name, ())), list(two.get(name, ()))
        for mine in list(before):
            same = next((other for other in after if fingerprint(other[1]) == fingerprint(mine[1])), None)
            if same is not None:
                before.remove(mine)
                after.remove(same)
        for (left, old), (right, new) in zip(before, after, strict=False):
            found += [
                (Change(f"{name}, {change.name}", change.before, change.after), frozenset((left, right)))
                for change in _changes(old, new)
            ]
        rest = [(Change(name, "there", None), id_) for id_, _ in before[len(after) :]]
        rest += [(Change(name, None, "there"), id_) for id_, _ in after[len(before) :]]
        found += [(change, frozenset((id_,))) for change, id_ in rest]
    return found


def _without_urns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, without what each run names anew: artifacts and files are compared by their contents."""
    volatile = ("urn:ivcap:artifact:", "urn:ivcap:order:", "urn:ivcap:job:", "/")
    return {name: value for name, value in facts.items() if not (isinstance(value, str) and value.startswith(volatile))}


def _why(
    ids: Iterable[str], first: Side, second: Side, common: list[str], inputs: _Changed, work: _Changed
) -> tuple[str, ...]:
    """The changes that lie on the way to a result, nearest first: what was asked, what was used, then what holds for
    the whole run."""
    on_way: set[str] = set()
    for side in (first, second):
        here = [id_ for id_ in ids if id_ in side.graph.nodes]
        if here:
            on_way |= set(side.graph.lineage(here, "up").nodes)
    asked = [str(change) for change, about in work if about & on_way]
    used = [f"input {change}" for change, about in inputs if about & on_way]
    return tuple(dict.fromkeys([*used, *asked, *common]))


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else repr(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_digest else text if len(text) <= 120 else text[:119] + "…"
