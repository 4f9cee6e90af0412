"""Lineage, changes of model runs, CSV files and reports against the embedded Provena."""

from __future__ import annotations

import asyncio
import csv
import io
import zipfile

import pytest

from ivcap_flows.errors import BadRequestError, InputError, RegistrationFailedError, UnavailableError
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.models import ModelRun, Study

WAIT = 15.0


async def lodged(user, world, **over):
    """A lodged run with a dataset before and one behind it: run, record, source, result."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    record = world.record(source, result, **over)
    row = (await user.jobs.wait(await user.prov.register(record), WAIT)).checked()
    return row.lodged.id, record, source, result


def relations(lineage):
    return {(link.source, link.type, link.target) for link in lineage.links}


async def test_lineage_is_followed_both_ways(user, world):
    """Up from a result to its source and back; the special queries end at datasets and at agents."""
    run, _, source, result = await lodged(user, world)

    up = await user.prov.explore(result, "upstream", depth=2)
    down = await user.prov.explore(source, "downstream", depth=2)
    shallow = await user.prov.explore(source, "downstream", depth=1)

    both = {(run, "used", source), (result, "wasGeneratedBy", run)}
    assert relations(up) >= both
    assert relations(down) == both
    assert relations(shallow) == {(run, "used", source)}
    assert {node.id for node in down.of_subtype("DATASET")} == {source, result}
    assert world.workflow in {node.id for node in up.of_subtype("MODEL_RUN_WORKFLOW_TEMPLATE")}
    prov = user.prov
    assert source in {node.id for node in (await prov.contributing_datasets(result)).nodes}
    assert result in {node.id for node in (await prov.effected_datasets(source)).nodes}
    assert {world.person, world.organisation} <= {node.id for node in (await prov.contributing_agents(result)).nodes}
    assert world.person in {node.id for node in (await prov.effected_agents(source)).nodes}
    assert await prov.explore(world.person, "upstream") == Lineage()


def test_older_servers_name_their_links_edges():
    """By its version networkx says `links` or `edges`, and a node of a template has either name."""
    nodes = [{"id": "W", "item_category": "ENTITY", "item_subtype": "WORKFLOW_TEMPLATE"}]
    edges = [{"type": "used", "source": "R", "target": "W"}]

    old, new = [Lineage.model_validate({"directed": True, "nodes": nodes, key: edges}) for key in ("edges", "links")]

    assert old == new
    assert relations(old) == {("R", "used", "W")}
    assert old.nodes[0].subtype == "MODEL_RUN_WORKFLOW_TEMPLATE"


async def test_a_start_that_nobody_knows_is_asked_for_once(user):
    """The server's 500 for an unknown id is no failure that passes; depths beyond its limit are not sent."""
    with pytest.raises(UnavailableError, match="nothing"):
        await user.prov.explore("nothing", "upstream")
    for depth in (0, 11):
        with pytest.raises(InputError):
            await user.prov.explore("nothing", "upstream", depth=depth)


async def test_a_500_that_is_an_answer_is_not_asked_for_again(scripted, client):
    """Where the API refuses by 500, the session's patience would only cost a minute; a 503 is still waited out."""
    refusal = scripted.refusal("Could not fetch the item.", 500)
    routes = ("/explore/upstream", "/bulk/generate_template/csv", "/bulk/regenerate_from_batch/csv")
    for route in routes:
        scripted.on(f"GET /prov{route}", refusal)
    scripted.on("GET /prov/explore/downstream", scripted.refusal("busy", 503), {"graph": {"nodes": [], "links": []}})

    for ask in (client.prov.explore("x", "upstream"), client.prov.csv_template("x"), client.prov.regenerate_csv("x")):
        with pytest.raises(UnavailableError, match="Could not fetch the item"):
            await ask

    assert await client.prov.explore("x", "downstream") == Lineage()
    assert [len(scripted.sent(f"GET /prov{route}")) for route in routes] == [1, 1, 1]
    assert len(scripted.sent("GET /prov/explore/downstream")) == 2


