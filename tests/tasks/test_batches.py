"""Many model runs by one task: in lineage, in Prefect's artifacts, in a plan, and in errors with the rows."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from on_record import last_graph
from prefect.client.orchestration import get_client

from ivcap_flows.durable.plan import plan
from ivcap_flows.errors import InputError, RegistrationFailedError
from ivcap_flows.provena.models import Associations, ModelRunRecord, Study, TemplatedDataset
from ivcap_flows.tasks import (
    batch_artifacts,
    explore_lineage,
    lineage_report,
    mint_dataset,
    progress,
    register_item,
    register_model_runs,
    upload_artifact,
)
from ivcap_flows.tasks.provena import linked_person
from ivcap_flows.tasks.waiting import PlannedError

REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def records(in_script, artifact, registry, unique) -> list[ModelRunRecord]:
    """Three records without a fault."""

    def body() -> tuple[str, str]:
        return linked_person().urn, mint_dataset(artifact, terms=registry.terms).urn

    person, dataset = in_script(body)
    part = TemplatedDataset(dataset_template_id=registry.template, dataset_id=dataset)
    return [
        ModelRunRecord(
            workflow_template_id=registry.workflow,
            inputs=[part],
            outputs=[part],
            display_name=f"{unique} {number}",
            description="A run",
            associations=Associations(modeller_id=person),
            start_time=100,
            end_time=200 + number,
        )
        for number in range(3)
    ]


def shown(kind: str) -> list[dict[str, Any]]:
    """Prefect's artifacts of a kind, newest first."""

    async def read() -> list[Any]:
        async with get_client() as client:
            return list(await client.read_artifacts(sort="CREATED_DESC"))

    return [vars(each) for each in asyncio.run(read()) if each.type == kind]


def test_records_of_a_flow(in_flow, in_script, effects, records, tmp_path, ivcap_journal):
    """Records become model runs once, whichever run requests them. The task generated them, and Prefect shows them."""

    def body():
        return register_model_runs(records, out=tmp_path / "out.csv")

    first, again = in_script(body), in_flow(body)
    assert first == again and effects.count(REGISTER) == 3
    assert [run.display_name for run in first.runs] == [record.display_name for record in records]
    assert (first.rows, first.failed, first.doubtful) == (3, 0, 0)
    graph = last_graph(ivcap_journal)
    assert {run.urn for run in first.runs} <= graph.nodes.keys()
    table = next(each for each in shown("table") if "3 registered" in each["description"])
    assert [row["model run"] for row in json.loads(table["data"])] == [run.urn for run in first.runs]
    assert any(each["data"] == 100.0 for each in shown("progress"))


def test_a_prefect_that_does_not_answer_delays_no_batch(in_flow, effects, records, monkeypatch):
    """It is not asked for all that it would show, and not waited for for long."""
    asked = []

    async def hang(*_):
        asked.append(1)
        await asyncio.sleep(60)

    monkeypatch.setattr(batch_artifacts, "ashow", hang)
    monkeypatch.setattr(progress, "_PATIENCE", 0.2)
    began = time.monotonic()
    assert len(in_flow(lambda: register_model_runs(records)).runs) == 3
    assert len(asked) < 3 and time.monotonic() - began < 30


def test_wrong_records_and_a_plan_send_nothing(in_flow, in_script, effects, records, tmp_path):
    """The error and a table say what is wrong in which record. A file of rows is refused as the outcome file. A plan
    checks the rows. Only where wrong records may be skipped, the others are sent."""
    with plan() as made:
        assert register_model_runs.fn(records).rows == 3
    assert [each.noun for each in made.effects] == ["model runs"]
    file = tmp_path / "rows.jsonl"
    file.write_text(records[0].model_dump_json(exclude_none=True), encoding="utf-8")
    records[1].study_id = "102.100.100/none"

    def body():
        with pytest.raises(InputError, match="would replace the rows"):
            register_model_runs(file, out=file)
        with pytest.raises(InputError, match="row 2, study_id: unknown id") as caught:
            register_model_runs(records)
        return caught.value.faults

    assert len(in_flow(body)) == 1 and effects.count(REGISTER) == 0
    rows = json.loads(next(each for each in shown("table") if "1 faults" in each["description"])["data"])
    assert [(row["row"], row["column"]) for row in rows] == [(2, "study_id")]
    assert in_script(lambda: register_model_runs(records, skip_invalid=True)).wrong == 1


