"""Orders, jobs and flows become model runs on Provena: those that a workflow names, once, late rather than never."""

import uuid
from typing import Any

import pytest
import yaml
from eventually import until

from ivcap_flows import loop
from ivcap_flows.cli.sync import sync
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, IntentRow, Journal, NewIntent, RunIdentity, schema
from ivcap_flows.journal.rows import WRITTEN_OFF
from ivcap_flows.provena.models import DatasetInfo, ModelRunRecord
from ivcap_flows.provenance import activity, describe, entity, relation
from ivcap_flows.registration import model_runs as registering
from ivcap_flows.registration.flow_runs import SOFTWARE
from ivcap_flows.registration.keys import key_in
from ivcap_flows.registration.registry import KEY_FIELD
from ivcap_flows.sinks import Drained, FolderSink, drain, run_graph
from ivcap_flows.sinks import provena as module
from ivcap_flows.sinks.base import TRIAL
from ivcap_flows.sinks.provena import ProvenaSink
from ivcap_flows.tasks import register_model_run

DELIVERED, PENDING, DEAD = (Drained("provena", **{state: 1}) for state in ("delivered", "pending", "dead"))


def model_runs(journal: Journal) -> list[ModelRun]:
    return [ModelRun.model_validate(row.outcome) for row in journal.intents.where(noun="model run")]


def reason(journal: Journal, state: str | None = None) -> str:
    [row] = journal.deliveries.where("provena", **({"state": state} if state else {}))
    return row.reason or ""


def wait_for_jobs(provena: Any, *keys: str) -> None:
    """Until the user's newest jobs have all ended, and those of runs of these keys are among them."""

    async def ended() -> bool:
        rows = [row async for row in provena.jobs.list(limit=40)]
        known = {key_in(row.payload.get("record")) for row in rows}
        return known.issuperset(keys) and all(row.done for row in rows)

    until(lambda: loop.run(ended()))


@pytest.mark.parametrize("kind", [Order, Job])
def test_what_succeeded_is_registered_once(
    accepted, ivcap_journal, provena, ended_work, sink, registered, table_items, tmp_path, kind
):
    """One model run, with the workflow's statements and the work's times; a second sync, sink or task sends nothing.
    The record of the run tells of it: lineage leads to the work and the artifacts, and the other sinks get it, once."""
    opened, work = ended_work(kind)
    folder = FolderSink(tmp_path / "prov")
    assert drain(ivcap_journal, [folder, sink()]) == [Drained(folder.name, delivered=2), DELIVERED]
    [run], found = model_runs(ivcap_journal), registered()
    assert found.workflow_template_id == table_items.workflow
    assert found.annotations["region"] == "Tasman Sea"
    assert found.associations.requesting_organisation_id == table_items.organisation
    assert (found.start_time, found.end_time) == (int(work.started_at.timestamp()), int(work.finished_at.timestamp()))
    series, index = (
        loop.run(provena.registry.fetch(DatasetInfo, side[0].dataset_id)) for side in (found.inputs, found.outputs)
    )
    assert (series.display_name, index.display_name) == ("series.csv", "index.csv")
    assert (series.info.access_info_uri, index.info.access_info_uri) == (*work.inputs, work.products[0].urn)

    assert drain(ivcap_journal, [sink()]) == [Drained("provena")]
    told = ivcap_journal.facts.last_seq(opened.run.id)
    assert drain(ivcap_journal, [sink("another")]) == [Drained("another", delivered=1)]
    assert ivcap_journal.facts.last_seq(opened.run.id) == told
    again = register_model_run.fn(
        work,
        workflow_template=table_items.workflow,
        inputs={table_items.template: work.products[0]},
        outputs={table_items.table: work.products[0]},
        resources={table_items.table: {"index": "index.csv"}},
        annotations={"region": "anywhere"},
        terms=table_items.terms,
    )
    assert again.urn == run.urn and accepted() == (1, 2)
    [intent] = ivcap_journal.intents.where(run_id=opened.run.id, noun="model run")
    assert (intent.attempt_id, intent.scope, intent.request["subject"]) == (opened.attempt.id, "account", work.urn)
    links = run_graph(ivcap_journal, opened.run.id).relations.values()
    pairs = {(link.source, link.target) for link in links}
    assert {(run.urn, work.urn), (run.inputs[0], work.inputs[0]), (run.outputs[0], work.products[0].urn)} <= pairs
    assert drain(ivcap_journal, [folder]) == [Drained(folder.name)]
    assert run.urn in (folder.folder / f"{opened.run.id}.{ivcap_journal.id}.prov.json").read_text()


