"""OpenLineage's events of recorded runs: by its schemas, and through its client's transports."""

from __future__ import annotations

import http.server
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from exports_standards import facets, valid
from exports_worlds import RUNS

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.openlineage import dumps, run_id
from ivcap_flows.sinks import drain
from ivcap_flows.sinks.contents import Contents
from ivcap_flows.sinks.openlineage import OpenLineageSink

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
DOWN = "http://127.0.0.1:9"


def events_of(world: Any, name: str) -> list[dict[str, Any]]:
    graph = world.graph(name)
    text = dumps(graph, sources=Contents(graph).sources(world.run(name).entry_point))
    return [json.loads(line) for line in text.splitlines()]


def named(events: list[dict[str, Any]], name: str, state: str) -> dict[str, Any]:
    [event] = [each for each in events if each["job"]["name"] == name and each["eventType"] == state]
    return event


def tags(event: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}


@pytest.mark.parametrize("name", RUNS)
def test_the_events_of_a_run_are_valid(world, name):
    """Each event and each facet by its own schema; a START for every run, at most one end, none before its start."""
    events = events_of(world, name)
    count = sum(map(valid, events))
    by_run: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_run.setdefault(event["run"]["runId"], []).append(event)
    activities = [node for node in world.graph(name).nodes.values() if node.kind == "activity"]
    assert set(by_run) == {run_id(node.id) for node in activities} and len(by_run) == len(activities)
    for told in by_run.values():
        states = [event["eventType"] for event in told]
        assert states[0] == "START" and len(states) == 2
        assert told[0]["eventTime"] <= told[1]["eventTime"]
    assert [event["eventTime"] for event in events] == sorted(event["eventTime"] for event in events)
    print(name, len(events), "events", count, "facets", dict(Counter(event["eventType"] for event in events)))


