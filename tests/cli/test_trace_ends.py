"""`trace` from any end: each kind of id leads into the same graph, on this machine and on another."""

from uuid import uuid4

import pytest

from ivcap_flows.identity import file_urn, flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import Graph, activity, agent, entity, relation
from ivcap_flows.provenance.records import Record
from ivcap_flows.sinks import run_graph

SHA, COMMIT = "a1" * 32, "c0ffee" + "0" * 34
SOURCE, USER = file_urn("b2" * 32), agent("urn:ivcap-flows:user:me", "user", local=True)
ORDER = "urn:ivcap:order:00000000-0000-0000-0000-00000000000a"
JOB = "urn:ivcap:job:00000000-0000-0000-0000-00000000000b"
SERIES, PRODUCT = "urn:ivcap:artifact:aaaa", "urn:ivcap:artifact:bbbb"
RUN, DATASET = "102.100.100/11", "102.100.100/12"


@pytest.fixture
def names(journal_file):
    """The names of a run, and the ids of one of each thing that has one. Beside it is an older run of other code."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        other = journal.runs.open_attempt(RunIdentity("other", "/a.py:other", {}, "33333333-cc", "33333333-cc"))
        elsewhere = [
            *(activity(flows_urn("run", other.run.id), "flow-run"), activity("urn:x:elsewhere", "task-run"), USER),
            relation("wasStartedBy", "urn:x:elsewhere", flows_urn("run", other.run.id)),
            relation("wasAssociatedWith", "urn:x:elsewhere", USER.id),
        ]
        journal.facts.append([Fact(record, other.run.id, other.attempt.id) for record in elsewhere])
        journal.runs.close_attempt(other.attempt.id, "completed")
        identity = RunIdentity("whole", "/a.py:whole", {}, "11111111-aa", "11111111-aa", flow_run_name="swift-owl")
        opened = journal.runs.open_attempt(identity)
        run, attempt = flows_urn("run", opened.run.id), flows_urn("attempt", opened.attempt.id)
        task, code = flows_urn("task-run", "22222222-aa"), flows_urn("code", "x")
        records = [
            activity(run, "flow-run", opened.run.created_at, name="whole"),
            activity(attempt, "attempt", opened.attempt.started_at, flow_run_id="11111111-aa"),
            *(relation("wasStartedBy", attempt, run), entity(code, "code", commit=COMMIT)),
            *(relation("hadPlan", attempt, code), USER, relation("wasAssociatedWith", attempt, USER.id)),
            activity(task, "task-run", opened.attempt.started_at, name="upload"),
            relation("wasStartedBy", task, attempt),
            *(entity(SOURCE, "file", sha256="b2" * 32), relation("used", task, SOURCE)),
            *(entity(SERIES, "artifact"), relation("wasGeneratedBy", SERIES, task)),
            *(activity(ORDER, "order"), relation("used", ORDER, SERIES), relation("wasStartedBy", ORDER, task)),
            *(activity(JOB, "job"), relation("used", JOB, SERIES), relation("wasStartedBy", JOB, task)),
            *(entity(PRODUCT, "artifact", sha256=SHA), relation("wasGeneratedBy", PRODUCT, ORDER)),
            entity(file_urn(SHA), "file", sha256=SHA),
            *(activity(RUN, "model-run"), relation("wasInformedBy", RUN, ORDER)),
            *(entity(DATASET, "dataset"), relation("alternateOf", DATASET, PRODUCT)),
            relation("wasGeneratedBy", DATASET, RUN),
        ]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
        journal.runs.close_attempt(opened.attempt.id, "completed")
    platforms = {"artifact": PRODUCT, "order": ORDER, "job": JOB, "model run": RUN, "dataset": DATASET}
    runs = {
        "run": opened.run.id,
        "beginning of a run": "11111111",
        "end of a run": "1111-aa",
        "run's URN": run,
        "newest run": "latest",
        "flow": "whole",
        "name of a flow run": "swift-owl",
        "task run": "22222222-aa",
    }
    contents = {"sha256": SHA, "sha256 of an input": "b2" * 32, "commit": COMMIT, "beginning of a commit": COMMIT[:8]}
    return platforms | runs | contents


def graph_of(said) -> Graph:
    return Graph(Record.model_validate(record) for record in said.json)


def test_each_kind_of_id_leads_into_the_same_graph(ivcap_flows, names, journal):
    """Up and down at once: all that hangs together, and nothing of the run that has only the user in common."""
    whole = run_graph(journal, "11111111-aa")
    graphs = {kind: graph_of(ivcap_flows("trace", name, "--up", "--down", "--json")) for kind, name in names.items()}
    assert {kind: graph.digest() for kind, graph in graphs.items()} == dict.fromkeys(names, whole.digest())
    assert "urn:x:elsewhere" not in graphs["commit"]


def test_a_run_comes_from_all_that_it_used_and_leads_to_all_that_it_made(ivcap_flows, names):
    """Whether it is named by itself or by the commit of its code; as text and as JSON."""
    for id_ in (names["run"], names["commit"], names["run's URN"]):
        up, down = (graph_of(ivcap_flows("trace", id_, way, "--json")) for way in ("--up", "--down"))
        assert {SOURCE, SERIES} <= set(up.nodes) and RUN not in up.nodes
        assert {PRODUCT, DATASET, RUN} <= set(down.nodes) and SOURCE not in down.nodes
        assert SOURCE in ivcap_flows("trace", id_).out
        assert DATASET in ivcap_flows("trace", id_, "--down").out


def test_what_is_commit_and_run_at_once_is_ambiguous(ivcap_flows, journal):
    """Nothing is guessed."""
    opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, "c0ffee00-aa", "c0ffee00-aa"))
    journal.facts.append([Fact(entity("urn:ivcap-flows:code:x", "code", commit=COMMIT), opened.run.id)])
    said = ivcap_flows("trace", "c0ffee00")
    assert said.status == 2 and "Give more" in said.err


def test_another_machine_traces_by_what_is_on_the_platforms(own_record, world, journal_file, monkeypatch):
    """With an empty journal: from the artifact, the order and the run, up and down, by IVCAP's aspects alone; from a
    dataset by Provena's graph."""
    product, ways = world.made["product"], ("--up", "--down")
    [run] = own_record("runs", "--flow", "harvest", "--json").json
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")
    assert own_record("sync").status == 0
    here = {way: set(graph_of(own_record("trace", product, way, "--json")).nodes) for way in ways}
    journal_file.unlink()
    for name in (product, world.made["order"], flows_urn("run", run["id"])):
        up = graph_of(own_record("trace", name, "--json"))
        assert world.made["series"] in up.nodes, name
        assert any(node.type == "code" and node.attributes.get("commit") for node in up.nodes.values()), name
    there = {way: set(graph_of(own_record("trace", product, way, "--json")).nodes) for way in ways}
    # The local user is not told to others.
    assert {way: ids - {i for i in ids if ":user:" in i} for way, ids in here.items()} == there
    assert product in own_record("trace", up.nodes[world.made["series"]].attributes["sha256"], "--down").out
    said = own_record("trace", world.made["dataset"], *ways)
    assert said.status == 0 and product in said.out


@pytest.mark.parametrize("form", ["tree", "--brief", "--json", "--mermaid", "--html"])
def test_a_trace_says_which_platform_could_not_be_asked(on_record, world, tmp_path, monkeypatch, form):
    """On standard error. The journal's own record is told all the same; where it has none, that is no answer."""
    monkeypatch.setenv("IVCAP_URL", "http://127.0.0.1:9")
    page = tmp_path / "page.html"
    options = {"tree": [], "--html": ["--html", page]}.get(form, [form])
    said = on_record("trace", world.made["product"], "--down", *options)
    shown = page.read_text() if page.exists() else said.out
    assert said.status == 0 and "could not be asked" not in said.out and world.downloaded.stem in shown
    assert said.err.startswith("IVCAP could not be asked: ") and said.err.count("\n") == 1
    nothing = on_record("trace", f"urn:ivcap:artifact:{uuid4()}", *options)
    assert nothing.status == 2 and "IVCAP could not be asked" in nothing.err