def test_an_order_that_outlives_its_run_is_registered_by_the_run_that_saw_its_end(
    accepted, ivcap_journal, ended_work, sink
):
    """The run that requested it was delivered before; another run shares the order, and has its end on record."""
    _, work = ended_work(status="executing")
    assert drain(ivcap_journal, [sink()]) == [DELIVERED]
    assert accepted() == (0, 0)
    done = work.model_copy(update={"status": "succeeded"})
    name = str(uuid.uuid4())
    opened = ivcap_journal.runs.open_attempt(RunIdentity("inland", "/flows/b.py:f", {}, name, name))
    [intent] = ivcap_journal.intents.where(urn=work.urn)
    ivcap_journal.intents.finish(intent.key, "succeeded", done.model_dump(mode="json"))
    ivcap_journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in describe(done)])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    assert drain(ivcap_journal, [sink()]) == [DELIVERED]
    [run] = model_runs(ivcap_journal)
    assert (run.subject, accepted()[0]) == (work.urn, 1)


def test_a_provena_that_is_down_or_slow_or_whose_reply_is_lost_gets_one_run(
    embedded_platform, accepted, ivcap_journal, ended_work, sink, tmp_path, monkeypatch
):
    """The delivery waits with its reason, the other sink has its own at once. A pass is held for a limited time, and
    the next one waits for the same job instead of sending again. What was sent is found by its key."""
    ended_work()
    folder, delivering = FolderSink(tmp_path / "prov"), sink()
    for fault, delivered in (({"status": 503}, 1), ({"reset": True}, 0)):
        embedded_platform.add_fault(path="^/provena/", **fault)
        drained = drain(ivcap_journal, [delivering, folder], again=True)
        assert drained == [PENDING, Drained(folder.name, delivered=delivered)]
        [row] = ivcap_journal.deliveries.where("provena")
        assert row.reason and row.next_try is not None
        embedded_platform.clear_faults()
    embedded_platform.add_fault(method="POST", path="/model_run/register$", count=1, drop_reply_after_effect=True)
    embedded_platform.add_fault(path="/jobs/user/fetch$", status=503)
    with monkeypatch.context() as patch:
        patch.setattr(module, "PATIENCE", 0.0)
        # On a slow machine a pass may end before it has sent the run.
        while not accepted()[0]:
            assert drain(ivcap_journal, [delivering], again=True) == [PENDING]
    assert "has not ended within 2 s" in reason(ivcap_journal)
    embedded_platform.clear_faults()
    assert drain(ivcap_journal, [delivering], again=True) == [DELIVERED]
    [intent] = ivcap_journal.intents.where(noun="model run")
    assert (accepted()[0], intent.how) == (1, "adopted")


def test_many_are_registered_at_once(embedded_platform, accepted, ivcap_journal, ended_work, sink, monkeypatch):
    """While no job ends, all are sent, and the next pass waits for the same jobs. The dataset of their
    common input is minted once."""
    beside = ended_work()
    for number in range(4):
        ended_work(beside=beside, base=str(number))
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", kill_worker="after")
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    # On a slow machine a pass may end before it has sent all.
    for _ in range(3):
        assert drain(ivcap_journal, [sink()], again=True) == [PENDING]
    assert accepted() == (5, 6)
    intents = ivcap_journal.intents.where(noun="model run")
    assert len({intent.progress["session_id"] for intent in intents}) == 5


@pytest.mark.long
def test_a_registration_that_failed_half_way_is_a_dead_letter(
    embedded_platform, accepted, ivcap_journal, ended_work, sink, fail_job, monkeypatch
):
    """The registry has the run: it is named with the way to decide, and `again` does not make a second one."""
    _, work = ended_work()
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    assert drain(ivcap_journal, [sink()]) == [PENDING]
    fail_job(f"index {work.urn}")
    for _ in range(2):
        assert drain(ivcap_journal, [sink()], again=True) == [DEAD]
    said = reason(ivcap_journal, "dead")
    assert said.count("is in doubt") == 1 and "orders resolve" in said and "Out of luck" in said
    assert accepted()[0] == 1


