"""The idempotency keys of all effects, pinned: where one changes, what was paid for is ordered again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, Field

from ivcap_flows import tasks
from ivcap_flows.durable import Effect, plan, scopes
from ivcap_flows.errors import NotFoundError
from ivcap_flows.handles import Artifact, Collection, Order
from ivcap_flows.identity import key_of_generation, platform_id
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.journal import Journal
from ivcap_flows.journal.redaction import key_file_of
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import Model, Organisation
from ivcap_flows.provena.terms import Terms, collection_format
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.model_runs import ModelRunEffect
from ivcap_flows.registration.requirements import Requirements
from ivcap_flows.settings import Settings
from ivcap_flows.tasks import model_runs
from ivcap_flows.tasks.call import IvcapCall, ProvenaCall

GOLDEN = Path(__file__).with_name("golden_keys.json")
"""By name the key, and the request that it was made of. To change a line is to order again what users have paid for:
add lines, and leave those that are there."""

PLATFORM = platform_id("https://API.Example.org:443/")
PROVENA = platform_id("https://Auth.Example.org/realms/provena/")
ACCOUNT = "urn:ivcap:account:45a06508-5c3a-4678-8e6d-e6399bf27538"
USER = "ann"
SERVICE = "urn:ivcap:service:6c0aa21c-9a2d-5f5c-8c8a-0b8a2e1d8f3e"
TEMPLATE = "10378.1/1000001"
AT = datetime(1982, 12, 1, 6, 30, tzinfo=timezone(timedelta(hours=9, minutes=30)))
MADE = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)
SERIES = Artifact(urn="urn:ivcap:artifact:0ed09613", platform=PLATFORM, name="series.csv", created_at=MADE)
OTHERS = Collection(urn="urn:ivcap:collection:7f1", platform=PLATFORM)
TERMS = Terms(
    organisation_id="10378.1/1",
    publisher_id="10378.1/2",
    license="https://creativecommons.org/licenses/by/4.0/",
    approvals=Approvals(),
    created_date=date(2024, 2, 29),
)
ENDED = Order(
    urn="urn:ivcap:order:f7f0",
    platform=PLATFORM,
    service=SERVICE,
    service_name="index",
    status="succeeded",
    requested_at=MADE,
    started_at=MADE,
    finished_at=MADE,
)
NOTE = "urn:example:schema:note.1"


class Season(Enum):
    WARM = "warm"
    COLD = "cold"


class Window(BaseModel):
    first_day: date = Field(date(1982, 12, 1), alias="first-day")
    seasons: set[Season] = {Season.WARM, Season.COLD}
    around: datetime = AT


def order(parameters: dict[str, Any] | None = None, **options: Any) -> Any:
    return tasks.place_order.fn("index", {"base": 1981, **(parameters or {})}, **options)


def job(request: Any, **options: Any) -> Any:
    return tasks.request_job.fn("index", request, **options)


EFFECTS: dict[str, Callable[[], Any]] = {
    "order, once per run": lambda: order(),
    "order, once per flow": lambda: order(once_per="flow"),
    "order, once per account": lambda: order(once_per="account"),
    "order, once per call": lambda: order(once_per="call"),
    "order, with a discriminator": lambda: order(discriminator="2"),
    "order, with a policy": lambda: order(policy="urn:ivcap:policy:ivcap.open.artifact"),
    "order, whose name and tags do not count": lambda: order(name="north", tags=["a"]),
    "order of all types": lambda: order({"scale": 0.1, "kind": "warm", "flag": True, "at": AT, "series": SERIES}),
    "order of numbers": lambda: order({"base": np.int64(7), "scale": 1e21}),
    "order of a whole number for a float": lambda: order({"scale": 2}),
    "order of a collection": lambda: order({"many": OTHERS}),
    "order with a secret": lambda: order({"api_token": "correct horse battery staple"}),
    "order with a secret in a text": lambda: order({"kind": "https://ann:battery-staple@example.org/"}),
    "job, once per run": lambda: job({"base": 1981}),
    "job, once per flow": lambda: job({"base": 1981}, once_per="flow"),
    "job, once per account": lambda: job({"base": 1981}, once_per="account"),
    "job, once per call": lambda: job({"base": 1981}, once_per="call"),
    "job of numbers": lambda: job({"n": [0, -0.0, 1.5, 1e-7, 1e21, 2**53 - 1, Decimal("1.50"), np.float32(0.5)]}),
    "job of times": lambda: job(
        {"t": [AT, AT.replace(tzinfo=None), date(1982, 12, 1), time(6, 30), timedelta(minutes=90)]}
    ),
    "job of sets and texts": lambda: job({"s": {"b", "ä", "a"}, "e": {Season.WARM, Season.COLD}, "é": ["\u2028", ""]}),
    "job of handles": lambda: job({"series": SERIES, "all": [OTHERS], "none": None}),
    "job of a model": lambda: job(Window()),
    "job with secrets": lambda: job({"password": "hunter2-hunter2", "say": "Authorization: Bearer abcdef0123456789"}),
    "job of an aspect": lambda: tasks.request_job.fn("index", request_aspect="urn:ivcap:aspect:a1"),
    "upload": lambda: tasks.upload_artifact.fn(b"YEAR,JAN\n1950,1\n", name="series.csv"),
    "upload of no bytes": lambda: tasks.upload_artifact.fn(b"", name="nothing"),
    "upload of another type": lambda: tasks.upload_artifact.fn(b"x", media_type="text/x-map"),
    "upload into a collection": lambda: tasks.upload_artifact.fn(b"x", collection=OTHERS),
    "upload with a policy": lambda: tasks.upload_artifact.fn(b"x", policy="urn:ivcap:policy:ivcap.open.artifact"),
    "aspect, once per run": lambda: tasks.attach_aspect.fn(SERIES, {"said": 1}, schema=NOTE),
    "aspect, once per account": lambda: tasks.attach_aspect.fn("urn:e", Window(), schema=NOTE, once_per="account"),
    "aspect update": lambda: tasks.update_aspect.fn("urn:e", {"said": 2}, schema=NOTE),
    "message": lambda: tasks.enqueue.fn("urn:ivcap:queue:q1", {"said": AT}),
    "service": lambda: tasks.register_service.fn(
        {"name": "index", "description": "d", "controller-schema": "urn:c", "controller": {"image": "i:1"}}
    ),
    "registry item, organisation": lambda: tasks.register_item.fn(Organisation(display_name="Sea", name="Sea")),
    "registry item, model": lambda: tasks.register_item.fn(
        Model(
            display_name="Index",
            name="Index",
            description="Computes.",
            documentation_url="https://example.org/docs",
            source_url="https://example.org/source",
        )
    ),
    "dataset by its metadata": lambda: tasks.register_dataset.fn(collection_format(SERIES, TERMS)),
    "dataset of an artifact": lambda: tasks.mint_dataset.fn(SERIES, terms=TERMS),
    "item version": lambda: tasks.provena.version_item.fn("10378.1/77", reason="better"),
    "model run": lambda: tasks.register_model_run.fn(ENDED, workflow_template=TEMPLATE, modeller="10378.1/9"),
}


async def nothing(*_: Any, **__: Any) -> AsyncIterator[Any]:
    return
    yield


def ivcap_client(patch: pytest.MonkeyPatch) -> IvcapClient:
    """Return a client of a platform that has one service, and one aspect, and shows nothing else."""
    client = IvcapClient("https://api.example.org", account=ACCOUNT)
    types = {"base": "int", "scale": "float", "kind": "string", "flag": "bool", "at": "string", "series": "artifact"}
    types |= {"many": "collection", "api_token": "string"}
    parameters = [{"name": name, "type": type_, "optional": name != "base"} for name, type_ in types.items()]
    service = ServiceRecord.model_validate({"id": SERVICE, "name": "index", "parameters": parameters})
    aspect = AspectRecord.model_validate({"id": "urn:ivcap:aspect:a1", "entity": "urn:e", "schema": NOTE})

    async def by_name(name: str) -> ServiceRecord:
        return service

    async def missing(*_: Any, **__: Any) -> Any:
        raise NotFoundError("there is none", status=404)

    async def read(urn: str) -> AspectRecord:
        return aspect.model_copy(update={"content": {"base": 1981}})

    async def listed(**query: Any) -> AsyncIterator[AspectRecord]:
        if query.get("entity") == "urn:e":
            yield aspect

    patch.setattr(client.services, "by_name", by_name)
    patch.setattr(client.services, "request_schema", missing)
    patch.setattr(client.services, "read", missing)
    patch.setattr(client.aspects, "read", read)
    patch.setattr(client.aspects, "list", listed)
    return client


def provena_client(patch: pytest.MonkeyPatch) -> ProvenaClient:
    """Return a client of a Provena that shows nothing."""
    url = "https://api.provena.example.org"
    apis = ("realm", "auth", "registry", "prov", "jobs", "datastore")
    client = ProvenaClient(Endpoints(**dict.fromkeys(apis, url)), SimpleNamespace())
    patch.setattr(client.registry, "list", nothing)
    return client


@pytest.fixture
def platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks get clients of platforms that have nothing; the journal's key, and what is drawn, are always the same."""
    path = tmp_path / "golden.sqlite"
    key_file_of(path).write_text("01" * 32, "ascii")
    with Journal.open(f"sqlite:///{path}") as journal:
        settings = Settings.current()
        ivcap = IvcapCall(journal, None, PLATFORM, ACCOUNT, settings, ivcap_client(monkeypatch))
        provena = ProvenaCall(journal, None, PROVENA, USER, settings, provena_client(monkeypatch))

        async def on_ivcap(credentials: Any) -> IvcapCall:
            return ivcap

        async def on_provena(credentials: Any) -> ProvenaCall:
            return provena

        async def none(*_: Any, **__: Any) -> None: ...

        async def no_runs(self: Effect[Any], intent: Any) -> list[Any]:
            return []

        monkeypatch.setattr(IvcapCall, "of", on_ivcap)
        monkeypatch.setattr(ProvenaCall, "of", on_provena)
        monkeypatch.setattr(scopes, "uuid", SimpleNamespace(uuid4=lambda: "drawn"))
        monkeypatch.setattr(model_runs, "_records_of", none)
        monkeypatch.setattr(ModelRunEffect, "find", no_runs)
        # It reads from Provena what the record names.
        monkeypatch.setattr(Requirements, "check", none)
        yield


