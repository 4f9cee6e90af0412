"""Orders and jobs become model runs on Provena: those that a workflow names, once, late rather than never."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcap_flows import loop
from ivcap_flows.cli.sync import sync
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity, schema
from ivcap_flows.provena.models import DatasetInfo, ModelRunRecord
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.terms import Terms, missing_terms
from ivcap_flows.provenance import activity, describe, entity, relation
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.flow_runs import SOFTWARE
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.keys import key_in
from ivcap_flows.registration.sources import RecordSource
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks import Drained, FolderSink, ProvenaSink, drain, run_graph
from ivcap_flows.sinks.base import TRIAL
from ivcap_flows.tasks import register_model_run

REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def written(tmp_path: Path, provena_items: Any) -> Callable[..., Path]:
    """Writes the workflow of the service `index`, changed as told; a field given as None is left out."""

    def write(**changes: Any) -> Path:
        entry = {
            "service": "index",
            "workflow_template": provena_items.workflow,
            "inputs": {"series": provena_items.template, "mask": provena_items.template},
            "outputs": {"index.csv": provena_items.template},
            "annotations": {"region": "Tasman Sea"},
            "organisation": provena_items.owner,
            "terms": provena_items.terms,
        } | changes
        path = tmp_path / "workflows.yaml"
        path.write_text(yaml.safe_dump([{name: value for name, value in entry.items() if value is not None}]))
        return path

    return write


@pytest.fixture
def sink(provena: Any, ivcap_journal: Journal, written: Callable[..., Path]) -> Callable[..., ProvenaSink]:
    """Makes the sink with the workflow as it is then."""

    def make(name: str = "provena", **changes: Any) -> ProvenaSink:
        return ProvenaSink(provena, ivcap_journal, name, Workflows.read(written(**changes)))

    return make


def accepted(embedded: Any, path: str = REGISTER) -> int:
    """How many requests of this path took effect."""
    return len([r for r in embedded.requests("POST") if r["path"].endswith(path) and r["status"] == 200])


def wait_for_jobs(provena: Any, *keys: str) -> None:
    """Until the user's newest jobs have all ended, and those of runs of these keys are among them."""

    async def ended() -> bool:
        rows = [row async for row in provena.jobs.list(limit=40)]
        known = {key_in(row.payload.get("record")) for row in rows}
        return known.issuperset(keys) and all(row.done for row in rows)

    deadline = time.monotonic() + 60
    while not loop.run(ended()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def model_runs(journal: Journal) -> list[ModelRun]:
    return [ModelRun.model_validate(row.outcome) for row in journal.intents.where(noun="model run")]


@pytest.mark.parametrize("kind", [Order, Job])
def test_what_succeeded_is_registered_once(
    embedded_platform, ivcap_journal, provena, ended_work, sink, provena_items, tmp_path, kind
):
    """One model run, with the workflow's statements and the work's times; a second sync or sink sends nothing. The
    record of the run tells of it: lineage leads to the work and the artifacts, and the other sinks get it, once."""
    opened, work = ended_work(kind)
    folder = FolderSink(tmp_path / "prov")
    drained = drain(ivcap_journal, [folder, sink()])
    assert drained == [Drained(folder.name, delivered=2), Drained("provena", delivered=1)]
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
    told = ivcap_journal.facts.last_seq(opened.run.id)
    assert drain(ivcap_journal, [sink("another")]) == [Drained("another", delivered=1)]
    assert ivcap_journal.facts.last_seq(opened.run.id) == told
    assert accepted(embedded_platform) == 1
    assert accepted(embedded_platform, "/mint-dataset") == 2
    [intent] = ivcap_journal.intents.where(run_id=opened.run.id, noun="model run")
    assert (intent.attempt_id, intent.scope, intent.request["subject"]) == (opened.attempt.id, "account", work.urn)
    links = run_graph(ivcap_journal, opened.run.id).relations.values()
    pairs = {(link.source, link.target) for link in links}
    assert {(run.urn, work.urn), (run.inputs[0], work.inputs[0]), (run.outputs[0], work.products[0].urn)} <= pairs
    assert drain(ivcap_journal, [folder]) == [Drained(folder.name)]
    assert run.urn in (folder.folder / f"{opened.run.id}.{ivcap_journal.id}.prov.json").read_text()


def test_an_order_that_outlives_its_run_is_registered_by_the_run_that_saw_its_end(
    embedded_platform, ivcap_journal, ended_work, sink
):
    """The run that requested it was delivered before; another run shares the order, and has its end on record."""
    _, work = ended_work(status="executing")
    delivering = sink()
    assert drain(ivcap_journal, [delivering]) == [Drained("provena", delivered=1)]
    assert accepted(embedded_platform) == 0
    done = work.model_copy(update={"status": "succeeded"})
    name = str(uuid.uuid4())
    opened = ivcap_journal.runs.open_attempt(RunIdentity("inland", "/flows/b.py:f", {}, name, name))
    [intent] = ivcap_journal.intents.where(urn=work.urn)
    ivcap_journal.intents.finish(intent.key, "succeeded", done.model_dump(mode="json"))
    ivcap_journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in describe(done)])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    assert drain(ivcap_journal, [delivering]) == [Drained("provena", delivered=1)]
    [run] = model_runs(ivcap_journal)
    assert (run.subject, accepted(embedded_platform)) == (work.urn, 1)


