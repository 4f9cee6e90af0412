"""Following: while a flow waits, its log has what the services say, as they say it, each line once."""

from __future__ import annotations

import threading

import pytest
from eventually import until

from ivcap_flows.capture import hide
from ivcap_flows.errors import OrderFailedError
from ivcap_flows.identity import urn_id
from ivcap_flows.tasks import OrderStep, following, parking, request_job, run_job, run_orders, running, wait_for_jobs

SLOW = """
import time
from pathlib import Path

def run(request, job):
    job.log(f"begins {request['message']}")
    job.event("half way", share=0.5)
    while not Path(request["file"]).exists():
        time.sleep(0.05)
    job.log("ends\\x1b[2J")
    return {"done": True}
"""
QUICK = """
def run(request, job):
    job.log(f"begins {request['message']}")
"""
FAILS = """
def run(request, job):
    raise ValueError(request["message"])
"""
MESSAGE = [{"name": "message", "type": "string"}]


@pytest.fixture
def quick(serve):
    return serve("following-quick", QUICK, MESSAGE)


@pytest.fixture
def said(caplog):
    """Return `said(work)`: the lines of the log that a service said."""

    def lines(work):
        heads = tuple(f"{name} | " for name in (work.service_name, f"{work.service_name} {urn_id(work.urn)[:8]}"))
        return [text.partition(" | ")[2] for text in caplog.messages if text.startswith(heads)]

    return lines


def test_what_a_job_says_is_logged_while_it_runs_and_once(in_flow, serve, unique, said, caplog, tmp_path):
    """The lines of its log, its status, and its events, without secrets and characters that move a cursor; also if the
    flow waits again, and if the wait begins in `wait_or_park` and goes on in `wait_for_jobs`."""
    hide(unique)
    file = tmp_path / "begun"
    slow = serve("following-slow", SLOW, [*MESSAGE, {"name": "file", "type": "string"}])

    def end_once_it_is_heard():
        until(lambda: any("| begins" in each.getMessage() for each in caplog.records))
        file.touch()

    threading.Thread(target=end_once_it_is_heard, daemon=True).start()

    def body():
        job = run_job(slow, {"message": unique, "file": str(file)}, follow=True, timeout=90)
        wait_for_jobs([job], follow=True)
        return job

    job = in_flow(body)
    lines = said(job)
    event = {"$schema": "urn:ivcap:schema:service.event.generic.1", "name": "half way", "options": {"share": 0.5}}
    told = next(line for line in lines if line.startswith("ivcap.job.event: "))
    assert all(f'"{name}"' in told for name in event)
    assert {"begins **********", "ends\ufffd[2J", "executing", "succeeded"} < set(lines) and len(lines) == len(
        set(lines)
    )


def test_of_many_orders_the_first_are_followed(in_flow, quick, unique, said, caplog, monkeypatch):
    monkeypatch.setattr(following, "MOST", 2)
    steps = {number: OrderStep(quick, {"message": f"{unique} {number}"}) for number in range(3)}
    done = in_flow(lambda: run_orders(steps, follow=True, raise_on_failure=False))
    assert [bool(said(order)) for order in done.values()] == [True, True, False]
    assert caplog.messages.count("The log follows the first 2 of 3.") == 1


def test_work_that_has_ended_is_not_waited_for_again_to_raise_its_failure(in_flow, serve, unique, caplog, monkeypatch):
    """What failed is read with its log; the flow's log says once what is followed."""
    fails = serve("following-fails", FAILS, MESSAGE)
    waits = []

    def wait_or_park(work, **options):
        waits.append(len(work))
        return parking.wait_or_park(work, **options)

    monkeypatch.setattr(following, "MOST", 2)
    monkeypatch.setattr(running, "wait_or_park", wait_or_park)

    def body():
        with pytest.raises(OrderFailedError, match="3 of 3 orders") as caught:
            run_orders([OrderStep(fails, {"message": f"{unique} {number}"}) for number in range(3)], follow=True)
        return caught.value

    error = in_flow(body)
    assert waits == [3] and caplog.messages.count("The log follows the first 2 of 3.") == 1
    assert [f"{unique} {number}" in error.logs[order.urn] for number, order in enumerate(error.orders)] == [True] * 3


def test_what_cannot_be_read_does_not_end_the_wait(in_flow, effects, quick, unique, said):
    effects.embedded.add_fault(method="GET", path="/logs", status=503)
    effects.embedded.add_fault(method="GET", path="/events", status=501)
    job = in_flow(lambda: wait_for_jobs([request_job(quick, {"message": unique})], follow=True))[0]
    assert job.succeeded and said(job) == []
    refused = {each["path"].rpartition("/")[2] for each in effects.embedded.requests("GET") if each["status"] > 500}
    assert refused == {"logs", "events"}


def test_nothing_is_read_that_nobody_asked_for(in_flow, effects, unique):
    in_flow(lambda: run_job("echo", {"message": unique}))
    assert not [each for each in effects.embedded.requests("GET") if each["path"].endswith(("/logs", "/events"))]
