"""The Prefect tasks. Each verb is there twice: `place_order` for synchronous flows, `aplace_order` for asynchronous."""

from ivcap_flows.tasks.artifacts import (
    aattach_artifact,
    adownload_artifact,
    attach_artifact,
    aupload_artifact,
    download_artifact,
    upload_artifact,
)
from ivcap_flows.tasks.aspects import aadd_aspect, add_aspect, aupdate_aspect, update_aspect
from ivcap_flows.tasks.jobs import aattach_job, arequest_job, attach_job, await_for_jobs, request_job, wait_for_jobs
from ivcap_flows.tasks.model_runs import aregister_model_run, register_model_run
from ivcap_flows.tasks.orders import (
    aattach_order,
    aplace_order,
    attach_order,
    await_for_orders,
    place_order,
    wait_for_orders,
)
from ivcap_flows.tasks.registry import (
    alinked_person,
    amint_dataset,
    aregister_item,
    linked_person,
    mint_dataset,
    register_item,
)

__all__ = [
    "aadd_aspect",
    "aattach_artifact",
    "aattach_job",
    "aattach_order",
    "add_aspect",
    "adownload_artifact",
    "alinked_person",
    "amint_dataset",
    "aplace_order",
    "aregister_item",
    "aregister_model_run",
    "arequest_job",
    "attach_artifact",
    "attach_job",
    "attach_order",
    "aupdate_aspect",
    "aupload_artifact",
    "await_for_jobs",
    "await_for_orders",
    "download_artifact",
    "linked_person",
    "mint_dataset",
    "place_order",
    "register_item",
    "register_model_run",
    "request_job",
    "update_aspect",
    "upload_artifact",
    "wait_for_jobs",
    "wait_for_orders",
]
