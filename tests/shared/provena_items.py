"""What a registration names on an embedded Provena, made as a user makes it: by the client alone."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import Artifact
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation, TemplateUse, WorkflowTemplate
from ivcap_flows.provena.terms import Terms, collection_format
from ivcap_flows.settings import Settings

T = TypeVar("T")


def ask_provena(embedded: EmbeddedPlatform, ask: Callable[[ProvenaClient], Awaitable[T]]) -> T:
    """Return the result of the coroutine `ask(client)` with a client of the embedded Provena."""

    async def asked() -> T:
        async with ProvenaCredentials.from_environment(Settings(**embedded.environment)).get_client() as client:
            return await ask(client)

    return loop.run(asked())


@dataclass(frozen=True)
class Registry:
    """Ids of the user's person, an organisation, a model, a dataset template without resources, and a workflow template
    of the model, which takes one dataset of that template and makes one."""

    person: str
    organisation: str
    model: str
    template: str
    workflow: str

    @property
    def terms(self) -> Terms:
        """What the user states of the datasets, which belong to the organisation."""
        licence, owner = "https://creativecommons.org/licenses/by/4.0/", self.organisation
        return Terms(organisation_id=owner, publisher_id=owner, license=licence, approvals=Approvals())

    async def mint(self, client: ProvenaClient) -> str:
        """Return a new dataset."""
        artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="ivcap", name="series.csv")
        return (await client.datastore.mint(collection_format(artifact, self.terms))).handle


async def create(client: ProvenaClient, info: Any) -> str:
    """Return the id of a new item."""
    return (await client.registry.create(type(info), info)).item.id


async def make_registry(client: ProvenaClient) -> Registry:
    person = await client.auth_api.linked_person()
    assert person is not None
    organisation = await create(client, Organisation(display_name="Example", name="Example"))
    software = Model(
        display_name="Model",
        name="Model",
        description="Computes.",
        documentation_url="https://example.org/docs",
        source_url="https://example.org/source",
    )
    model = await create(client, software)
    template = await create(client, DatasetTemplate(display_name="Anything"))
    uses = [TemplateUse(template_id=template)]
    work = WorkflowTemplate(display_name="Work", software_id=model, input_templates=uses, output_templates=uses)
    return Registry(person, organisation, model, template, await create(client, work))
