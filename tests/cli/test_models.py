"""`ivcap-flows models`: files of model runs from the terminal, from their faults to their doubts."""

import asyncio
import csv
import json
import os
import uuid
from datetime import datetime, timezone
from typing import Any

import pytest
from pydantic import SecretStr
from registration_rows import Items, sheet, sheet_header, spoiled, write_lines

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.journal import NewIntent
from ivcap_flows.provena.models import ModelRun, ModelRunRecord

REGISTER = "/provena/prov/model_run/register"


def named(items: Items, count: int) -> list[dict[str, Any]]:
    name = uuid.uuid4().hex
    return [items.record(n, display_name=f"{name} {n}") for n in range(count)]


def test_the_template_is_written_to_be_filled_in(ivcap_flows, run_items, tmp_path):
    """To standard output or a file, which is not overwritten; what is no workflow template is named. Filled in, it is
    valid; a column without meaning is told of."""
    header, file = sheet_header(run_items), tmp_path / "runs.csv"
    said = ivcap_flows("models", "template", run_items.workflow)
    assert next(csv.reader([said.out])) == header
    written = ivcap_flows("models", "template", run_items.workflow, "-o", file)
    assert written.status == 0 and f"models validate {file}" in written.out
    assert file.read_bytes().decode() == said.out
    again = ivcap_flows("models", "template", run_items.workflow, "-o", file)
    assert again.status == 2 and f"{file} exists" in again.err and file.read_bytes().decode() == said.out
    wrong = ivcap_flows("models", "template", run_items.person)
    assert wrong.status == 2 and f"{run_items.person} is not a workflow template" in wrong.err
    assert ivcap_flows("models", "template", run_items.workflow, "-o", tmp_path / "none" / "runs.csv").status == 2
    row = {
        "display name": "Run",
        "description": "A run",
        "agent id": run_items.person,
        header[6]: "2020-01-01 00:00:00+10:00",
        header[7]: "2020-01-01 01:00:00+10:00",
        header[8]: run_items.datasets[0],
        "Input resource: forcing": "in.nc",
        header[12]: run_items.datasets[1],
        "annotation: region": "coral",
    }
    file.write_text(sheet([*header, "colour"], [row | {"colour": "red"}]), newline="")
    said = ivcap_flows("models", "validate", file)
    assert said.status == 0
    assert said.out == "The column 'colour' is unknown and is ignored.\nruns.csv: 1 rows, all of them correct.\n"


def test_validate_names_every_fault(ivcap_flows, run_items, tmp_path, embedded_platform):
    """500 rows with 17 faults of 9 kinds: all in one table, row by row and column by column; status 1; nothing is
    minted, neither by `validate` nor by `register`."""
    rows, faults = spoiled(run_items)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.forget_requests()
    said = ivcap_flows("models", "validate", file)
    lines = said.out.splitlines()
    assert said.status == 1 and lines[0] == "rows.jsonl: 17 faults in 17 rows"
    assert [int(line.split()[0]) for line in lines[2:19]] == sorted(row for row, _, _ in faults)
    assert all(
        f" {column} " in line and f" {kind} " in line
        for (_, column, kind), line in zip(sorted(faults), lines[2:19], strict=True)
    )
    told = ivcap_flows("models", "validate", file, "--json").json["faults"]
    assert {(each["row"], each["column"], each["kind"]) for each in told} == faults and len(told) == 17
    assert ivcap_flows("models", "register", file).status == 1
    sent = {each["path"] for each in embedded_platform.requests("POST")}
    assert all(path.endswith("/token") for path in sent)


