"""The items of the session's embedded Provena, a client of it, and the model runs that it has."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.journal import Journal
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import ModelRun, ModelRunRecord
from ivcap_flows.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))

from registration_rows import Items, make_items


@pytest.fixture(scope="session")
def run_items(_embedded: EmbeddedPlatform) -> Items:
    """Made once."""

    async def make() -> Items:
        async with ProvenaCredentials.from_environment(Settings(**_embedded.environment)).get_client() as client:
            return await make_items(client)

    return loop.run(make())


@pytest.fixture
def provena(embedded_platform: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProvenaClient]:
    """A client of the embedded Provena that gives up within a second; the log of requests is empty."""
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, 0.5)))
    client = ProvenaCredentials.from_environment().get_client()
    embedded_platform.forget_requests()
    yield client
    loop.run(client.aclose())


@pytest.fixture(scope="session")
def done_run(_embedded: EmbeddedPlatform, run_items: Items) -> tuple[str, str]:
    """The handle of a model run that is registered, and its job."""

    async def register() -> tuple[str, str]:
        async with ProvenaCredentials.from_environment(Settings(**_embedded.environment)).get_client() as client:
            job = await client.prov.register(ModelRunRecord(**run_items.record(0, display_name="Registered before")))
            run = (await client.jobs.wait(job, 30)).lodged
            assert run is not None
            return run.id, job

    return loop.run(register())


@pytest.fixture
def journal(sqlite_url: str) -> Iterator[Journal]:
    with Journal.open(sqlite_url) as opened:
        yield opened


@pytest.fixture
def failing_jobs(_embedded: EmbeddedPlatform) -> Callable[[str], AbstractContextManager[None]]:
    """While the block runs, jobs that lodge the run of this display name fail as soon as they are there."""

    @contextmanager
    def failing(name: str) -> Iterator[None]:
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
def failing_batch(_embedded: EmbeddedPlatform) -> Callable[[str, int], AbstractContextManager[None]]:
    """While the block runs, a batch whose first run begins so fails when this many of its jobs are launched."""

    @contextmanager
    def failing(name: str, launched: int) -> Iterator[None]:
        place = Directory(_embedded.directory).root / "provena.sqlite"
        batch = "batch_id = json_extract(NEW.result, '$.batch_id')"
        with closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
            connection.execute(
                "CREATE TRIGGER half_a_batch AFTER UPDATE OF status ON jobs WHEN NEW.status = 'SUCCEEDED' AND "
                "NEW.job_sub_type = 'MODEL_RUN_BATCH_SUBMIT' AND "
                f"json_extract(NEW.payload, '$.records[0].display_name') LIKE '{name}%' BEGIN "
                f"DELETE FROM jobs WHERE {batch} AND rowid NOT IN "
                f"(SELECT rowid FROM jobs WHERE {batch} ORDER BY rowid LIMIT {launched}); "
                "UPDATE jobs SET status = 'FAILED', result = NULL, info = 'Failed to launch a job. Error: ..' "
                "WHERE session_id = NEW.session_id; END"
            )
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER half_a_batch")

    return failing


@pytest.fixture
def no_job_left(provena: ProvenaClient) -> Callable[[], None]:
    """Waits until no job of an earlier test is on its way, which a fault of this one's would meet.

    A job whose worker was killed stands still for ever, and meets none.
    """

    async def statuses() -> list[str]:
        return [row.status async for row in provena.jobs.list(limit=40)]

    def wait() -> None:
        before: list[list[str]] = []
        for _ in range(100):
            now = loop.run(statuses())
            if not {"PENDING", "DEQUEUED"} & set(now) and before[-3:] == [now] * 3:
                return
            before.append(now)
            time.sleep(0.2)
        raise AssertionError(before[-1])

    return wait


@pytest.fixture
def lodged(provena: ProvenaClient) -> Callable[..., list[ModelRun]]:
    """The model runs on Provena whose display name begins so."""

    async def listed(begin: str) -> list[ModelRun]:
        found = provena.registry.list(ModelRun, page_size=500)
        return [item.info async for item in found if item.info.display_name.startswith(begin)]

    return lambda begin: loop.run(listed(begin))
