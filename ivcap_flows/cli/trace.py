"""`ivcap-flows trace ID`: print the lineage of a thing."""

from __future__ import annotations

import tempfile
import webbrowser
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ivcap_flows.blocks.configured_platforms import configured_platforms
from ivcap_flows.cli.output import Full, Json, brief, console, moment, print_json, print_trouble, write
from ivcap_flows.cli.records import read_journal, unknowns
from ivcap_flows.errors import InputError
from ivcap_flows.provenance import RULES, Direction, Record
from ivcap_flows.provenance.data_view import SHOWN
from ivcap_flows.provenance.labels import distinct_names, plural
from ivcap_flows.provenance.mermaid import mermaid as as_mermaid
from ivcap_flows.provenance.records import NOT_LOOKED_AT
from ivcap_flows.provenance.rules import WORDS
from ivcap_flows.reading import Lineage
from ivcap_flows.reading.on_record import on_record, page_of, title_of

__all__ = ["trace"]

_OF_RUNS: Final = frozenset({"wasStartedBy", "wasAssociatedWith", "wasAttributedTo", "actedOnBehalfOf"})
"""Relations that are shown of whole runs only. A trace follows all others."""

_GIVEN: Final = ("was given", "given to")
"""The words for a use that was not seen."""

_FEW: Final = 3
"""The maximum number of things of a type that `--brief` names; more are counted."""

_FRAMES: Final = frozenset({"flow-run", "attempt"})
_SHOWN_WITH_RUNS: Final = frozenset({"parameters", "code"})