def test_an_artifact_that_ivcap_does_not_have_is_a_fault(ivcap_flows, run_items, tmp_path, embedded_platform):
    """Whatever the terms: Provena would keep a dataset of a mistyped URN for ever. IVCAP's reason is in the table."""
    urn = f"urn:ivcap:artifact:{uuid.uuid4()}"
    [row] = named(run_items, 1)
    row["outputs"][0]["dataset_id"] = urn
    file, terms = write_lines(tmp_path / "rows.jsonl", [row]), tmp_path / "terms.yaml"
    terms.write_text(
        f"organisation_id: {run_items.organisation}\npublisher_id: {run_items.organisation}\n"
        "license: https://creativecommons.org/licenses/by/4.0/\napprovals: {}\n"
    )
    said = ivcap_flows("models", "validate", file, "--terms", terms)
    assert said.status == 1 and f"IVCAP answered 404 to GET /1/artifacts/{urn}: There is no such artifact" in said.out
    assert ivcap_flows("models", "register", file, "--terms", terms).status == 1
    assert embedded_platform.requests("POST", "/mint-dataset") == []


def test_validate_knows_what_the_journal_knows(ivcap_flows, run_items, tmp_path, journal, embedded_platform):
    """As `register` does: Provena may have forgotten a job."""
    job, key = str(uuid.uuid4()), str(uuid.uuid4())
    intent = journal.intents.claim(NewIntent(key, key, "model run", "https://x", "someone", "account", {})).intent
    intent = journal.intents.mark_sent(intent)
    journal.intents.settle(intent, urn="102.100.100/gone", outcome={"session_id": job}, how="sent")
    file = write_lines(tmp_path / "rows.jsonl", [run_items.record(1, _job_id=job)])
    for command in ("validate", "register"):
        said = ivcap_flows("models", command, file, "--json")
        assert (said.status, said.json["done"], said.json["faults"]) == (0, 1, [])


def test_register_and_again(ivcap_flows, run_items, tmp_path, embedded_platform):
    """Rows get their handles in the outcome file; the same command again sends nothing. With `--skip-invalid` the
    correct rows are sent, and the status is 1, since one row is no model run."""
    file, out = write_lines(tmp_path / "rows.jsonl", rows := named(run_items, 3)), tmp_path / "out.csv"
    first = ivcap_flows("models", "register", file, "--out", out)
    assert (first.status, first.out) == (0, "rows.jsonl: 3 rows: 3 registered.\n")
    text = out.read_text()
    assert [row["outcome"] for row in csv.DictReader(text.splitlines())] == ["registered"] * 3
    again = ivcap_flows("models", "register", file, "--out", out)
    assert again == first and out.read_text() == text and len(embedded_platform.requests("POST", REGISTER)) == 3
    rows[0]["study_id"] = run_items.person
    said = ivcap_flows("models", "register", write_lines(tmp_path / "more.jsonl", rows), "--skip-invalid", "--json")
    assert said.status == 1
    assert (said.json["registered"], said.json["wrong"], len(said.json["faults"])) == (2, 1, 1)


@pytest.mark.long
def test_doubtful_rows_are_decided_by_the_user(ivcap_flows, run_items, tmp_path, embedded_platform):
    """A doubt stays one until the user adopts a run, has it sent again, or writes it off."""
    file = write_lines(tmp_path / "rows.jsonl", rows := named(run_items, 4))
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", kill_worker="before", count=3)
    said = ivcap_flows("models", "register", file, "--stall-timeout", 1)
    assert said.status == 1 and "4 rows: 1 registered, 3 doubtful." in said.out and "models resolve" in said.out
    doubts = ivcap_flows("models", "resolve", file, "--json").json["doubtful"]
    numbers = [each["number"] for each in doubts]
    assert len(numbers) == 3 and all(each["job"] and each["since"] for each in doubts)

    listed = ivcap_flows("models", "register", file, "--stall-timeout", 1, "--json")
    assert [each["number"] for each in listed.json["troubles"]] == numbers
    elsewhere = ivcap_flows("models", "register", write_lines(tmp_path / "other.jsonl", named(run_items, 1)), "--json")
    assert elsewhere.status == 0
    others = ivcap_flows("models", "resolve", file, "--row", numbers[0], "--adopt", newest_run())
    assert others.status == 2 and "is the model run of another row" in others.err
    handle = by_hand(rows[numbers[0] - 1])
    wrong = ivcap_flows("models", "resolve", file, "--row", numbers[0], "--row", 9, "--give-up")
    assert (wrong.status, ivcap_flows("models", "resolve", file, "--json").json["doubtful"]) == (2, doubts)
    ivcap_flows("models", "resolve", file, "--row", numbers[0], "--adopt", handle)
    ivcap_flows("models", "resolve", file, "--row", numbers[1], "--give-up")
    last = ivcap_flows("models", "resolve", file, "--row", numbers[2], "--resend")
    assert (last.status, last.out) == (0, "No row is in doubt.\n")
    embedded_platform.forget_requests()
    done = ivcap_flows("models", "register", file, "--json", "--out", tmp_path / "out.csv")
    assert (done.json["registered"], done.json["failed"], done.json["doubtful"]) == (3, 1, 0)
    assert len(embedded_platform.requests("POST", REGISTER)) == 1
    outcomes = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert outcomes[numbers[0] - 1]["model_run"] == handle
    assert outcomes[numbers[1] - 1]["reason"] == "given up by the user"
    assert ivcap_flows("models", "resolve", file, "--row", numbers[1], "--resend").status == 0
    assert ivcap_flows("models", "register", file).status == 0


