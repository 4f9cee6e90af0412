"""Embedded platforms that are like production: what the server reports, and how that works together with faults."""

import time

import httpx
import pytest

from ivcap_flows.local.likeness import AS_BUILT, FIGURES, likeness


@pytest.fixture
def control(local_platform):
    with local_platform.control() as control:
        yield control
        control.delete("/faults")
        control.delete("/like")


def test_every_figure_has_a_source_and_is_used():
    """Twice the speed halves each time, and does not change numbers of things."""
    once, twice = likeness("production"), likeness("production", 2)
    assert all(figure.source and figure.value > 0 for figure in FIGURES.values())
    assert (once.visibility_delay, twice.visibility_delay) == (600, 300)
    assert once.workers.count == twice.workers.count and once.workers.cold == 2 * twice.workers.cold
    for one, two in zip(once.rules, twice.rules, strict=True):
        for name in {"delay", "lost_after", "late_in_lists"} & one.keys():
            assert one[name] == 2 * two[name]
        assert one.get("at_once") == two.get("at_once")


@pytest.mark.parametrize(("name", "speed"), [("test", 1), ("production", 0), ("production", -1), ("production", "x")])
def test_what_it_cannot_be_like_is_refused(local_platform, control, name, speed):
    """An unknown likeness is a 400 with a message, and changes nothing."""
    reply = control.post("/like", json={"like": name, "speed": speed})
    assert reply.status_code == 400 and reply.json()["message"]
    assert httpx.get(f"{local_platform.url}/_embedded").json()["visibility_delay"] == AS_BUILT.visibility_delay


def test_it_is_slow_and_then_itself_again(local_platform, first, control):
    """Each request is delayed, and the server reports the visibility delay. Faults also act."""
    assert control.post("/like", json={"like": "production", "speed": 0.25}).json()["visibility_delay"] == 2400
    begin = time.monotonic()
    first.get("/1/artifacts")
    assert time.monotonic() - begin >= 0.4
    control.post("/faults", json={"path": "^/1/artifacts$", "status": 503, "delay": 0.0, "count": 1})
    first.call("GET", "/1/artifacts", 503)
    assert control.delete("/faults").status_code == 204
    begin = time.monotonic()
    first.get("/1/artifacts")
    assert time.monotonic() - begin >= 0.4
    assert control.delete("/like").json()["like"] is None


def test_a_job_starts_late(first, control):
    """A job is pending until its start time has come."""
    control.post("/like", json={"like": "production", "speed": 3})
    begin = time.monotonic()
    order = first.order("echo", message="late")
    while first.get(f"/1/orders/{order['id']}")["status"] == "pending":
        time.sleep(0.02)
    assert time.monotonic() - begin >= 0.9