@pytest.mark.parametrize("first", ["task", "sink"])
def test_the_task_and_the_sink_meet_in_one_run(
    embedded_platform, ivcap_journal, ended_work, sink, provena_items, first
):
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
            terms=Terms(**provena_items.terms),
        )

    def by_sink():
        assert drain(ivcap_journal, [delivering]) == [Drained("provena", delivered=1)]

    for register in (by_task, by_sink) if first == "task" else (by_sink, by_task):
        register()
    [run] = model_runs(ivcap_journal)
    assert by_task().urn == run.urn
    assert accepted(embedded_platform) == 1


def test_a_provena_that_is_down_gets_it_later(embedded_platform, ivcap_journal, ended_work, sink, tmp_path):
    """The delivery waits with its reason, the other sink has its own at once; when Provena is back one run follows."""
    ended_work()
    folder, delivering = FolderSink(tmp_path / "prov"), sink()
    for fault, delivered in (({"status": 503}, 1), ({"reset": True}, 0)):
        embedded_platform.add_fault(path="^/provena/", **fault)
        waiting, done = drain(ivcap_journal, [delivering, folder], again=True)
        assert (waiting, done) == (Drained("provena", pending=1), Drained(folder.name, delivered=delivered))
        [row] = ivcap_journal.deliveries.where("provena")
        assert row.reason and row.next_try is not None
        embedded_platform.clear_faults()
    assert drain(ivcap_journal, [delivering], again=True) == [Drained("provena", delivered=1)]
    assert accepted(embedded_platform) == len(model_runs(ivcap_journal)) == 1


def test_a_registration_whose_reply_is_lost_is_one_run(embedded_platform, ivcap_journal, ended_work, sink):
    """It is found by its key, in the same pass."""
    ended_work()
    embedded_platform.add_fault(method="POST", path=f"{REGISTER}$", count=1, drop_reply_after_effect=True)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=1)]
    assert accepted(embedded_platform) == 1
    [intent] = ivcap_journal.intents.where(noun="model run")
    assert intent.how == "adopted"


def test_a_registration_that_takes_long_goes_on_later(embedded_platform, ivcap_journal, ended_work, sink, monkeypatch):
    """It holds a pass for a limited time, and the next one waits for the same job instead of sending again."""
    ended_work()
    monkeypatch.setattr("ivcap_flows.sinks.provena.PATIENCE", 2.0)
    embedded_platform.add_fault(path="/jobs/user/fetch$", status=503)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", pending=1)]
    [row] = ivcap_journal.deliveries.where("provena")
    assert "has not ended within 2 s" in row.reason
    embedded_platform.clear_faults()
    assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", delivered=1)]
    assert accepted(embedded_platform) == len(model_runs(ivcap_journal)) == 1


