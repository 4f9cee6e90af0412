"""Datasets on embedded platforms whose files lie on an S3 server."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from provena_items import Registry, ask_provena, make_registry

from ivcap_flows.handles import Artifact
from ivcap_flows.provena.collection_format import AccessInfo, CollectionFormat
from ivcap_flows.provena.terms import collection_format


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
def stated(registry: Registry) -> CollectionFormat:
    """The metadata of a dataset whose files Provena keeps."""
    named = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name=f"set {uuid.uuid4()}")
    found = collection_format(named, registry.terms)
    kept = found.dataset_info.model_copy(update={"access_info": AccessInfo(reposited=True)})
    return found.model_copy(update={"dataset_info": kept})
