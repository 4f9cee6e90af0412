"""With the likeness of production, jobs have few workers, which are started on demand."""

from collections import Counter

import pytest

from ivcap_flows.local import clock
from ivcap_flows.local.likeness import Workers
from ivcap_flows.local.provena.jobs.state import Jobs
from ivcap_flows.local.provena.store import Store

AT_WORK = {"DEQUEUED", "IN_PROGRESS"}


class Time:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock, "machine", time)
    return time


@pytest.fixture
def jobs(tmp_path):
    store = Store(tmp_path / "provena.sqlite", None)
    made = Jobs(store, 2.0, lambda sub_type: None)
    made.workers = Workers(count=3, poll=5.0, cold=30.0, idle=120.0, work=2.0, row=1.0)
    with store.transaction():
        yield made
    store.close()


def statuses(jobs):
    return Counter(job["status"] for job in jobs.page({}, 100, None)["jobs"])


def work_off(jobs, time):
    """Run until no job is left.

    Return after how many seconds the first was taken, and the maximum of jobs at the same time.
    """
    begin, first, most = time.now, None, 0
    while (due := jobs.next_due()) is not None:
        time.now = max(time.now, due)
        jobs.advance()
        seen = statuses(jobs)
        busy = sum(seen[status] for status in AT_WORK)
        most = max(most, busy)
        if busy and first is None:
            first = time.now - begin
    assert first is not None
    return first, most


def test_three_at_once_after_a_cold_start(jobs, time):
    """The row appears after a second, the first worker starts after half a minute, and then three jobs run."""
    for _ in range(8):
        jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
    begin = time.now
    assert jobs.next_due() == begin + 1.0
    first, most = work_off(jobs, time)
    assert (first, most) == (31.0, 3)
    assert statuses(jobs) == {"SUCCEEDED": 8}
    assert time.now - begin < 31 + 3 * (5 + 2) + 5


def test_workers_that_are_idle_end(jobs, time):
    """A job within two minutes after the last one starts at once. A later one waits for a worker to start."""
    jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
    work_off(jobs, time)
    time.now += 60
    jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
    assert work_off(jobs, time)[0] == 1.0
    time.now += 200
    jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
    assert work_off(jobs, time)[0] == 31.0


def test_types_of_jobs_have_workers_of_their_own(jobs, time):
    """Three jobs of each type run at the same time."""
    for _ in range(4):
        jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
        jobs.dispatch("somebody", "REGISTRY_WAKE_UP", {})
    assert work_off(jobs, time)[1] == 6


def test_all_go_on_where_it_is_like_production_no_more(jobs, time):
    """When the likeness ends, all jobs that wait for a worker run at once."""
    for _ in range(8):
        jobs.dispatch("somebody", "PROV_LODGE_WAKE_UP", {})
    time.now += 2
    jobs.advance()
    assert statuses(jobs) == {"PENDING": 8}
    jobs.workers = None
    assert work_off(jobs, time)[1] == 8
    assert statuses(jobs) == {"SUCCEEDED": 8}