def test_what_another_journal_has_under_way_is_decided_by_the_user(
    ivcap_flows, run_items, tmp_path, embedded_platform, monkeypatch
):
    """This journal has sent nothing, and says so; the row is in doubt all the same."""
    file = write_lines(tmp_path / "rows.jsonl", named(run_items, 1))
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", kill_worker="before", count=1)
    words = ("models", "register", file, "--stall-timeout", 1, "--json")
    with monkeypatch.context() as other:
        other.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'other.sqlite'}")
        assert ivcap_flows(*words).json["doubtful"] == 1
    assert ivcap_flows(*words).json["doubtful"] == 1
    listed = ivcap_flows("models", "resolve", file, "--json")
    assert listed.status == 1 and "sent nothing" in listed.json["doubtful"][0]["words"]
    assert ivcap_flows("models", "resolve", file, "--row", 1, "--resend").out == "No row is in doubt.\n"
    assert ivcap_flows(*words).json["registered"] == 1


def newest_run() -> str:
    """The newest model run on the embedded Provena."""

    async def newest() -> str:
        async with ProvenaCredentials.from_environment().get_client() as client:
            async for item in client.registry.list(ModelRun, page_size=1):
                return item.id
        raise LookupError("no model run")

    return loop.run(newest())


def by_hand(record: dict[str, Any]) -> str:
    """Register a model run as another program does, without a key."""

    async def register() -> None:
        async with ProvenaCredentials.from_environment().get_client() as client:
            await client.jobs.wait(await client.prov.register(ModelRunRecord(**record)), 60)

    loop.run(register())
    return newest_run()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["register", "rows.jsonl", "--out", "no/where/out.csv"], "There is no folder"),
        (["register", "rows.jsonl", "--out", "rows.jsonl"], "would replace the rows"),
        (["register", "rows.jsonl", "--out", "link.csv"], "would replace the rows"),
        (["resolve", "rows.jsonl", "--resend"], "To decide, give --row"),
        (["resolve", "rows.jsonl", "--row", "1"], "To decide, give --row"),
        (["resolve", "rows.jsonl", "--row", "1", "--row", "2", "--adopt", "x"], "belongs to one row"),
        (["resolve", "rows.jsonl", "--row", "9", "--resend"], "no record in row 9"),
        (["resolve", "rows.jsonl", "--row", "1", "--resend"], "never sent row 1"),
    ],
)
def test_what_is_used_wrongly(ivcap_flows, run_items, tmp_path, monkeypatch, arguments, said):
    """Status 2 and one line that names the next step."""
    monkeypatch.chdir(tmp_path)
    file = write_lines(tmp_path / "rows.jsonl", named(run_items, 1))
    (tmp_path / "link.csv").symlink_to(file)
    rows = file.read_bytes()
    ended = ivcap_flows("models", *arguments)
    assert ended.status == 2 and said in ended.err
    assert file.read_bytes() == rows


