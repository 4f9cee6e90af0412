"""Drives Provena with its official Python client: registers a model run, waits for its job and reads it back.

Runs in an environment of its own with `provenaclient` installed and this project not. The platform is named by the
PROVENA_* variables. Prints one JSON line with the ids and, in `items`, `job` and `graph`, what was read; exits with 1
and says why on stderr if it is not what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from typing import Any

from provenaclient import ProvenaClient
from provenaclient.auth import OfflineFlow
from provenaclient.models import AsyncAwaitSettings
from provenaclient.utils.config import APIOverrides, Config
from ProvenaInterfaces.AsyncJobAPI import JobStatus, ListJobsRequest
from ProvenaInterfaces.DataStoreAPI import CollectionFormat
from ProvenaInterfaces.ProvenanceAPI import ModelRunRecord
from ProvenaInterfaces.RegistryAPI import (
    DatasetTemplateDomainInfo,
    GeneralListRequest,
    ModelDomainInfo,
    ModelRunWorkflowTemplateDomainInfo,
    OrganisationDomainInfo,
    StudyDomainInfo,
)


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


async def register(client: ProvenaClient) -> dict[str, Any]:
    name = f"official {uuid.uuid4().hex[:8]}"
    person = (await client.auth_api.get_link_lookup_username()).person_id
    assert person, "the user has a linked person"
    registry = client.registry
    organisation = (
        await registry.organisation.create_item(OrganisationDomainInfo(display_name=name, name=name))
    ).created_item
    study = (
        await registry.study.create_item(StudyDomainInfo(display_name=name, title=name, description="d"))
    ).created_item
    url: Any = "https://example.org/model"
    model = (
        await registry.model.create_item(
            ModelDomainInfo(display_name=name, name=name, description="d", documentation_url=url, source_url=url)
        )
    ).created_item
    resources: Any = [{"key": "forcing", "description": "f", "usage_type": "FORCING_DATA"}]
    taken, made = [
        (
            await registry.dataset_template.create_item(
                DatasetTemplateDomainInfo(display_name=f"{name} {end}", deferred_resources=deferred)
            )
        ).created_item
        for end, deferred in (("in", resources), ("out", []))
    ]
    info = {
        "display_name": name,
        "software_id": model.id,
        "input_templates": [{"template_id": taken.id}],
        "output_templates": [{"template_id": made.id}],
        "annotations": {"required": ["cfg"]},
    }
    workflow = (
        await registry.model_run_workflow.create_item(ModelRunWorkflowTemplateDomainInfo.model_validate(info))
    ).created_item
    source, product = [
        (await client.datastore.mint_dataset(collection(organisation.id, f"{name} {end}"))).handle
        for end in ("in", "out")
    ]
    record = ModelRunRecord.model_validate(
        {
            "workflow_template_id": workflow.id,
            "inputs": [
                {
                    "dataset_template_id": taken.id,
                    "dataset_id": source,
                    "dataset_type": "DATA_STORE",
                    "resources": {"forcing": "f.nc"},
                }
            ],
            "outputs": [{"dataset_template_id": made.id, "dataset_id": product, "dataset_type": "DATA_STORE"}],
            "annotations": {"cfg": "x"},
            "display_name": name,
            "description": "registered by the official client",
            "study_id": study.id,
            "associations": {"modeller_id": person, "requesting_organisation_id": organisation.id},
            "start_time": 100,
            "end_time": 200,
        }
    )
    session = (await client.prov_api.register_model_run(record)).session_id
    quick = AsyncAwaitSettings(job_polling_interval=1)
    job = await client.job_api.await_successful_job_completion(session, quick)
    assert job.status == JobStatus.SUCCEEDED and job.result, "the job succeeded"
    run = job.result["record"]["id"]

    item = (await registry.model_run.fetch(run)).item
    assert item and item.record == record, "the run read back is the record that was sent"
    assert item.record_status == "LODGED", "the run is lodged"
    assert json.loads(item.prov_serialisation)["activity"][run]["item_subtype"] == "MODEL_RUN", "its PROV-JSON names it"
    listed = await registry.model_run.list_items(GeneralListRequest())
    assert run in {each.id for each in listed.items or []}, "the run is listed"
    templates = await registry.dataset_template.list_items(GeneralListRequest())
    # This script starts 13 jobs, and jobs of the same second come in any order, so some more are asked for; not all, as
    # older ones may be reports, which the client's models do not know.
    jobs = await client.job_api.list_jobs(ListJobsRequest(limit=26))
    assert session in {each.session_id for each in jobs.jobs}, "its job is listed"
    graph = (await client.prov_api.explore_downstream(source, depth=2)).graph
    assert graph, "there is a graph"
    assert {run, product} <= {node.id for node in graph.nodes}, "the run and its output are downstream of the input"
    dataset = (await client.datastore.fetch_dataset(product)).item
    assert dataset and dataset.display_name == f"{name} out", "the output is a dataset"
    found = await client.search.search_registry(name, 10, None)
    assert run in {each.id for each in found.results or []}, "the run is found"
    read = {
        "MODEL_RUN": item,
        "DATASET": dataset,
        "MODEL": (await registry.model.fetch(model.id)).item,
        "MODEL_RUN_WORKFLOW_TEMPLATE": (await registry.model_run_workflow.fetch(workflow.id)).item,
        "DATASET_TEMPLATE": (await registry.dataset_template.fetch(taken.id)).item,
        "ORGANISATION": (await registry.organisation.fetch(organisation.id)).item,
        "STUDY": (await registry.study.fetch(study.id)).item,
        "PERSON": (await registry.person.fetch(person)).item,
    }
    return {
        "run": run,
        "session": session,
        "status": item.record_status,
        "display_name": item.display_name,
        "source": source,
        "product": product,
        "items": {subtype: plain(found) for subtype, found in read.items()},
        "job": plain(job),
        "listed": [each.id for each in listed.items or []],
        "templates": [each.id for each in templates.items or []],
        "sessions": [each.session_id for each in jobs.jobs],
        "graph": sorted([link.source, link.target, link.type] for link in graph.links),
    }


def plain(model: Any) -> Any:
    """A model of the client as it is on the wire, without nulls."""
    return json.loads(model.model_dump_json(exclude_none=True))


def main() -> int:
    try:
        # the client reports its polling on stdout
        with contextlib.redirect_stdout(sys.stderr):
            read = asyncio.run(register(connect(dict(os.environ))))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(read))
    return 0


if __name__ == "__main__":
    sys.exit(main())
