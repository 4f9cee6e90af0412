"""Following: while a flow waits, its log has what the services say, as they say it, each line once."""

from __future__ import annotations

import pytest

from ivcap_flows.capture import hide
from ivcap_flows.identity import urn_id
from ivcap_flows.tasks import OrderStep, following, request_job, run_job, run_orders, wait_for_jobs

SLOW = """
import time

def run(request, job):
    job.log(f"begins {request['message']}")
    job.event("half way", share=0.5)
    time.sleep(4)
    job.log("ends\\x1b[2J")
    return {"done": True}
"""
QUICK = """
def run(request, job):
    job.log(f"begins {request['message']}")
"""
MESSAGE = [{"name": "message", "type": "string"}]


@pytest.fixture
def slow(serve):
    return serve("following-slow", SLOW, MESSAGE)


@pytest.fixture
def said(caplog):
    """Return `said(work)`: the lines of the log that a service said, each with the time at which it was logged."""

    def lines(work):
        heads = tuple(f"{name} | " for name in (work.service_name, f"{work.service_name} {urn_id(work.urn)[:8]}"))
        found = [each for each in caplog.records if each.getMessage().startswith(heads)]
        return {each.getMessage().partition(" | ")[2]: each.created for each in found}, len(found)

    return lines


def test_what_a_job_says_is_logged_while_it_runs_and_once(in_flow, slow, unique, said):
    """The lines of its log, its status, and its events, without secrets and characters that move a cursor; also if the
    flow waits again, and if the wait begins in `wait_or_park` and goes on in `wait_for_jobs`."""
    hide(unique)

    def body():
        job = run_job(slow, {"message": unique}, follow=True)
        wait_for_jobs([job], follow=True)
        return job

    job = in_flow(body)
    lines, number = said(job)
    event = {"$schema": "urn:ivcap:schema:service.event.generic.1", "name": "half way", "options": {"share": 0.5}}
    told = next(line for line in lines if line.startswith("ivcap.job.event: "))
    assert all(f'"{name}"' in told for name in event)
    assert {"begins **********", "ends\ufffd[2J", "executing", "succeeded"} < set(lines) and number == len(lines)
    assert lines["begins **********"] < job.finished_at.timestamp() - 1, "the line came when the job had ended"


def test_of_many_orders_the_first_are_followed(in_flow, serve, unique, said, caplog, monkeypatch):
    monkeypatch.setattr(following, "MOST", 2)
    quick = serve("following-quick", QUICK, MESSAGE)
    steps = {number: OrderStep(quick, {"message": f"{unique} {number}"}) for number in range(3)}
    done = in_flow(lambda: run_orders(steps, follow=True, raise_on_failure=False))
    assert [bool(said(order)[0]) for order in done.values()] == [True, True, False]
    assert "The log follows the first 2 of 3." in {each.getMessage() for each in caplog.records}


def test_what_cannot_be_read_does_not_end_the_wait(in_flow, effects, slow, unique, said):
    effects.embedded.add_fault(method="GET", path="/logs", status=503)
    effects.embedded.add_fault(method="GET", path="/events", status=501)
    job = in_flow(lambda: wait_for_jobs([request_job(slow, {"message": unique})], follow=True))[0]
    assert job.succeeded and said(job)[1] == 0


def test_nothing_is_read_that_nobody_asked_for(in_flow, effects, unique):
    in_flow(lambda: run_job("echo", {"message": unique}))
    assert not [each for each in effects.embedded.requests("GET") if each["path"].endswith(("/logs", "/events"))]