def test_orders_are_not_taken_for_those_of_one_flow(ivcap_flows, tmp_path, embedded_platform, world):
    """IVCAP does not say which flow placed an order, so a workflow for one flow could be used for those of others."""
    one = {"service": "cli-upper", "workflow_template": "102.100.100/1"}
    for entries in ([{**one, "flow": "coastal"}], [{**one, "flow": "coastal"}, one]):
        (tmp_path / "workflows.yaml").write_text(json.dumps(entries), encoding="utf-8")
        words = ("models", "register", "--orders-of", "cli-upper", "--since", "2020-01-01", "--workflow")
        said = ivcap_flows(*words, tmp_path / "workflows.yaml")
        assert said.status == 2 and "the flow coastal" in said.err
    assert embedded_platform.requests() == []


def test_orders_of_a_service(ivcap_flows, run_items, tmp_path, embedded_platform, world):
    """The successful orders since a time become runs by the workflow, and the same ones once."""
    stated = [
        {
            "service": "cli-upper",
            "workflow_template": run_items.workflow,
            "inputs": {"series": run_items.source},
            "outputs": {"upper.csv": run_items.result},
            "annotations": {"region": "all"},
            "terms": json.loads(run_items.terms.model_dump_json()),
        }
    ]
    (tmp_path / "workflows.yaml").write_text(json.dumps(stated), encoding="utf-8")
    words = ("models", "register", "--orders-of", "cli-upper", "--since", "2020-01-01", "--workflow")
    said = ivcap_flows(*words, tmp_path / "workflows.yaml", "--json")
    faults = said.json["faults"]
    assert said.status == 1 and {each["kind"] for each in faults} == {"missing resource"}
    stated[0]["inputs"] = {"series": run_items.extra}
    stated[0]["workflow_template"] = plain_workflow(run_items)
    (tmp_path / "workflows.yaml").write_text(json.dumps(stated), encoding="utf-8")
    first = ivcap_flows(*words, tmp_path / "workflows.yaml", "--json")
    assert first.status == 0 and first.json["registered"] == first.json["rows"] == len(faults) > 0
    embedded_platform.forget_requests()
    assert ivcap_flows(*words, tmp_path / "workflows.yaml", "--json").json == first.json
    assert not embedded_platform.requests("POST", REGISTER)


def test_orders_of_other_accounts_are_left_out(ivcap_flows, run_items, tmp_path, embedded_platform):
    """They may be open to all, and would be the user's model runs for ever."""

    async def order(token: str) -> str:
        ours = IvcapCredentials.from_environment()
        async with ours.model_copy(update={"token": SecretStr(os.environ[token])}).get_client() as client:
            service = await client.services.by_name("echo")
            placed = await client.orders.place(service.urn, {"message": "m"}, policy="urn:ivcap:policy:ivcap.open.x")
            while not (await client.orders.read(placed.urn)).done:
                await asyncio.sleep(0.05)
            return placed.urn

    begin = datetime.now(timezone.utc).replace(microsecond=0)
    ours, theirs = loop.run(order("IVCAP_JWT")), loop.run(order("IVCAP_JWT_2"))
    (tmp_path / "workflow.yaml").write_text(f"service: echo\nworkflow_template: {run_items.workflow}\n")
    words = ("--orders-of", "echo", "--since", begin.isoformat(), "--workflow", tmp_path / "workflow.yaml")
    ivcap_flows("models", "register", *words, "--skip-invalid", "--out", tmp_path / "out.csv")
    keys = {row["key"] for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())}
    assert ours in keys and theirs not in keys


def plain_workflow(items: Items) -> str:
    """A workflow template without resources and annotations."""
    from ivcap_flows.provena.models import TemplateUse, WorkflowTemplate

    async def make() -> str:
        async with ProvenaCredentials.from_environment().get_client() as client:
            info = WorkflowTemplate(
                display_name="Plain",
                software_id=items.model,
                input_templates=[TemplateUse(template_id=items.extra)],
                output_templates=[TemplateUse(template_id=items.result)],
            )
            return (await client.registry.create(WorkflowTemplate, info)).item.id

    return loop.run(make())