def trace(
    id: str,  # noqa: A002 - the platforms' own word
    /,
    *,
    up: bool = False,
    down: bool = False,
    html: Path | None = None,
    mermaid: bool = False,
    open_: Annotated[bool, Parameter(name="--open")] = False,
    brief_: Annotated[bool, Parameter(name="--brief")] = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Show what a thing came from (`--up`, the default) or what came from it (`--down`), through all runs on record.

    With both options, show all that is connected with the thing; this graph is the same for each thing in it. The
    command reads the journal first, then asks the platforms that the environment names for records of other machines.

    Args:
        id: A URN, a Provena handle, a run by any name that `show` takes, a sha256, the beginning of a git commit, or
            the path of a local file, folder or Zarr store. What is at a path is found by the path, or else by its
            content. A file that has the name of a run is `./latest`.
        up: Show what it came from.
        down: Show what was made from it.
        html: Write a page with the graph to this file. The page opens in any browser and needs no network.
        mermaid: Print the graph as a Mermaid flowchart, which Markdown pages can show; similar things are one node.
        open_: Open the page in a browser; without --html, it is a temporary file.
        brief_: Print one line: data and what was ordered, nearest first.
    """
    if sum((as_json, html is not None or open_, mermaid, brief_)) > 1:
        raise InputError("Give only one of --html, --open, --mermaid, --brief and --json.")
    direction: Direction = "both" if up and down else "down" if down else "up"
    ways: tuple[Direction, ...] = ("up", "down") if direction == "both" else (direction,)
    # If nothing was run on this machine, the platforms may still know the thing.
    with read_journal() as journal:
        found = on_record(journal, id, direction, configured_platforms(), runs=not as_json)
        if brief_:
            # What is connected with a thing in other ways stands in neither line.
            for way in ways:
                alone = found if way == direction else on_record(journal, id, way, configured_platforms())
                console.print(_line(alone, way))
    if as_json:
        print_json([record.model_dump(mode="json", exclude_none=True) for record in found.graph])
    elif html is not None or open_:
        page = html or Path(tempfile.mkdtemp(prefix="ivcap-flows-"), "trace.html")
        _write_page(page, found, direction)
        if open_:
            # Where there is no browser, the line that names the page is there.
            webbrowser.open(page.resolve().as_uri())
    elif mermaid:
        write(as_mermaid(found.graph, found.starts))
    elif not brief_:
        _print_trees(found, direction, ways, full=full)
    for trouble in found.unasked:
        print_trouble(trouble)


def _print_trees(found: Lineage, direction: Direction, ways: Iterable[Direction], *, full: bool) -> None:
    """Print a tree for each way and each start, then the runs in them. No thing is expanded twice."""
    shown: set[str] = set()
    for way in ways:
        tree = _Tree(found, way, shown, full=full)
        for start in found.starts:
            for line in tree.lines(start):
                console.print(line)
    left = sum(
        node.kind != "agent" and node.type not in _FRAMES for node in found.graph.nodes.values() if node.id not in shown
    )
    for line in _runs(found, shown, full=full):
        console.print(line)
    more = f"; {left} of them are not shown here, but --json lists them" if direction == "both" and left else ""
    console.print(found.graph.size + more)


def _write_page(path: Path, found: Lineage, direction: Direction) -> None:
    """Write the page of a lineage and print how much it shows. Raise InputError if the file cannot be written."""
    try:
        path.write_text(page_of(found, direction), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The file {path} cannot be written: {error.strerror or error}.") from error
    console.print(f"{path}: {found.graph.size}")


def _line(found: Lineage, way: Direction) -> str:
    """Return the line of `--brief`. What a run used and made is listed: nothing of it comes from what stands next."""
    is_run = any(found.graph.nodes[start].type in _FRAMES for start in found.starts)
    arrow = ", " if is_run else " ← " if way == "up" else " → "
    line = arrow.join(_chain(_Tree(found, way, set(), full=False), found))
    return line or f"{title_of(found, way)}: no data, and nothing that was ordered"


def _chain(tree: _Tree, found: Lineage) -> Iterator[str]:
    """Yield what is as far from the start, nearest first, in words. A name occurs once."""
    names = distinct_names(node for node in found.graph.nodes.values() if node.type in SHOWN)
    level, seen, named_before = list(found.starts), set(found.starts), set[str]()
    while level:
        named: dict[str, Counter[str]] = defaultdict(Counter)
        for id_ in level:
            if id_ in names and names[id_] not in named_before:
                named[found.graph.nodes[id_].type][names[id_]] += 1
        named_before |= {name for of_type in named.values() for name in of_type}
        if named:
            yield ", ".join(_several(type_, of_type) for type_, of_type in named.items())
        fresh = dict.fromkeys(other for id_ in level for other in tree.steps(id_) if other not in seen)
        seen |= fresh.keys()
        level = list(fresh)


def _others(number: int) -> str:
    return "1 other" if number == 1 else f"{number} others"


def _several(type_: str, names: Counter[str]) -> str:
    if len(names) > _FEW:
        return f"{names.total()} {plural(type_)}"
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in names.items())


class _Tree:
    """A lineage as indented lines, nearest things first. A thing that occurs again is named but not expanded again."""

    def __init__(self, found: Lineage, direction: Direction, shown: set[str], *, full: bool) -> None:
        self._graph, self._around = found.graph, found.around
        self._up = direction == "up"
        self._full = full
        self._steps: dict[str, dict[str, str]] = defaultdict(dict)
        self._names: dict[str, dict[str, str]] = defaultdict(dict)
        self.shown = shown
        for link in self._graph.relations.values():
            self._take(link, link.source or "", link.target or "")

    def _take(self, link: Record, source: str, target: str) -> None:
        types = {self._graph.nodes[end].type for end in (source, target)}
        if link.type == "wasStartedBy" and not types & _FRAMES:
            if not self._up:
                self._steps[target][source] = "started"
        elif link.type == "wasStartedBy" and self._graph.nodes[target].type in _FRAMES:
            self._steps[target][source] = "did"
        if link.type in _OF_RUNS or link.type not in WORDS or types & _SHOWN_WITH_RUNS:
            return
        word, back = _GIVEN if link.attributes.get("basis") == "given" else WORDS[link.type]
        if RULES[link.type].same:
            self._names[source][target], self._names[target][source] = word, back
        elif self._up:
            self._steps[source][target] = word
        elif not types & _FRAMES or link.type != "used":
            self._steps[target][source] = back

    def lines(self, start: str) -> Iterator[str]:
        """Yield the lines depth first, without recursion: the records of years make long chains."""
        self.shown.add(start)
        yield self._label(start)
        yield from (f"   {line}" for line in unknowns(self._graph.nodes[start]))
        others = [id_ for id_ in self._around.also_made(start) if id_ not in self._graph]
        if others and not self._around.equal_origins(start):
            yield f"   also made by {_others(len(others))}, with equal bytes"
        stack = [("", start, self._next(start, ()))]
        while stack:
            indent, node, left = stack[-1]
            if not left:
                stack.pop()
                continue
            word, other = left.pop(0)
            again = other in self.shown
            self.shown.add(other)
            note = "  (see above)" if again else ""
            below = indent + ("│  " if left else "   ")
            yield f"{indent}{'├─' if left else '└─'} {word} {self._label(other)}{note}"
            if self._up and self._graph.nodes[other].type == "content" and not again:
                yield from (f"{below}{line}" for line in self._conclusion(node))
            if not again:
                yield from (f"{below}{line}" for line in unknowns(self._graph.nodes[other]))
            # A name that a thing got later says nothing about where it comes from.
            if not again and not (self._up and word == WORDS["alternateOf"][1]):
                trail = {node, *(above for _, above, _ in stack)}
                stack.append((below, other, self._next(other, trail)))

    def _conclusion(self, thing: str) -> Iterator[str]:
        """Yield a line if the origin of a thing was not seen, but is concluded from its content."""
        possible = self._around.equal_origins(thing)
        if possible:
            more = f"; {_others(len(possible) - 1)} had the same before" if possible[1:] else ""
            yield f"   concluded from equal bytes{more}"

    def steps(self, node: str) -> list[str]:
        """Return what a node leads to, and its other names."""
        return [*self._steps[node], *self._names[node]]

    def _label(self, node: str) -> str:
        return _label(self._graph.nodes[node], full=self._full)

    def _next(self, node: str, trail: Collection[str]) -> list[tuple[str, str]]:
        """Return the steps from a node, each as a word and the node at its other end.

        Steps come from the node's relations, from those of its callers, and from its other names.
        """
        steps = dict(self._steps[node])
        if self._up:
            for caller in self._above(node):
                name = self._graph.nodes[caller].attributes.get("name", "its caller")
                for other, word in self._steps[caller].items():
                    if other not in self.shown:
                        steps.setdefault(other, f"by {name} {word}")
        if names := self._names.get(node):
            ends = self._reached(steps)
            steps |= {
                other: word
                for other, word in names.items()
                if other not in ends and not self._adds_nothing(other, ends)
            }
        found = [(word, other) for other, word in steps.items() if other not in trail]
        return sorted(found, key=lambda step: step[0] == WORDS["hadPlan"][0])

    def _adds_nothing(self, content: str, reached: set[str]) -> bool:
        """Return whether this is a content that leads only to what the tree shows anyway."""
        if self._graph.nodes[content].type != "content" or self._steps[content]:
            return False
        return len(self._names[content].keys() - reached) <= 1

    def _above(self, node: str) -> list[str]:
        """Return the callers of an activity within its run, nearest first."""
        above = [node]
        for caller in above:
            if self._graph.nodes[caller].type not in _FRAMES:
                starters = self._graph.targets(caller, "wasStartedBy")
                above += [each.id for each in starters if each.type not in _FRAMES and each.id not in above]
        return above[1:]

    def _reached(self, nodes: Iterable[str]) -> set[str]:
        reached, queue = set(nodes), list(nodes)
        while queue:
            fresh = self._steps[queue.pop()].keys() - reached
            reached |= fresh
            queue += fresh
        return reached


def _runs(found: Lineage, shown: set[str], *, full: bool) -> Iterator[str]:
    """Yield lines for each run in the tree, once: the run, its code, and the agents behind it."""
    around = found.around
    nodes = around.nodes
    attempts: dict[str, dict[str, None]] = defaultdict(dict)
    for node in shown:
        above = [node]
        for starter in above:
            above += [other.id for other in around.targets(starter, "wasStartedBy") if other.id not in above]
        for run in (id_ for id_ in above if nodes[id_].type == "flow-run"):
            attempts[run] |= dict.fromkeys(id_ for id_ in above if nodes[id_].type == "attempt")
    for run in sorted(attempts, key=lambda id_: str(nodes[id_].time)):
        yield f"in {_label(nodes[run], full=full)}"
        for code in dict.fromkeys(plan.id for attempt in attempts[run] for plan in around.targets(attempt, "hadPlan")):
            yield f"   {_label(nodes[code], full=full)}"
        agents = {each.id: each for attempt in attempts[run] for each in around.targets(attempt, "wasAssociatedWith")}
        facts = ((id_, agent.attributes) for id_, agent in agents.items())
        names = [f"{known.get('name', id_)} {known.get('version', '')}".strip() for id_, known in facts]
        yield f"   by {', '.join(names)}"


def _label(record: Record, *, full: bool) -> str:
    attributes = record.attributes
    name = attributes.get("name") or attributes.get("path") or attributes.get("service_name")
    facts = [
        record.type,
        str(name) if name else "",
        brief(record.id, full=full),
        f"commit {str(attributes['commit'])[:12]}" if attributes.get("commit") else "",
        "with uncommitted changes" if attributes.get("dirty") else "",
        f"sha256 {brief(str(attributes['sha256']), full=full)}"
        if attributes.get("sha256") and str(attributes["sha256"]) not in record.id
        else "",
        str(attributes.get("outcome") or attributes.get("status") or ""),
        f"files {NOT_LOOKED_AT}" if attributes.get("files") == NOT_LOOKED_AT else "",
        f"not hashed: {attributes['reason']}" if record.type == "unhashed" and attributes.get("reason") else "",
        moment(record.time) if record.kind == "activity" else "",
    ]
    return "  ".join(fact for fact in facts if fact)
