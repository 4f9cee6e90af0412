"""What Provena would refuse is an error at once: by a task, a batch and the sink, and before anything is made for it.

Production may take ten minutes to show what it accepted. So long would a refusal take that is held for a lost reply.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials, resolve
from ivcap_flows.blocks.resolve import provena_client
from ivcap_flows.errors import BadRequestError, InputError, IvcapFlowsError
from ivcap_flows.handles import Artifact, Order
from ivcap_flows.identity import EMBEDDED
from ivcap_flows.journal import Journal
from ivcap_flows.local import PlatformControl
from ivcap_flows.provena.client import VISIBILITY_DELAY, ProvenaClient
from ivcap_flows.provena.models import Study, WorkflowTemplate
from ivcap_flows.provena.terms import Terms, collection_format
from ivcap_flows.registration import Workflow
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.work import work_record
from ivcap_flows.registration.work_source import WorkSource
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import run_graph
from ivcap_flows.sinks.provena import ProvenaSink
from ivcap_flows.tasks import (
    amint_dataset,
    aregister_dataset,
    aregister_item,
    aregister_model_run,
    aregister_model_runs,
    aupload_artifact,
)

NONE = "102.100.100/none"
AT_ONCE = 20.0
"""Seconds within which a refused call returns on a busy machine; a doubt takes half an hour."""
MAKES = ("/create", "/mint-dataset", "/model_run/register")
ENDED = {"relevant": True, "obtained": False}


@pytest.fixture
def production(embedded_platform: PlatformControl, provena: ProvenaClient) -> Iterator[ProvenaClient]:
    """A client of a Provena that shows what it accepted after ten minutes, as production, but answers at once. The
    tasks take it for the same."""
    resolve._close_all()
    embedded_platform.be_like("production")

    async def told() -> list[float]:
        clients = [provena, await provena_client(None, deployed=False)]
        return [client.visibility_delay for client in clients if await client.platform()]

    assert loop.run(told()) == [VISIBILITY_DELAY] * 2 == [600.0] * 2
    embedded_platform.be_itself()
    embedded_platform.forget_requests()
    yield provena
    resolve._close_all()


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a call that must not wait."""
    return asyncio.run(asyncio.wait_for(loop.arun(call), AT_ONCE))


def refusal_of(call: Coroutine[Any, Any, Any]) -> IvcapFlowsError:
    with pytest.raises(IvcapFlowsError) as refused:
        at_once(call)
    return refused.value


@pytest.fixture
def sent(embedded_platform: PlatformControl) -> Callable[[], list[str]]:
    """The requests that make something which nothing takes back, whether they took effect or not."""
    return lambda: [each["path"] for each in embedded_platform.requests("POST") if each["path"].endswith(MAKES)]


def template(**changes: Any) -> WorkflowTemplate:
    return WorkflowTemplate(**{"display_name": uuid.uuid4().hex, "software_id": NONE, **changes})


def dataset(items: Any, **changes: Any) -> Any:
    artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap", name="series.csv")
    return collection_format(artifact, items.terms.model_copy(update=changes))


ONE_REQUEST: dict[str, Callable[[Any], Any]] = {
    "a model that is none": lambda items: aregister_item.fn(template(software_id=items.organisation)),
    "an unknown model": lambda items: aregister_item.fn(template()),
    "an unknown dataset template": lambda items: aregister_item.fn(template(input_templates=[{"template_id": NONE}])),
    "an unknown organisation": lambda items: aregister_dataset.fn(dataset(items, organisation_id=NONE)),
    "a publisher that is none": lambda items: aregister_dataset.fn(dataset(items, publisher_id=items.template)),
    "an unknown custodian": lambda items: aregister_dataset.fn(dataset(items, data_custodian_id=NONE)),
    "the terms of an artifact": lambda items: amint_dataset.fn(
        Artifact(urn="urn:ivcap:artifact:0c1d6c3e-98a2-4b4d-9a8e-7b1c5d1f0a11", platform="ivcap", name="a"),
        terms=items.terms.model_copy(update={"publisher_id": NONE}),
    ),
}