@pytest.mark.long
def test_a_registration_that_failed_half_way_is_a_dead_letter(
    embedded_platform, ivcap_journal, ended_work, sink, fail_job, monkeypatch
):
    """The registry has the run: it is named with the way to decide, and `again` does not make a second one."""
    _, work = ended_work()
    monkeypatch.setattr("ivcap_flows.sinks.provena.PATIENCE", 3.0)
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", pending=1)]
    fail_job(f"index {work.urn}")
    for _ in range(2):
        assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena", state="dead")
    assert row.reason.count("is in doubt") == 1 and "orders adopt" in row.reason and "Out of luck" in row.reason
    assert accepted(embedded_platform) == 1


def test_what_nobody_has_stated_is_a_dead_letter(embedded_platform, ivcap_journal, ended_work, sink, provena_items):
    """The missing fields are named and nothing is minted or registered; with them stated, `again` delivers."""
    _, work = ended_work()
    stated = {**provena_items.terms}
    del stated["license"], stated["approvals"]
    assert drain(ivcap_journal, [sink(terms=stated)]) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena", state="dead")
    assert work.urn in row.reason and "nobody has stated license, approvals" in row.reason
    assert accepted(embedded_platform, "/mint-dataset") == accepted(embedded_platform) == 0
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", dead=1)]
    assert drain(ivcap_journal, [sink()], again=True) == [Drained("provena", delivered=1)]
    assert accepted(embedded_platform) == 1


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


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"service": "other"}, "succeeded"), ({"flow": "other"}, "succeeded"), ({}, "failed"), ({}, "error")],
    ids=["other service", "other flow", "failed", "error"],
)
def test_what_is_not_meant_is_left_alone(embedded_platform, ivcap_journal, ended_work, sink, changes, status):
    """Work of no entry and work that did not succeed ask nothing of Provena."""
    opened, _ = ended_work(status=status)
    before = ivcap_journal.facts.last_seq(opened.run.id)
    assert drain(ivcap_journal, [sink(**changes)]) == [Drained("provena", delivered=1)]
    assert embedded_platform.requests() == []
    assert ivcap_journal.facts.last_seq(opened.run.id) == before


def test_a_workflow_for_the_flow_goes_first(tmp_path, ended_work):
    """A service is known by name or URN; the workflow of its flow is taken before that of all flows."""
    _, work = ended_work()
    path = tmp_path / "workflows.yaml"
    stated = [
        {"service": "index", "workflow_template": "1/1"},
        {"service": work.service, "flow": "coastal", "workflow_template": "1/2"},
    ]
    path.write_text(yaml.safe_dump(stated))
    workflows = Workflows.read(path)
    assert workflows.for_work(work, "coastal").workflow_template == "1/2"
    assert workflows.for_work(work, "inland").workflow_template == "1/1"


def test_a_wrong_workflow_names_every_fault(tmp_path):
    """File, line and field of each, at once; neither a guess nor a silent part."""
    path = tmp_path / "workflows.yaml"
    path.write_text(
        "- {service: echo, workflow_templat: 1/1}\n"
        "- {service: index, workflow_template: 1/1, inputs: [series], terms: {licence: MIT}}\n"
        "- service: index\n"
        "  workflow_template: {display_name: W, model: {display_name: M, name: M}}\n"
        "  inputs:\n"
        "    series: {display_name: Series, colour: blue}\n"
        "    mask: {templat: 1/1}\n"
        "- nothing\n"
    )
    with pytest.raises(InputError) as caught:
        Workflows.read(path)
    said = str(caught.value)
    assert str(path) in said
    assert [fault.partition(": ")[::2] for fault in caught.value.faults] == [
        ("line 1", "workflow_template is missing"),
        ("line 1, workflow_templat", "there is no such field"),
        ("line 2, inputs", "Input should be a valid dictionary"),
        ("line 2, terms.licence", "there is no such field"),
        ("line 4, workflow_template.model", "description is missing"),
        ("line 4, workflow_template.model", "documentation_url is missing"),
        ("line 4, workflow_template.model", "source_url is missing"),
        ("line 6, inputs.series", "colour is no field of DatasetTemplate"),
        ("line 7, inputs.mask", "template is missing"),
        ("line 7, inputs.mask.templat", "there is no such field"),
        ("line 8", "Input should be a valid dictionary or instance of Workflow"),
    ]