def planned(ask: Callable[[], Any]) -> dict[str, Any]:
    """Return the key and the request of what a task would send."""
    with plan() as made:
        made.flow, made._new_run = "golden", "0197f3c0-0000-7000-8000-000000000000"
        ask()
    [effect] = made.effects
    return {"key": effect.key, "request": effect.request}


@pytest.mark.catches("requests gain a field")
def test_the_keys_are_as_ever(platforms):
    """Each noun, each scope, secrets, numbers, times and handles, through the tasks and their effects."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    found = {name: planned(ask) for name, ask in EFFECTS.items()}
    assert found == golden


def test_every_effect_has_a_golden_key():
    """A new kind of effect needs a line."""

    def below(cls: type) -> set[type]:
        return {cls}.union(*(below(inner) for inner in cls.__subclasses__()))

    nouns = {cls.noun for cls in below(Effect) if cls.__module__.startswith("ivcap_flows.") and hasattr(cls, "noun")}
    assert {noun for noun in nouns if not any(noun in name for name in EFFECTS)} == set()


def test_what_is_made_of_a_key_is_as_ever():
    """The next generation, and the key of a row of a file, which is that of the task."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    key = golden["model run"]["key"]
    assert run_key(PROVENA, USER, ENDED.urn, TEMPLATE) == key
    assert key_of_generation(key, 1) == f"{key}.1"