@pytest.mark.parametrize("name", ONE_REQUEST)
def test_a_create_that_provena_refuses_is_an_error_at_once(production, table_items, ivcap_journal, sent, name):
    """It is sent once, and the error has Provena's reason. Nothing is in doubt, so the same may be asked for again."""
    calls = [ONE_REQUEST[name](table_items)]
    error = refusal_of(calls[0])
    assert isinstance(error, BadRequestError) and error.status == 200
    assert [(row.state, row.in_doubt) for row in ivcap_journal.intents.where()] == [("dropped", False)]
    assert len(sent()) == 1


@dataclass
class Ways:
    """The task, the batch and the sink, on the same ended order and by the same workflow."""

    journal: Journal
    client: ProvenaClient
    run_id: str
    work: Order
    fields: dict[str, Any]
    credentials: ProvenaCredentials | None = None

    def workflow(self, changes: dict[str, Any]) -> Workflow:
        return Workflow.model_validate(self.fields | changes)

    def by_task(self, **changes: Any) -> str:
        return str(refusal_of(aregister_model_run.fn(self.work, workflow=self.workflow(changes), **self._user)))

    def by_batch(self, **changes: Any) -> str:
        return str(refusal_of(aregister_model_runs.fn([self.work], workflow=self.workflow(changes), **self._user)))

    def by_sink(self, **changes: Any) -> str:
        delivery = at_once(self.deliver(self.workflow(changes)))
        assert delivery.state == "dead"
        return str(delivery.reason)

    async def batch(self, workflow: Workflow) -> Any:
        """Register by the batch alone, without a look at what is wrong before."""
        drafts = await Drafts.of(self.client, self.journal)
        known = await workflow.registered(drafts.name)
        source = WorkSource("a batch", [self.work], lambda work: work_record(work, known, modeller=""))
        with Batch(source, self.client, terms=known.terms, drafts=drafts) as batch:
            return await batch.register(self.journal)

    async def deliver(self, workflow: Workflow) -> Any:
        sink = ProvenaSink(self.client, self.journal, "provena", Workflows((workflow,)))
        run, graph = self.journal.runs.get(self.run_id), run_graph(self.journal, self.run_id)
        return await sink.deliver(run, graph)

    @property
    def _user(self) -> dict[str, Any]:
        return {} if self.credentials is None else {"credentials": self.credentials}


@pytest.fixture
def ways(production, ivcap_journal, ended_work, table_items) -> Ways:
    """By a workflow of which Provena has nothing yet but a model, and that requires an annotation."""
    unique, page = uuid.uuid4().hex, "https://example.org"
    opened, work = ended_work(series=at_once(aupload_artifact.fn(unique.encode())).urn)
    model = {"display_name": unique, "name": unique, "description": "d", "documentation_url": page, "source_url": page}
    fields = {
        "service": "index",
        "workflow_template": {"display_name": unique, "model": model, "annotations": {"required": ["region"]}},
        "inputs": {"series": {"display_name": f"Series {unique}"}},
        "outputs": {"index.csv": {"display_name": f"Index {unique}"}},
        "annotations": {"region": "Tasman Sea"},
        "modeller": table_items.person,
        "terms": {"owner": {"display_name": unique, "name": unique}, "license": page, "approvals": {}},
    }
    return Ways(ivcap_journal, production, opened.run.id, work, fields)


def new(ways: Any, items: Any, **changes: Any) -> dict[str, Any]:
    return {"workflow_template": ways.fields["workflow_template"] | changes}


def stated(ways: Any, items: Any, **changes: Any) -> dict[str, Any]:
    return {"terms": ways.fields["terms"] | changes}


