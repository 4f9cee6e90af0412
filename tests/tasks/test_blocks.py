"""Flows, commands and shipped deployments whose credentials are saved blocks alone."""

from __future__ import annotations

import os

import pytest
from on_record import last_graph

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.cli.platform import ask_ivcap, place_of
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.provena.models import Associations, ModelRunRecord, TemplatedDataset
from ivcap_flows.tasks import place_order, register_model_runs, upload_artifact
from ivcap_flows.tasks.delivering import deliver_records
from ivcap_flows.tasks.orphan_report import report_orphans
from ivcap_flows.tasks.park_watcher import watch_parked_runs
from ivcap_flows.tasks.provena import linked_person

NAME = "of-these-tests"


@pytest.fixture
def loads(embedded_platform, monkeypatch, tmp_path):
    """The credentials are in blocks, and nothing in the environment says where the platforms are. The value lists the
    blocks that were loaded."""
    IvcapCredentials.from_environment().save(NAME, overwrite=True)
    ProvenaCredentials.from_environment().save(NAME, overwrite=True)
    for name in list(os.environ):
        if name.startswith(("IVCAP_", "PROVENA_")) and not name.startswith("IVCAP_FLOWS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(tmp_path / "none"))
    loaded = []
    for kind in (IvcapCredentials, ProvenaCredentials):
        aload = kind.aload

        async def counted(name, *arguments, aload=aload, kind=kind, **options):
            loaded.append(kind.__name__)
            return await aload(name, *arguments, **options)

        monkeypatch.setattr(kind, "aload", counted)
    yield loaded
    assert not (tmp_path / "none").exists()
    IvcapCredentials.delete(NAME)
    ProvenaCredentials.delete(NAME)


def test_a_run_loads_a_block_once(in_flow, loads, unique):
    """However many tasks name it at once; the next run sees what has changed."""

    def place(number):
        return place_order.submit("echo", {"message": f"{unique}{number}"}, credentials=NAME)

    in_flow(lambda: [each.result() for each in map(place, range(2))])
    assert loads == ["IvcapCredentials"]
    in_flow(lambda: place(0).result(), name="another")
    assert loads == ["IvcapCredentials"] * 2


def test_many_model_runs_of_artifacts(in_script, loads, registry, source, effects):
    """The artifact's facts come from IVCAP by `ivcap_credentials`; without them, nothing is asked."""

    def body(**options):
        person = linked_person(credentials=NAME).urn
        artifact = upload_artifact(source, credentials=NAME)
        part = TemplatedDataset(dataset_template_id=registry.template, dataset_id=artifact.urn)
        record = ModelRunRecord(
            workflow_template_id=registry.workflow,
            inputs=[part],
            outputs=[part],
            display_name=artifact.urn,
            description="A run",
            associations=Associations(modeller_id=person),
            start_time=100,
            end_time=200,
        )
        effects.embedded.forget_requests()
        return register_model_runs([record], terms=registry.terms, credentials=NAME, **options)

    assert in_script(lambda: body(ivcap_credentials=NAME)).rows == 1
    assert any("/1/artifacts/" in request["path"] for request in effects.embedded.requests("GET"))
    source.write_text(source.read_text() + "more\n")
    assert in_script(body).rows == 1
    assert not any("/1/artifacts/" in request["path"] for request in effects.embedded.requests("GET"))


def test_shipped_deployments(in_script, loads, unique, ivcap_journal, monkeypatch):
    """Each takes the names of blocks as parameters, which a form of the deployment shows."""
    order = in_script(lambda: place_order("sleep", {"seconds": 0}, name=unique, credentials=NAME))
    assert report_orphans.fn(ivcap=NAME) >= 0
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap,provena")
    assert deliver_records.fn(ivcap=NAME, provena=NAME) == 0
    monkeypatch.setattr("ivcap_flows.tasks.park_watcher.EVERY", 0.05)
    watch_parked_runs.fn(minutes=0.001, ivcap=NAME)
    assert order.urn in last_graph(ivcap_journal).nodes
    for each in (report_orphans, deliver_records, watch_parked_runs):
        properties = each.parameters.properties
        assert all(shown.get("description") for shown in properties.values()), properties


def test_blocks_that_the_settings_name(in_script, loads, unique, monkeypatch):
    """They serve tasks and commands that were given no credentials; beside other settings they are refused."""
    monkeypatch.setenv("IVCAP_FLOWS_IVCAP_BLOCK", NAME)
    monkeypatch.setenv("IVCAP_FLOWS_PROVENA_BLOCK", NAME)
    order = in_script(lambda: place_order("echo", {"message": unique}))
    assert in_script(linked_person).urn and loads == ["IvcapCredentials", "ProvenaCredentials"]
    assert ask_ivcap(lambda client: client.platform()) == order.platform
    assert place_of("IVCAP") == f"IVCAP of the block {NAME}"
    assert IvcapCredentials.from_environment().url == IvcapCredentials.load(NAME).url
    monkeypatch.setenv("IVCAP_URL", "https://ivcap.example.org")
    with pytest.raises(ConfigurationError, match="IVCAP_FLOWS_IVCAP_BLOCK and IVCAP_URL are set"):
        in_script(lambda: place_order("echo", {"message": unique}))
