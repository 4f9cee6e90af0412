"""Prefect tasks without `@recorded` are followed by the methods that run them: there are no others."""

import pytest
from prefect import Task

pytestmark = pytest.mark.canary


def test_prefect_runs_tasks_by_the_methods_that_are_followed():
    """A Prefect with a new public method has to be looked at: it may run tasks that nobody follows."""
    runs = {"map", "submit"}
    outside_of_flows = {"apply_async", "aserve", "delay", "serve"}
    beside = {
        "create_local_run", "create_run", "isclassmethod", "ismethod", "isstaticmethod", "on_commit", "on_completion",
        "on_failure", "on_rollback", "on_running", "with_options",
    }  # fmt: skip
    assert {name for name in vars(Task) if not name.startswith("_")} == runs | outside_of_flows | beside
