"""How Prefect tasks without `@recorded` are followed: by the methods that run them."""

import gc

import pytest
from prefect import Task, flow, task

from ivcap_flows.capture import context, journal, pending_calls, recorder
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.observing import observe_tasks


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


@pytest.mark.catches("early calls kept")
@pytest.mark.usefixtures("prefect_api")
def test_calls_of_flows_without_an_attempt_are_bounded_over_all_flows(monkeypatch):
    """The oldest give way to new ones. If the flow of such a call opens an attempt after all, the call is missing."""
    observe_tasks()
    monkeypatch.setattr(pending_calls, "MOST", 2)
    pending_calls._pending().clear()

    @task
    def step(number: int) -> int:
        return number

    @flow
    def opens_nothing() -> None:
        for number in range(2):
            step(number)

    @flow
    def opens_late() -> None:
        for number in range(2):
            step.with_options(name=f"step {number}")(number)
        opens_nothing()
        assert calls() <= before + 2
        step.with_options(name="step 2")(2)
        context.current_attempt()

    def calls() -> int:
        gc.collect()
        return sum(isinstance(each, Call) for each in gc.get_objects())

    opens_nothing()
    before = calls() - 2
    opens_late()
    assert recorder().flush()
    [run] = journal().runs.recent()
    names = [f.record.attributes["name"] for f in journal().facts.of_run(run.id) if f.record.type == "task-run"]
    assert (set(names), run.missing_facts) == ({"step 2"}, 2)
