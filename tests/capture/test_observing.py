"""How Prefect tasks without `@recorded` are followed: by the methods that run them."""

import gc
import uuid

import pytest
from mutants import mutate
from prefect import Task, flow, task

from ivcap_flows.capture import context, early, journal, recorded, recorder
from ivcap_flows.capture.calls import Call


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


@task
def add(one: int, two: int) -> int:
    return one + two


@flow
def opens_nothing(more: int) -> int:
    """A flow that needs no attempt. It runs one task, and as many further ones as given, made here to be quick."""
    for _ in range(more):
        call = Call(f"urn:ivcap-flows:task-run:{uuid.uuid4()}", "task-run", "add", "", "", None)
        context.put_in_flow(call)
        call.ended = call.started
        context.put_in_flow(call)
    return add(1, 2)


def kept_calls() -> int:
    gc.collect()
    return sum(isinstance(each, Call) for each in gc.get_objects())


def fill_the_room_for_early_calls() -> int:
    """Run flows without an attempt around one that opens its attempt late. Return how many facts that one misses."""
    most = early.ROOM // Call("urn:ivcap-flows:task-run:1", "task-run", "add", "", "", None).weight
    before = kept_calls()

    @flow
    def opens_late() -> None:
        add(1, 2)
        for _ in range(4):
            opens_nothing(most // 3)
        assert kept_calls() - before <= most + 10
        add(3, 4)
        context.current_attempt()

    opens_late()
    recorder().flush()
    return journal().runs.recent(1)[0].missing_facts


@pytest.mark.mutant(None)
@pytest.mark.usefixtures("prefect_api")
def test_calls_of_flows_without_an_attempt_are_bounded_over_all_flows():
    """The oldest give way to new ones. If the flow of such a call opens an attempt after all, the call is missing."""
    assert fill_the_room_for_early_calls() == 1


@pytest.mark.mutant("early calls kept")
@pytest.mark.usefixtures("prefect_api")
def test_a_build_that_keeps_all_early_calls_is_found(monkeypatch: pytest.MonkeyPatch):
    """The test fails on a build that keeps the calls of every flow until its attempt opens."""
    mutate("early calls kept", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        fill_the_room_for_early_calls()
