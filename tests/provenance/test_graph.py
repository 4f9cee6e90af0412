"""Records, rules, lineage and PROV-JSON."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from prov.constants import PROV
from prov.model import ProvDocument

from ivcap_flows import handles as module
from ivcap_flows.handles import (
    Artifact,
    Aspect,
    Collection,
    Dataset,
    DatasetFile,
    Job,
    LocalFile,
    ModelRun,
    Order,
    Products,
    Queue,
    RegistryItem,
    Service,
)
from ivcap_flows.identity import file_urn
from ivcap_flows.provenance import Graph, activity, agent, describe, entity, faults, reference, relation, validate
from ivcap_flows.provenance.prov_json import document, dumps
from ivcap_flows.provenance.reading import records_of

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
EMBEDDED = "urn:ivcap-flows:embedded:1"
SERIES = Artifact(urn="urn:ivcap:artifact:series", platform=EMBEDDED, name="series", size=3, sha256="ab" * 32)
EVENTS = Artifact(urn="urn:ivcap:artifact:events", platform=EMBEDDED, name="events.csv", sha256="cd" * 32)
SERVICE = "urn:ivcap:service:icen"
ORDER = Order(
    urn="urn:ivcap:order:1",
    platform=EMBEDDED,
    service=SERVICE,
    status="succeeded",
    requested_at=NOON,
    started_at=NOON + timedelta(seconds=1),
    finished_at=NOON + timedelta(seconds=9),
    products=Products((EVENTS,)),
    parameters={"series": SERIES.urn, "base_start": "1981"},
)
SOURCE = LocalFile(path="/data/nino.csv", sha256="ab" * 32, size=3)
RUN, ATTEMPT, CODE = "urn:ivcap-flows:run:r", "urn:ivcap-flows:attempt:a", "urn:ivcap-flows:code:c"


def task(name: str) -> str:
    return f"urn:ivcap-flows:task-run:{name}"


def a_run() -> Graph:
    return Graph(
        [
            activity(RUN, "flow-run", NOON, name="coastal"),
            activity(ATTEMPT, "attempt", NOON, NOON + timedelta(seconds=20), outcome="completed"),
            relation("wasStartedBy", ATTEMPT, RUN),
            entity(CODE, "code", commit="0123abc", packages={"prefect": "3.8.8"}),
            relation("hadPlan", ATTEMPT, CODE),
            agent("urn:ivcap:account:x", "user"),
            relation("wasAssociatedWith", ATTEMPT, "urn:ivcap:account:x"),
            entity(file_urn("ee" * 32), "file", sha256="ee" * 32),
            relation("used", ATTEMPT, file_urn("ee" * 32)),
            activity(task("upload"), "task-run", NOON, NOON + timedelta(seconds=1), name="upload"),
            relation("wasStartedBy", task("upload"), ATTEMPT, NOON),
            *describe(SOURCE),
            relation("used", task("upload"), file_urn(SOURCE.sha256), role="source"),
            *describe(SERIES),
            relation("wasGeneratedBy", SERIES.urn, task("upload")),
            activity(task("place"), "task-run", NOON, NOON, name="place"),
            relation("wasStartedBy", task("place"), ATTEMPT),
            *describe(ORDER),
            relation("wasStartedBy", ORDER.urn, task("place")),
        ]
    )


def test_lineage_leads_from_a_product_to_its_origins_and_back():
    """Up to the input file, the commit and the person; down from a file or the code to all that came of it. It does not
    pass through the frame of a run: a file that only the flow used is no origin of the product."""
    graph, other = a_run(), file_urn("ee" * 32)
    up = graph.lineage(EVENTS.urn)
    assert {ORDER.urn, SERVICE, SERIES.urn, file_urn("ab" * 32), CODE} <= set(up.nodes)
    assert {RUN, ATTEMPT, "urn:ivcap:account:x"} <= set(up.nodes) and other not in up
    validate(up)
    assert set(graph.lineage(other, "down").nodes) == {other, ATTEMPT}
    down = graph.lineage(file_urn("ab" * 32), "down")
    assert {SERIES.urn, ORDER.urn, EVENTS.urn} <= set(down.nodes) and CODE not in down
    assert {ATTEMPT, task("place"), EVENTS.urn} <= set(graph.lineage(CODE, "down").nodes)
    with pytest.raises(KeyError, match="urn:x"):
        graph.lineage("urn:x")


def test_what_ended_before_it_began_by_two_clocks_ended_when_it_began():
    """An end before the begin, in one record or in two, becomes equal to the begin."""
    early = NOON - timedelta(seconds=2)
    records = [
        activity(task("one"), "task-run", NOON, early),
        activity(task("two"), "task-run", NOON),
        activity(task("two"), "task-run", ended=early, outcome="completed"),
    ]
    [fault] = faults(records)
    assert fault.startswith(f"The end of {task('one')} at 2026-07-01T11:59:58")
    graph = Graph(records)
    validate(graph)
    assert [(node.time, node.ended) for node in graph.nodes.values()] == [(NOON, NOON)] * 2
    assert graph.nodes[task("two")].attributes == {"outcome": "completed"}


def test_a_path_meets_the_artifact_with_the_same_content():
    """A file that a task read leads to the artifact of that sha256 and on to the order that made it."""
    graph = Graph(
        [
            *describe(ORDER),
            *describe(LocalFile(path="/tmp/events.csv", sha256="cd" * 32, size=1)),
            activity(task("plot"), "task-run", NOON),
            relation("used", task("plot"), file_urn("cd" * 32)),
            entity(file_urn("ff" * 32), "file"),
            relation("wasGeneratedBy", file_urn("ff" * 32), task("plot")),
        ]
    )
    assert ORDER.urn in graph.lineage(file_urn("ff" * 32))
    assert faults(graph) == []


def test_an_older_view_of_finished_work_does_not_undo_its_end():
    """A handle from before the end, described later, does not change the outcome and the end."""
    early = ORDER.model_copy(update={"status": "pending", "finished_at": None, "products": Products()})
    for views in ([ORDER, early], [early, ORDER]):
        merged = Graph(record for view in views for record in describe(view)).nodes[ORDER.urn]
        assert (merged.attributes["status"], merged.ended) == ("succeeded", ORDER.finished_at)


def test_what_a_flow_returns_was_made_by_its_task():
    """If a task and its attempt both made a thing, the task is its maker. Two tasks may make one file."""
    plot = file_urn("99" * 32)
    claims = [
        entity(plot, "file"),
        *(relation("wasGeneratedBy", plot, maker) for maker in (ATTEMPT, task("upload"), task("place"))),
        relation("wasGeneratedBy", SERIES.urn, ATTEMPT),
    ]
    graph = Graph([*a_run(), *claims])
    made = {(link.source, link.target) for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    upload, place = task("upload"), task("place")
    assert made == {(SERIES.urn, upload), (EVENTS.urn, ORDER.urn), (plot, upload), (plot, place)}


def test_an_order_found_again_was_started_once():
    """The second task that got the same order is informed by it; the first one started it."""
    again = [
        activity(task("again"), "task-run", NOON + timedelta(hours=1)),
        relation("wasStartedBy", task("again"), ATTEMPT),
        relation("wasStartedBy", ORDER.urn, task("again"), NOON + timedelta(hours=1)),
        relation("wasStartedBy", ORDER.urn, task("place"), NOON),
    ]
    graph = Graph([*a_run(), *again])
    starters = [link.target for link in graph.relations.values() if link.source == ORDER.urn and "Started" in link.type]
    assert starters == [task("place")]
    assert f"wasInformedBy({task('again')},{ORDER.urn})" in graph
    validate(graph)


def test_the_roles_of_one_input_add_up():
    """A file that is passed under two names is one use with two roles."""
    links = [relation("used", "a", "b", role="left"), relation("used", "a", "b", role="right")]
    [link] = Graph(links).relations.values()
    assert link.attributes["role"] == ["left", "right"]


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([entity("e", "elephant")], "unknown entity type 'elephant'"),
        ([entity("e", "file"), relation("used", "a", "e")], "which is not recorded"),
        ([entity("e", "file"), entity("f", "file"), relation("used", "e", "f")], "allowed: activity"),
        ([entity("e", "file"), relation("wasDerivedFrom", "e", "e")], "relates a thing to itself"),
        ([entity("e", "file"), entity("f", "file"), relation("resembles", "e", "f")], "unknown relation type"),
        (
            [entity("e", "file"), entity("f", "file"), relation("hadMember", "e", "f")],
            "allowed: collection, dataset, directory",
        ),
        (
            [
                entity("e", "artifact"),
                activity("a", "order"),
                activity("b", "order"),
                relation("wasGeneratedBy", "e", "a"),
                relation("wasGeneratedBy", "e", "b"),
            ],
            "may have only one",
        ),
    ],
)
def test_what_breaks_the_rules_is_told(records, fault):
    """Each kind of fault is found and named, and no other fault."""
    [found] = faults(Graph(records))
    assert fault in found
    with pytest.raises(ValueError, match="invalid"):
        document(records)


def test_every_handle_describes_itself_within_the_rules():
    """The records of each kind of handle alone are a valid graph."""
    job = Job(urn="urn:ivcap:job:1", platform=EMBEDDED, service=SERVICE, request={"a": SERIES.urn}, status="failed")
    handles = [
        SOURCE,
        SERIES,
        ORDER,
        job,
        Aspect(urn="urn:ivcap:aspect:1", platform=EMBEDDED, entity=ORDER.urn, schema_urn="urn:x:s", content={"a": 1}),
        Dataset(urn="102.100.100/7", platform="p", access_uri=SERIES.urn),
        ModelRun(
            urn="102.100.100/8",
            platform="p",
            workflow_template="102.100.100/9",
            subject=ORDER.urn,
            inputs=("102.100.100/7",),
            outputs=("102.100.100/6",),
        ),
        Collection(urn="urn:ivcap:collection:1", platform="p", name="seasons"),
        DatasetFile(urn="s3://b/a.csv", platform="p", dataset="102.100.100/7", path="a.csv", size=1),
        Queue(urn="urn:ivcap:queue:1", platform="p", name="stations"),
        RegistryItem(urn="102.100.100/5", platform="p", subtype="MODEL"),
        Service(urn=SERVICE, platform="p", name="icen"),
    ]
    kinds = {cls.__name__ for cls in map(type, handles)}
    named = {name for name in module.__all__ if "urn" in getattr(getattr(module, name), "model_fields", ())}
    assert kinds == named - {"Handle"} | {"LocalFile"}, "the list above needs one of each"
    for handle in handles:
        first, *_ = records = describe(handle)
        assert isinstance(handle, LocalFile) or first.type == handle.kind, "provenance/describe.py has no case for it"
        if first.id.startswith("urn:ivcap:"):
            assert reference(first.id).type == first.type, "provenance/things.py does not say how its URNs begin"
        validate(Graph(records))
    whole = Graph(record for handle in handles for record in describe(handle))
    validate(whole)
    assert document(whole) == ProvDocument.deserialize(content=dumps(whole), format="json")
    assert describe("text") == []


def test_prov_json_is_read_back_equal():
    """By the `prov` library and by the package: names, times, typed literals, nested values and each relation."""
    graph = Graph(
        [
            *a_run(),
            activity("102.100.100/8", "model-run", name="Niño"),
            entity(
                "102.100.100/1", "dataset", count=3, share=0.5, lazy=True, big=2**40, tags=["a", "b"], nested={"a": 1}
            ),
            entity("https://example.org/x?y=1#z", "entity", one=["a"], twice=["a", "a"], none=[]),
            entity("någon, [id]'(annan)", "entity", nested={"x": [1, None]}),
            relation("used", task("place"), "102.100.100/1", NOON, role=["a", "b"]),
            relation("wasInformedBy", "102.100.100/8", task("place")),
            relation("alternateOf", "102.100.100/1", SERIES.urn),
        ]
    )
    written = dumps(graph)
    assert Graph(records_of(json.loads(written))).digest() == graph.digest()
    read = ProvDocument.deserialize(content=written, format="json")
    assert read == document(graph)
    uris = {record.identifier.uri for record in read.get_records() if record.identifier is not None}
    assert {EVENTS.urn, RUN, file_urn("ab" * 32), "https://hdl.handle.net/102.100.100/1"} <= uris
    [attempt] = [r for r in read.get_records() if r.identifier is not None and r.identifier.uri == ATTEMPT]
    assert (attempt.get_startTime(), attempt.get_endTime()) == (NOON, NOON + timedelta(seconds=20))
    starts = [r for r in read.get_records() if r.get_type() == PROV["Start"] and r.get_attribute("prov:time")]
    assert {next(iter(start.get_attribute("prov:time"))) for start in starts} == {NOON}
    plans = {value.uri for r in read.get_records() for name, value in r.attributes if name == PROV["plan"]}
    assert plans == {SERVICE, CODE}
    assert read.get_provn()


@pytest.mark.parametrize("wrong", [None, [], {"entity": {"a": 3}}, {"used": {"u": 3}}])
def test_what_is_no_document_is_a_value_error(wrong):
    """Anybody who may add aspects may put anything in one. A relation that lacks an end, as in a truncated document, is
    left out."""
    with pytest.raises(ValueError, match="PROV-JSON"):
        records_of(wrong)
    assert records_of({"used": {"u": {"prov:activity": "urn:a", "prov:entity": "urn:b"}}}) == []


def test_equal_graphs_have_equal_digests_in_any_order():
    records = a_run().records
    assert Graph(records).digest() == Graph(reversed(records)).digest()
    assert Graph(records).digest() != Graph(records[1:]).digest()


def test_relations_are_found_by_their_type_and_either_end():
    """In the order in which they were recorded. A part of a graph finds its own; of nothing there is nothing."""
    graph = a_run()
    used = [link for link in graph.relations.values() if link.type == "used"]
    assert used and list(graph.links("used")) == used
    for id_ in [*graph.nodes, "urn:x"]:
        assert list(graph.links_from(id_, "used")) == [link for link in used if link.source == id_]
        assert list(graph.links_to(id_, "used")) == [link for link in used if link.target == id_]
        assert graph.targets(id_, "used") == [graph.nodes[link.target] for link in used if link.source == id_]
        assert graph.sources(id_, "used") == [graph.nodes[link.source] for link in used if link.target == id_]
    place = task("place")
    part = graph.where(lambda record: record.id != place)
    assert graph.links_from(place, "wasStartedBy") and not part.links_from(place, "wasStartedBy")
    missing = Graph([activity(place, "task-run"), relation("used", place, "urn:x")])
    assert missing.links_from(place, "used") and missing.targets(place, "used") == []


def test_a_urn_tells_its_kind():
    """A reference to an order is an activity, one to an artifact an entity.

    An unknown noun is an entity that a later record replaces.
    """
    assert (reference("urn:ivcap:order:1").kind, reference("urn:ivcap:artifact:1").type) == ("activity", "artifact")
    [node] = Graph([reference("102.100.100/7"), entity("102.100.100/7", "dataset")]).nodes.values()
    assert node.type == "dataset"


def equal_runs(count: int) -> Graph:
    """Runs, an hour apart, that each make `n.csv` with equal bytes from their own series.

    `copy.csv` has no recorded maker, has the same bytes, and is used after the second.
    """
    records = []
    for number in range(count):
        at = NOON + timedelta(hours=number)
        records += [
            entity(f"urn:x:series:{number}", "file", path=f"/in/{number}.csv"),
            activity(f"urn:x:make:{number}", "task-run", at, at + timedelta(minutes=1)),
            relation("used", f"urn:x:make:{number}", f"urn:x:series:{number}", at),
            entity(f"urn:x:file:{number}", "file", sha256="ab" * 32, size=100, path=f"/out/{number}.csv"),
            relation("wasGeneratedBy", f"urn:x:file:{number}", f"urn:x:make:{number}", at + timedelta(minutes=1)),
        ]
    at = NOON + timedelta(hours=1, minutes=30)
    return Graph(
        [
            *records,
            entity("urn:x:copy", "file", sha256="ab" * 32, size=100, path="/elsewhere/copy.csv"),
            activity("urn:x:plot", "task-run", at, at),
            relation("used", "urn:x:plot", "urn:x:copy", at),
        ]
    )


def test_what_has_a_maker_does_not_come_from_what_has_equal_bytes():
    """Nor does it lead to them; `also_made` names those. A thing without a maker comes from the last that was made so
    before it was used, and a content itself from all that were."""
    graph = equal_runs(10)
    up = graph.lineage("urn:x:file:3")
    assert {node for node in up.nodes if node.startswith("urn:x:")} == {
        f"urn:x:{kind}:3" for kind in ("file", "make", "series")
    }
    others = [f"urn:x:file:{n}" for n in range(10) if n != 3]
    assert not set(others) & set(graph.lineage("urn:x:series:3", "down").nodes)
    assert sorted(graph.also_made("urn:x:file:3")) == others
    up = graph.lineage("urn:x:plot")
    assert {node for node in up.nodes if node.startswith("urn:x:make")} == {"urn:x:make:1"}
    assert "urn:x:file:1" in up and "urn:x:series:1" in up
    assert {f"urn:x:make:{n}" for n in range(10)} <= set(graph.lineage(file_urn("ab" * 32)).nodes)
    assert sorted(graph.equal_origins("urn:x:copy")) == ["urn:x:file:0", "urn:x:file:1"]
    assert graph.equal_origin("urn:x:copy") == "urn:x:file:1" and graph.equal_origins("urn:x:file:3") == []


@pytest.mark.catches("the path does not count")
def test_of_equal_things_the_last_one_at_the_same_path_is_the_origin():
    """As where a sync tool set its times anew; if that was made after the use, it is none."""
    copy = equal_runs(10).nodes["urn:x:copy"]
    for path, origin in (("/out/0.csv", "urn:x:file:0"), ("/out/7.csv", "urn:x:file:1")):
        moved = copy.model_copy(update={"attributes": {**copy.attributes, "path": path}})
        graph = Graph(moved if record.id == copy.id else record for record in equal_runs(10))
        assert graph.equal_origin("urn:x:copy") == origin and origin in graph.lineage("urn:x:plot")


def filled_and_used(made: int, since: int | None, until: int | None, used: int, group: str = "collection") -> Graph:
    """A group that something was put into and taken out of, and a task that used it, each at an hour."""

    def at(hour: int | None) -> datetime | None:
        return None if hour is None else NOON + timedelta(hours=hour)

    membership = relation("hadMember", "urn:x:group", "urn:x:member", at(since))
    return Graph(
        [
            activity(task("make"), "task-run", at(made), at(made)),
            entity("urn:x:member", "artifact"),
            relation("wasGeneratedBy", "urn:x:member", task("make"), at(made)),
            entity("urn:x:group", group),
            *([membership.model_copy(update={"ended": at(until), "time": None})] if until is not None else []),
            membership.model_copy(update={"ended": at(until)}),
            activity(task("use"), "task-run", at(used), at(used)),
            relation("used", task("use"), "urn:x:group", at(used)),
            entity("urn:x:result", "artifact"),
            relation("wasGeneratedBy", "urn:x:result", task("use")),
            entity("urn:x:remark", "aspect"),
            relation("wasInfluencedBy", "urn:x:remark", "urn:x:group"),
        ]
    )


@pytest.mark.catches("members at any time")
def test_through_a_group_lineage_passes_between_what_was_in_it_and_who_used_it_then():
    """What was put in later, or taken out before, has nothing to do with a use, in either direction."""
    for case, made, since, until, used, was_member in (
        ("in it", 0, 1, None, 2, True),
        ("put in later", 0, 2, None, 1, False),
        ("taken out before", 0, 1, 2, 3, False),
        ("taken out later", 0, 1, 3, 2, True),
        ("made before, with no time", 1, None, None, 2, True),
        ("made later, with no time", 3, None, None, 2, False),
    ):
        for group in ("collection", "dataset"):
            graph = filled_and_used(made, since, until, used, group)
            up, down = graph.lineage("urn:x:result"), graph.lineage("urn:x:member", "down")
            assert "urn:x:group" in up and "urn:x:group" in down
            passes = {"urn:x:member" in up, "urn:x:result" in down, task("make") in up}
            assert passes == {was_member}, (case, group)
            assert was_member or set(down.nodes) == {"urn:x:member", "urn:x:group"}


@pytest.mark.catches("members of what is named")
def test_only_a_use_leads_into_a_collection():
    """What is said about a collection comes from the collection, not from what is in it. That is a start's own."""
    graph = filled_and_used(0, 1, None, 2)
    assert set(graph.lineage("urn:x:remark").nodes) == {"urn:x:remark", "urn:x:group"}
    assert "urn:x:remark" not in graph.lineage("urn:x:member", "down")
    assert "urn:x:member" in graph.lineage("urn:x:group")
    assert {"urn:x:remark", "urn:x:result"} <= graph.lineage("urn:x:group", "down").nodes.keys()