def test_the_documented_workflows_are_some(tmp_path):
    """The examples of the guide can be used as they stand."""
    guide = Path("docs/how-to/register-a-model-run.md").read_text(encoding="utf-8")
    path = tmp_path / "workflows.yaml"
    found = []
    for part in guide.split("```yaml\n")[1:]:
        path.write_text(part.split("```")[0])
        found += Workflows.read(path).all
    assert [(each.service, each.flow) for each in found] == [
        ("echo", None),
        ("coastal-el-nino-index", None),
        (None, "monthly-index"),
    ]
    assert [missing_terms(each.terms) for each in found] == [[], [], []]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "are not valid YAML"),
        ("a", "are wrong. line 1: Input should be a valid list"),
        (
            "[{service: index, workflow_template: 1/2}, {service: index, workflow_template: 1/3}]",
            "are wrong. 2 are for the service 'index'",
        ),
    ],
    ids=["absent", "no YAML", "no list", "two for one"],
)
def test_a_file_without_workflows_is_refused(tmp_path, text, said):
    """The file is named with what is wrong."""
    path = tmp_path / "workflows.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"workflows.yaml {said}"):
        Workflows.read(path)


def test_sync_delivers_by_the_workflow_in_the_settings(
    embedded_platform, ivcap_journal, provena, ended_work, written, tmp_path, monkeypatch, capsys
):
    """A wrong file holds no other sink and is named; once it is right, the model run follows."""
    opened, _ = ended_work()
    prov = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"provena:{written(workflow_template=None)},prov-json:{prov}")
    assert sync() == 1
    assert "workflow_template is missing" in " ".join(capsys.readouterr().err.split())
    assert [file.name for file in prov.iterdir()] == [f"{opened.run.id}.{ivcap_journal.id}.prov.json"]
    written()
    assert sync() == 0
    assert accepted(embedded_platform) == len(model_runs(ivcap_journal)) == 1


def test_sync_says_by_which_rule_nothing_was_registered(
    embedded_platform, ivcap_journal, ended_work, written, monkeypatch, capsys
):
    """A trial on another embedded platform counts as delivered; the rule is printed, and kept for `show`."""
    opened, _ = ended_work()
    elsewhere = entity("urn:ivcap:artifact:1", "artifact", platform="urn:ivcap-flows:embedded:another")
    ivcap_journal.facts.append([Fact(elsewhere, opened.run.id)])
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"provena:{written()}")
    assert sync() == 0
    assert "of 1 delivered run, nothing was sent: the run is a trial" in capsys.readouterr().out
    assert [row.reason for row in ivcap_journal.deliveries.where(run_id=opened.run.id)] == [TRIAL]
    assert accepted(embedded_platform) == 0


@pytest.fixture
def flow_workflow(provena_items: Any) -> Callable[..., Workflows]:
    """Makes the workflow of the runs of the flow `coastal`, changed as told."""

    def make(**changes: Any) -> Workflows:
        entry = {
            "flow": "coastal",
            "workflow_template": provena_items.workflow,
            "inputs": {"series": provena_items.template},
            "outputs": {"index.csv": provena_items.template},
            "annotations": {"region": "Tasman Sea"},
            "terms": provena_items.terms,
        } | changes
        return Workflows((Workflow.model_validate(entry),))

    return make