def used(ways: Any, items: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": {"series": {"template": {"display_name": "s"}, **changes}}}


def known(ways: Any, items: Any, **changes: Any) -> dict[str, Any]:
    """By the workflow template that Provena has, whose output needs a resource."""
    table = {"index.csv": {"template": items.table, "resources": {"index": "index.csv"}}}
    return {"workflow_template": items.workflow, "inputs": {"series": items.template}, "outputs": table, **changes}


REFUSED: dict[str, tuple[Callable[[Any, Any], dict[str, Any]], str]] = {
    "a required annotation": (lambda w, i: {"annotations": {}}, "requires the annotation 'region'"),
    "an unknown workflow template": (lambda w, i: {"workflow_template": NONE}, f"The registry has no item {NONE}"),
    "another workflow template": (lambda w, i: {"workflow_template": i.table}, "is DATASET_TEMPLATE, but MODEL_RUN"),
    "an unknown model": (
        lambda w, i: new(w, i, model=NONE),
        f"Its model cannot be used: The registry has no item {NONE}",
    ),
    "a model that is none": (lambda w, i: new(w, i, model=i.organisation), "cannot be used: .* is ORGANISATION"),
    "an unknown template": (lambda w, i: {"inputs": {"series": NONE}}, f"cannot read its dataset template {NONE}"),
    "a template that is none": (
        lambda w, i: {"inputs": {"series": i.organisation}},
        "cannot read its dataset template",
    ),
    "an unknown study": (lambda w, i: {"study": NONE}, f"The registry has no item {NONE}"),
    "a study that is none": (lambda w, i: {"study": i.organisation}, "is ORGANISATION, but STUDY is needed"),
    "an unknown modeller": (lambda w, i: {"modeller": NONE}, f"The registry has no item {NONE}"),
    "a modeller that is none": (lambda w, i: {"modeller": i.organisation}, "is ORGANISATION, but PERSON is needed"),
    "an unknown organisation": (lambda w, i: {"organisation": NONE}, f"The registry has no item {NONE}"),
    "an organisation that is none": (lambda w, i: {"organisation": i.person}, "PERSON, but ORGANISATION is needed"),
    "a seed": (lambda w, i: {"organisation": i.seed}, "is a seed"),
    "a closed item": (lambda w, i: {"study": i.closed}, "You may not read"),
    "an unknown dataset": (lambda w, i: used(w, i, dataset=NONE), f"The registry has no item {NONE}"),
    "a dataset that is none": (
        lambda w, i: used(w, i, dataset=i.organisation),
        "is ORGANISATION, but DATASET is needed",
    ),
    "a required input": (
        lambda w, i: {"inputs": {"wind": {"display_name": "w"}}},
        r"No dataset for the template .*\(w\)",
    ),
    "a required output": (
        lambda w, i: {"outputs": {"map": {"display_name": "m"}}},
        r"No dataset for the template .*\(m\)",
    ),
    "another template": (
        lambda w, i: known(w, i, inputs={"series": i.table, "mask": i.template}),
        "No dataset for the template",
    ),
    "a required resource": (lambda w, i: known(w, i, outputs={"index.csv": i.table}), "'A table' needs 'index'"),
    "an unknown resource": (
        lambda w, i: known(w, i, inputs={"series": {"template": i.template, "resources": {"map": "m"}}}),
        "has no deferred resource 'map'",
    ),
    "no terms": (
        lambda w, i: {"terms": None},
        r"its terms lack `owner` \(or `organisation_id` and `publisher_id`\), `license` and `approvals`",
    ),
    "no licence": (lambda w, i: stated(w, i, license=None), "its terms lack `license`"),
    "a licence that is no URL": (lambda w, i: stated(w, i, license="MIT"), "license is no http or https URL"),
    "an approval that was not obtained": (
        lambda w, i: stated(w, i, approvals={"ethics_access": ENDED}),
        "ethics_access.relevant without obtained",
    ),
    "published before it was made": (
        lambda w, i: stated(w, i, published_date="1970-01-01", created_date="2000-01-01"),
        "published_date .* is before created_date",
    ),
    "an unknown publisher": (lambda w, i: stated(w, i, publisher_id=NONE), f"publisher_id.*no item {NONE}"),
    "a publisher that is none": (lambda w, i: stated(w, i, publisher_id=i.person), "publisher_id.* is PERSON"),
    "an unknown custodian": (lambda w, i: stated(w, i, data_custodian_id=NONE), f"data_custodian_id.*no item {NONE}"),
    "a record that is too long": (lambda w, i: {"description": "x" * 150_000}, "Provena's limit is"),
}


@pytest.fixture(scope="session")
def items(_embedded, table_items) -> Any:
    """The items, with a seed, and a study that is closed to the user."""
    settings = Settings(**_embedded.environment)
    theirs = SecretStr(_embedded.environment["PROVENA_OFFLINE_TOKEN_2"])
    other = ProvenaCredentials.from_environment(settings).model_copy(update={"offline_token": theirs})

    async def make() -> Any:
        async with other.get_client() as client:
            path = "/registry/agent/organisation/seed"
            seed = (await client.registry.call("POST", path, repeat="unsafe"))["seeded_item"]["id"]
            study = Study(display_name="closed", title="closed", description="d")
            closed = (await client.registry.create(Study, study)).item.id
            path, asked = "/registry/activity/study/auth/configuration", {"id": closed}
            access = await client.registry.call("GET", path, repeat="idempotent", params=asked)
            access["general"] = []
            await client.registry.call("PUT", path, repeat="idempotent", params=asked, json=access)
            return SimpleNamespace(**vars(table_items), seed=seed, closed=closed)

    return loop.run(make())


@pytest.mark.parametrize(
    "name",
    [name if number % 3 == 0 else pytest.param(name, marks=pytest.mark.long) for number, name in enumerate(REFUSED)],
)
def test_nothing_is_made_for_what_would_be_refused(ways, items, sent, name):
    """The task, the batch and the sink say the same, at once. No item, no dataset and no run is asked for."""
    change, words = REFUSED[name]
    changes = change(ways, items)
    for say in (ways.by_task, ways.by_batch, ways.by_sink):
        assert re.search(words, say(**changes)), (say.__name__, say(**changes))
    assert sent() == []
    assert [row for row in ways.journal.intents.where(limit=None) if row.noun not in ("order", "upload")] == []


def test_who_may_not_write_is_told_so_first(ways, items, sent, embedded_platform):
    """A user who is linked to no person, though the workflow names a modeller: items and datasets need one."""
    token = SecretStr(os.environ["PROVENA_OFFLINE_TOKEN_UNLINKED"])
    ways.credentials = ProvenaCredentials.from_environment().model_copy(update={"offline_token": token})
    ways.client = loop.run(provena_client_of(ways.credentials))
    for say in (ways.by_task, ways.by_batch, ways.by_sink):
        assert re.search("not linked to a Person.*link it in Provena's", say()), say.__name__
    assert sent() == []


async def provena_client_of(credentials: ProvenaCredentials) -> ProvenaClient:
    return await provena_client(credentials, deployed=False)


def test_a_trial_stays_a_trial(ways, ended_work, table_items, sent):
    """What an embedded IVCAP made is not registered with another Provena, which would keep it for ever."""
    ways.work = ways.work.model_copy(update={"platform": f"{EMBEDDED}another"})
    for say in (ways.by_task, ways.by_batch):
        assert re.search("made on an embedded IVCAP.*Register it with the embedded Provena", say()), say.__name__
    artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform=f"{EMBEDDED}another", name="a")
    for terms in (table_items.terms, Terms(**ways.fields["terms"])):
        refused = refusal_of(amint_dataset.fn(artifact, terms=terms))
        assert isinstance(refused, InputError) and "made on an embedded IVCAP" in str(refused)
    assert sent() == []


