"""What users may import. A change here is a change for them."""

import importlib
import pkgutil

import pytest

import ivcap_flows

PUBLIC = {
    "ivcap_flows": [
        "IvcapCredentials",
        "ProvenaCredentials",
        "__version__",
        "annotate",
        "aonce",
        "await_or_park",
        "flow",
        "once",
        "recorded",
        "task",
        "wait_or_park",
    ],
    "ivcap_flows.blocks": ["IvcapCredentials", "ProvenaCredentials"],
    "ivcap_flows.durable.plan": ["Plan", "Planned", "plan", "planning"],
    "ivcap_flows.handles": [
        "TERMINAL",
        "Artifact",
        "Aspect",
        "Collection",
        "Dataset",
        "DatasetFile",
        "Handle",
        "Job",
        "JobEvent",
        "LocalFile",
        "ModelRun",
        "ModelRuns",
        "Order",
        "Products",
        "Queue",
        "QueueMessage",
        "RegistryItem",
        "Service",
    ],
    "ivcap_flows.local": ["EmbeddedPlatform", "ensure", "serve"],
    "ivcap_flows.provena.datasets": ["DatasetDefaults", "collection_format", "missing_defaults"],
    "ivcap_flows.registration": ["model_run_record"],
    "ivcap_flows.settings": ["Settings"],
    "ivcap_flows.tasks": sorted(
        prefix + verb
        for prefix in ("", "a")
        for verb in (
            "add_aspect",
            "add_to_collection",
            "artifact_for_file",
            "attach_artifact",
            "attach_aspect",
            "attach_collection",
            "attach_job",
            "attach_order",
            "collection_items",
            "create_collection",
            "create_queue",
            "delete_queue",
            "dequeue",
            "download_artifact",
            "download_dataset_files",
            "enqueue",
            "exec_agent",
            "explore_lineage",
            "fetch_item",
            "find_service",
            "get_secret",
            "job_result",
            "lineage_report",
            "link_model_run_to_study",
            "linked_person",
            "list_artifacts",
            "list_aspects",
            "list_collections",
            "list_dataset_files",
            "list_items",
            "list_jobs",
            "list_orders",
            "list_queues",
            "list_secrets",
            "list_services",
            "lock_item",
            "mint_dataset",
            "order_log",
            "place_order",
            "read_artifact",
            "register_dataset",
            "register_item",
            "register_model_run",
            "register_model_runs",
            "register_service",
            "remove_from_collection",
            "request_job",
            "retract_aspect",
            "retract_collection",
            "search",
            "search_registry",
            "set_secret",
            "unlock_item",
            "untar_artifact",
            "update_aspect",
            "update_dataset",
            "update_item",
            "update_model_run",
            "upload_artifact",
            "upload_dataset_files",
            "upload_directory",
            "version_item",
            "wait_for_jobs",
            "wait_for_orders",
        )
    ),
    "ivcap_flows.testing": ["embedded_platform", "ivcap_journal"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_lists_just_these_names(module):
    """`__all__` is the promise, and every name in it is there."""
    found = importlib.import_module(module)
    assert list(found.__all__) == PUBLIC[module]
    assert all(hasattr(found, name) for name in found.__all__)


def test_every_module_with_public_names_lists_them():
    """A module without `__all__` defines nothing public of its own."""
    missing = []
    for info in pkgutil.walk_packages(ivcap_flows.__path__, "ivcap_flows."):
        if ".migrations" in info.name or info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        own = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == info.name
        ]
        if own and not hasattr(module, "__all__"):
            missing.append(f"{info.name}: {own}")
    assert missing == []
