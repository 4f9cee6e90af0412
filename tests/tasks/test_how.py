"""`handle.how`: how a run came by a thing, the same whenever and however often its flow asks.

A flow that publishes only what is new takes its word for it: if an attempt that dies after its request made the next
one say "kept", what follows the request would never be done.
"""

import pytest

from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import place_order, request_job, upload_artifact, wait_for_jobs, wait_for_orders


@pytest.fixture
def replayed(in_flow):
    """`replayed(body)`: what two attempts of one run get."""

    def run(body):
        seen = []

        def twice():
            seen.append(body())
            if len(seen) == 1:
                raise RuntimeError("The first attempt fails.")

        in_flow(twice, retries=1)
        return seen

    return run


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_run_requested_it_has_sent(replayed, embedded_platform, unique, lost):
    """Also in the next attempt, after the wait, and if the reply was lost."""
    if lost:
        rule = {"method": "POST", "path": "^/1/orders$", "count": 1, "drop_reply_after_effect": True}
        embedded_platform.add_fault(**rule)

    def body():
        order = place_order("echo", {"message": unique})
        [job] = wait_for_jobs([request_job("echo", {"message": unique})])
        return order.how, wait_for_orders([order])[0].how, job.how

    try:
        assert replayed(body) == [("sent",) * 3] * 2
    finally:
        embedded_platform.clear_faults()


def test_what_another_run_requested_is_kept(in_flow, replayed, unique):
    """Whatever became of it since then."""

    def body():
        return place_order("echo", {"message": unique}, once_per="account")

    first = in_flow(body)
    seen = replayed(body)
    assert [first.how, *(each.how for each in seen)] == ["sent", "kept", "kept"]
    assert seen == [first, first] and {first, *seen} == {first}


def test_what_another_journal_requested_is_adopted(in_flow, replayed, unique, tmp_path):
    """It is found on the platform."""

    def body():
        return place_order("echo", {"message": unique}, once_per="account").how

    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_flow(body) == "sent"
    assert replayed(body) == ["adopted", "adopted"]


def test_what_serves_another_request_is_reused(in_flow, replayed, unique):
    """It was paid for before."""
    in_flow(lambda: wait_for_orders([place_order("echo", {"message": unique})]))
    assert replayed(lambda: place_order("echo", {"message": unique}, reuse=True).how) == ["reused", "reused"]


def test_files_have_it_too_and_plans_say_so(in_flow, source, unique):
    """An upload whose content is there already is no new one."""
    assert [in_flow(lambda: upload_artifact(source).how) for _ in range(2)] == ["sent", "kept"]
    with plan():
        assert in_flow(lambda: place_order("echo", {"message": unique}).how) == "planned"
