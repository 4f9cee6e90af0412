"""Orders and jobs become model runs on Provena: those that a mapping names, once, late rather than never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcap_flows import loop
from ivcap_flows.cli.sync import sync
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.journal import Journal
from ivcap_flows.provena.datasets import DatasetDefaults, missing_defaults
from ivcap_flows.provena.models import DatasetInfo
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.sinks import Drained, ModelRunMapping, ProvenaSink, ProvJsonSink, drain, run_graph
from ivcap_flows.tasks import register_model_run

REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def written(tmp_path: Path, provena_items: Any) -> Callable[..., Path]:
    """Writes the mapping of the service `index`, changed as told; a field given as None is left out."""

    def write(**changes: Any) -> Path:
        entry = {
            "service": "index",
            "workflow_template": provena_items.workflow,
            "inputs": {"series": provena_items.template, "mask": provena_items.template},
            "outputs": {"index.csv": provena_items.template},
            "annotations": {"region": "Tasman Sea"},
            "organisation": provena_items.owner,
            "datasets": provena_items.datasets,
        } | changes
        path = tmp_path / "mapping.yaml"
        path.write_text(yaml.safe_dump([{name: value for name, value in entry.items() if value is not None}]))
        return path

    return write


@pytest.fixture
def sink(provena: Any, ivcap_journal: Journal, written: Callable[..., Path]) -> Callable[..., ProvenaSink]:
    """Makes the sink with the mapping as it is then."""

    def make(name: str = "provena", **changes: Any) -> ProvenaSink:
        return ProvenaSink(provena, ivcap_journal, name, ModelRunMapping.read(written(**changes)))

    return make


def accepted(twin: Any, path: str = REGISTER) -> int:
    """How many requests of this path took effect."""
    return len([r for r in twin.requests("POST") if r["path"].endswith(path) and r["status"] == 200])


def model_runs(journal: Journal) -> list[ModelRun]:
    return [ModelRun.model_validate(row.outcome) for row in journal.intents.where(noun="model run")]


@pytest.mark.parametrize("kind", [Order, Job])
def test_what_succeeded_is_registered_once(ivcap_twin, ivcap_journal, provena, ended_work, sink, provena_items, kind):
    """One model run, with the mapping's statements and the work's times; a second sync or sink sends nothing."""
    opened, work = ended_work(kind)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=1)]
    [run] = model_runs(ivcap_journal)

    record = loop.run(provena.registry.fetch(ModelRunInfo, run.urn)).info.record
    assert record.workflow_template_id == provena_items.workflow
    assert record.annotations["region"] == "Tasman Sea"
    assert record.associations.requesting_organisation_id == provena_items.owner
    assert record.start_time == int(work.started_at.timestamp())
    assert record.end_time == int(work.finished_at.timestamp())
    series, index = (
        loop.run(provena.registry.fetch(DatasetInfo, side[0].dataset_id)) for side in (record.inputs, record.outputs)
    )
    assert (series.display_name, index.display_name) == ("series.csv", "index.csv")
    assert (series.info.access_info_uri, index.info.access_info_uri) == (*work.inputs, work.products[0].urn)

    assert drain(ivcap_journal, [sink()]) == [Drained("provena")]
    assert drain(ivcap_journal, [sink("another")]) == [Drained("another", delivered=1)]
    assert accepted(ivcap_twin) == 1
    assert accepted(ivcap_twin, "/mint-dataset") == 2
    [intent] = ivcap_journal.intents.where(run_id=opened.run.id, noun="model run")
    assert (intent.attempt_id, intent.scope, intent.request["subject"]) == (opened.attempt.id, "account", work.urn)


def test_the_record_of_the_run_tells_of_its_model_run(ivcap_journal, ended_work, sink, tmp_path):
    """Once: lineage leads from the model run to the order and the artifacts, and the other sinks get it."""
    opened, work = ended_work()
    folder = ProvJsonSink(tmp_path / "prov")
    drain(ivcap_journal, [folder, sink()])
    [run] = model_runs(ivcap_journal)
    graph = run_graph(ivcap_journal, opened.run.id)
    pairs = {(record.source, record.target) for record in graph.records if record.kind == "relation"}
    assert {(run.urn, work.urn), (run.inputs[0], work.inputs[0]), (run.outputs[0], work.products[0].urn)} <= pairs
    told = ivcap_journal.facts.last_seq(opened.run.id)
    assert drain(ivcap_journal, [folder, sink("another")])[0] == Drained(folder.name, delivered=1)
    assert run.urn in (folder.folder / f"{opened.run.id}.prov.json").read_text()
    assert ivcap_journal.facts.last_seq(opened.run.id) == told


@pytest.mark.parametrize("first", ["task", "sink"])
def test_the_task_and_the_sink_meet_in_one_run(ivcap_twin, ivcap_journal, ended_work, sink, provena_items, first):
    """Whoever comes second gets the model run and the datasets of the first."""
    _, work = ended_work()
    delivering = sink()

    def by_task():
        return register_model_run.fn(
            work,
            workflow_template=provena_items.workflow,
            inputs={provena_items.template: work.products[0]},
            outputs={provena_items.template: work.products[0]},
            annotations={"region": "anywhere"},
            datasets=DatasetDefaults(**provena_items.datasets),
        )

    def by_sink():
        assert drain(ivcap_journal, [delivering]) == [Drained("provena", delivered=1)]

    for register in (by_task, by_sink) if first == "task" else (by_sink, by_task):
        register()
    [run] = model_runs(ivcap_journal)
    assert by_task().urn == run.urn
    assert accepted(ivcap_twin) == 1


@pytest.mark.parametrize("fault", [{"status": 503}, {"reset": True}], ids=["unavailable", "reset"])
def test_a_provena_that_is_down_gets_it_later(ivcap_twin, ivcap_journal, ended_work, sink, tmp_path, fault):
    """The delivery waits with its reason, the other sink has its own at once; when Provena is back one run follows."""
    ended_work()
    folder, delivering = ProvJsonSink(tmp_path / "prov"), sink()
    ivcap_twin.add_fault(path="^/provena/", **fault)
    assert drain(ivcap_journal, [delivering, folder]) == [
        Drained("provena", pending=1),
        Drained(folder.name, delivered=1),
    ]
    [row] = ivcap_journal.deliveries.where("provena")
    assert row.reason and row.next_try is not None
    ivcap_twin.clear_faults()
    assert drain(ivcap_journal, [delivering], again=True) == [Drained("provena", delivered=1)]
    assert accepted(ivcap_twin) == len(model_runs(ivcap_journal)) == 1


def test_a_registration_whose_reply_is_lost_is_one_run(ivcap_twin, ivcap_journal, ended_work, sink):
    """It is found by its key, in the same pass."""
    ended_work()
    ivcap_twin.add_fault(method="POST", path=f"{REGISTER}$", count=1, drop_reply_after_effect=True)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=1)]
    assert accepted(ivcap_twin) == 1
    [intent] = ivcap_journal.intents.where(noun="model run")
    assert intent.how == "adopted"


def test_a_registration_that_takes_long_goes_on_later(ivcap_twin, ivcap_journal, ended_work, sink, monkeypatch):
    """It holds a pass for a limited time, and the next one waits for the same job instead of sending again."""
    ended_work()
    monkeypatch.setattr("ivcap_flows.sinks.provena._PATIENCE", 2.0)
    ivcap_twin.add_fault(path="/jobs/user/fetch$", status=503)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", pending=1)]
    [row] = ivcap_journal.deliveries.where("provena")
    assert "has not ended within 2 s" in row.reason
    ivcap_twin.clear_faults()
    assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", delivered=1)]
    assert accepted(ivcap_twin) == len(model_runs(ivcap_journal)) == 1


def test_what_nobody_has_stated_is_a_dead_letter(ivcap_twin, ivcap_journal, ended_work, sink, provena_items):
    """The missing fields are named and nothing is minted or registered; with them stated, `again` delivers."""
    _, work = ended_work()
    stated = {**provena_items.datasets}
    del stated["license"], stated["approvals"]
    assert drain(ivcap_journal, [sink(datasets=stated)]) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena", state="dead")
    assert work.urn in row.reason and "nobody has stated license, approvals" in row.reason
    assert accepted(ivcap_twin, "/mint-dataset") == accepted(ivcap_twin) == 0
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", dead=1)]
    assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", delivered=1)]
    assert accepted(ivcap_twin) == 1


def test_a_refusal_of_provena_is_a_dead_letter(ivcap_journal, ended_work, sink, failing_jobs):
    """A missing annotation, and a job that failed: not tried again by itself; put right, the run is registered."""
    _, work = ended_work()
    assert drain(ivcap_journal, [sink(annotations={"place": "here"})]) == [Drained("provena", dead=1)]
    with failing_jobs():
        assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", dead=1)]
    reasons = [row.reason for row in ivcap_journal.deliveries.where("provena", state="dead")]
    assert any("Out of luck" in reason and work.urn in reason for reason in reasons)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", dead=1)]
    assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", delivered=1)]
    assert {row.state for row in ivcap_journal.deliveries.where("provena")} == {"delivered"}


def test_a_parameter_that_is_no_artifact_is_named(ivcap_twin, ivcap_journal, ended_work, sink, provena_items):
    """What is mapped as an input and was given as a number is a dead letter, and nothing is sent."""
    ended_work()
    delivering = sink(inputs={"base": provena_items.template})
    assert drain(ivcap_journal, [delivering]) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena")
    assert "base of index are artifacts" in row.reason
    assert accepted(ivcap_twin, "/mint-dataset") == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"service": "other"}, "succeeded"), ({"flow": "other"}, "succeeded"), ({}, "failed"), ({}, "error")],
    ids=["other service", "other flow", "failed", "error"],
)
def test_what_is_not_meant_is_left_alone(ivcap_twin, ivcap_journal, ended_work, sink, changes, status):
    """Work of no entry and work that did not succeed ask nothing of Provena."""
    opened, _ = ended_work(status=status)
    before = ivcap_journal.facts.last_seq(opened.run.id)
    assert drain(ivcap_journal, [sink(**changes)]) == [Drained("provena", delivered=1)]
    assert ivcap_twin.requests() == []
    assert ivcap_journal.facts.last_seq(opened.run.id) == before


def test_an_entry_for_the_flow_goes_first(tmp_path, ended_work):
    """A service is known by name or URN; the entry of its flow is taken before that of all flows."""
    _, work = ended_work()
    path = tmp_path / "mapping.yaml"
    entries = [
        {"service": "index", "workflow_template": "1/1"},
        {"service": work.service, "flow": "coastal", "workflow_template": "1/2"},
    ]
    path.write_text(yaml.safe_dump(entries))
    mapping = ModelRunMapping.read(path)
    assert mapping.entry_for(work, "coastal").workflow_template == "1/2"
    assert mapping.entry_for(work, "inland").workflow_template == "1/1"


def test_a_wrong_mapping_names_every_fault(tmp_path):
    """File, entry and field of each, at once; neither a guess nor a silent part."""
    path = tmp_path / "mapping.yaml"
    path.write_text(
        "- {service: echo, workflow_templat: 1/1}\n"
        "- {service: index, workflow_template: 1/1, inputs: [series], datasets: {licence: MIT}}\n"
        "- {service: index, workflow_template: 1/2}\n"
        "- {service: index, workflow_template: 1/3}\n"
        "- nothing\n"
    )
    with pytest.raises(InputError) as caught:
        ModelRunMapping.read(path)
    said = str(caught.value)
    assert str(path) in said and len(caught.value.faults) == 6
    for place in (
        "entry 1 (echo), workflow_template: Field required",
        "entry 1 (echo), workflow_templat: Extra inputs",
        "entry 2 (index), inputs: ",
        "entry 2 (index), datasets.licence: Extra inputs",
        "entry 5: ",
        "2 entries are for the service 'index'",
    ):
        assert place in said


def test_the_documented_mapping_is_one(tmp_path):
    """The example of the guide can be used as it stands."""
    guide = Path("docs/how-to/deliver-the-record.md").read_text(encoding="utf-8")
    path = tmp_path / "mapping.yaml"
    path.write_text(guide.split("```yaml\n")[1].split("```")[0])
    [entry] = ModelRunMapping.read(path).entries
    assert entry.datasets is not None
    assert missing_defaults(entry.datasets) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("a: [", "is no YAML"), ("service: index", "must be a list")],
    ids=["absent", "no YAML", "no list"],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, said):
    """The file is named with what is wrong."""
    path = tmp_path / "mapping.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"mapping.yaml {said}"):
        ModelRunMapping.read(path)


def test_sync_delivers_by_the_mapping_in_the_settings(
    ivcap_twin, ivcap_journal, provena, ended_work, written, tmp_path, monkeypatch, capsys
):
    """A wrong file holds no other sink and is named; once it is right, the model run follows."""
    opened, _ = ended_work()
    prov = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"provena:{written(workflow_template=None)},prov-json:{prov}")
    assert sync() == 1
    assert "workflow_template: Field required" in " ".join(capsys.readouterr().err.split())
    assert [file.name for file in prov.iterdir()] == [f"{opened.run.id}.prov.json"]
    written()
    assert sync() == 0
    assert accepted(ivcap_twin) == len(model_runs(ivcap_journal)) == 1
