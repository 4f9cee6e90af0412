"""PROV-CONSTRAINTS: nothing precedes itself and nothing is made twice, in any graph that a history can give."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prov.model import ProvDocument

from ivcap_flows.handles import Artifact, LocalFile, ModelRun, Order, Products
from ivcap_flows.identity import digest, file_urn
from ivcap_flows.provenance import (
    Graph,
    Record,
    activity,
    agent,
    describe,
    entity,
    faults,
    prov_json,
    prov_n,
    relation,
)
from ivcap_flows.provenance.prov_json import document
from ivcap_flows.provenance.reading import records_of

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
EMBEDDED = "urn:ivcap-flows:embedded:1"
RUN = "urn:ivcap-flows:run:r"


def content(number: int) -> str:
    return digest(str(number).encode())


def file(sha256: str, path: str) -> LocalFile:
    return LocalFile(path=path, sha256=sha256, size=1)


@dataclass
class History:
    """Files, artifacts and tasks, in sequence or nested, as they would be recorded.

    Tasks read, write, change and send files.
    """

    records: list[Record] = field(default_factory=list)
    disk: dict[int, str] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    within: list[str] = field(default_factory=list)
    clock: int = 0
    off: int = 0
    """By how many seconds the platform's clock is ahead."""
    tasks: int = 0
    attempts: int = 0

    def now(self) -> datetime:
        self.clock += 1
        return NOON + timedelta(seconds=self.clock)

    def there(self) -> datetime:
        return self.now() + timedelta(seconds=self.off)

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
        """Let a task make a file, or change it in place."""
        urn, before, after = self.within[-1], self.disk.get(path), content(number)
        if before == after:
            return
        self.disk[path] = after
        self.records += [*describe(file(after, str(path)))]
        self.records.append(relation("wasGeneratedBy", file_urn(after), urn, self.now()))
        if before is not None:
            self.records += [*describe(file(before, str(path))), relation("used", urn, file_urn(before))]
            self.records.append(relation("wasDerivedFrom", file_urn(after), file_urn(before)))

    def upload(self, path: int) -> None:
        sha256, urn = self.disk.get(path), self.within[-1]
        if sha256 is None:
            return
        made = Artifact(urn=f"urn:ivcap:artifact:{len(self.artifacts)}", platform=EMBEDDED, sha256=sha256)
        self.artifacts.append(made)
        self.records += [*describe(file(sha256, str(path))), relation("used", urn, file_urn(sha256), self.now())]
        self.records += [*describe(made), relation("wasGeneratedBy", made.urn, urn, self.now())]

    def download(self, which: int, path: int) -> None:
        if not self.artifacts:
            return
        artifact, urn = self.artifacts[which % len(self.artifacts)], self.within[-1]
        self.records += [*describe(artifact), relation("used", urn, artifact.urn, self.now())]
        before, self.disk[path] = self.disk.get(path), artifact.sha256 or ""
        if before != artifact.sha256:
            made = file_urn(artifact.sha256 or "")
            self.records += [entity(made, "file"), relation("wasGeneratedBy", made, urn)]
            if before is not None:
                self.records += [entity(file_urn(before), "file"), relation("wasDerivedFrom", made, file_urn(before))]

    def order(self, which: int, number: int) -> None:
        """Let an order use an artifact and make one. Two tasks may get the same order."""
        urn = self.within[-1]
        given_ = tuple(a.urn for a in self.artifacts[which % len(self.artifacts) :][:1]) if self.artifacts else ()
        product = Artifact(urn=f"urn:ivcap:artifact:{len(self.artifacts)}", platform=EMBEDDED, sha256=content(number))
        placed = Order(
            urn=f"urn:ivcap:order:{len(self.orders)}",
            platform=EMBEDDED,
            service="urn:ivcap:service:s",
            status="succeeded",
            requested_at=self.there(),
            started_at=self.there(),
            finished_at=self.there(),
            account="urn:ivcap:account:1",
            products=Products((product,)),
            parameters={"in": given_[0]} if given_ else {},
        )
        self.artifacts.append(product)
        self.orders.append(placed)
        self.records += [*describe(placed), relation("wasStartedBy", placed.urn, urn)]

    def register(self, which: int) -> None:
        """Let a task register an order with Provena after the work is done."""
        if not self.orders:
            return
        placed, urn = self.orders[which % len(self.orders)], self.within[-1]
        number = f"102.100.100/{which % len(self.orders)}"
        run = ModelRun(
            urn=number,
            platform=EMBEDDED,
            workflow_template="102.100.100/t",
            subject=placed.urn,
            study="102.100.100/s",
            inputs=("102.100.100/i",),
            outputs=(f"{number}o",),
            output_templates=("102.100.100/ot",),
            started_at=placed.started_at,
            finished_at=placed.finished_at,
            modeller="102.100.100/p",
        )
        self.records += [*describe(run), relation("wasInformedBy", urn, run.urn)]

    def again(self, which: int) -> None:
        """Let a task return an order and its product that another task has already returned."""
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
    st.tuples(st.just("register"), SMALL),
)
OFF = st.sampled_from([0, 7, -7, 3600, -3600])
"""Seconds by which a platform's clock is ahead of ours."""


