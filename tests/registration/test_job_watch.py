"""Many jobs are waited for by pages of one list, and none that stands still keeps another from being seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

import pytest

from ivcap_flows.errors import ForbiddenError, NotAuthorizedError, UnreachableError, WaitTimeoutError
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration import job_watch
from ivcap_flows.registration.job_watch import JobWatch

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Provena:
    """Each look lets the next job end; `stuck` ones never do, and `unlisted` ones are in no list."""

    def __init__(self, *jobs: str, stuck: tuple[str, ...] = (), unlisted: tuple[str, ...] = ()) -> None:
        self.jobs: Any = self
        self.visibility_delay = 0.1
        self.time = ServerTime(NOW, NOW)
        self.all, self.stuck, self.unlisted = jobs, stuck, unlisted
        self.made = int(NOW.timestamp())
        self.done = 0
        self.lists, self.reads = 0, list[str]()
        self.errors: list[Exception] = []

    def _row(self, job: str) -> JobRow:
        mobile = [each for each in self.all if each not in self.stuck]
        ended = job in mobile[: self.done]
        status = "SUCCEEDED" if ended else "IN_PROGRESS"
        return JobRow(session_id=job, created_timestamp=self.made, status=status)

    async def list(self, page_size: int, limit: int) -> AsyncIterator[JobRow]:
        self.lists += 1
        if self.errors:
            raise self.errors.pop()
        self.done += 1
        for job in self.all:
            if job not in self.unlisted:
                yield self._row(job)

    async def fetch(self, job: str) -> JobRow | None:
        self.reads.append(job)
        if self.errors:
            raise self.errors.pop()
        self.done += 1
        return self._row(job) if job in self.all else None


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "_FIRST", 0.01)
    monkeypatch.setattr(job_watch, "_LONGEST", 0.02)


async def wait_for(provena: Provena, *jobs: str, stall_timeout: float = 0.5) -> list[Any]:
    watch = JobWatch(provena)  # type: ignore[arg-type]
    waits = (watch.wait(job, stall_timeout) for job in jobs or provena.all)
    return await asyncio.gather(*waits, return_exceptions=True)


async def test_few_are_read_and_many_are_listed() -> None:
    """One request a look for many."""
    few, many = Provena("a", "b"), Provena(*"abcdefgh")
    assert [row.session_id for row in await wait_for(few)] == [*"ab"] and few.lists == 0
    assert [row.session_id for row in await wait_for(many)] == [*"abcdefgh"]
    assert many.lists <= 8 and len(many.reads) <= 9


async def test_what_no_list_shows_is_read() -> None:
    """Such as a job so old that newer ones hide it."""
    provena = Provena(*"abcdef", unlisted=("b",))
    assert all(row.done for row in await wait_for(provena)) and "b" in provena.reads


async def test_a_job_that_stands_still_ends_when_nothing_moves_any_more() -> None:
    """Jobs wait in one queue: while others end, its worker may not have come to it."""
    provena = Provena(*"abcdefghij", stuck=("a",))
    loop = asyncio.get_running_loop()
    began = loop.time()
    stuck, *fine = await wait_for(provena, stall_timeout=0.2)
    assert all(row.done for row in fine)
    assert isinstance(stuck, WaitTimeoutError) and stuck.data["pending"] == ["a"] and "IN_PROGRESS" in str(stuck)
    assert loop.time() - began >= 0.2


async def test_an_old_job_has_to_move_itself_and_soon() -> None:
    """Where it is older than the stall timeout, its worker is probably dead: a start again does not wait as long."""
    provena = Provena(*"abcde", stuck=tuple("abcde"))
    provena.made -= 3600
    ended = await asyncio.wait_for(wait_for(provena, stall_timeout=600.0), 5)
    assert all(isinstance(each, WaitTimeoutError) for each in ended)


async def test_an_unknown_job_never_appeared() -> None:
    """The text says so."""
    [error] = await wait_for(Provena("a"), "other", stall_timeout=0.1)
    assert "it never appeared" in str(error) and error.data["status"] is None


async def test_an_outage_ends_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and the wait goes on."""
    provena = Provena(*"abcdef")
    provena.errors = [UnreachableError("away", platform="p") for _ in range(4)]
    assert all(row.done for row in await wait_for(provena))
    assert len([each for each in caplog.records if "is waited for" in each.message]) == 1


async def test_a_refusal_ends_the_waits() -> None:
    """Of the list all, of one job its own."""
    provena = Provena(*"abcdef")
    provena.errors = [ForbiddenError("no", platform="p")]
    assert all(isinstance(each, ForbiddenError) for each in await wait_for(provena))
    few = Provena("a")
    few.errors = [NotAuthorizedError("not yours", platform="p")]
    assert [type(each) for each in await wait_for(few)] == [NotAuthorizedError]


async def test_a_wait_may_begin_as_the_last_one_ends() -> None:
    """The looks of the one end, and those of the other begin."""
    watch = JobWatch(Provena("a", "b"))  # type: ignore[arg-type]

    async def both() -> list[JobRow]:
        return [await watch.wait("a", 5.0), await watch.wait("b", 5.0)]

    assert [row.session_id for row in await asyncio.wait_for(both(), 5)] == ["a", "b"]


async def test_a_wait_that_is_left_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the last one that leaves ends the looks."""
    watch = JobWatch(Provena("a", "b", stuck=("a", "b")))  # type: ignore[arg-type]
    first, second = (asyncio.ensure_future(watch.wait(job, 600.0)) for job in "ab")
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    assert not second.done()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert watch._watching is None