def test_runs_have_their_parents_sources_environment_and_data(world):
    """The standard facets are there: parent and root, source, packages, parameters, versions of data."""
    events = events_of(world, "with-parts")
    run = named(events, "with-parts", "COMPLETE")
    assert "def with_parts" in run["job"]["facets"]["sourceCode"]["sourceCode"]
    assert run["job"]["facets"]["sourceCodeLocation"]["path"] == "exported_flows.py"
    variables = {v["name"]: v["value"] for v in run["run"]["facets"]["environmentVariables"]["environmentVariables"]}
    assert "prefect==" in variables["PACKAGES"] and variables["PYTHON"].startswith("3.") and variables["HOST_KIND"]
    assert run["run"]["facets"]["processing_engine"]["name"] == "Prefect"
    parameters = {p["key"]: p["value"] for p in run["run"]["facets"]["executionParameters"]["parameters"]}
    assert parameters["note"] == "A 'note' with <b>markup</b> & ünïcode"
    [subflow] = {e["run"]["runId"] for e in events if e["job"]["name"] == "shorten-all"}
    halves = [e for e in events if e["job"]["name"] == "shorten-all.shorten" and e["eventType"] == "COMPLETE"]
    assert len(halves) == 2
    for half in halves:
        parent = half["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == subflow and parent["root"]["run"]["runId"] == run["run"]["runId"]
        [given], [made] = half["inputs"], half["outputs"]
        for dataset in (given, made):
            assert dataset["namespace"] == "file" and dataset["name"].startswith(str(world.folder))
            assert dataset["facets"]["version"]["datasetVersion"].startswith("urn:ivcap-flows:file:")
        assert given["facets"]["version"] != made["facets"]["version"]
    whole = named(events, "with-parts.joined", "COMPLETE")
    assert {d["name"] for d in whole["inputs"]} == {d["name"] for half in halves for d in half["outputs"]}


def test_a_failed_run_has_its_error_and_a_parked_one_goes_on(world):
    """FAIL with the message; RUNNING for the flow run, while the attempt that parked is complete, and says how."""
    failed = named(events_of(world, "spoiled"), "spoiled", "FAIL")
    assert failed["run"]["facets"]["errorMessage"]["message"].startswith("RuntimeError: The server refused **")
    parked = events_of(world, "parks")
    assert named(parked, "parks", "RUNNING")
    assert tags(named(parked, "parks.attempt", "COMPLETE"))["outcome"] == "parked"
    order = next(e for e in parked if e["run"]["facets"]["tags"] and tags(e)["type"] == "order" and e["outputs"] == [])
    assert order["job"]["namespace"].startswith("ivcap://urn:ivcap-flows:embedded:")
    assert order["job"]["name"] == "ends-with-a-file"
    assert {tag["value"] for tag in order["job"]["facets"]["tags"]["tags"]} == {
        link.target for link in world.graph("parks").relations.values() if "urn:ivcap:service:" in (link.target or "")
    }


def test_the_columns_of_a_frame_are_its_schema():
    """With their types, and how many rows there are."""
    columns = [{"name": "year", "type": "int64"}, {"name": "index", "type": "float64"}]
    frame = entity("urn:ivcap-flows:frame:sha256:1", "file", sha256="1", rows=3, columns=columns)
    task = activity("urn:ivcap-flows:task-run:1", "task-run", NOON, NOON + timedelta(seconds=1), outcome="completed")
    graph = Graph([frame, task, relation("wasGeneratedBy", frame.id, task.id), relation("used", task.id, frame.id)])
    _, end = (json.loads(line) for line in dumps(graph).splitlines())
    [made], [given] = end["outputs"], end["inputs"]
    fields = made["facets"]["schema"]["fields"]
    assert [(each["name"], each["type"]) for each in fields] == [("year", "int64"), ("index", "float64")]
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert given["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert valid(end) >= 5


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("completed", "COMPLETE"), ("failed", "FAIL"), ("crashed", "FAIL"), ("lost", "FAIL"),
        ("cancelled", "ABORT"), ("abandoned", "ABORT"), ("running", "RUNNING"), (None, "RUNNING"),
        ("parked", "RUNNING"),
    ],
)  # fmt: skip
def test_every_outcome_has_its_event(outcome, state):
    """A run whose end nobody told is as its last attempt; parking and cancellation are no failures."""
    run, attempt = "urn:ivcap-flows:run:1", "urn:ivcap-flows:attempt:1"
    ended = None if outcome in (None, "running") else NOON + timedelta(seconds=1)
    graph = Graph(
        [
            activity(run, "flow-run", NOON, name="f"),
            activity(attempt, "attempt", NOON, ended, name="f", outcome=outcome, number=1),
            relation("wasStartedBy", attempt, run),
        ]
    )
    states = {e["run"]["runId"]: e["eventType"] for e in map(json.loads, dumps(graph).splitlines())}
    assert states[run_id(run)] == state


def test_a_run_id_is_the_one_in_the_urn():
    """What has no UUID in its URN gets one that is always the same."""
    assert run_id("urn:ivcap-flows:run:01a1fa51-2271-7d2b-b301-feb10f1ca10c") == "01a1fa51-2271-7d2b-b301-feb10f1ca10c"
    assert UUID(run_id("urn:ivcap-flows:task-run:x.2")).version == 5
    assert run_id("102.100.100/7") == run_id("102.100.100/7") != run_id("102.100.100/8")


@dataclass
class Listener:
    """An HTTP server in the place of a lineage server: what it got, and the status that it answers with."""

    url: str
    got: list[dict[str, Any]] = field(default_factory=list)
    status: int = 201
    asked: int = 0