@pytest.mark.long
async def test_a_record_is_replaced_and_linked_to_a_study(user, world):
    """The registry has the new record and its reason, and the graph the study, once the jobs have ended."""
    run, record, _, result = await lodged(user, world)
    study = (await user.registry.create(Study, Study(display_name="S", title="S", description="d"))).item.id
    better = record.model_copy(update={"description": "better"})

    (await user.jobs.wait(await user.prov.update(run, better, reason="typo"), WAIT)).checked()
    updated = await user.registry.fetch(ModelRun, run)
    (await user.jobs.wait(await user.prov.link_to_study(run, study), WAIT)).checked()
    linked = await user.registry.fetch(ModelRun, run)

    assert updated.info.record == better
    assert updated.history[0].reason == "typo"
    assert linked.info.record == better.model_copy(update={"study_id": study})
    assert (run, "wasInformedBy", study) in relations(await user.prov.explore(result, "upstream", depth=2))
    with pytest.raises(BadRequestError):
        await user.prov.update(run, better.model_copy(update={"study_id": "nothing"}), reason="r")


async def test_rows_of_a_sheet_become_records_and_come_back(user, world):
    """The template filled and converted is what was meant; the batch it became is written with handles."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    text = await user.prov.csv_template(world.workflow)
    [header] = csv.reader(io.StringIO(text))
    filled = dict.fromkeys(header, "")
    given = {
        "workflow template id": world.workflow,
        "display name": "a run",
        "description": "of a model",
        "agent id": world.person,
        "execution start time": "2020-01-01 00:00:00+00:00",
        "execution end time": "2020-01-02 00:00:00+00:00",
        "Input dataset id": source,
        "Output dataset id": result,
        "Input resource: forcing": "f.nc",
        "annotation: cfg": "x",
    }
    for beginning, value in given.items():
        [name] = [each for each in header if each.lstrip("_").startswith(beginning)]
        filled[name] = value
    out = io.StringIO()
    writer = csv.DictWriter(out, header)
    writer.writeheader()
    writer.writerow(filled)

    converted = await user.prov.convert_csv(out.getvalue())
    [record] = converted.new_records
    row = await user.jobs.wait(await user.prov.register_batch([record]), WAIT)
    while not (children := [each async for each in user.jobs.list_batch(row.result_batch_id)]):
        await asyncio.sleep(0.05)
    [child] = children
    await user.jobs.wait(child.session_id, WAIT)
    [again] = csv.DictReader(io.StringIO(await user.prov.regenerate_csv(row.result_batch_id)))

    assert (record.workflow_template_id, record.inputs[0].dataset_id) == (world.workflow, source)
    assert record.end_time - record.start_time == 86_400
    assert again["_job_id"] == child.session_id
    assert again["_model_run_record_id"].startswith("102.100.100/")
    assert converted.existing_records == []
    with pytest.raises(BadRequestError):
        await user.prov.convert_csv(text)
    with pytest.raises(BadRequestError):
        await user.prov.csv_template("nothing")


@pytest.mark.long
async def test_a_report_is_written_and_saved(user, world, tmp_path):
    """The job's URL leads to a document; a subtype without reports makes the job fail."""
    run, *_ = await lodged(user, world)

    row = (await user.jobs.wait(await user.prov.report(run, ModelRun, depth=2), WAIT)).checked()
    await user.documents.save(row.report_url, tmp_path / "report.docx", what="the report")
    with pytest.raises(RegistrationFailedError):
        (await user.jobs.wait(await user.prov.report(world.model, "MODEL"), WAIT)).checked()

    assert zipfile.is_zipfile(tmp_path / "report.docx")
    assert str(row.report_url) == "**********"
    with pytest.raises(InputError):
        await user.prov.report(run, ModelRun, depth=4)