@pytest.fixture
def ended_run(ivcap_journal: Journal) -> Callable[..., tuple[str, str, str]]:
    """Makes a run of the flow `coastal` whose attempts ended so: its id, the artifact that it was given, and the one
    that it made. `given` is what the parameter `series` was."""

    def make(*outcomes: Any, given: str = "urn") -> tuple[str, str, str]:
        root = str(uuid.uuid4())
        source, product = (f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(2))
        parameters = {"series": source} if given == "urn" else {"series": "/home/zora/series.csv"}
        file = "urn:ivcap-flows:file:sha256:" + "cd" * 32
        for outcome in outcomes:
            opened = ivcap_journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", parameters, root, root))
            attempt = flows_urn("attempt", opened.attempt.id)
            records = [
                activity(attempt, "attempt", opened.attempt.started_at),
                entity(source, "artifact", name="series.csv", sha256="cd" * 32),
                entity(product, "artifact", name="index.csv"),
                relation("wasGeneratedBy", product, attempt),
            ]
            if given != "urn":
                records += [entity(file, "file", sha256="cd" * 32, path="/home/zora/series.csv")]
                records += [relation("used", attempt, file, role="series")]
            if given == "file":
                # The file of which no artifact is on record.
                records = [record for record in records if record.id != source]
            ivcap_journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
            ivcap_journal.runs.close_attempt(opened.attempt.id, outcome, "at /home/zora on host-of-zora")
        return root, source, product

    return make


@pytest.mark.parametrize("given", ["urn", "uploaded"])
def test_a_flow_is_a_model_run(embedded_platform, ivcap_journal, provena, ended_run, flow_workflow, given):
    """Once, with the artifact that a parameter names, or that holds the file it was given, and the one it made."""
    run_id, source, product = ended_run("completed", given=given)
    delivering = ProvenaSink(provena, ivcap_journal, "provena", flow_workflow())
    assert drain(ivcap_journal, [delivering]) == [Drained("provena", delivered=1)]
    [run] = model_runs(ivcap_journal)
    assert run.subject == flows_urn("run", run_id)
    item = loop.run(provena.registry.fetch(ModelRunInfo, run.urn))
    record = item.info.record
    assert record.annotations["ivcap-flows-software"] == SOFTWARE
    assert "ivcap-flows-attempts" not in record.annotations
    assert (record.annotations["region"], record.display_name) == (
        "Tasman Sea",
        f"coastal {run_id[-8:]}, run by {SOFTWARE}",
    )
    for side, artifact in ((record.inputs, source), (record.outputs, product)):
        dataset = loop.run(provena.registry.fetch(DatasetInfo, side[0].dataset_id))
        assert dataset.info.access_info_uri == artifact
    again = ProvenaSink(provena, ivcap_journal, "again", flow_workflow())
    assert drain(ivcap_journal, [again]) == [Drained("again", delivered=1)]
    assert accepted(embedded_platform) == 1
    graph = run_graph(ivcap_journal, run_id)
    assert f"wasInformedBy({run.urn},{flows_urn('run', run_id)})" in graph


def test_attempts_that_failed_are_said(ivcap_journal, provena, ended_run, flow_workflow):
    """In the name and the annotations, by their outcomes alone: no host, no path, no user."""
    ended_run("failed", "crashed", "failed", "completed")
    drain(ivcap_journal, [ProvenaSink(provena, ivcap_journal, "provena", flow_workflow())])
    [run] = model_runs(ivcap_journal)
    record = loop.run(provena.registry.fetch(ModelRunInfo, run.urn)).info.record
    assert "(after 2 failed, 1 crashed), run by ivcap-flows" in record.display_name
    assert record.annotations["ivcap-flows-attempts"] == "1: failed; 2: crashed; 3: failed; 4: completed"
    assert "zora" not in record.model_dump_json().replace(run.subject, "")


