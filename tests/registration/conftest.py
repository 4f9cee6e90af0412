"""The items of the session's embedded Provena, a client of it, and the model runs that it has."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.journal import Journal
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.models import ModelRun, ModelRunRecord
from ivcap_flows.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))

from registration_rows import make_items


@pytest.fixture(scope="session")
def by_client(_embedded):
    """Runs a coroutine function with a client of the embedded Provena."""

    def run(call):
        async def called():
            async with ProvenaCredentials.from_environment(Settings(**_embedded.environment)).get_client() as client:
                return await call(client)

        return loop.run(called())

    return run


@pytest.fixture(scope="session")
def run_items(by_client):
    return by_client(make_items)


@pytest.fixture(scope="session")
def done_run(by_client, run_items):
    """The handle of a model run that is registered, and its job."""

    async def register(client):
        job = await client.prov.register(ModelRunRecord(**run_items.record(0, display_name="Registered before")))
        return (await client.jobs.wait(job, 30)).lodged.id, job

    return by_client(register)


@pytest.fixture
def provena(embedded_platform, quick_polls, monkeypatch):
    """A client of the embedded Provena that gives up within a second; the log of requests is empty."""
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, 0.5)))
    client = ProvenaCredentials.from_environment().get_client()
    embedded_platform.forget_requests()
    yield client
    loop.run(client.aclose())


@pytest.fixture
def journal(sqlite_url):
    with Journal.open(sqlite_url) as opened:
        yield opened


@pytest.fixture
def failing_jobs(_embedded):
    """While the block runs, jobs that lodge the run of this display name fail as soon as they are there."""

    @contextmanager
    def failing(name):
        place = Directory(_embedded.directory).root / "provena.sqlite"
        with closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
            connection.execute(
                "CREATE TRIGGER out_of_luck AFTER INSERT ON jobs WHEN NEW.job_sub_type = 'MODEL_RUN_PROV_LODGE' AND "
                f"json_extract(NEW.payload, '$.record.display_name') = '{name}' BEGIN UPDATE jobs SET status = "
                "'FAILED', info = 'Out of luck.', due = NULL WHERE session_id = NEW.session_id; END"
            )
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER out_of_luck")

    return failing


@pytest.fixture
def no_job_left(provena):
    """Waits until no job of an earlier test is on its way, which a fault of this one's would meet.

    A job whose worker was killed stands still for ever, and meets none.
    """

    async def statuses():
        return [row.status async for row in provena.jobs.list(limit=40)]

    def wait():
        before = []
        for _ in range(100):
            now = loop.run(statuses())
            if not {"PENDING", "DEQUEUED"} & set(now) and before[-3:] == [now] * 3:
                return
            before.append(now)
            time.sleep(0.2)
        raise AssertionError(before[-1])

    return wait


@pytest.fixture
def lodged(provena):
    """The model runs on Provena whose display name begins so."""

    async def listed(begin):
        found = provena.registry.list(ModelRun, page_size=500)
        return [item.info async for item in found if item.info.display_name.startswith(begin)]

    return lambda begin: loop.run(listed(begin))
