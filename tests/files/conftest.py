"""Datasets on embedded platforms whose files lie on an S3 server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from provena_items import Registry, ask_provena, make_registry

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import Artifact
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.collection_format import AccessInfo, CollectionFormat
from ivcap_flows.provena.terms import collection_format
from ivcap_flows.settings import Settings


@pytest.fixture(autouse=True)
def files_environment(s3_platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded platforms are those of the environment."""
    for name, value in s3_platform.environment.items():
        if not name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def registry(s3_platform: Any) -> Registry:
    """Items of the Provena of these platforms."""
    return ask_provena(s3_platform, make_registry)


@pytest.fixture
async def provena() -> AsyncIterator[ProvenaClient]:
    """A client of the user."""
    async with ProvenaCredentials.from_environment(Settings()).get_client() as client:
        yield client


@pytest.fixture
def stated(registry: Registry) -> CollectionFormat:
    """The metadata of a dataset whose files Provena keeps."""
    named = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name=f"set {uuid.uuid4()}")
    found = collection_format(named, registry.terms)
    kept = found.dataset_info.model_copy(update={"access_info": AccessInfo(reposited=True)})
    return found.model_copy(update={"dataset_info": kept})


@pytest.fixture
async def dataset(provena: ProvenaClient, stated: CollectionFormat) -> str:
    """A new dataset's handle."""
    return (await provena.datastore.mint(stated)).handle


@dataclass
class Place:
    """The folder of a dataset in the bucket, as others may write to it."""

    client: Any
    bucket: str
    prefix: str

    def put(self, name: str, content: bytes, *, sha256: str | None = None) -> None:
        stated = {"sha256": sha256} if sha256 else {}
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, Metadata=stated)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def has(self, name: str) -> bool:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + name).get("Contents", [])
        return self.prefix + name in [each["Key"] for each in found]

    def unfinished(self, name: str) -> list[str]:
        """The ids of uploads in parts that nobody completed."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix + name)
        return [each["UploadId"] for each in found.get("Uploads", [])]

    def parts(self, name: str, upload: str) -> list[int]:
        found = self.client.list_parts(Bucket=self.bucket, Key=self.prefix + name, UploadId=upload)
        return [each["PartNumber"] for each in found.get("Parts", [])]


@pytest.fixture(scope="session")
def bucket_client(s3_server: Any) -> Any:
    """A client of the S3 server beside ours."""
    return s3_server.client()


@pytest.fixture
async def place(provena: ProvenaClient, dataset: str, bucket_client: Any) -> Place:
    """Where the files of the dataset are."""
    found = (await provena.datastore.fetch_dataset(dataset)).info.s3
    assert found is not None
    return Place(bucket_client, found.bucket_name, found.path)