def test_a_refusal_is_a_dead_letter_until_it_is_put_right(
    accepted, ivcap_journal, ended_work, sink, failing_jobs, table_items
):
    """What nobody has stated is named and nothing is sent. A job that failed is not tried again by itself."""
    _, work = ended_work()
    some = table_items.terms.model_dump(include={"organisation_id", "publisher_id"})
    assert drain(ivcap_journal, [sink(terms=some)]) == [DEAD]
    said = reason(ivcap_journal, "dead")
    assert work.urn in said and "its terms lack `license` and `approvals`" in said and accepted() == (0, 0)
    with failing_jobs():
        assert drain(ivcap_journal, [sink()], again=True) == [DEAD]
    reasons = [row.reason for row in ivcap_journal.deliveries.where("provena", state="dead")]
    assert any("Out of luck" in each and work.urn in each for each in reasons)
    assert drain(ivcap_journal, [sink()]) == [DEAD]
    assert drain(ivcap_journal, [sink()], again=True) == [DELIVERED]
    assert {row.state for row in ivcap_journal.deliveries.where("provena")} == {"delivered"}


def test_what_is_not_meant_asks_nothing_of_provena(embedded_platform, ivcap_journal, ended_work, ended_run, sink):
    """Work and flow runs that did not succeed, since Provena has no outcome for them, and work of no entry."""
    for outcome in ("failed", "parked", "lost"):
        ended_run(outcome)
    assert drain(ivcap_journal, [sink(flow="coastal")]) == [Drained("provena", delivered=3)]
    for status in ("failed", "error"):
        ended_work(status=status)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=2)]
    ended_work()
    known = ivcap_journal.facts.newest()
    others = [sink("a", service="other"), sink("b", "other", service="index")]
    assert drain(ivcap_journal, others) == [Drained("a", delivered=6), Drained("b", delivered=6)]
    assert ivcap_journal.facts.newest() == known
    assert embedded_platform.requests() == []


@pytest.fixture
def ended_run(ivcap_journal):
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
                entity(product, "artifact", name="index.csv"),
                relation("wasGeneratedBy", product, attempt),
            ]
            if given != "a file of no artifact":
                records += [entity(source, "artifact", name="series.csv", sha256="cd" * 32)]
            if given != "urn":
                records += [entity(file, "file", sha256="cd" * 32, path="/home/zora/series.csv")]
                records += [relation("used", attempt, file, role="series")]
            ivcap_journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
            ivcap_journal.runs.close_attempt(opened.attempt.id, outcome, "at /home/zora on host-of-zora")
        return root, source, product

    return make


@pytest.mark.parametrize(
    ("given", "outcomes", "name", "attempts"),
    [
        ("urn", ["completed"], "", None),
        ("urn", ["parked", "paused", "completed"], "", None),
        (
            "an uploaded file",
            ["failed", "crashed", "parked", "failed", "completed"],
            " (after 2 failed, 1 crashed)",
            "1: failed; 2: crashed; 3: parked; 4: failed; 5: completed",
        ),
    ],
)
def test_a_flow_is_a_model_run(
    accepted, ivcap_journal, provena, ended_run, sink, registered, given, outcomes, name, attempts
):
    """Once, with the artifact that a parameter names, or that holds the file it was given, and the one it made.
    Attempts that failed are told by their outcomes alone: no host, no path, no user. A run that went
    away and came back is no failure."""
    run_id, source, product = ended_run(*outcomes, given=given)
    assert drain(ivcap_journal, [sink(flow="coastal")]) == [DELIVERED]
    [run], found = model_runs(ivcap_journal), registered()
    assert run.subject == flows_urn("run", run_id)
    assert found.annotations["ivcap-flows-software"] == SOFTWARE
    assert found.annotations.get("ivcap-flows-attempts") == attempts
    assert found.annotations["region"] == "Tasman Sea"
    assert found.display_name == f"coastal {run_id[-8:]}{name}, run by {SOFTWARE}"
    assert "zora" not in found.model_dump_json().replace(run.subject, "")
    for side, artifact in ((found.inputs, source), (found.outputs, product)):
        dataset = loop.run(provena.registry.fetch(DatasetInfo, side[0].dataset_id))
        assert dataset.info.access_info_uri == artifact
    assert drain(ivcap_journal, [sink("again", flow="coastal")]) == [Drained("again", delivered=1)]
    assert accepted()[0] == 1
    assert f"wasInformedBy({run.urn},{flows_urn('run', run_id)})" in run_graph(ivcap_journal, run_id)


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        (
            {"terms": None},
            "urn",
            "its terms lack `owner` (or `organisation_id` and `publisher_id`), `license` and `approvals`",
        ),
        ({}, "a file of no artifact", "series of the flow coastal is an artifact, but in the run"),
    ],
)
def test_what_a_flow_lacks_is_a_dead_letter_and_nothing_is_sent(
    accepted, ivcap_journal, ended_run, sink, changes, given, words
):
    ended_run("completed", given=given)
    assert drain(ivcap_journal, [sink(flow="coastal", **changes)]) == [DEAD]
    assert words in reason(ivcap_journal, "dead")
    assert accepted() == (0, 0)


