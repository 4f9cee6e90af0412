"""Connects the official Python client of Provena, in an environment of its own without this project."""

from __future__ import annotations

import json
from typing import Any

from provenaclient import ProvenaClient
from provenaclient.auth import OfflineFlow
from provenaclient.utils.config import APIOverrides, Config
from ProvenaInterfaces.DataStoreAPI import CollectionFormat


def connect(env: dict[str, str]) -> ProvenaClient:
    realm = f"{env['PROVENA_KEYCLOAK']}/realms/{env['PROVENA_REALM']}"
    config = Config(
        domain="example.org",
        realm_name=env["PROVENA_REALM"],
        api_overrides=APIOverrides(
            datastore_api_endpoint_override=env["PROVENA_DATA_STORE_API"],
            auth_api_endpoint_override=env["PROVENA_AUTH_API"],
            registry_api_endpoint_override=env["PROVENA_REGISTRY_API"],
            prov_api_endpoint_override=env["PROVENA_PROV_API"],
            search_api_endpoint_override=env["PROVENA_SEARCH_API"],
            handle_service_api_endpoint_override=env["PROVENA_HANDLE_API"],
            jobs_service_api_endpoint_override=env["PROVENA_JOB_API"],
            keycloak_endpoint_override=realm,
        ),
    )
    token = env["PROVENA_OFFLINE_TOKEN"]
    return ProvenaClient(OfflineFlow(config, env["PROVENA_CLIENT_ID"], offline_token=token), config)


def collection(organisation: str, name: str) -> CollectionFormat:
    nothing: dict[str, Any] = {}
    approvals = ("ethics_registration", "ethics_access", "indigenous_knowledge", "export_controls")
    return CollectionFormat.model_validate(
        {
            "associations": {"organisation_id": organisation},
            "approvals": dict.fromkeys(approvals, nothing),
            "dataset_info": {
                "name": name,
                "description": "a dataset",
                "access_info": {"reposited": True},
                "publisher_id": organisation,
                "created_date": {"relevant": True, "value": "2024-01-01"},
                "published_date": {"relevant": False},
                "license": "https://creativecommons.org/licenses/by/4.0/",
            },
        }
    )


def plain(model: Any) -> Any:
    """A model of the client as it is on the wire, without nulls."""
    return json.loads(model.model_dump_json(exclude_none=True))
