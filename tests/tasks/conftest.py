"""Flows in the test's own process, on the session's Prefect server and embedded platforms, with their fixtures."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest
from eventually import until
from prefect import Task, flow
from prefect_api import ask_prefect

from ivcap_flows import loop, recorded
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.capture.attempts import close_process
from ivcap_flows.capture.recorder_registry import recorder
from ivcap_flows.handles import Artifact, Order
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal
from ivcap_flows.local import EmbeddedPlatform, PlatformControl
from ivcap_flows.local.directory import Directory

T = TypeVar("T")


@pytest.fixture(autouse=True)
def on_prefect(prefect_api: None, short_backoff: None) -> None:
    """Every test's flows report to the session's Prefect server, and every module has clients with a short back-off."""


def run_flow(body: Callable[[], T], *, plain: bool = False, **options: Any) -> T:
    """Run a function as the body of a recorded flow, or of one that only Prefect knows."""

    def tested() -> T:
        return body()

    named = flow(name=options.pop("name", "tested"), validate_parameters=False, **options)
    return named(tested if plain else recorded(tested))()


def run_script(body: Callable[[], T]) -> T:
    """Run a function as a script whose tasks are the functions that they are: no flow, and no server of Prefect's.

    What a task does to a platform, and what it writes to the journal, is the same, in a tenth of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "__call__", lambda task, *args, **options: task.fn(*args, **options))
        try:
            return body()
        finally:
            close_process(recorder().journal.id, recorder())
            recorder().flush()


@pytest.fixture
def in_script(embedded_platform: PlatformControl, ivcap_journal: Journal) -> Callable[..., Any]:
    """Return `in_script(body)`, which runs `body()` as a script on the embedded platforms and returns its result."""
    return run_script


@pytest.fixture
def in_flow(embedded_platform: PlatformControl, ivcap_journal: Journal) -> Callable[..., Any]:
    """Return `in_flow(body)`, which runs `body()` as a flow on the embedded platforms and returns its result."""
    return run_flow


@pytest.fixture
def unique() -> str:
    """A text that no other test has, since equal content would be equal work."""
    return uuid.uuid4().hex


@pytest.fixture
def source(tmp_path: Path, unique: str) -> Path:
    """A small file that no other test has."""
    path = tmp_path / "series.csv"
    path.write_text(f"YEAR,JAN\n1950,{unique}\n", encoding="utf-8")
    return path


@pytest.fixture
def on_platform(embedded_platform: PlatformControl) -> Callable[..., Any]:
    """Return `on_platform(ask)`, which returns the result of the coroutine `ask(client)` with a client of its own."""

    def run(ask: Callable[[IvcapClient], Coroutine[Any, Any, T]]) -> T:
        async def asked() -> T:
            async with IvcapCredentials.from_environment().get_client() as client:
                return await ask(client)

        return loop.run(asked())

    return run


@pytest.fixture
def soon_missing(
    embedded_platform: PlatformControl, second_account: IvcapCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the platforms have not shown within 0.3 s does not exist. Otherwise, that takes the tasks 2 s."""

    async def hasten() -> None:
        ours = await ivcap_client(None, deployed=False), await provena_client(None, deployed=False)
        for client in (*ours, await ivcap_client(second_account, deployed=False)):
            await client.platform()
            monkeypatch.setattr(client, "visibility_delay", 0.3)

    loop.run(hasten())


@pytest.fixture
def embedded_directory(_embedded: EmbeddedPlatform) -> Directory:
    """The folder in which the embedded platforms store their data."""
    return Directory(_embedded.directory)


@pytest.fixture
def second_account(embedded_platform: PlatformControl) -> IvcapCredentials:
    """Credentials of the platform's second account."""
    return IvcapCredentials(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT_2"])


@pytest.fixture
def artifact(_embedded: EmbeddedPlatform, unique: str) -> Artifact:
    """The handle of an artifact of which Provena knows only the URN."""
    made = datetime.now(timezone.utc)
    return Artifact(
        urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform=_embedded.instance, name=f"{unique}.csv", created_at=made
    )


@pytest.fixture
def ended_order(_embedded: EmbeddedPlatform, unique: str) -> Order:
    """The handle of an order that has succeeded, as `wait_for_orders` returns it."""
    end = datetime.now(timezone.utc)
    return Order(
        urn=f"urn:ivcap:order:{uuid.uuid4()}",
        platform=_embedded.instance,
        service=f"urn:ivcap:service:{uuid.uuid4()}",
        service_name="echo",
        status="succeeded",
        name=unique,
        requested_at=end - timedelta(seconds=60),
        started_at=end - timedelta(seconds=30),
        finished_at=end,
    )


@pytest.fixture
def prefect_events(prefect_server: dict[str, str]) -> Callable[..., list[dict[str, Any]]]:
    """Return `prefect_events(count, **chosen)`: the events that a filter chooses, the oldest first, once there are so
    many."""

    def listed(count: int, **chosen: Any) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            asked = {"filter": {**chosen, "order": "ASC"}, "limit": 50}
            events: list[dict[str, Any]] = ask_prefect(prefect_server, "/events/filter", asked)["events"]
            return events

        return until(found, lambda events: len(events) >= count, pause=0.1)

    return listed


PRODUCES = """
def run(request, job):
    text = job.read_artifact(request["series"])
    job.add_product("upper.csv", text.upper(), "text/csv")
    job.add_product("lower.csv", text.lower(), "text/csv")
    return {"base": request["base"]}
"""


@pytest.fixture(scope="session")
def tasks_service(serve: Callable[..., str]) -> str:
    """The name of a service with products and with parameters of several types."""
    parameters = [
        {"name": "series", "type": "artifact"},
        {"name": "base", "type": "int", "default": "1981"},
        {"name": "kind", "type": "option", "options": [{"value": "warm"}, {"value": "cold"}], "optional": True},
        {"name": "scale", "type": "float", "optional": True},
    ]
    return serve("tasks-produce", PRODUCES, parameters)
