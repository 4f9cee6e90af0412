"""What users add to the record, who and where the run is, and how long the platform's work waited and ran."""

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
from ordinary_edges import the
from prefect import flow, task

from ivcap_flows import annotate
from ivcap_flows.capture import context, host, journal, recorded, recorder
from ivcap_flows.capture.files import urn_at
from ivcap_flows.capture.host import host as host_facts
from ivcap_flows.handles import Artifact, Job, ModelRun, Order
from ivcap_flows.provenance import Graph, describe, entity, faults

EMBEDDED = "urn:ivcap-flows:embedded:1"
SERIES = Artifact(urn="urn:ivcap:artifact:series", platform=EMBEDDED, name="series")


@pytest.mark.usefixtures("prefect_api")
def test_a_record_is_enriched_where_it_is_made(recorded_graph):
    """Facts of a task and of a flow stand on their activities, beside what was recorded, and the later one holds."""

    @task
    @recorded
    def clean(rows: int) -> None:
        annotate(method="median", dropped=3)
        annotate(dropped=4, name="mine")

    @flow
    @recorded
    def season() -> None:
        clean(7)
        annotate(region={"lat": [-10, 0]}, api_key="key-1234567")

    season()
    graph = recorded_graph()
    facts = the(graph, "task-run").attributes
    assert (facts["annotation.method"], facts["annotation.dropped"]) == ("median", 4)
    assert (facts["name"], facts["annotation.name"], facts["outcome"]) == ("clean", "mine", "completed")
    facts = the(graph, "attempt").attributes
    assert facts["annotation.region"] == {"lat": [-10, 0]}
    assert "key-1234567" not in str(facts)


def test_things_are_enriched_by_handle_urn_path_and_value(tmp_path, recorded_graph):
    """An artifact, whatever has a URN, a file at its path, and an array each bear their own facts."""
    path, array = tmp_path / "a.txt", np.arange(3)
    path.write_text("a")

    @recorded
    def work(path: Path, array: np.ndarray) -> None:
        annotate(SERIES, path, array, quality="good")
        annotate("urn:ivcap:order:1", note="checked")

    work(path, array)
    graph = recorded_graph()
    for thing in (graph.nodes[SERIES.urn], graph.nodes[urn_at(path)], the(graph, "array")):
        assert thing.attributes["annotation.quality"] == "good"
    assert graph.nodes["urn:ivcap:order:1"].attributes["annotation.note"] == "checked"
    assert graph.nodes["urn:ivcap:order:1"].type == "order"


@pytest.mark.loses_records
def test_an_annotation_that_cannot_be_made_is_counted_and_not_raised(recorded_graph, tmp_path):
    """A path that is not there, and a thing of no kind: the function goes on, and two facts are missing."""

    @recorded
    def work() -> int:
        annotate(tmp_path / "nowhere", quality="good")
        annotate(object(), quality="good")
        return 1

    assert work() == 1
    assert recorder().flush()
    [run] = journal().runs.recent()
    assert run.missing_facts == 2


def test_secrets_are_kept_out_of_whatever_is_stated(recorded_graph, monkeypatch):
    """A known token in an annotation, a note, and the name of an artifact is in no fact."""
    token = "a-known-token-of-mine"
    monkeypatch.setenv("IVCAP_JWT", token)

    @recorded
    def work(text: str) -> Artifact:
        annotate(said=f"with {token}", **{token: 1})
        context.note(entity("urn:x:1", "entity", name=token))
        return SERIES.model_copy(update={"name": f"series {token}"})

    work("y" * 3990 + token + "z" * 10)
    graph = recorded_graph()
    assert "urn:x:1" in graph
    said = "".join(record.model_dump_json() for record in graph)
    # Not a part of it either, where a long text was cut.
    assert token[:8] not in said