def lived(steps: list[tuple], off: int = 0) -> list[Record]:
    history = History(off=off)
    history.attempt()
    for name, *arguments in steps:
        getattr(history, name)(*arguments)
    return history.records


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40), OFF)
def test_no_history_breaks_the_constraints(steps, off):
    """The graph of any history is valid PROV, whatever the tasks do and whatever the platform's clock says."""
    said = lived(steps, off)
    graph = Graph(said)
    assert faults(graph) == []
    own = {record.id: record for record in said if record.id in graph.nodes and record.type in ("task-run", "attempt")}
    assert all(graph.nodes[id_].time == min(r.time for r in said if r.id == id_ and r.time) for id_ in own)
    births = [link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"]
    once = [urn for urn in births if urn and urn.startswith("urn:ivcap:artifact:")]
    assert len(once) == len(set(once))
    assert faults(Graph(graph.records)) == [] and Graph(graph.records).digest() == graph.digest()


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_every_history_is_read_back_from_prov_n(steps):
    """The `prov` library can read the PROV-N of any history."""
    graph = Graph(lived(steps))
    assert ProvDocument.deserialize(content=prov_n.dumps(graph), format="provn") == document(graph)


def test_a_file_that_is_changed_back_is_not_its_own_origin():
    """If A becomes B and B becomes A again, the second derivation is left out. The relations of the task stay."""
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
    """Three things, each of which precedes the next, are a fault."""
    things = [activity(f"urn:{n}", "task-run") if kind == "task-run" else entity(f"urn:{n}", "file") for n in range(3)]
    round_ = [relation(name, f"urn:{n}", f"urn:{(n + 1) % 3}") for n in range(3)]
    [fault] = faults([*things, *round_])
    assert "A cycle of" in fault and "urn:0, urn:1, urn:2" in fault
    assert faults([*things, *round_[:2]]) == []


def test_what_leads_into_no_cycle_is_not_named():
    """Only the members of a cycle, and what came of them, are named."""
    files = [entity(f"urn:{n}", "file") for n in range(4)]
    links = [("0", "1"), ("1", "0"), ("1", "2"), ("2", "3")]
    [fault] = faults([*files, *(relation("wasDerivedFrom", f"urn:{a}", f"urn:{b}") for a, b in links)])
    assert "urn:0, urn:1." in fault


def placed(start: int, end: int) -> list[Record]:
    """A task places an order at noon, with these minutes by the platform's clock.

    Another task uses its product at 12:30.
    """
    place, load = (f"urn:ivcap-flows:task-run:{name}" for name in ("place", "load"))
    product = Artifact(urn="urn:ivcap:artifact:1", platform=EMBEDDED)
    order = Order(
        urn="urn:ivcap:order:1",
        platform=EMBEDDED,
        service="urn:ivcap:service:1",
        status="succeeded",
        requested_at=NOON + timedelta(minutes=start),
        started_at=NOON + timedelta(minutes=start),
        finished_at=NOON + timedelta(minutes=end),
        products=Products((product,)),
    )
    return [
        *describe(order),
        activity(place, "task-run", NOON, NOON),
        relation("wasStartedBy", order.urn, place),
        activity(load, "task-run", NOON + timedelta(minutes=29), NOON + timedelta(minutes=31)),
        relation("used", load, product.urn, NOON + timedelta(minutes=30)),
    ]


@pytest.mark.parametrize(
    ("told", "kept"),
    [((5, 10), (5, 10)), ((-60, -50), (0, 0)), ((60, 70), (30, 70)), ((-5, 3), (0, 3))],
)
def test_a_platforms_clock_moves_none_of_ours(told, kept):
    """Times of our own clock stay. The platform's times are moved only if they must be, and as little as possible."""
    said = placed(*told)
    graph = Graph(said)
    order = graph.nodes["urn:ivcap:order:1"]
    assert (order.time, order.ended) == tuple(NOON + timedelta(minutes=each) for each in kept)
    assert order.attributes["started_at"] == (NOON + timedelta(minutes=told[0])).isoformat()
    assert order.attributes["run_seconds"] == (told[1] - told[0]) * 60
    ours = [record for record in said if record.type == "task-run"]
    assert [graph.nodes[each.id] for each in ours] == ours
    assert faults(graph) == []
    assert (faults(said) == []) == (told == kept)


def test_machines_of_ours_whose_clocks_differ_are_in_order():
    """A task that began before its flow, by the clock of its worker, gets the flow's begin."""
    run, task = "urn:ivcap-flows:attempt:1", "urn:ivcap-flows:task-run:1"
    before = NOON - timedelta(minutes=5)
    graph = Graph(
        [
            activity(run, "attempt", NOON, NOON + timedelta(minutes=1)),
            activity(task, "task-run", before, before),
            relation("wasStartedBy", task, run),
        ]
    )
    assert (graph.nodes[task].time, graph.nodes[task].ended) == (NOON, NOON)


def test_a_model_run_is_of_the_work_and_started_by_no_registration():
    """A model run has the times of its work.

    The task that registered it did not start it and is only informed by it.
    """
    history = History()
    history.attempt()
    history.order(0, 0)
    history.enter()
    history.register(0)
    history.leave()
    graph = Graph(history.records)
    run, order = graph.nodes["102.100.100/0"], history.orders[0]
    assert (run.time, run.ended) == (order.started_at, order.finished_at)
    links = {(link.type, link.source, link.target) for link in graph.relations.values() if run.id in link.id}
    person = "urn:ivcap-flows:provena-person:102.100.100/p"
    assert links == {
        ("hadPlan", run.id, "102.100.100/t"),
        ("used", run.id, "102.100.100/i"),
        ("wasGeneratedBy", "102.100.100/0o", run.id),
        ("wasAttributedTo", "102.100.100/0o", person),
        ("wasAssociatedWith", run.id, person),
        ("wasInformedBy", run.id, order.urn),
        ("wasInformedBy", run.id, "102.100.100/s"),
        ("wasInformedBy", "urn:ivcap-flows:task-run:1", run.id),
    }
    [made] = [link for link in graph.relations.values() if link.type == "wasGeneratedBy" and link.target == run.id]
    assert made.attributes["role"] == "102.100.100/ot"


def test_agent_and_plan_are_one_association():
    """The software agent has the code as its plan. The person is a second association."""
    run, code = "urn:ivcap-flows:attempt:1", "urn:ivcap-flows:code:1"
    graph = Graph(
        [
            activity(run, "attempt", NOON),
            entity(code, "code"),
            agent("urn:p", "user"),
            agent("urn:s", "software"),
            relation("hadPlan", run, code),
            relation("wasAssociatedWith", run, "urn:p"),
            relation("wasAssociatedWith", run, "urn:s"),
            relation("actedOnBehalfOf", "urn:s", "urn:p"),
        ]
    )
    said = json.loads(prov_json.dumps(graph))
    associations = [(each["prov:agent"], each.get("prov:plan")) for each in said["wasAssociatedWith"].values()]
    assert sorted(associations, key=str) == [("urn:p", None), ("urn:s", "flows:code:1")]
    assert Graph(records_of(said)).relations.keys() == graph.relations.keys()
    wrong = Graph([agent("urn:p", "user"), agent("urn:s", "software"), relation("actedOnBehalfOf", "urn:p", "urn:s")])
    assert "allowed: organisation, user" in faults(wrong)[0]
