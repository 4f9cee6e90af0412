"""Items of the embedded Provena that a workflow names, and runs in a journal whose orders and jobs have ended."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import Artifact, Job, Order, Products
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.journal import Fact, Journal, NewIntent, OpenedAttempt, RunIdentity
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import (
    Annotations,
    DatasetTemplate,
    Model,
    Organisation,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provenance import describe
from ivcap_flows.settings import Settings


@dataclass(frozen=True)
class Registered:
    """Handles on Provena: a workflow template with one input, one output and an annotation, an organisation, and the
    user's person."""

    workflow: str
    template: str
    owner: str
    person: str

    @property
    def terms(self) -> dict[str, Any]:
        """What the user states of the datasets."""
        licence = "https://creativecommons.org/licenses/by/4.0/"
        return {"organisation_id": self.owner, "publisher_id": self.owner, "license": licence, "approvals": {}}


@pytest.fixture(scope="session")
def provena_items(_embedded: EmbeddedPlatform) -> Registered:
    """Made once by the client alone."""

    async def make() -> Registered:
        async with ProvenaCredentials.from_environment(Settings(**_embedded.environment)).get_client() as client:

            async def new(info: Any) -> str:
                return (await client.registry.create(type(info), info)).item.id

            model = Model(
                display_name="Model",
                name="Model",
                description="Computes.",
                documentation_url="https://example.org/docs",
                source_url="https://example.org/source",
            )
            template = await new(DatasetTemplate(display_name="Anything"))
            uses = [TemplateUse(template_id=template)]
            workflow = WorkflowTemplate(
                display_name="Work",
                software_id=await new(model),
                input_templates=uses,
                output_templates=uses,
                annotations=Annotations(required=["region"]),
            )
            owner = await new(Organisation(display_name="Example", name="Example"))
            person = await client.auth_api.linked_person()
            assert person is not None
            return Registered(await new(workflow), template, owner, person)

    return loop.run(make())


@pytest.fixture
def provena(
    embedded_platform: Any, provena_items: Registered, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProvenaClient]:
    """A client of the embedded Provena that gives up within a second; the log of requests is empty."""
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, 0.5)))
    client = ProvenaCredentials.from_environment().get_client()
    embedded_platform.forget_requests()
    yield client
    loop.run(client.aclose())


@pytest.fixture
def ended_work(ivcap_journal: Journal) -> Callable[..., tuple[OpenedAttempt, Order | Job]]:
    """Makes a run of the flow `coastal` that has ended, with one order, or job, of the service `index`.

    The order has ended as well, unless its status is `executing`.
    """

    def make(kind: type[Order] | type[Job] = Order, status: str = "succeeded", **given: Any) -> Any:
        identity = RunIdentity("coastal", "/flows/a.py:f", {}, str(uuid.uuid4()), str(uuid.uuid4()))
        opened = ivcap_journal.runs.open_attempt(identity)
        series, product = (Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap") for _ in range(2))
        end = datetime.now(timezone.utc)
        parameters = {"series": series.urn, "base": "1981", **given}
        work = kind(
            urn=f"urn:ivcap:{kind.__name__.lower()}:{uuid.uuid4()}",
            platform="ivcap",
            service=f"urn:ivcap:service:{uuid.uuid4()}",
            service_name="index",
            status=status,
            requested_at=end - timedelta(seconds=60),
            started_at=end - timedelta(seconds=30),
            finished_at=end,
            products=Products([product.model_copy(update={"name": "index.csv"})]),
            **({"parameters": parameters} if kind is Order else {"request": parameters}),
        )
        key = str(uuid.uuid4())
        intents = ivcap_journal.intents
        wanted = NewIntent(
            key=key,
            base_key=key,
            noun=work.kind,
            platform="ivcap",
            account="zora",
            scope=f"run:{opened.run.id}",
            request={},
            run_id=opened.run.id,
            attempt_id=opened.attempt.id,
        )
        sent = intents.mark_sent(intents.claim(wanted).intent)
        intents.settle(sent, urn=work.urn, outcome=work.model_dump(mode="json"), how="sent")
        if status != "executing":
            intents.finish(key, status, work.model_dump(mode="json"))
        known = describe(series.model_copy(update={"name": "series.csv", "created_at": end - timedelta(days=400)}))
        facts = [Fact(record, opened.run.id, opened.attempt.id) for record in (*known, *describe(work))]
        ivcap_journal.facts.append(facts)
        ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
        return opened, work

    return make


@pytest.fixture
def failing_jobs(_embedded: EmbeddedPlatform) -> Callable[[], AbstractContextManager[None]]:
    """While its block runs, the embedded Provena's jobs that lodge a model run fail as soon as they are there."""

    @contextmanager
    def failing() -> Iterator[None]:
        database = Directory(_embedded.directory).root / "provena.sqlite"
        with closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as connection:
            connection.execute(
                "CREATE TRIGGER unlucky AFTER INSERT ON jobs WHEN NEW.job_sub_type = 'MODEL_RUN_PROV_LODGE' BEGIN "
                "UPDATE jobs SET status = 'FAILED', info = 'Out of luck.', due = NULL "
                "WHERE session_id = NEW.session_id; END"
            )
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER unlucky")

    return failing
