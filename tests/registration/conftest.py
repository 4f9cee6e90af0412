"""The model runs on the session's embedded Provena."""

from __future__ import annotations

import pytest
from provena_items import ask_provena

from ivcap_flows import loop
from ivcap_flows.provena.models import ModelRun, ModelRunRecord


@pytest.fixture(scope="session")
def done_run(_embedded, run_items):
    """The handle of a model run that is registered, and its job."""

    async def register(client):
        job = await client.prov.register(ModelRunRecord(**run_items.record(0, display_name="Registered before")))
        return (await client.jobs.wait(job, 30)).lodged.id, job

    return ask_provena(_embedded, register)


@pytest.fixture
def lodged(provena):
    """The model runs on Provena whose display name begins so."""

    async def listed(begin):
        found = provena.registry.list(ModelRun, page_size=500)
        return [item.info async for item in found if item.info.display_name.startswith(begin)]

    return lambda begin: loop.run(listed(begin))
