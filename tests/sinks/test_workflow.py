"""A workflow that takes what differs from run to run from the work itself, and is checked before it is sent."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.handles import Artifact, Dataset, Job, Order
from ivcap_flows.journal import Fact, Journal
from ivcap_flows.provena.models import Annotations, DatasetTemplate, Deferred, TemplateUse, WorkflowTemplate
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.terms import Terms
from ivcap_flows.provenance import activity
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks import Drained, ProvenaSink, drain
from ivcap_flows.tasks import mint_dataset, register_model_run


@dataclass(frozen=True)
class Demanding:
    """Handles: a workflow template that requires an annotation, and of its output a resource; and a dataset."""

    workflow: str
    source: str
    table: str
    dataset: str


@pytest.fixture
def demanding(embedded_platform: Any, ivcap_journal: Journal, provena: Any, provena_items: Any) -> Demanding:
    async def new(info: Any) -> str:
        return (await provena.registry.create(type(info), info)).item.id

    async def make() -> tuple[str, str]:
        keys = [
            Deferred(key="index", description="The table"),
            Deferred(key="notes", description="More", optional=True),
        ]
        table = await new(DatasetTemplate(display_name="A table", deferred_resources=keys))
        model = (await provena.registry.fetch(WorkflowTemplate, provena_items.workflow)).info.software_id
        workflow = WorkflowTemplate(
            display_name="Demanding",
            software_id=model,
            input_templates=[TemplateUse(template_id=provena_items.template)],
            output_templates=[TemplateUse(template_id=table)],
            annotations=Annotations(required=["region"]),
        )
        return await new(workflow), table

    workflow, table = loop.run(make())
    artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap", name="series.csv")
    dataset: Dataset = mint_dataset.fn(artifact, terms=Terms(**provena_items.terms))
    embedded_platform.forget_requests()
    return Demanding(workflow, provena_items.template, table, dataset.urn)


@pytest.fixture
def sink(provena: Any, ivcap_journal: Journal, provena_items: Any, demanding: Demanding) -> Callable[..., ProvenaSink]:
    """Makes the sink with an entry for the service `index` that fits, changed as told."""

    def make(**changes: Any) -> ProvenaSink:
        entry = {
            "service": "index",
            "workflow_template": demanding.workflow,
            "display_name": {"parameter": "base"},
            "model_version": {"record": "service_version"},
            "inputs": {"series": demanding.source},
            "outputs": {"index.csv": {"template": demanding.table, "resources": {"index": {"parameter": "path"}}}},
            "annotations": {"region": {"annotation": "region"}},
            "terms": provena_items.terms,
        } | changes
        return ProvenaSink(provena, ivcap_journal, workflows=Workflows((Workflow.model_validate(entry),)))

    return make


@pytest.fixture
def annotated(ivcap_journal: Journal, ended_work: Any, demanding: Demanding) -> Callable[..., Order | Job]:
    """Makes ended work that was given a registered dataset, of which the flow has said the region."""

    def make(kind: Any = Order, **given: Any) -> Order | Job:
        opened, work = ended_work(kind, **{"series": demanding.dataset, "path": "out/index.csv", **given})
        told = {"annotation.region": "Tasman Sea", "service_version": "4.2"}
        ivcap_journal.facts.append([Fact(activity(work.urn, work.kind, **told), opened.run.id)])
        return work

    return make


def sent(embedded: Any) -> int:
    """How many registrations and mints were asked for."""
    return len([r for r in embedded.requests("POST") if r["path"].endswith(("/model_run/register", "/mint-dataset"))])


@pytest.mark.parametrize("kind", [Order, Job])
def test_statements_come_from_the_work(embedded_platform, ivcap_journal, provena, annotated, sink, demanding, kind):
    """A dataset that is registered already, and what parameters, the record and annotate() say; minted is the rest."""
    work = annotated(kind)
    assert drain(ivcap_journal, [sink()]) == [Drained("provena", delivered=1)]
    [intent] = ivcap_journal.intents.where(noun="model run")
    record = loop.run(provena.registry.fetch(ModelRunInfo, intent.urn)).info.record
    assert (record.display_name, record.model_version) == ("1981", "4.2")
    assert record.annotations["region"] == "Tasman Sea"
    assert [part.dataset_id for part in record.inputs] == [demanding.dataset]
    assert [part.resources for part in record.outputs] == [{"index": "out/index.csv"}]
    assert intent.request["subject"] == work.urn
    assert sent(embedded_platform) == 2


def test_a_dataset_may_stand_in_the_workflow(embedded_platform, ivcap_journal, provena, annotated, sink, demanding):
    """As an input and as an output, whatever the work was given and made: nothing is minted."""
    annotated()
    use = {"template": demanding.source, "dataset": demanding.dataset}
    made = {"template": demanding.table, "dataset": {"parameter": "series"}, "resources": {"index": "index.csv"}}
    assert drain(ivcap_journal, [sink(inputs={"mask": use}, outputs={"any": made})]) == [
        Drained("provena", delivered=1)
    ]
    [intent] = ivcap_journal.intents.where(noun="model run")
    record = loop.run(provena.registry.fetch(ModelRunInfo, intent.urn)).info.record
    assert [part.dataset_id for part in (*record.inputs, *record.outputs)] == [demanding.dataset] * 2
    assert sent(embedded_platform) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": {}}, ["requires the annotation 'region'", "Correct the workflow"]),
        ({"annotations": {"region": {"annotation": "area"}}}, ["the annotation 'area'", "It has region."]),
        ({"model_version": {"parameter": "model"}}, ["the parameter 'model'", "It has base, path, series."]),
        ({"workflow_template": "102.100.100/none"}, ["The registry has no item 102.100.100/none"]),
        (
            {"inputs": {"series": {"template": "SOURCE", "dataset": "102.100.100/none"}}},
            ["The registry has no item 102.100.100/none"],
        ),
        (
            {"inputs": {"series": {"template": "SOURCE", "dataset": "TABLE"}}},
            ["DATASET_TEMPLATE, but DATASET is"],
        ),
        ({"inputs": {"base": "SOURCE"}}, ["base of index are artifacts or datasets", "something else"]),
        ({"inputs": {}}, ["No dataset for the template", "Anything"]),
        ({"outputs": {"index.csv": "TABLE"}}, ["'A table' needs 'index'"]),
        (
            {"outputs": {"index.csv": {"template": "TABLE", "resources": {"index": "a", "map": "b"}}}},
            ["'A table' has no deferred resource 'map'"],
        ),
    ],
    ids=lambda given: None if isinstance(given, list) else "-".join(given),
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    embedded_platform, ivcap_journal, annotated, sink, demanding, changes, words
):
    """A dead letter that names the thing; no dataset is minted, no model run asked for."""
    annotated()
    ids = {"SOURCE": demanding.source, "TABLE": demanding.table}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(inner) for name, inner in value.items()}
        return ids.get(value, value)

    assert drain(ivcap_journal, [sink(**filled(changes))]) == [Drained("provena", dead=1)]
    [row] = ivcap_journal.deliveries.where("provena")
    assert all(each in row.reason for each in words), row.reason
    assert sent(embedded_platform) == 0


def test_what_is_registered_already_is_not_judged(embedded_platform, ivcap_journal, annotated, sink, demanding):
    """A task that has registered the work is not held up by a workflow that could not."""
    work = annotated()
    register_model_run.fn(
        work,
        workflow_template=demanding.workflow,
        inputs={demanding.source: demanding.dataset},
        outputs={demanding.table: demanding.dataset},
        resources={demanding.table: {"index": "index.csv"}},
        annotations={"region": "anywhere"},
    )
    before = sent(embedded_platform)
    outputs = {"index.csv": {"template": demanding.table, "dataset": demanding.dataset}}
    assert drain(ivcap_journal, [sink(annotations={}, outputs=outputs)]) == [Drained("provena", delivered=1)]
    assert sent(embedded_platform) == before