@pytest.mark.catches("made before it is checked")
@pytest.mark.parametrize("way", ["by_task", "by_sink"])
def test_all_is_checked_before_the_first_thing_is_made(ways, sent, way):
    """A required annotation is missing: neither its model nor its owner is registered, which would stay."""
    with suppress(AssertionError, IvcapFlowsError):
        getattr(ways, way)(annotations={})
    assert sent() == []


def test_a_batch_that_nobody_has_checked_checks_itself(ways, sent):
    """So there is no way around the check; rows that it found wrong are never sent."""
    refused = refusal_of(ways.batch(ways.workflow({"annotations": {}})))
    assert "1 of the 1 rows of a batch are wrong" in str(refused) and sent() == []


def test_what_is_corrected_is_registered_once(ways, sent):
    """Six items, two datasets and a run, whichever of the ways comes first; the others find them."""
    assert "requires the annotation" in ways.by_task(annotations={})
    workflow = ways.workflow({})
    run = at_once(aregister_model_run.fn(ways.work, workflow=workflow))
    assert [len([path for path in sent() if path.endswith(end)]) for end in MAKES] == [5, 2, 1]
    many = at_once(aregister_model_runs.fn([ways.work], workflow=workflow))
    assert [each.urn for each in many.runs] == [run.urn]
    assert at_once(ways.deliver(workflow)).state == "delivered"
    assert len(sent()) == 8
