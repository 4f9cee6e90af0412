"""Items of the embedded Provena that a workflow names, sinks of workflows, and runs whose work has ended."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.durable import poller
from ivcap_flows.handles import Artifact, Job, Order, Products
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.journal import Fact, NewIntent, RunIdentity
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.models import (
    Annotations,
    DatasetTemplate,
    Deferred,
    Model,
    ModelRunRecord,
    Organisation,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.terms import Terms
from ivcap_flows.provenance import activity, describe
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import ProvenaSink
from ivcap_flows.tasks import mint_dataset


@dataclass(frozen=True)
class Registered:
    """Handles on Provena: a workflow template that requires an annotation, the templates of its input and of its
    output, which demands a resource, an organisation, and the user's person."""

    workflow: str
    source: str
    table: str
    owner: str
    person: str

    @property
    def terms(self) -> dict[str, Any]:
        """What the user states of the datasets."""
        licence = "https://creativecommons.org/licenses/by/4.0/"
        return {"organisation_id": self.owner, "publisher_id": self.owner, "license": licence, "approvals": {}}

    def mint(self) -> str:
        """Return a new dataset."""
        artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap", name="series.csv")
        return mint_dataset.fn(artifact, terms=Terms(**self.terms)).urn


@pytest.fixture(scope="session")
def provena_items(_embedded):
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
            keys = [
                Deferred(key="index", description="The table"),
                Deferred(key="notes", description="More", optional=True),
            ]
            source = await new(DatasetTemplate(display_name="Anything"))
            table = await new(DatasetTemplate(display_name="A table", deferred_resources=keys))
            workflow = WorkflowTemplate(
                display_name="Work",
                software_id=await new(model),
                input_templates=[TemplateUse(template_id=source)],
                output_templates=[TemplateUse(template_id=table)],
                annotations=Annotations(required=["region"]),
            )
            owner = await new(Organisation(display_name="Example", name="Example"))
            person = await client.auth_api.linked_person()
            assert person is not None
            return Registered(await new(workflow), source, table, owner, person)

    return loop.run(make())


@pytest.fixture
def provena(embedded_platform, provena_items, monkeypatch):
    """A client of the embedded Provena that gives up within a second and looks often; the log of requests is empty."""
    monkeypatch.setattr(poller, "SHORTEST", 0.1)
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, 0.5)))
    client = ProvenaCredentials.from_environment().get_client()
    embedded_platform.forget_requests()
    yield client
    loop.run(client.aclose())


@pytest.fixture
def accepted(embedded_platform):
    """Counts the registrations and the mints that took effect."""

    def count() -> tuple[int, int]:
        paths = [each["path"] for each in embedded_platform.requests("POST") if each["status"] == 200]
        ends = ("/model_run/register", "/mint-dataset")
        registered, minted = (len([path for path in paths if path.endswith(end)]) for end in ends)
        return registered, minted

    return count


@pytest.fixture
def stated(provena_items):
    """The fields of a workflow of the service `index`, changed as told; a field given as None is left out."""

    def state(**changes: Any) -> dict[str, Any]:
        fields = {
            "service": "index",
            "workflow_template": provena_items.workflow,
            "inputs": {"series": provena_items.source, "mask": provena_items.source},
            "outputs": {"index.csv": {"template": provena_items.table, "resources": {"index": "index.csv"}}},
            "annotations": {"region": "Tasman Sea"},
            "organisation": provena_items.owner,
            "terms": provena_items.terms,
        } | changes
        return {name: value for name, value in fields.items() if value is not None}

    return state


@pytest.fixture
def sink(provena, ivcap_journal, stated):
    """Makes the sink with that workflow, or with that of the runs of a `flow`."""

    def make(name: str = "provena", flow: str | None = None, **changes: Any) -> ProvenaSink:
        of_flow = {"service": None, "inputs": {"series": stated()["inputs"]["series"]}} if flow else {}
        workflow = Workflow.model_validate(stated(**{"flow": flow} | of_flow | changes))
        return ProvenaSink(provena, ivcap_journal, name, Workflows((workflow,)))

    return make


@pytest.fixture
def registered(provena, ivcap_journal):
    """Reads the record of the newest model run in the journal, as Provena has it."""

    def read() -> ModelRunRecord:
        rows = ivcap_journal.intents.where(noun="model run")
        newest = max(rows, key=lambda row: row.created_at)
        return loop.run(provena.registry.fetch(ModelRunInfo, newest.urn)).info.record

    return read


@pytest.fixture
def ended_work(ivcap_journal):
    """Makes a run of the flow `coastal` that has ended, with one order, or job, of the service `index`, of which the
    flow has said the region.

    The order has ended as well, unless its status is `executing`.
    """

    def make(kind: type[Order] | type[Job] = Order, status: str = "succeeded", **given: Any) -> Any:
        identity = RunIdentity("coastal", "/flows/a.py:f", {}, str(uuid.uuid4()), str(uuid.uuid4()))
        opened = ivcap_journal.runs.open_attempt(identity)
        series, product = (Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap") for _ in range(2))
        end = datetime.now(timezone.utc)
        parameters = {"series": series.urn, "base": "1981", "path": "out/index.csv", **given}
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
        said = activity(work.urn, work.kind, **{"annotation.region": "Coral Sea", "service_version": "4.2"})
        facts = [Fact(record, opened.run.id, opened.attempt.id) for record in (*known, *describe(work), said)]
        ivcap_journal.facts.append(facts)
        ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
        return opened, work

    return make


@pytest.fixture
def failing_jobs(_embedded):
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
