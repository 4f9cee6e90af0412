"""The poller that all waits of a process share."""

import asyncio

import pytest

from ivcap_flows.durable import waiter
from ivcap_flows.durable.waiter import LONGEST, SHORTEST, Poller, interval
from ivcap_flows.errors import NotFoundError, UnreachableError, WaitTimeoutError


class Work:
    """Remote work as a platform shows it; counts what is asked."""

    def __init__(self, **status: str) -> None:
        self.status, self.reads, self.lists, self.down = dict(status), 0, 0, False

    async def read(self, urn: str) -> tuple[str, str]:
        self.reads += 1
        if self.down or self.status.get(urn) == "unreadable":
            raise UnreachableError("no reply", platform="p")
        if urn not in self.status:
            raise NotFoundError(f"{urn} is not known", platform="p")
        return urn, self.status[urn]

    async def recent(self, urns):
        self.lists += 1
        if self.down:
            raise UnreachableError("no reply", platform="p")
        for item in list(self.status.items()):
            yield item

    def poller(self, settle: float = 5.0) -> Poller[tuple[str, str]]:
        return Poller(what="orders", read=self.read, recent=self.recent, status=lambda r: r[1], settle=settle)


async def test_records_come_in_the_order_asked_for():
    """The result is in input order, duplicates included, whatever ends first."""
    work = Work(a="executing", b="succeeded")
    asyncio.get_running_loop().call_later(0.2, work.status.update, {"a": "failed"})
    assert await work.poller().wait(["a", "b", "a"]) == [("a", "failed"), ("b", "succeeded"), ("a", "failed")]


async def test_many_are_looked_for_in_the_list_and_read_once_when_done():
    """Forty orders cost one list a round and one read each at their end, not forty reads a round."""
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    asyncio.get_running_loop().call_later(1.2, work.status.update, {f"o{i}": "succeeded" for i in range(40)})
    await work.poller().wait(list(work.status))
    assert work.reads == 40 and 2 <= work.lists <= 6


async def test_a_deadline_names_what_is_pending_and_a_later_wait_goes_on():
    """The deadline ends the wait, not the work."""
    work = Work(a="succeeded", b="executing")
    poller = work.poller()
    with pytest.raises(WaitTimeoutError) as late:
        await poller.wait(["a", "b"], timeout=0.2)
    assert late.value.pending == ["b"]
    work.status["b"] = "succeeded"
    assert await poller.wait(["b"], timeout=5) == [("b", "succeeded")]


async def test_an_unreachable_platform_is_waited_out(caplog):
    """An outage is said once and does not end a wait."""
    work = Work(a="succeeded")
    work.down = True
    asyncio.get_running_loop().call_later(1.3, setattr, work, "down", False)
    with caplog.at_level("WARNING", "ivcap_flows.waiting"):
        assert await work.poller().wait(["a"]) == [("a", "succeeded")]
    assert sum("Still waiting" in r.message for r in caplog.records) == 1


async def test_a_record_that_cannot_be_read_hides_no_other():
    """One wait goes on for a record that always fails; another, asked for later, ends."""
    work = Work(a="unreadable", b="succeeded")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["a"]))
    await asyncio.sleep(0)
    assert await poller.wait(["b"], timeout=5) == [("b", "succeeded")]
    assert not first.done()
    first.cancel()


async def test_young_work_does_not_wait_for_old_work(monkeypatch):
    """Who joins while the poller rests for the sake of old work is looked at as soon as if it were alone."""
    monkeypatch.setattr(waiter, "SHARE", 1000.0)
    work = Work(old="executing", young="succeeded")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["old"]))
    await asyncio.sleep(SHORTEST / 4)
    assert work.reads == 1
    poller._watched["old"].since -= 3600
    await asyncio.sleep(3 * SHORTEST)
    before = work.reads
    await asyncio.sleep(2 * SHORTEST)
    assert work.reads == before
    assert await poller.wait(["young"], timeout=2 * SHORTEST) == [("young", "succeeded")]
    first.cancel()


async def test_a_late_record_is_waited_for_until_it_settles():
    """A record that is not visible yet is not an error; one that never appears is."""
    work = Work()
    asyncio.get_running_loop().call_later(0.3, work.status.update, {"a": "succeeded"})
    assert await work.poller().wait(["a"]) == [("a", "succeeded")]
    with pytest.raises(NotFoundError):
        await work.poller(settle=0.2).wait(["never"])


def test_the_interval_grows_with_age_within_its_bounds():
    """Young work is looked at often, old work rarely, and jitter stays within a quarter."""
    assert interval(0, jitter=0.5) == SHORTEST and interval(36_000, jitter=0.5) == LONGEST
    assert interval(100, jitter=0.5) == 10 and 7.5 <= interval(100, jitter=0.0) <= interval(100, jitter=0.99) <= 12.5