def test_an_order_that_took_a_second_one_says_so(ivcap_journal, provena, ended_work, sink):
    """The order that failed under the same key is in the name and the annotations of the one that succeeded."""
    _, work = ended_work()
    with ivcap_journal._store.write() as connection:
        columns = [
            column.name for column in schema.intents.columns if column.name not in ("key", "generation", "status")
        ]
        names = ", ".join(columns)
        connection.exec_driver_sql(
            f"INSERT INTO intents (key, generation, status, {names}) "
            f"SELECT key || '.2', 1, status, {names} FROM intents"
        )
        connection.exec_driver_sql("UPDATE intents SET status = 'failed' WHERE generation = 0")
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=1)]
    [run] = model_runs(ivcap_journal)
    record = loop.run(provena.registry.fetch(ModelRunInfo, run.urn)).info.record
    assert record.display_name == f"index {work.urn} (after 1 failed)"
    assert record.annotations["ivcap-flows-attempts"] == "1: failed; then succeeded"
    assert record.annotations["ivcap-flows-software"] == f"index, asked by {SOFTWARE}"


@pytest.mark.parametrize("outcome", ["failed", "parked", "lost"])
def test_a_flow_that_did_not_complete_is_no_model_run(
    embedded_platform, ivcap_journal, provena, ended_run, flow_workflow, outcome
):
    """Provena has no outcome for one; nothing is asked of it."""
    ended_run(outcome)
    sink = ProvenaSink(provena, ivcap_journal, "provena", flow_workflow())
    assert drain(ivcap_journal, [sink]) == [Drained("provena", delivered=1)]
    assert embedded_platform.requests() == []


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({"terms": {"license": "https://example.org/l"}}, "urn", "stated organisation_id, publisher_id, approvals"),
        ({"terms": None}, "urn", "nobody has stated organisation_id, publisher_id, license, approvals"),
        ({}, "file", "series of the flow coastal is an artifact, but in the run"),
    ],
    ids=["some", "nothing", "no artifact"],
)
def test_what_a_flow_lacks_is_a_dead_letter(
    embedded_platform, ivcap_journal, provena, ended_run, flow_workflow, changes, given, words
):
    """The missing fields are named, and nothing is minted or registered until they are there."""
    ended_run("completed", given=given)
    lacking = ProvenaSink(provena, ivcap_journal, "provena", flow_workflow(**changes))
    assert drain(ivcap_journal, [lacking]) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena", state="dead")
    assert words in row.reason
    assert accepted(embedded_platform, "/mint-dataset") == accepted(embedded_platform) == 0