@pytest.fixture
def listener(monkeypatch, tmp_path) -> Iterator[Listener]:
    monkeypatch.chdir(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked += 1
            if found.status < 400:
                found.got.append(json.loads(body))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Listener(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE_URL", found.url)
        yield found
        server.shutdown()


@pytest.fixture
def copied(world, tmp_path) -> Iterator[Journal]:
    """A journal of the test's own, with all runs and no deliveries."""
    with sqlite3.connect(world.folder / "journal.sqlite") as source, sqlite3.connect(tmp_path / "copy.sqlite") as copy:
        source.backup(copy)
    with Journal.open(f"sqlite:///{tmp_path / 'copy.sqlite'}") as journal:
        yield journal


def test_the_sink_sends_every_run_to_the_transport(copied, listener, world):
    """Over HTTP, as OPENLINEAGE_URL says; a second pass sends nothing. No path and no user of this machine leaves."""
    sink = OpenLineageSink()
    assert sink.name == f"openlineage:http:{listener.url}"
    [drained] = drain(copied, [sink])
    assert (drained.delivered, drained.pending, drained.dead) == (len(RUNS), 0, 0)
    runs = {run_id(f"urn:ivcap-flows:run:{id_}") for id_ in world.ids.values()}
    assert runs <= {event["run"]["runId"] for event in listener.got}
    for event in listener.got[:40]:
        valid(event)
    count = len(listener.got)
    assert drain(copied, [sink])[0].delivered == 0 and len(listener.got) == count
    sources = {f["sourceCode"] for e in listener.got for f in facets(e) if "sourceCode" in f}
    text = json.dumps(listener.got)
    assert sources and str(world.folder) not in text and "urn:ivcap-flows:user:" not in text


@pytest.mark.parametrize(
    ("status", "state", "asked"),
    [
        (400, "dead", len(RUNS)),
        (503, "pending", 2),
        *(pytest.param(status, "dead", len(RUNS), marks=pytest.mark.long) for status in (422, 404)),
        *(pytest.param(status, "pending", 2, marks=pytest.mark.long) for status in (401, 403, 429)),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_the_server_refuses_is_told(copied, listener, status, state, asked, several, monkeypatch):
    """A judgement on the events is not asked for again. A login is, and a server in trouble, but not for every run."""
    listener.status = status
    one = {"type": "http", "url": listener.url, "retry": {"total": 0}}
    all_of = {"type": "composite", "transports": [one], "continue_on_failure": False}
    Path("openlineage.yml").write_text(json.dumps({"transport": all_of if several else one}))
    monkeypatch.delenv("OPENLINEAGE_URL")
    sink = OpenLineageSink()
    [drained] = drain(copied, [sink])
    assert (getattr(drained, state), listener.asked) == (len(RUNS), asked)
    for row in copied.deliveries.where(sink.name):
        assert row.state == state and str(status) in (row.reason or "")


@pytest.mark.parametrize(
    "transport",
    [
        {"type": "async_http", "url": DOWN},
        {"type": "composite", "transports": [{"type": "console"}, {"type": "http", "url": DOWN}]},
        {
            "type": "composite",
            "transports": {"a": {"type": "console"}, "b": {"type": "async_http", "url": DOWN}},
            "continue_on_failure": False,
        },
    ],
)
def test_a_transport_that_keeps_its_failures_to_itself_is_refused(tmp_path, monkeypatch, transport):
    """With it a run would count as delivered that a server never got."""
    monkeypatch.chdir(tmp_path)
    Path("openlineage.yml").write_text(json.dumps({"transport": transport}))
    with pytest.raises(ConfigurationError, match=r"(async_http|composite) .*does not report"):
        OpenLineageSink()


def test_any_transport_of_the_client_will_do(copied, tmp_path, monkeypatch):
    """By a configuration of OpenLineage's own: a file, and several servers of which one that took it is enough. One
    that is down is asked again later."""
    monkeypatch.chdir(tmp_path)
    log, configured = tmp_path / "events.ndjson", Path("openlineage.yml")
    configured.write_text(json.dumps({"transport": {"type": "http", "url": DOWN, "retry": {"total": 0}}}))
    [drained] = drain(copied, [OpenLineageSink()])
    assert (drained.delivered, drained.pending) == (0, len(RUNS))
    one = {"type": "composite", "transports": [{"type": "console"}], "continue_on_success": False}
    configured.write_text(json.dumps({"transport": one}))
    assert OpenLineageSink().name == "openlineage:composite"
    configured.write_text(f"transport: {{type: file, log_file_path: {log}, append: true}}\n")
    sink = OpenLineageSink()
    assert sink.name == f"openlineage:file:{log}"
    assert drain(copied, [sink])[0].delivered == len(RUNS)
    assert {json.loads(line)["eventType"] for line in log.read_text().splitlines()} > {"COMPLETE", "FAIL"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no transport"),
        ({"OPENLINEAGE_DISABLED": "true", "OPENLINEAGE_URL": DOWN}, "switched off"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "pigeon"}, "cannot be used"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "file"}, "cannot be used"),
    ],
)
def test_a_sink_without_a_transport_is_a_wrong_setting(monkeypatch, tmp_path, variables, words):
    """Events are not printed by chance, nor thrown away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=words):
        OpenLineageSink()
