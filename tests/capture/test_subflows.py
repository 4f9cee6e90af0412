"""Subflows of flows without `@recorded`: parts of the run of the flow that called them, at each of its tries."""

import pytest
from prefect import flow, task

from ivcap_flows.capture import current_attempt, journal, recorded
from ivcap_flows.durable import plan
from ivcap_flows.identity import flows_urn

pytestmark = pytest.mark.usefixtures("prefect_api")


def stands(run):
    """The attempts of a run, each by its flow, its number, whether it leads the run, and how it ended."""
    return [(each.flow_name, each.number, each.leads, each.outcome) for each in journal().runs.attempts(run.id)]


@task
@recorded
def work(number: int) -> str:
    return current_attempt().run.id


@flow
@recorded
def known(number: int) -> str:
    return work(number)


@flow
def plain(number: int) -> str:
    return work(number)


def test_subflows_belong_to_the_outermost_flow(recorded_graph):
    """Recorded or not; each flow between the outermost and the recorded one has its attempt, and no other run joins in.

    A subflow that is called twice has no second attempt: neither call repeats the other.
    """

    @flow
    def middle(number: int) -> str:
        return known(number)

    @flow
    def outer() -> list[str]:
        return [middle(1), known(2), known(3), plain(4), plain(5)]

    seen = outer()
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert set(seen) == {run.id} and (run.flow_name, run.outcome) == ("outer", "completed")
    names = ["outer", "middle", "known", "known", "known", "plain", "plain"]
    assert stands(run) == [(name, 1, name == "outer", "completed") for name in names]
    ids = [flows_urn("attempt", each.id) for each in journal().runs.attempts(run.id)]
    started = {link.source: link.target for link in graph.relations.values() if link.type == "wasStartedBy"}
    assert [ids.index(started[each]) for each in ids[1:]] == [0, 1, 0, 0, 0, 0]


def test_a_flow_that_is_tried_again_tries_its_subflows_again():
    """By Prefect, or by the same command: the next attempt of the run has the next attempts of its subflows."""
    tries = []

    @flow(retries=1)
    def outer() -> None:
        tries.append(1)
        known(1)
        if len(tries) < 3:
            raise RuntimeError("not yet")

    with pytest.raises(RuntimeError, match="not yet"):
        outer()
    alone = known(1)
    outer()
    [other, run] = journal().runs.recent()
    assert (other.id, other.flow_name, run.flow_name) == (alone, "known", "outer")
    assert [each for each in stands(run) if each[2]] == [
        ("outer", 1, True, "failed"),
        ("outer", 2, True, "failed"),
        ("outer", 3, True, "completed"),
    ]
    assert {each.number for each in journal().runs.attempts(run.id) if not each.leads} >= {1, 3}


def test_a_subflow_is_planned_as_a_part_of_the_flow_that_calls_it():
    """The plan names the flow that would be continued, not the first recorded function in it."""

    @flow
    def outer() -> None:
        known(1)
        raise RuntimeError("planned or not")

    with pytest.raises(RuntimeError, match="planned"):
        outer()
    with plan() as planned, pytest.raises(RuntimeError, match="planned"):
        outer()
    [run] = journal().runs.recent()
    assert (planned.flow, planned.run.id) == ("outer", run.id)
