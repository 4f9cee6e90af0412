"""PROV-CONSTRAINTS: nothing comes before itself, nothing is born twice, on every graph that a history can give."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prov.model import ProvDocument

from ivcap_flows.handles import Artifact, LocalFile, Order, Products
from ivcap_flows.identity import digest, file_urn
from ivcap_flows.provenance import Graph, Record, activity, describe, entity, faults, prov_n, relation
from ivcap_flows.provenance.prov_json import document

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
TWIN = "urn:ivcap-flows:twin:1"
RUN = "urn:ivcap-flows:run:r"


def content(number: int) -> str:
    return digest(str(number).encode())


def file(sha256: str, path: str) -> LocalFile:
    return LocalFile(path=path, sha256=sha256, size=1)


@dataclass
class History:
    """Files on a disk, artifacts on a platform, and tasks that read, write, change and send them, one after another or
    in each other; all of it stated as it is recorded."""

    records: list[Record] = field(default_factory=list)
    disk: dict[int, str] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    within: list[str] = field(default_factory=list)
    clock: int = 0
    tasks: int = 0
    attempts: int = 0

    def now(self) -> datetime:
        self.clock += 1
        return NOON + timedelta(seconds=self.clock)

    def attempt(self) -> None:
        self.attempts += 1
        urn = f"urn:ivcap-flows:attempt:{self.attempts}"
        self.records += [activity(RUN, "flow-run", NOON), activity(urn, "attempt", self.now())]
        self.records += [relation("wasStartedBy", urn, RUN)]
        self.within = [urn]

    def enter(self) -> str:
        self.tasks += 1
        urn = f"urn:ivcap-flows:task-run:{self.tasks}"
        self.records += [activity(urn, "task-run", self.now()), relation("wasStartedBy", urn, self.within[-1])]
        self.within.append(urn)
        return urn

    def leave(self) -> None:
        if len(self.within) > 1:
            urn = self.within.pop()
            self.records.append(activity(urn, "task-run", None, self.now(), outcome="completed"))

    def write(self, path: int, number: int) -> None:
        """A task changes a file in place, or makes it."""
        urn, before, after = self.within[-1], self.disk.get(path), content(number)
        if before == after:
            return
        self.disk[path] = after
        self.records += [*describe(file(after, str(path))), relation("wasGeneratedBy", file_urn(after), urn)]
        if before is not None:
            self.records += [*describe(file(before, str(path))), relation("used", urn, file_urn(before))]
            self.records.append(relation("wasDerivedFrom", file_urn(after), file_urn(before)))

    def upload(self, path: int) -> None:
        sha256, urn = self.disk.get(path), self.within[-1]
        if sha256 is None:
            return
        made = Artifact(urn=f"urn:ivcap:artifact:{len(self.artifacts)}", platform=TWIN, sha256=sha256)
        self.artifacts.append(made)
        self.records += [*describe(file(sha256, str(path))), relation("used", urn, file_urn(sha256))]
        self.records += [*describe(made), relation("wasGeneratedBy", made.urn, urn)]

    def download(self, which: int, path: int) -> None:
        if not self.artifacts:
            return
        artifact, urn = self.artifacts[which % len(self.artifacts)], self.within[-1]
        self.records += [*describe(artifact), relation("used", urn, artifact.urn)]
        before, self.disk[path] = self.disk.get(path), artifact.sha256 or ""
        if before != artifact.sha256:
            made = file_urn(artifact.sha256 or "")
            self.records += [entity(made, "file"), relation("wasGeneratedBy", made, urn)]
            if before is not None:
                self.records += [entity(file_urn(before), "file"), relation("wasDerivedFrom", made, file_urn(before))]

    def order(self, which: int, number: int) -> None:
        """An order takes an artifact and makes one; two tasks may get the same order."""
        urn = self.within[-1]
        given_ = tuple(a.urn for a in self.artifacts[which % len(self.artifacts) :][:1]) if self.artifacts else ()
        product = Artifact(urn=f"urn:ivcap:artifact:{len(self.artifacts)}", platform=TWIN, sha256=content(number))
        placed = Order(
            urn=f"urn:ivcap:order:{len(self.orders)}",
            platform=TWIN,
            service="urn:ivcap:service:s",
            status="succeeded",
            requested_at=self.now(),
            finished_at=self.now(),
            products=Products((product,)),
            parameters={"in": given_[0]} if given_ else {},
        )
        self.artifacts.append(product)
        self.orders.append(placed)
        self.records += [*describe(placed), relation("wasStartedBy", placed.urn, urn)]

    def again(self, which: int) -> None:
        """A task returns an order, and its product, that another has returned before."""
        if not self.orders:
            return
        placed, urn = self.orders[which % len(self.orders)], self.within[-1]
        self.records += [*describe(placed), relation("wasStartedBy", placed.urn, urn, self.now())]
        self.records += [relation("wasGeneratedBy", placed.products[0].urn, urn, self.now())]


SMALL = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("enter")),
    st.tuples(st.just("leave")),
    st.tuples(st.just("attempt")),
    st.tuples(st.just("write"), SMALL, SMALL),
    st.tuples(st.just("upload"), SMALL),
    st.tuples(st.just("download"), SMALL, SMALL),
    st.tuples(st.just("order"), SMALL, SMALL),
    st.tuples(st.just("again"), SMALL),
)


def lived(steps: list[tuple]) -> list[Record]:
    history = History()
    history.attempt()
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
    return history.records


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_no_history_breaks_the_constraints(steps):
    """Whatever is read, written, changed back, sent, fetched and asked for twice: the graph is valid PROV."""
    graph = Graph(lived(steps))
    assert faults(graph) == []
    births = [link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"]
    once = [urn for urn in births if urn and urn.startswith("urn:ivcap:artifact:")]
    assert len(once) == len(set(once))
    assert faults(Graph(graph.records)) == [] and Graph(graph.records).digest() == graph.digest()


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_every_history_is_read_back_from_prov_n(steps):
    """The `prov` library reads the statements that were written."""
    graph = Graph(lived(steps))
    assert ProvDocument.deserialize(content=prov_n.dumps(graph), format="provn") == document(graph)


def test_a_file_that_is_changed_back_is_not_its_own_origin():
    """Of A, made into B, made into A, the second derivation goes; that the task used B and made A stays."""
    history = History()
    history.attempt()
    for number in (1, 2, 1):
        history.enter()
        history.write(0, number)
        history.leave()
    one, two = file_urn(content(1)), file_urn(content(2))
    graph = Graph(history.records)
    derived = [(link.source, link.target) for link in graph.relations.values() if link.type == "wasDerivedFrom"]
    assert derived == [(two, one)]
    assert f"used(urn:ivcap-flows:task-run:3,{two})" in graph
    assert f"wasGeneratedBy({one},urn:ivcap-flows:task-run:3)" in graph


@pytest.mark.parametrize(
    ("kind", "name"),
    [("file", "wasDerivedFrom"), ("file", "specializationOf"), ("task-run", "wasStartedBy")],
)
def test_a_cycle_in_time_is_told(kind, name):
    """Three things, each of which would have come before the next."""
    things = [activity(f"urn:{n}", "task-run") if kind == "task-run" else entity(f"urn:{n}", "file") for n in range(3)]
    round_ = [relation(name, f"urn:{n}", f"urn:{(n + 1) % 3}") for n in range(3)]
    [fault] = faults([*things, *round_])
    assert "would have come before themselves" in fault and "urn:0, urn:1, urn:2" in fault
    assert faults([*things, *round_[:2]]) == []


def test_what_leads_into_no_cycle_is_not_named():
    """Only the members of a cycle, and what came of them, are named."""
    files = [entity(f"urn:{n}", "file") for n in range(4)]
    links = [("0", "1"), ("1", "0"), ("1", "2"), ("2", "3")]
    [fault] = faults([*files, *(relation("wasDerivedFrom", f"urn:{a}", f"urn:{b}") for a, b in links)])
    assert "urn:0, urn:1 would" in fault
