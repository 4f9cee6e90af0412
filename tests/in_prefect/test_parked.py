"""Runs that left their process by themselves: what became of them Prefect alone can say."""

from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.flow_run_states import PrefectState
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.sinks import Delivery, drain, run_graph

pytestmark = pytest.mark.canary


def parked(journal: Journal):
    opened = journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1"))
    journal.runs.close_attempt(opened.attempt.id, "parked")
    return opened.attempt


def says(outcome: str, since: datetime | None = None):
    return lambda flow_run_id: PrefectState(outcome, "by Ada", since)


def test_a_parked_run_that_was_cancelled_is_closed(ivcap_journal):
    """Once, with Prefect's word in its record, which sinks that had it parked get; one that waits stays parked."""
    attempt, got = parked(ivcap_journal), []

    class Sink:
        name = "s"

        async def deliver(self, run, graph):
            got.append(run.outcome)
            return Delivery("delivered")

    assert reconcile(ivcap_journal, lambda flow_run_id: None) == []
    assert reconcile(ivcap_journal, says("parked")) == []
    drain(ivcap_journal, [Sink()])
    [(closed, outcome)] = reconcile(ivcap_journal, says("cancelled"))
    assert (closed.id, outcome, ivcap_journal.runs.get("f1").outcome) == (attempt.id, "cancelled", "cancelled")
    nodes = run_graph(ivcap_journal, "f1").nodes
    run = nodes[flows_urn("run", "f1")]
    assert (run.attributes["outcome"], run.attributes["cause"]) == ("cancelled", "by Ada")
    # The attempt itself had ended before: it parked.
    left = ivcap_journal.runs.attempt(attempt.id)
    assert nodes[flows_urn("attempt", attempt.id)].attributes["outcome"] == left.outcome == "parked"
    assert reconcile(ivcap_journal, says("cancelled")) == []
    drain(ivcap_journal, [Sink()])
    assert got[-1] == "cancelled"


def test_a_run_that_was_woken_is_left_alone(ivcap_journal):
    """Its new attempt runs; what Prefect says is of that one."""
    parked(ivcap_journal)
    ivcap_journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1"))
    assert reconcile(ivcap_journal, says("crashed")) == []
    assert ivcap_journal.runs.get("f1").outcome == "running"


def test_a_parked_attempt_keeps_its_end_whenever_its_run_ends(ivcap_journal):
    """The run ended when Prefect says so, a day later."""
    attempt = parked(ivcap_journal)
    ended = ivcap_journal.runs.attempt(attempt.id).ended_at
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    reconcile(ivcap_journal, says("failed", tomorrow))
    nodes = run_graph(ivcap_journal, "f1").nodes
    assert ivcap_journal.runs.attempt(attempt.id).ended_at == nodes[flows_urn("attempt", attempt.id)].ended == ended
    assert nodes[flows_urn("run", "f1")].ended == tomorrow


def test_a_run_that_wakes_while_prefect_is_asked_goes_on(ivcap_journal):
    """Its new attempt decides how it ends."""
    parked(ivcap_journal)

    def wakes(flow_run_id: str) -> PrefectState:
        ivcap_journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1"))
        return PrefectState("cancelled", "by Ada", None)

    assert reconcile(ivcap_journal, wakes) == []
    assert ivcap_journal.runs.get("f1").outcome == "running"
