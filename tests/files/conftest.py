"""Datasets on embedded platforms whose files lie on an S3 server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import Artifact
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.collection_format import AccessInfo, Approvals, CollectionFormat
from ivcap_flows.provena.datasets import DatasetDefaults, collection_format
from ivcap_flows.provena.models import Organisation
from ivcap_flows.settings import Settings

Minting = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def files_environment(s3_twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded platforms are those of the environment."""
    for name, value in s3_twin.environment.items():
        if not name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def owner(s3_twin: Any) -> str:
    """An organisation."""

    async def make() -> str:
        async with ProvenaCredentials.from_environment(Settings(**s3_twin.environment)).get_client() as client:
            made = await client.registry.create(Organisation, Organisation(display_name="Example", name="Example"))
            return made.item.id

    return loop.run(make())


@pytest.fixture
async def provena() -> AsyncIterator[ProvenaClient]:
    """A client of the user."""
    async with ProvenaCredentials.from_environment(Settings()).get_client() as client:
        yield client


@pytest.fixture
def stated(owner: str) -> CollectionFormat:
    """The metadata of a dataset whose files Provena keeps."""
    defaults = DatasetDefaults(
        organisation_id=owner,
        publisher_id=owner,
        license="https://creativecommons.org/licenses/by/4.0/",
        approvals=Approvals(),
    )
    named = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name=f"set {uuid.uuid4()}")
    found = collection_format(named, defaults)
    return found.model_copy(
        update={"dataset_info": found.dataset_info.model_copy(update={"access_info": AccessInfo(reposited=True)})}
    )


@pytest.fixture
async def dataset(provena: ProvenaClient, stated: CollectionFormat) -> str:
    """A new dataset's handle."""
    return (await provena.datastore.mint(stated)).handle