def test_an_order_that_took_a_second_one_says_so(ivcap_journal, ended_work, sink, registered):
    """The order that failed under the same key is in the name and the annotations of the one that succeeded."""
    _, work = ended_work()
    rest = [column.name for column in schema.intents.columns if column.name not in ("key", "generation", "status")]
    names = ", ".join(rest)
    with ivcap_journal._store.write() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO intents (key, generation, status, {names}) "
            f"SELECT key || '.2', 1, status, {names} FROM intents"
        )
        connection.exec_driver_sql("UPDATE intents SET status = 'failed' WHERE generation = 0")
    assert drain(ivcap_journal, [sink()]) == [DELIVERED]
    found = registered()
    assert found.display_name == f"index {work.urn} (after 1 failed)"
    assert found.annotations["ivcap-flows-attempts"] == "1: failed; then succeeded"
    assert found.annotations["ivcap-flows-software"] == f"index, asked by {SOFTWARE}"


def test_sync_delivers_by_the_workflow_in_the_settings(
    accepted, ivcap_journal, ended_work, workflow_fields, tmp_path, monkeypatch, capsys
):
    """A wrong file holds no other sink and is named; once it is right, the model run follows. A trial on another
    embedded platform counts as delivered; the rule is printed, and kept for `show`."""
    opened, _ = ended_work()
    trial, _ = ended_work()
    elsewhere = entity("urn:ivcap:artifact:1", "artifact", platform="urn:ivcap-flows:embedded:another")
    ivcap_journal.facts.append([Fact(elsewhere, trial.run.id)])
    prov, workflows = tmp_path / "prov", tmp_path / "workflows.yaml"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"provena:{workflows},prov-json:{prov}")
    workflows.write_text(yaml.safe_dump([workflow_fields(workflow_template=None)]))
    assert sync() == 1
    assert "workflow_template is missing" in " ".join(capsys.readouterr().err.split())
    ids = {opened.run.id, trial.run.id}
    assert {file.name for file in prov.iterdir()} == {f"{run_id}.{ivcap_journal.id}.prov.json" for run_id in ids}
    workflows.write_text(yaml.safe_dump([workflow_fields()]))
    assert sync() == 0
    assert "of 1 delivered run, nothing was sent: the run is a trial" in capsys.readouterr().out
    assert accepted()[0] == len(model_runs(ivcap_journal)) == 1
    kept = [row.reason for row in ivcap_journal.deliveries.where(run_id=trial.run.id) if row.reason]
    assert kept == [TRIAL]