def test_the_host_and_the_image_are_told_as_far_as_the_host_knows(monkeypatch, tmp_path):
    """Plain machines, Kubernetes, Docker, Podman with its image, Apptainer within a batch job."""
    for name in (*host._APPTAINER, *host._JOBS, host._CI_IMAGE, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    podman, docker = tmp_path / "containerenv", tmp_path / "dockerenv"
    monkeypatch.setattr(host, "PODMAN", podman)
    monkeypatch.setattr(host, "DOCKER", docker)

    def told(**variables: str) -> tuple[object, object, object]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            host_facts.cache_clear()
            facts = host_facts()
        return facts["host_kind"], facts.get("container_image"), facts.get("batch_system")

    assert told() == ("machine", None, None)
    assert told(KUBERNETES_SERVICE_HOST="10.0.0.1") == ("kubernetes", None, None)
    assert told(APPTAINER_CONTAINER="/images/flow.sif", SLURM_JOB_ID="7") == ("apptainer", "/images/flow.sif", "slurm")
    docker.touch()
    assert told(CI_JOB_IMAGE="python:3.11") == ("docker", "python:3.11", None)
    podman.write_text('engine="podman-5.0"\nname="x"\nimage="registry.example.org/flows:1.2"\nimageid="abc"\n')
    assert told() == ("podman", "registry.example.org/flows:1.2", None)
    host_facts.cache_clear()


@pytest.mark.usefixtures("prefect_api")
def test_the_attempt_knows_its_host_its_image_and_who_asked_for_it(recorded_graph, monkeypatch):
    """The image that a work pool runs a flow in, and Prefect's account, as far as the flow run names them."""
    asked = SimpleNamespace(id=UUID(int=1), type="USER", display_value="ada")
    original = context.identity_of

    def named(flow_context, *others):
        flow_context.flow_run.created_by = None
        object.__setattr__(flow_context.flow_run, "created_by", asked)
        return original(flow_context, *others)

    original_open = context.open_flow_attempt

    def opened(flow_context, *others):
        object.__setattr__(flow_context.flow_run, "job_variables", {"image": "flows:1.2"})
        return original_open(flow_context, *others)

    monkeypatch.setattr(context, "identity_of", named)
    monkeypatch.setattr(context, "open_flow_attempt", opened)

    @flow
    @recorded
    def asked_for() -> None:
        """Do nothing."""

    asked_for()
    graph = recorded_graph()
    attempt = the(graph, "attempt")
    assert attempt.attributes["container_image"] == "flows:1.2"
    assert attempt.attributes["machine"] == os.uname().machine
    [account] = [n for n in graph.nodes.values() if n.id.startswith("urn:ivcap-flows:prefect-account:")]
    assert (account.type, account.attributes["name"]) == ("user", "ada")


@pytest.mark.parametrize("kind", [Order, Job])
def test_orders_and_jobs_tell_how_long_they_waited_and_ran(kind):
    """Queue and run time in seconds, once known, and the version of the service."""
    asked = datetime(2026, 1, 1, tzinfo=timezone.utc)
    work = kind(urn="urn:ivcap:order:1", platform=EMBEDDED, service="urn:ivcap:service:s", requested_at=asked)
    assert not {"queue_seconds", "run_seconds"} & describe(work)[0].attributes.keys()
    times = {"started_at": asked + timedelta(seconds=7.5), "finished_at": asked + timedelta(seconds=70)}
    facts = describe(work.model_copy(update={**times, "service_version": "v"}))[0].attributes
    assert (facts["queue_seconds"], facts["run_seconds"], facts["service_version"]) == (7.5, 62.5, "v")


def test_a_model_run_names_its_person_and_organisation():
    """As agents: the person answers for the run, on behalf of the organisation."""
    run = ModelRun(urn="10378.1/1", platform=EMBEDDED, workflow_template="10378.1/2", modeller="10378.1/3")
    graph = Graph(describe(run.model_copy(update={"organisation": "10378.1/4"})))
    assert faults(graph) == []
    links = {(link.type, graph.nodes[link.target].attributes.get("handle")) for link in graph.relations.values()}
    assert {("wasAssociatedWith", "10378.1/3"), ("actedOnBehalfOf", "10378.1/4")} <= links
