"""Many jobs are waited for by pages of one list, and none that stands still keeps another from being seen."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone

from ivcap_flows.errors import ForbiddenError, NotAuthorizedError, UnreachableError, WaitTimeoutError
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration.job_watch import JobWatch

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Provena:
    """Each look lets the next job end; `stuck` ones never do, and `unlisted` ones are in no list."""

    def __init__(self, jobs, stuck="", unlisted="", errors=()):
        self.jobs = self
        self.visibility_delay = 0.1
        self.time = ServerTime(NOW, NOW)
        self.all, self.stuck, self.unlisted, self.errors = jobs, stuck, unlisted, list(errors)
        self.made = int(NOW.timestamp())
        self.done, self.lists, self.reads = 0, 0, []

    def _look(self):
        if self.errors:
            raise self.errors.pop()
        self.done += 1

    def _row(self, job):
        ended = job in [each for each in self.all if each not in self.stuck][: self.done]
        return JobRow(session_id=job, created_timestamp=self.made, status="SUCCEEDED" if ended else "IN_PROGRESS")

    async def list(self, page_size, limit):
        self.lists += 1
        self._look()
        for job in self.all:
            if job not in self.unlisted:
                yield self._row(job)

    async def fetch(self, job):
        self.reads.append(job)
        self._look()
        return self._row(job) if job in self.all else None


def watching(provena):
    return JobWatch(provena, pauses=(0.01, 0.02))


async def wait_for(provena, jobs="", stall_timeout=60.0):
    watch = watching(provena)
    waits = (watch.wait(job, stall_timeout) for job in jobs or provena.all)
    return await asyncio.gather(*waits, return_exceptions=True)


async def test_few_are_read_and_many_are_listed():
    """One request a look for many; what no list shows is read, such as a job so old that newer ones hide it."""
    few, many, hidden = Provena("ab"), Provena("abcdefgh"), Provena("abcdef", unlisted="b")
    assert [row.session_id for row in await wait_for(few)] == [*"ab"] and few.lists == 0
    assert [row.session_id for row in await wait_for(many)] == [*"abcdefgh"]
    assert many.lists <= 8 and len(many.reads) <= 9
    assert all(row.done for row in await wait_for(hidden)) and "b" in hidden.reads


async def test_a_job_that_stands_still_ends_when_nothing_moves_any_more():
    """Jobs wait in one queue: while others end, its worker may not have come to it."""
    provena, loop = Provena("abcdefghij", stuck="a"), asyncio.get_running_loop()
    began = loop.time()
    stuck, *fine = await wait_for(provena, stall_timeout=0.2)
    assert all(row.done for row in fine)
    assert isinstance(stuck, WaitTimeoutError) and stuck.data["pending"] == ["a"] and "IN_PROGRESS" in str(stuck)
    assert loop.time() - began >= 0.2


async def test_an_old_job_has_to_move_itself_and_soon():
    """Where it is older than the stall timeout, its worker is probably dead: a start again does not wait as long."""
    provena = Provena("abcde", stuck="abcde")
    provena.made -= 3600
    ended = await asyncio.wait_for(wait_for(provena, stall_timeout=600.0), 60)
    assert all(isinstance(each, WaitTimeoutError) for each in ended)


async def test_an_unknown_job_never_appeared():
    [error] = await wait_for(Provena("a"), "x", stall_timeout=0.1)
    assert "it never appeared" in str(error) and error.data["status"] is None


async def test_an_outage_ends_no_wait_and_a_refusal_does(caplog):
    """An outage is told once. A refusal of the list ends all waits, and one of a job its own."""
    provena = Provena("abcdef", errors=[UnreachableError("away", platform="p") for _ in range(4)])
    assert all(row.done for row in await wait_for(provena))
    assert len([each for each in caplog.records if "is waited for" in each.message]) == 1
    many = await wait_for(Provena("abcdef", errors=[ForbiddenError("no", platform="p")]))
    few = await wait_for(Provena("a", errors=[NotAuthorizedError("not yours", platform="p")]))
    assert [type(each) for each in (*many, *few)] == [ForbiddenError] * 6 + [NotAuthorizedError]


async def test_a_failed_look_is_not_followed_by_a_pause_of_four_times_its_length():
    """It takes as long as its request is repeated, which is a minute. After that, the usual pause has to do."""
    provena, loop, failed = Provena("a"), asyncio.get_running_loop(), []

    async def away(job):
        provena.fetch = Provena("a").fetch
        await asyncio.sleep(0.3)
        failed.append(loop.time())
        raise UnreachableError("away", platform="p")

    provena.fetch = away
    [row] = await wait_for(provena)
    assert row.done and loop.time() - failed[0] < 0.3


async def test_waits_come_and_go_on_their_own():
    """One may begin as the last one ends; one that is left leaves the others, and the last one ends the looks."""
    watch = watching(Provena("ab"))

    async def both():
        return [await watch.wait("a", 60.0), await watch.wait("b", 60.0)]

    assert [row.session_id for row in await asyncio.wait_for(both(), 60)] == ["a", "b"]
    watch = watching(Provena("ab", stuck="ab"))
    first, second = (asyncio.ensure_future(watch.wait(job, 600.0)) for job in "ab")
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    assert not second.done()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert watch._watching is None
