"""The client against the embedded Provena: what a model run needs, registered, waited for and read back."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest
from pydantic import SecretStr

from ivcap_flows import handles
from ivcap_flows.errors import (
    BadRequestError,
    NotAuthorizedError,
    NotFoundError,
    RegistrationFailedError,
)
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.login import client_credentials
from ivcap_flows.provena.models import (
    DatasetInfo,
    ModelRun,
    Study,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import collection_format

WAIT = 15.0


async def test_a_model_run_is_registered_and_read_back(user, world):
    """From templates and datasets to a lodged run with PROV-JSON and its handle."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    study = await user.registry.create(Study, Study(display_name="S", title="S", description="d"))
    record = world.record(source, result, study_id=study.item.id)

    session = await user.prov.register(record)
    row = (await user.jobs.wait(session, WAIT)).checked()

    assert row.records == [record]
    assert row.lodged is not None
    assert row.lodged.prov_json is not None
    assert row.lodged.id in json.loads(row.lodged.prov_json)["activity"]
    item = await user.registry.fetch(ModelRun, row.lodged.id)
    assert item.info.record == record
    assert item.info.record_status == "LODGED"
    assert item.owner_username == await user.username()
    handle = item.handle(await user.platform())
    assert isinstance(handle, handles.ModelRun) and handle.started_at is not None
    assert (handle.started_at.timestamp(), handle.study) == (record.start_time, study.item.id)
    told = {name: getattr(handle, name) for name in ("urn", "platform", "workflow_template", "display_name")}
    told |= {name: getattr(handle, name) for name in ("inputs", "outputs", "modeller", "organisation")}
    assert told == {
        "urn": row.lodged.id,
        "platform": "urn:ivcap-flows:embedded:of-this-test",
        "workflow_template": world.workflow,
        "display_name": "a run",
        "inputs": (source,),
        "outputs": (result,),
        "modeller": world.person,
        "organisation": world.organisation,
    }
    assert user.visibility_delay == 2.0


async def test_an_artifacts_dataset_is_found_by_its_urn(user, world):
    """The URI filter finds the one dataset that a crash left behind, with its handle."""
    handle, urn = await world.minted(user)

    found = [
        item async for item in user.registry.list(DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with=urn)
    ]

    assert [item.handle("p") for item in found] == [
        handles.Dataset(urn=handle, platform="p", display_name="series.csv", access_uri=urn)
    ]
    assert (await user.datastore.fetch_dataset(handle)).info.collection_format.dataset_info.access_info.uri == urn


async def test_a_batch_has_a_child_for_each_record(user, world):
    """One bad record fails alone; children are matched by content and raise their own reason."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    good, bad = world.record(source, result), world.record(source, "no-such-dataset")

    session = await user.prov.register_batch([good, bad])
    submitted = (await user.jobs.wait(session, WAIT)).checked()
    assert submitted.records == [good, bad]
    assert submitted.result_batch_id is not None
    end = time.monotonic() + WAIT
    rows = []
    while time.monotonic() < end and not (len(rows) == 2 and all(row.done for row in rows)):
        rows = [row async for row in user.jobs.list_batch(submitted.result_batch_id, page_size=1)]
        await asyncio.sleep(0.1)

    ended = {row.record.annotations["cfg"]: row for row in rows}
    assert ended[good.annotations["cfg"]].lodged is not None
    with pytest.raises(RegistrationFailedError, match="no-such-dataset"):
        ended[bad.annotations["cfg"]].checked()


async def test_jobs_are_listed_newest_first(user, world):
    """Paging to the end gives each job once, and the newest is on the first page."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    session = await user.prov.register(world.record(source, result))
    await user.jobs.wait(session, WAIT)

    rows = [row async for row in user.jobs.list(page_size=3)]

    assert len({row.session_id for row in rows}) == len(rows) > 3
    stamps = [row.created_timestamp for row in rows]
    assert stamps == sorted(stamps, reverse=True)
    assert session in {row.session_id for row in rows}


async def test_a_refused_record_is_a_bad_request(user, world):
    """What the server's look-ups find wrong is said at once and nothing is registered."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)

    with pytest.raises(BadRequestError, match="cfg") as caught:
        await user.prov.register(world.record(source, result, annotations={}))

    assert caught.value.status == 400


async def test_an_unknown_job_and_an_unknown_item(user):
    """The first is not there yet for ever, the second is refused."""
    assert await user.jobs.fetch(str(uuid.uuid4())) is None
    with pytest.raises(NotFoundError):
        await user.registry.fetch(ModelRun, "no-such-id")


async def test_another_users_job_is_closed(embedded_provena, user, world):
    """An item's denial does not blame the token."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    session = await user.prov.register(world.record(source, result))
    await user.jobs.wait(session, WAIT)

    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        with pytest.raises(NotAuthorizedError) as caught:
            await other.jobs.fetch(session)

    assert caught.value.about == "item"


async def test_a_reader_cannot_write(embedded_provena, user, world):
    """A missing role is a matter of the token."""
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_READER") as reader:
        with pytest.raises(NotAuthorizedError) as caught:
            await reader.datastore.mint(
                collection_format(handles.Artifact(urn="urn:ivcap:artifact:x", platform="p"), world.terms)
            )

    assert caught.value.about == "token"


async def test_a_service_account_can_read(embedded_provena, world):
    """Client credentials give a token with a service account's name."""
    client_id, secret = embedded_provena.service
    endpoints = embedded_provena.endpoints
    auth = client_credentials(endpoints.realm, client_id, SecretStr(secret))
    async with ProvenaClient(endpoints, auth) as robot:
        assert await robot.username() == f"service-account-{client_id}"
        assert (await robot.registry.fetch(WorkflowTemplate, world.workflow)).display_name == "wf"
