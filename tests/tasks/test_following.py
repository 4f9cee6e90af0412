"""Following: while a flow waits, its log has what the services say, as they say it, each line once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import anyio
import pytest
from eventually import until

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import hide
from ivcap_flows.errors import OrderFailedError
from ivcap_flows.forked import PerProcess
from ivcap_flows.identity import urn_id
from ivcap_flows.tasks import (
    OrderStep,
    following,
    parking,
    request_job,
    run_job,
    run_orders,
    running,
    upload_artifact,
    wait_for_jobs,
)

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


@pytest.mark.catches("following takes all streams")
def test_what_is_followed_leaves_streams_for_downloads(in_flow, serve, unique, said, caplog, tmp_path, monkeypatch):
    """However long the work takes that many waits follow. What has no place yet is followed once it has one."""
    monkeypatch.setattr(following, "_places", PerProcess(lambda: threading.Semaphore(2)))
    monkeypatch.setattr(following, "PAUSES", (0.05,))
    slow = serve("following-slow", SLOW, [*MESSAGE, {"name": "file", "type": "string"}])
    file, source = tmp_path / "begun", tmp_path / "source"
    source.write_text(unique)

    async def downloaded(urn):
        client = await ivcap_client(None, deployed=False)
        return await asyncio.wait_for(client.artifacts.download(urn, tmp_path / "target"), 10)

    def body():
        artifact = upload_artifact(source)
        client = loop.run(ivcap_client(None, deployed=False))
        monkeypatch.setattr(client._session._pool, "_streams", anyio.Semaphore(3))
        jobs = [request_job(slow, {"message": f"{unique} {number}", "file": str(file)}) for number in range(4)]
        with ThreadPoolExecutor() as threads:
            waits = [threads.submit(copy_context().run, wait_for_jobs, [job], follow=True) for job in jobs]
            try:
                until(lambda: sum("| ivcap.job.event" in each.getMessage() for each in caplog.records) >= 2)
                there = loop.run(downloaded(artifact.urn))
            finally:
                file.touch()
            return there, [job for wait in waits for job in wait.result()]

    there, jobs = in_flow(body)
    assert there.size == len(unique)
    assert all("ends\ufffd[2J" in said(job) for job in jobs)


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