def test_a_workflow_may_be_code(tmp_path, monkeypatch):
    """A module of the working directory names it; what is none, or is not there, is refused by its place."""
    (tmp_path / "my_workflows_of_tests.py").write_text(
        "from ivcap_flows.registration import Workflow\n"
        "ONE = Workflow(flow='coastal', workflow_template='1/1')\n"
        "LIST, TWICE, WRONG = [ONE], [ONE, ONE], {'flow': 'coastal'}\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("ONE", "LIST"):
        found = Workflows.named(f"my_workflows_of_tests:{name}").for_run("coastal")
        assert found is not None
        assert found.workflow_template == "1/1"
    for name, words in (
        ("TWICE", "2 are for the flow 'coastal'"),
        ("WRONG", "must be a Workflow, or a list of them"),
        ("NOTHING", "cannot be imported"),
    ):
        with pytest.raises(InputError, match=f"my_workflows_of_tests:{name}.*{words}"):
            Workflows.named(f"my_workflows_of_tests:{name}")
    for number, (text, words) in enumerate((("a b", "invalid syntax"), ("open('not-there')", "not-there"), ("b", "b"))):
        (tmp_path / f"my_wrong_workflows_{number}.py").write_text(text)
        with pytest.raises(InputError, match=f"my_wrong_workflows_{number}:LIST cannot be imported.*{words}"):
            Workflows.named(f"my_wrong_workflows_{number}:LIST")
    with pytest.raises(ValueError, match="give a service, a flow, or both"):
        Workflow(workflow_template="1/1")


@pytest.fixture
def killed_batch(
    ivcap_journal: Journal, provena: Any, provena_items: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], list[str]]:
    """Makes a run that was cancelled as soon as Provena had accepted a batch of so many rows: their keys."""

    artifact = f"urn:ivcap:artifact:{uuid.uuid4()}"

    def make(count: int) -> list[str]:
        name = uuid.uuid4().hex
        terms = Terms(**provena_items.terms)
        opened = ivcap_journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", {}, name, name))
        rows = [(f"{name}-{number}", ModelRunRecord(**record(f"{name} {number}"))) for number in range(count)]
        source = RecordSource(rows)

        async def register() -> None:
            accepted, waits = asyncio.Event(), list[str]()

            async def and_no_further(watch: JobWatch, job: str, stall_timeout: float) -> None:
                waits.append(job)
                if len(waits) == count:
                    accepted.set()
                await asyncio.Event().wait()

            with monkeypatch.context() as patch, Batch(source, provena, terms=terms, stall_timeout=20) as batch:
                patch.setattr(JobWatch, "wait", and_no_further)
                await batch.check()
                done = asyncio.create_task(batch.register(ivcap_journal, opened))
                await asyncio.wait_for(accepted.wait(), 60)
                done.cancel()
                await asyncio.wait([done])

        loop.run(register())
        attempt = activity(flows_urn("attempt", opened.attempt.id), "attempt", opened.attempt.started_at)
        ivcap_journal.facts.append([Fact(attempt, opened.run.id, opened.attempt.id)])
        ivcap_journal.runs.close_attempt(opened.attempt.id, "crashed")
        return [row.key for row in ivcap_journal.intents.where(run_id=opened.run.id, noun="model run")]

    def record(name: str) -> dict[str, Any]:
        part = {"dataset_template_id": provena_items.template, "dataset_id": artifact}
        return {
            "workflow_template_id": provena_items.workflow,
            "inputs": [part],
            "outputs": [part],
            "annotations": {"region": "Tasman Sea"},
            "display_name": name,
            "description": "A run",
            "associations": {"modeller_id": provena_items.person},
            "start_time": 1_600_000_000,
            "end_time": 1_600_000_100,
        }

    return make


def test_the_runs_of_a_killed_batch_are_found(embedded_platform, ivcap_journal, provena, killed_batch):
    """All of them by one look, however many there are, and noted as the task would."""
    wait_for_jobs(provena, *killed_batch(30))
    embedded_platform.forget_requests()
    assert drain(ivcap_journal, [ProvenaSink(provena, ivcap_journal)]) == [Drained("provena", delivered=1)]
    assert len({run.urn for run in model_runs(ivcap_journal)}) == 30
    assert len([each for each in embedded_platform.requests() if "/list" in each["path"]]) <= 4
    assert not [each for each in embedded_platform.requests() if each["path"].endswith("/fetch")]


@pytest.mark.long
def test_a_killed_batch_whose_jobs_failed(ivcap_journal, provena, killed_batch, failing_jobs):
    """Provena's reason is told, of few rows by name, and they are a dead letter; those under way are waited for."""
    with failing_jobs():
        keys = killed_batch(12)
        provena.visibility_delay = 600.0
        assert drain(ivcap_journal, [ProvenaSink(provena, ivcap_journal)]) == [Drained("provena", pending=1)]
        [row] = ivcap_journal.deliveries.where("provena")
        assert sum(key in row.reason for key in keys) == 5 and "and 7 more" in row.reason
        wait_for_jobs(provena, *keys)
    provena.visibility_delay = 0.5
    deadline = time.monotonic() + 60
    while (done := drain(ivcap_journal, [ProvenaSink(provena, ivcap_journal)], again=True)) != [
        Drained("provena", dead=1)
    ]:
        assert done == [Drained("provena", pending=1)] and time.monotonic() < deadline
        time.sleep(0.2)
    [row] = ivcap_journal.deliveries.where("provena")
    assert row.reason.count("Out of luck.") == 5 and "and 7 more" in row.reason
