"""Items of the embedded Provena that a workflow names, sinks of workflows, and runs whose work has ended."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from provena_items import Registry, ask_provena, create

from ivcap_flows import loop
from ivcap_flows.handles import Artifact, Job, Order, Products
from ivcap_flows.journal import Fact, NewIntent, RunIdentity
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import (
    Annotations,
    DatasetTemplate,
    Deferred,
    ModelRunRecord,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provenance import activity, describe
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks.provena import ProvenaSink


@dataclass(frozen=True)
class TableItems(Registry):
    """With a workflow template that requires an annotation, and whose output is of the template `table`, which demands
    the resource `index`."""

    table: str


@pytest.fixture(scope="session")
def table_items(_embedded, registry):
    """Made once."""

    async def make(client: ProvenaClient) -> TableItems:
        keys = [
            Deferred(key="index", description="The table"),
            Deferred(key="notes", description="More", optional=True),
        ]
        table = await create(client, DatasetTemplate(display_name="A table", deferred_resources=keys))
        work = WorkflowTemplate(
            display_name="Work",
            software_id=registry.model,
            input_templates=[TemplateUse(template_id=registry.template)],
            output_templates=[TemplateUse(template_id=table)],
            annotations=Annotations(required=["region"]),
        )
        return TableItems(**vars(registry) | {"workflow": await create(client, work)}, table=table)

    return ask_provena(_embedded, make)


@pytest.fixture
def accepted(effects):
    """Counts the registrations and the mints that took effect."""
    return lambda: (effects.posts("/model_run/register"), effects.posts("/mint-dataset"))


@pytest.fixture
def workflow_fields(table_items):
    """The fields of a workflow of the service `index`, changed as told; a field given as None is left out."""

    def state(**changes: Any) -> dict[str, Any]:
        fields = {
            "service": "index",
            "workflow_template": table_items.workflow,
            "inputs": {"series": table_items.template, "mask": table_items.template},
            "outputs": {"index.csv": {"template": table_items.table, "resources": {"index": "index.csv"}}},
            "annotations": {"region": "Tasman Sea"},
            "organisation": table_items.organisation,
            "terms": table_items.terms.model_dump(mode="json", exclude_none=True),
        } | changes
        return {name: value for name, value in fields.items() if value is not None}

    return state


@pytest.fixture
def sink(provena, ivcap_journal, workflow_fields):
    """Makes the sink with that workflow, or with that of the runs of a `flow`."""

    def make(name: str = "provena", flow: str | None = None, **changes: Any) -> ProvenaSink:
        of_flow = {"service": None, "inputs": {"series": workflow_fields()["inputs"]["series"]}} if flow else {}
        workflow = Workflow.model_validate(workflow_fields(**{"flow": flow} | of_flow | changes))
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

    The order has ended as well, unless its status is `executing`. With `beside`, what was made before, it is of the
    same run and has the same input.
    """

    def make(kind: type[Order] | type[Job] = Order, status: str = "succeeded", beside: Any = None, **given: Any) -> Any:
        identity = RunIdentity("coastal", "/flows/a.py:f", {}, str(uuid.uuid4()), str(uuid.uuid4()))
        opened = beside[0] if beside else ivcap_journal.runs.open_attempt(identity)
        series, product = (Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap") for _ in range(2))
        if beside:
            series = series.model_copy(update={"urn": beside[1].inputs[0]})
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
        if not beside:
            ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
        return opened, work

    return make