@pytest.mark.catches("a dataset of all that was registered")
def test_a_dataset_of_an_artifact_comes_from_that_alone():
    """Whatever else the task used that had it registered. What a run registered is still found from the run."""
    records = [
        *(activity(RUN, "flow-run", NOON), activity(ATTEMPT, "attempt", NOON)),
        *(relation("wasStartedBy", ATTEMPT, RUN), activity(task("register"), "task-run", NOON)),
        relation("wasStartedBy", task("register"), ATTEMPT),
    ]
    for name in ("series", "events"):
        records += [
            entity(f"urn:ivcap:artifact:{name}", "artifact"),
            relation("used", task("register"), f"urn:ivcap:artifact:{name}", NOON),
            activity(task(f"mint {name}"), "call", NOON),
            relation("wasStartedBy", task(f"mint {name}"), task("register")),
            relation("used", task(f"mint {name}"), f"urn:ivcap:artifact:{name}", NOON),
            *describe(Dataset(urn=f"1/{name}", platform="p", access_uri=f"urn:ivcap:artifact:{name}")),
            relation("wasGeneratedBy", f"1/{name}", task(f"mint {name}")),
        ]
    graph = Graph(records)
    up = graph.lineage("1/series")
    assert {"urn:ivcap:artifact:series", task("mint series")} <= up.nodes.keys()
    assert not {"urn:ivcap:artifact:events", "1/events", task("mint events")} & up.nodes.keys()
    down = graph.lineage("urn:ivcap:artifact:series", "down")
    assert {"1/series", task("register")} <= down.nodes.keys()
    assert not {"1/events", task("mint events")} & down.nodes.keys()
    assert {"1/series", "1/events"} <= graph.lineage(RUN, "down").nodes.keys()
