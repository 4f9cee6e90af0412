"""What users may import. A change here is a change for them."""

import importlib
import pkgutil

import pytest
from prefect import Task

import ivcap_flows
import ivcap_flows.tasks
from ivcap_flows.tasks import ivcap, provena
from ivcap_flows.tasks.pair import asynchronous_name

PUBLIC = {
    "ivcap_flows": """
        IvcapCredentials ProvenaCredentials __version__ a_wait_or_park annotate aonce flow once recorded task trace
        wait_or_park
    """,
    "ivcap_flows.blocks": "IvcapCollection IvcapCredentials IvcapOrder IvcapService ProvenaCredentials ProvenaTerms",
    "ivcap_flows.durable.plan": "Plan Planned plan planning",
    "ivcap_flows.handles": """
        TERMINAL Artifact Aspect Collection Dataset DatasetFile Handle Job JobEvent LocalFile ModelRun ModelRuns Order
        Products Queue QueueMessage RegistryItem Service
    """,
    "ivcap_flows.local": "EmbeddedPlatform PlatformControl ensure register_files serve",
    "ivcap_flows.provena.terms": "Terms collection_format missing_terms",
    "ivcap_flows.registration": "DataUse NewWorkflowTemplate ValueFrom Workflow model_run_record",
    "ivcap_flows.settings": "Settings",
    "ivcap_flows.testing": "embedded_platform ivcap_journal strict_recording",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_lists_just_these_names(module):
    """`__all__` is the promise, and every name in it is there."""
    found = importlib.import_module(module)
    assert list(found.__all__) == PUBLIC[module].split(), "if the change is meant, make it in PUBLIC above, too"
    assert all(hasattr(found, name) for name in found.__all__)


FUNCTIONS = {"JobStep", "OrderStep", "ServiceRequest"} | {
    form + name
    for name in ("download_products", "run_job", "run_jobs", "run_order", "run_orders")
    for form in ("", "a")
}
"""Names beside the tasks: functions that call tasks in the flow's body, and what they take."""
APART = """
    artifact_for_file exec_agent job_result linked_person list_items lock_item read_item search_registry unlock_item
    update_item version_item
"""
"""What few flows use: in the platform's module alone."""


@pytest.mark.parametrize("platform", [ivcap, provena], ids=["ivcap", "provena"])
def test_each_task_is_listed_with_its_platform(platform):
    """By the tag that says whose credentials it takes. A task of both is listed with the one that it writes to."""
    name = platform.__name__.rpartition(".")[2]
    assert all(name in getattr(platform, task).tags for task in platform.__all__ if task not in FUNCTIONS)
    assert not set(ivcap.__all__) & set(provena.__all__)


def test_the_stubs_list_every_task_and_nothing_else():
    """Each verb twice; docs/reference/tasks.md shows them, so that a change of them shows there."""
    made = set()
    for info in pkgutil.iter_modules(ivcap_flows.tasks.__path__, "ivcap_flows.tasks."):
        module = importlib.import_module(info.name)
        made |= {name for name in module.__all__ if isinstance(getattr(module, name), Task)}
    listed = {*ivcap.__all__, *provena.__all__, "fetch_url", "afetch_url"}
    assert made | FUNCTIONS == listed, "list it in ivcap_flows/tasks/ivcap.pyi or provena.pyi"
    apart = {form + verb for verb in APART.split() for form in ("", "a")}
    assert listed - set(ivcap_flows.tasks.__all__) == apart, "list it in ivcap_flows/tasks/__init__.pyi, or in APART"
    assert set(ivcap_flows.tasks.__all__) - listed == {"ivcap", "provena"}
    verbs = {name for name in made if asynchronous_name(name) in made}
    assert made == verbs | {asynchronous_name(name) for name in verbs}


def test_every_module_with_public_names_lists_them():
    """A module without `__all__` defines nothing public of its own."""
    missing = []
    for info in pkgutil.walk_packages(ivcap_flows.__path__, "ivcap_flows."):
        if info.name.endswith("__main__"):
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
