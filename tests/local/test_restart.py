"""Acknowledged work survives a stop, a kill of the server and a kill of a runner."""

import contextlib
import os
import signal
import time

import httpx
import pytest


@pytest.mark.long
def test_a_restart_keeps_everything_and_the_instance(local_home):
    """Artifacts (complete and partial), aspects, orders and tokens are there under a new port."""
    a = local_home.start().caller()
    instance = a.get("/_embedded")["instance"]
    whole, part = a.upload(b"whole", **{"X-Name": "name"}), a.create(10)
    a.patch(part, b"01234", 0)
    aspect = a.add("urn:t:e", {"n": 1})
    order = a.finished(a.order("echo", message="kept"))
    old_token = local_home.environment["IVCAP_JWT"]
    local_home.stop()

    b = local_home.start().caller()
    assert b.get("/_embedded")["instance"] == instance
    assert b.bytes_of(whole["id"]) == b"whole" and b.offset(part) == 5
    b.patch(part, b"56789", 5)
    assert b.bytes_of(part["id"]) == b"0123456789"
    assert b.get(f"/1/aspects/{aspect}")["content"] == {"n": 1}
    assert b.get(f"/1/orders/{order['id']}")["status"] == "succeeded"
    b.call("GET", "/1/artifacts", headers={"Authorization": f"Bearer {old_token}"})


def test_a_job_outlives_its_killed_server(local_home):
    """The runner continues, and a server that is started later collects its result."""
    a = local_home.start().caller()
    order = a.order("sleep", seconds="1")
    while a.get(f"/1/orders/{order['id']}")["status"] != "executing":
        time.sleep(0.02)
    local_home.kill()
    time.sleep(1.3)

    b = local_home.start().caller()
    done = b.finished(order)
    assert done["status"] == "succeeded"
    assert b.job_of(done)["result-content"] == {"seconds": 1.0}


def test_an_order_acknowledged_just_before_a_kill_is_carried_out_once(local_home):
    """An order whose runner had not started is started by the next server."""
    a = local_home.start().caller()
    orders = [a.order("echo", message=str(n)) for n in range(3)]
    local_home.kill()
    b = local_home.start().caller()
    for n, order in enumerate(orders):
        done = b.finished(order)
        assert done["status"] == "succeeded" and b.job_of(done)["result-content"] == {"message": str(n)}
        text = b.call("GET", f"/1/orders/{order['id']}/logs").text
        assert text == f"echo: {n}\n", "the service ran more than once, or not at all"


def test_a_killed_runner_is_an_error_that_says_so(local_home, eventually):
    """If a runner leaves no result, its order ends as `error`, with a message on the job."""
    a = local_home.start().caller()
    order = a.order("sleep", seconds="60")
    eventually(lambda: a.get(f"/1/orders/{order['id']}")["status"], lambda status: status == "executing")
    (runner,) = local_home.runners()
    os.kill(runner, signal.SIGKILL)
    done = a.finished(order)
    assert done["status"] == "error" and "killed" in a.job_of(done)["error-message"]


@pytest.mark.long
def test_bytes_acknowledged_in_a_long_upload_survive_a_kill(local_home):
    """After a kill in the middle of a body, the upload continues from the offset to the same bytes."""
    a = local_home.start().caller()
    data = os.urandom(1 << 20)
    artifact = a.create(4 << 20)
    a.patch(artifact, data, 0)

    def half():
        yield data
        yield data[: 1 << 19]
        local_home.kill()
        yield data

    headers = {"Upload-Offset": str(1 << 20), "Content-Type": "application/offset+octet-stream"}
    with contextlib.suppress(httpx.TransportError):
        a.http.patch(f"/1/artifacts/{artifact['id']}/blob", content=half(), headers=headers)
    b = local_home.start().caller()
    at = b.offset(artifact)
    assert at >= 1 << 20
    b.patch(artifact, (data * 4)[at:], at)
    assert b.bytes_of(artifact["id"]) == data * 4