@pytest.fixture
def left_behind(ivcap_journal, provena, table_items):
    """Makes a run that ended when Provena had accepted so many registrations of it: their intents, still claimed."""

    def make(count: int) -> list[IntentRow]:
        dataset = loop.run(table_items.mint(provena))
        inputs = [{"dataset_template_id": table_items.template, "dataset_id": dataset}]
        outputs = [
            {"dataset_template_id": table_items.table, "dataset_id": dataset, "resources": {"index": "index.csv"}}
        ]
        name, intents = uuid.uuid4().hex, ivcap_journal.intents
        opened = ivcap_journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", {}, name, name))

        async def send(key: str) -> IntentRow:
            wanted = NewIntent(
                key=key,
                base_key=key,
                noun="model run",
                platform=await provena.platform(),
                account="zora",
                scope="account",
                request={"subject": f"urn:x:{key}", "workflow-template": table_items.workflow},
                run_id=opened.run.id,
                attempt_id=opened.attempt.id,
            )
            record = ModelRunRecord(
                workflow_template_id=table_items.workflow,
                inputs=inputs,
                outputs=outputs,
                annotations={"region": "Tasman Sea", KEY_FIELD: key},
                display_name=key,
                description="A run",
                associations={"modeller_id": table_items.person},
                start_time=1_600_000_000,
                end_time=1_600_000_100,
            )
            intent = intents.mark_sent(intents.claim(wanted).intent)
            return intents.progress(intent, {"session_id": await provena.prov.register(record)})

        sent = loop.run(loop.all_of(send, [f"{name}-{number}" for number in range(count)], 8))
        attempt = activity(flows_urn("attempt", opened.attempt.id), "attempt", opened.attempt.started_at)
        ivcap_journal.facts.append([Fact(attempt, opened.run.id, opened.attempt.id)])
        ivcap_journal.runs.close_attempt(opened.attempt.id, "crashed")
        return sent

    return make


def test_the_runs_of_a_killed_flow_are_found(embedded_platform, ivcap_journal, provena, left_behind):
    """All of them by one look, however many there are, and noted as the task would. Nothing is taken from a live
    process that holds the claim."""
    sink, sent, intents = ProvenaSink(provena, ivcap_journal), left_behind(30), ivcap_journal.intents
    keys = {intent.key for intent in sent}
    wait_for_jobs(provena, *keys)
    assert drain(ivcap_journal, [sink]) == [PENDING]
    assert {intents.get(key).state for key in keys} == {"sent"}
    for intent in sent:
        intents.release(intent)
    embedded_platform.forget_requests()
    assert drain(ivcap_journal, [sink], again=True) == [DELIVERED]
    runs = model_runs(ivcap_journal)
    assert len({run.urn for run in runs}) == 30 and {run.key for run in runs} == keys
    assert {run.subject for run in runs} == {f"urn:x:{key}" for key in keys}
    assert {(row.state, row.how) for row in map(intents.get, keys)} == {("done", "adopted")}
    paths = [each["path"] for each in embedded_platform.requests()]
    assert len([path for path in paths if "/list" in path]) <= 4
    assert not [path for path in paths if path.endswith("/fetch")]


def test_what_is_decided_while_it_is_looked_for_stays_so(ivcap_journal, provena, left_behind, monkeypatch):
    """An intent that the user drops between the look and its end is claimed by nobody afterwards."""
    [intent] = left_behind(1)
    wait_for_jobs(provena, intent.key)
    ivcap_journal.intents.release(intent)
    look = registering.look_for

    async def decided(*given):
        found = await look(*given)
        ivcap_journal.decisions.write_off(intent.key)
        return found

    monkeypatch.setattr(registering, "look_for", decided)
    loop.run(registering.adopt_sent_runs(provena, ivcap_journal, intent.run_id))
    row = ivcap_journal.intents.get(intent.key)
    assert (row.state, row.error, row.process_id) == ("dropped", WRITTEN_OFF, None)


@pytest.mark.long
def test_registrations_of_a_killed_flow_whose_jobs_failed(ivcap_journal, provena, left_behind, failing_jobs):
    """Provena's reason is told, of few by name, and they are a dead letter; what may still show is waited for."""
    sink = ProvenaSink(provena, ivcap_journal)
    with failing_jobs():
        sent = left_behind(12)
        for intent in sent:
            ivcap_journal.intents.release(intent)
        provena.visibility_delay = 600.0
        assert drain(ivcap_journal, [sink]) == [PENDING]
        said = reason(ivcap_journal)
        assert sum(intent.key in said for intent in sent) == 5 and "and 7 more" in said
        wait_for_jobs(provena, *(intent.key for intent in sent))
    provena.visibility_delay = 0.5
    assert until(lambda: drain(ivcap_journal, [sink], again=True), lambda done: done != [PENDING]) == [DEAD]
    assert reason(ivcap_journal).count("Out of luck.") == 5 and "and 7 more" in reason(ivcap_journal)
