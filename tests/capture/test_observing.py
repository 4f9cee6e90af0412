"""How Prefect tasks without `@recorded` are followed: by the methods that run them."""

import pytest
from prefect import Task, flow, task

from ivcap_flows.capture import context, recorded


@pytest.mark.canary
def test_prefect_runs_tasks_by_the_methods_that_are_followed():
    """A Prefect with a new public method has to be looked at: it may run tasks that nobody follows."""
    runs = {"map", "submit"}
    outside_of_flows = {"apply_async", "aserve", "delay", "serve"}
    beside = {
        "create_local_run", "create_run", "isclassmethod", "ismethod", "isstaticmethod", "on_commit", "on_completion",
        "on_failure", "on_rollback", "on_running", "with_options",
    }  # fmt: skip
    assert {name for name in vars(Task) if not name.startswith("_")} == runs | outside_of_flows | beside


@pytest.mark.usefixtures("prefect_api")
def test_the_calls_of_a_flow_are_counted_by_short_names():
    """They are counted by the texts that they give to their tasks, of which none is kept: these may be long."""
    seen = []

    @task
    def read(text: str) -> int:
        return len(text)

    @flow
    @recorded
    def reads() -> None:
        for text in ("x" * 100_000, "x" * 100_000, "y" * 100_000):
            read(text)
            seen.append(context.count_calls(0, read.task_key, f"0={text}"))

    reads()
    assert seen == [1, 2, 1]
    assert max(len(part) for key in context._calls._known for part in key) < 100
