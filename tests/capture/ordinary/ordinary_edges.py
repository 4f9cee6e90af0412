"""Ordinary flows and the edges that their record must have: written down by hand, compared exactly, counted over all.

A test runs a flow and names every edge that follows from its code, as the reader of a record would say it:

    edges({("used", "clean", "raw.csv"), ("made", "clean", "clean.csv"), ("derived", "clean.csv", "raw.csv")})

| edge | PROV |
|---|---|
| `("used", activity, thing)` | `used`; of a file, that the reading was seen |
| `("given", activity, thing)` | `used`, concluded from the argument |
| `("declared", activity, thing)` | `used`, as `@recorded(reads=…)` says |
| `("made", activity, thing)` | `wasGeneratedBy` |
| `("derived", thing, origin)` | `wasDerivedFrom` |
| `("informed", activity, informant)` | `wasInformedBy` |
| `("member", folder, thing)` | `hadMember` |
| `("same", thing, origin)` | `specializationOf` one content: data that nobody was seen to make, and their origin |

Names are short, and the same in every run:

- A file is its path below the test's folder, with a `/` at the end of a folder: `raw.csv`, `parts/`, `parts/a.csv`.
  Several versions of one path are numbered in the order in which they were made: `log.txt`, `log.txt#2`.
- A table or an array is the call that made it, as `load()`, or the role under which it came, as `frame`. More of the
  same name are numbered like versions.
- A task or a flow is its name. Several runs of one task are numbered in the order in which the flow asked for them, so
  that the number of a mapped task is its index where it is mapped over what is sorted: `mean[0]`, `mean[1]`. Tries
  are numbered from the second on: `fetch#2`.
- Anything else is its name on its platform, or its URN.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from ivcap_flows.provenance.records import IN_MEMORY, content_of

if TYPE_CHECKING:
    import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "exports"))

Edge = tuple[str, str, str]

_VERBS: Final = {
    "used": "used",
    "wasGeneratedBy": "made",
    "wasDerivedFrom": "derived",
    "wasInformedBy": "informed",
    "hadMember": "member",
}
_FACTS: Final = frozenset({"parameters", "code"})
"""What every run has; no data."""
_EARLIEST: Final = datetime.min.replace(tzinfo=timezone.utc)


class _Names:
    """The short names of all that a graph holds."""

    def __init__(self, graph: Any, folder: Path) -> None:
        self.graph, self.folder = graph, folder
        self.of: dict[str, str] = {}
        self._name_activities()
        self._name_things()

    def _name_activities(self) -> None:
        named: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for node in self.graph.nodes.values():
            if node.kind == "activity":
                # The tries of a task run have its id, and their number after it.
                own = node.id.partition(".")[0] if node.type == "task-run" else node.id
                named[node.attributes.get("name") or node.id][own].append(node)
        for name, runs in named.items():
            ordered = sorted(runs.values(), key=lambda tries: _asked(tries[0]))
            for index, tries in enumerate(ordered):
                for node in tries:
                    number = node.attributes.get("try", 1)
                    indexed = f"{name}[{index}]" if len(ordered) > 1 else name
                    self.of[node.id] = indexed if number == 1 else f"{indexed}#{number}"

    def _name_things(self) -> None:
        named: dict[str, list[Any]] = defaultdict(list)
        for node in self.graph.nodes.values():
            if node.kind != "activity":
                named[self._thing(node)].append(node)
        for name, nodes in named.items():
            for number, node in enumerate(sorted(nodes, key=self._made_at), start=1):
                self.of[node.id] = name if number == 1 else f"{name}#{number}"

    def _thing(self, node: Any) -> str:
        path = node.attributes.get("path")
        if path is not None:
            below = Path(path).is_relative_to(self.folder)
            name = Path(path).relative_to(self.folder).as_posix() if below else Path(path).name
            return name + "/" * (node.type == "directory")
        if node.type in ("frame", "array", "unhashed"):
            maker = next((link.target for link in self._links("wasGeneratedBy", node.id)), None)
            if maker is not None:
                return f"{self.of[maker]}()"
            roles = sorted(str(link.attributes.get("role")) for link in self._links("used", node.id))
            return roles[0] if roles else node.type
        return str(node.attributes.get("name") or node.id)

    def _made_at(self, node: Any) -> tuple[datetime, datetime]:
        made = [link.time or _EARLIEST for link in self._links("wasGeneratedBy", node.id)]
        used = [link.time or _EARLIEST for link in self._links("used", node.id)]
        return min(made, default=_EARLIEST), min(used, default=_EARLIEST)

    def _links(self, name: str, thing: str) -> list[Any]:
        end = "source" if name == "wasGeneratedBy" else "target"
        return [link for link in self.graph.relations.values() if link.type == name and getattr(link, end) == thing]


def _asked(node: Any) -> tuple[Any, ...]:
    """The order in which a flow asked for its task runs: by the milliseconds in their ids, UUIDs of version 7, and
    within one by what they were given, since Prefect's do not count up there."""
    last = node.id.partition(".")[0].rpartition(":")[2]
    try:
        known = uuid.UUID(last)
    except ValueError:
        return (1, node.time or _EARLIEST)
    given = json.dumps(node.attributes.get("parameters"), sort_keys=True)
    return (0, known.int >> 80, given) if known.version == 7 else (1, node.time or _EARLIEST)


