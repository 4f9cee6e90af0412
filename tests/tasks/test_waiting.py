"""The requests that waiting makes, counted on the platform."""

from __future__ import annotations

import threading
import time

import pytest

from ivcap_flows import wait_or_park
from ivcap_flows.errors import InputError, JobFailedError, UnavailableError, WaitTimeoutError
from ivcap_flows.local.register import register
from ivcap_flows.tasks import (
    jobs,
    place_order,
    poll_sources,
    request_job,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)


def polls(embedded):
    """Return the requests that read jobs, without event streams."""
    return [
        each["path"]
        for each in embedded.requests("GET")
        if ("/jobs" in each["path"] and not each["path"].endswith("/events")) or each["path"] == "/1/aspects"
    ]


@pytest.mark.long
def test_the_reply_of_the_platform_says_when_to_ask_first(in_flow, effects, monkeypatch):
    """Until the `retry-later` of a 202 has passed, nothing is requested, although the job is waited for."""
    said, early = [], []

    def later(urn, seconds):
        said.append(seconds)
        poll_sources.ask_later(urn, 3.0)

    monkeypatch.setattr(jobs, "ask_later", later)

    def body():
        job = request_job("sleep", {"seconds": 30.0})
        effects.embedded.forget_requests()
        begun = time.monotonic()
        looking = threading.Timer(2.0, lambda: early.append((polls(effects.embedded), time.monotonic() - begun)))
        looking.start()
        with pytest.raises(WaitTimeoutError):
            wait_for_jobs([job], timeout=7.0)
        looking.join()

    in_flow(body)
    [(asked, after)] = early
    assert said == [1] and after < 3 and asked == [] and polls(effects.embedded)


@pytest.mark.long
def test_the_setting_bounds_the_requests_of_a_minute(in_flow, effects, unique, monkeypatch):
    """A quarter of the minute's requests is allowed at once, the rest over the minute. No end is lost."""
    monkeypatch.setenv("IVCAP_FLOWS_POLLS_PER_MINUTE", "20")

    def body():
        work = [request_job("sleep", {"seconds": 30 + n / 1000}) for n in range(6)]
        effects.embedded.forget_requests()
        with pytest.raises(WaitTimeoutError):
            wait_for_jobs(work, timeout=6.0)

    in_flow(body)
    assert 1 <= len(polls(effects.embedded)) <= 5 + 2


@pytest.mark.parametrize("wait", [wait_for_orders, wait_or_park])
def test_a_malformed_urn_is_an_error_before_anything_is_asked(in_flow, effects, wait):
    """No other process hears of it, and no list is read to find it."""
    effects.embedded.forget_requests()
    with pytest.raises(InputError, match="must be a URN"):
        in_flow(lambda: wait([f"urn:ivcap:order:{n}/2" for n in range(9)]))
    assert not [each for each in effects.embedded.requests("GET") if each["path"].startswith("/1/orders")]


@pytest.mark.parametrize("noun", ["order", "job"])
@pytest.mark.parametrize("wait", ["wait for it", "wait or park"])
def test_an_outage_ends_no_wait(in_flow, effects, source, tasks_service, noun, wait):
    """What a wait reads besides the work itself, such as its products, it reads when the platform answers again."""

    def body():
        series = upload_artifact(source)
        if noun == "order":
            work = place_order(tasks_service, {"series": series})
            wait_for_orders([work])
        else:
            work = request_job(tasks_service, {"series": series, "base": 1990})
            wait_for_jobs([work])
        # Longer than the requests themselves are repeated here.
        effects.embedded.add_fault(method="GET", path="/products$|^/1/(services|aspects)", status=503)
        threading.Timer(2.5, effects.embedded.clear_faults).start()
        waits = {"order": wait_for_orders, "job": wait_for_jobs}[noun] if wait == "wait for it" else wait_or_park
        return waits([work.urn])

    [ended] = in_flow(body)
    assert ended.service_name == tasks_service and len(ended.products) == 2


def test_an_outage_is_waited_out_until_the_timeout(in_flow, effects, unique):
    """Then the platform's error is raised."""

    def body():
        order = place_order("echo", {"message": unique})
        wait_for_orders([order])
        effects.embedded.add_fault(method="GET", path="/products$", status=503)
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            wait_for_orders([order], timeout=4.0)
        return time.monotonic() - begun

    assert in_flow(body) > 3


SERVICE = """
def fails(request, job):
    job.log("nearly there")
    job.log(request["message"])
    raise ValueError("no more memory")
"""


@pytest.fixture
def failing(_embedded, tmp_path, unique):
    """The name of a service that writes to its log and fails."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "services_of_waiting_tests.py").write_text(SERVICE)
    definition = {"name": f"fails-{unique}", "entry": "services_of_waiting_tests:fails"}
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, tmp_path / "services.yaml")
    return definition["name"]


def test_a_failed_job_tells_the_end_of_its_log(in_flow, failing, unique):
    """The error of a failed job has the end of its log beside the message, as that of an order."""
    with pytest.raises(JobFailedError) as failed:
        in_flow(lambda: wait_for_jobs([request_job(failing, {"message": unique})]))
    lines = str(failed.value).splitlines()
    assert any("no more memory" in line for line in lines)
    assert any(line.startswith("  | ") and unique in line for line in lines)