def test_a_plan_has_the_runs_of_a_batch(in_script, effects, records, ivcap_journal):
    """Those that the journal has are real, and where it has all, the batch is kept. The plan ends where the flow needs
    one that would be made, and where it would request a report."""

    def planned(then):
        with plan() as made:
            then(in_script(lambda: register_model_runs(records)).runs)
        return [(each.noun, each.source, each.origin) for each in made.effects]

    def refused(task, words):
        def check(runs):
            with pytest.raises(PlannedError, match=words):
                in_script(lambda: task(runs[-1]))

        return check

    def are_read(runs):
        assert [run.display_name for run in runs] == [record.display_name for record in records]
        assert runs == done.runs and in_script(lambda: explore_lineage(runs[-1])).nodes

    new, seen = [("model runs", "new", None)], []
    assert planned(refused(explore_lineage, "the results of 1 request")) == new
    first = in_script(lambda: register_model_runs(records[:1])).runs
    assert planned(lambda runs: seen.extend(runs)) == new and tuple(seen[:1]) == first
    done = in_script(lambda: register_model_runs(records))
    assert planned(are_read) == [("model runs", "kept", f"journal {ivcap_journal.url}")]
    planned(refused(lambda run: lineage_report(run, "report.docx"), "would request a report"))


def test_what_cannot_be_a_row_or_the_outcome_file_is_refused_before_anything_is_made(
    in_script, effects, records, ended_order, tmp_path
):
    """A key that is no text, a row that is none, one alone, and a place where no outcomes can be written."""
    (tmp_path / "file").touch()
    wrong = [
        ([*enumerate(records, 1)], {}, r"key of row 1 must be a text.*order's URN, not 1"),
        ([(ended_order, records[0])], {}, "key of row 1 must be a text"),
        ([("", records[0])], {}, "key of row 1 must be a text"),
        ([("key", records[0], 1)], {}, r"Row 1 must be .* pair \(key, ModelRunRecord\), not tuple"),
        (records[0], {}, r"is a list: .* not ModelRunRecord alone"),
        (records, {"out": tmp_path / "none" / "out.csv"}, f"no folder {tmp_path}/none for the outcome file"),
        (records, {"out": tmp_path}, "is a folder"),
        (records, {"out": tmp_path / "file" / "out.csv"}, "no folder"),
    ]
    for rows, options, said in wrong:
        with pytest.raises(InputError, match=said):
            in_script(lambda rows=rows, options=options: register_model_runs(rows, **options))
    assert effects.count(REGISTER) == 0


@pytest.mark.long
def test_what_is_left_in_doubt_is_raised(in_script, effects, records):
    """Rows without a model run raise an error when all have ended, or are only counted."""
    effects.embedded.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="before")
    with pytest.raises(RegistrationFailedError, match=r"2 registered, 1 doubtful.*models resolve"):
        in_script(lambda: register_model_runs(records, stall_timeout=5.0))
    left = in_script(lambda: register_model_runs(records, stall_timeout=5.0, raise_on_failure=False))
    assert (len(left.runs), left.doubtful) == (2, 1) and effects.count(REGISTER) == 3


@pytest.mark.parametrize("status", [404, *(pytest.param(each, marks=pytest.mark.long) for each in (403, 409, 422))])
def test_an_artifact_that_ivcap_does_not_show_makes_its_row_wrong(
    in_flow, in_script, effects, records, registry, unique, status
):
    """With IVCAP's reason, before anything is made. Left out, the others are registered; the next call registers it."""
    urn = in_script(lambda: upload_artifact(unique.encode(), name="series.csv")).urn
    records[0].outputs = [TemplatedDataset(dataset_template_id=registry.template, dataset_id=urn)]

    def body(**options):
        return register_model_runs(records, terms=registry.terms, **options)

    effects.embedded.add_fault(method="GET", path=f"/artifacts/{urn}$", status=status)
    with pytest.raises(InputError, match=f"row 1, .*: no dataset: IVCAP answered {status}"):
        in_script(body)
    assert effects.count(REGISTER) == 0
    left = in_flow(lambda: body(skip_invalid=True))
    assert (len(left.runs), left.wrong) == (2, 1)
    assert any(f"IVCAP answered {status}" in each["data"] for each in shown("table"))
    effects.embedded.clear_faults()
    assert len(in_script(body).runs) == 3


def test_a_plan_takes_what_it_would_make_for_what_the_rows_need(in_flow, effects, records, unique):
    """Rows that name a study which the flow would register first are checked to the end; nothing is sent."""

    def body():
        study = register_item(Study(display_name=unique, title=unique, description="A study"))
        return register_model_runs([each.model_copy(update={"study_id": study.urn}) for each in records])

    with plan() as made:
        assert in_flow(body).rows == 3
    assert [each.noun for each in made.effects] == ["registry item", "model runs"] and effects.count(REGISTER) == 0