def edges_of(graph: Any, folder: Path) -> set[Edge]:
    """All edges between the data and the activities of a graph, by short names."""
    names, found = _Names(graph, folder).of, set()
    for link in graph.relations.values():
        ends = link.source, link.target
        if link.type not in _VERBS or any(graph.nodes[end].type in _FACTS for end in ends):
            continue
        first, second = reversed(ends) if link.type == "wasGeneratedBy" else ends
        basis = link.attributes.get("basis", "seen")
        found.add((_VERBS[link.type] if basis == "seen" else basis, names[first], names[second]))
    made = {link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    for thing in (node for node in graph if node.type in IN_MEMORY and node.id not in made):
        origins = {node.id for node in graph.lineage(thing.id) if node.id in made and content_of(node) is not None}
        found |= {
            ("same", names[thing.id], names[origin])
            for origin in origins
            if content_of(graph.nodes[origin]) == content_of(thing)
        }
    return found


def the(graph: Any, kind: str, name: str | None = None) -> Any:
    """The only node of a kind, or of a kind and a name."""
    [found] = [node for node in graph if node.type == kind and name in (None, node.attributes.get("name"))]
    return found


def informed(makers: dict[str, str | tuple[str, ...]]) -> set[tuple[str, str, str]]:
    """Each task is informed by the one beside it, or by several."""
    several = {activity: (makers,) if isinstance(makers, str) else makers for activity, makers in makers.items()}
    return {("informed", activity, maker) for activity, makers in several.items() for maker in makers}


def measured(count: int = 60, factor: float = 1.0) -> np.ndarray:
    """Numbers that no other task comes by by chance."""
    # Imported late: most tests need none.
    import numpy as np

    return np.sin(np.arange(count) * factor)


@pytest.fixture(scope="session")
def crates(tmp_path_factory):
    """The validator of RO-Crates, where all that is recorded is to be exported (`make exports`), and None elsewhere."""
    if os.environ.get("IVCAP_FLOWS_TEST_EXPORTS") != "all":
        yield None
        return
    from exports_standards import Validator

    with Validator.start(tmp_path_factory.mktemp("validator")) as started:
        yield started


def _export(validator: Any, folder: Path) -> None:
    """Write the newest run as an RO-Crate and as OpenLineage's events, and have both validated."""
    from exports_standards import valid

    from ivcap_flows.capture.recorder_registry import journal
    from ivcap_flows.provenance.openlineage import dumps
    from ivcap_flows.sinks import run_graph
    from ivcap_flows.sinks.contents import Contents
    from ivcap_flows.sinks.ro_crate import write_crate

    [run] = journal().runs.recent(1)
    graph = run_graph(journal(), run.id)
    crate = folder / f"crate-{run.id}"
    write_crate(run, graph, crate)
    assert validator.faults(crate, "provenance") == []
    text = dumps(graph, sources=Contents(graph).sources(run.entry_point))
    events = [json.loads(line) for line in text.splitlines()]
    assert events
    for event in events:
        valid(event)


@pytest.fixture
def edges(request, prefect_api, recorded_graph, tmp_path, crates):
    """Compares the record of the newest run with the edges that a test names.

    `not_seen` are edges that are true, and of which the documentation says that they are not seen. `runs` is the number
    of the newest runs whose records are read together. Returns what each activity says that is not known of its files.
    """

    def compare(expected: Iterable[Edge], *, not_seen: Iterable[Edge] = (), runs: int = 1) -> list[dict[str, str]]:
        promised, beyond = set(expected), set(not_seen)
        graph = recorded_graph(runs=runs)
        seen = edges_of(graph, tmp_path)
        counted = len(seen & promised), len(seen), len(promised), len(beyond)
        if not _on_broken_build(request.node):
            request.node.user_properties.append(("edges", counted))
        told = [f"missing: {edge}" for edge in sorted(promised - seen)]
        told += [f"{'seen after all' if edge in beyond else 'invented'}: {edge}" for edge in sorted(seen - promised)]
        assert not told, "\n".join(["the record has not the edges of the flow", *told])
        if crates is not None:
            _export(crates, tmp_path)
        return [node.attributes["unknown"] for node in graph.nodes.values() if "unknown" in node.attributes]

    return compare


def _on_broken_build(item: pytest.Item) -> bool:
    mutant = item.get_closest_marker("mutant")
    return mutant is not None and mutant.args[0] is not None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Precision and recall over all flows of the session."""
    counted = [
        count
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, count in report.user_properties
        if name == "edges"
    ]
    if not counted:
        return
    right, seen, promised, beyond = (sum(each[place] for each in counted) for place in range(4))
    terminalreporter.write_line(
        f"edges of {len(counted)} ordinary flows: precision {_share(right, seen)} ({right} of {seen} seen), "
        f"recall {_share(right, promised)} ({right} of {promised} promised), "
        f"with the {beyond} that are documented as not seen {_share(right, promised + beyond)}"
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "1.000"
