"""The poller that all waits of a process share: the results, and the requests that it makes."""

from __future__ import annotations

import asyncio
import time

import pytest
from waiting_work import Seen, Work

from ivcap_flows.durable import poll_interval
from ivcap_flows.durable.poll_interval import LONGEST, SHARE, SHORTEST, interval
from ivcap_flows.durable.poll_round import PAGES, ROUND, PollRound
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError, WaitTimeoutError
from ivcap_flows.journal.rows import MISSED_ROUNDS, Wanted


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll interval to a fifth."""
    monkeypatch.setattr(poll_interval, "SHORTEST", 0.2)


async def until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert true()


def later(seconds: float, do, *args) -> None:
    asyncio.get_running_loop().call_later(seconds, do, *args)


async def test_records_come_in_the_order_asked_for():
    """The result is in input order, duplicates included, whatever ends first."""
    work = Work(a="executing", b="succeeded")
    later(0.2, work.status.update, {"a": "failed"})
    assert await work.poller().wait(["a", "b", "a"]) == [("a", "failed"), ("b", "succeeded"), ("a", "failed")]


async def test_many_are_looked_for_in_the_list_and_read_once_when_done():
    """Forty orders cost one page per round and one read each at their end, not forty reads per round."""
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    poller = work.poller()
    waits = asyncio.create_task(poller.wait(list(work.status)))
    await until(lambda: work.asked["page"] >= 2)
    work.end(*work.status)
    await waits
    assert work.asked["read"] == 40 and 2 <= work.asked["page"] <= poller.rounds


async def test_a_deadline_names_what_is_pending_and_a_later_wait_goes_on():
    """The deadline ends the wait, not the work."""
    work = Work(a="succeeded", b="executing")
    poller = work.poller()
    with pytest.raises(WaitTimeoutError) as late:
        await poller.wait(["a", "b"], timeout=0.2)
    assert late.value.pending == ["b"]
    work.status["b"] = "succeeded"
    assert await poller.wait(["b"], timeout=5) == [("b", "succeeded")]


async def test_a_wait_says_what_it_waits_for_by_name(caplog):
    """At its begin, and in the error after its time is up; equal names and long lists are short."""
    work = Work(**{f"o{n}": "executing" for n in range(9)}, done="succeeded")
    names = {"o0": "north", "o1": "north", **{f"o{n}": f"s{n}" for n in range(2, 8)}}
    with caplog.at_level("INFO", "ivcap_flows.waiting"), pytest.raises(WaitTimeoutError) as late:
        await work.poller().wait(list(work.status), names=names, timeout=0.5)
    assert caplog.messages[0] == "Waiting for 10 orders: north (2), s2, s3, s4, s5 and 4 more."
    assert "(north (2), s2, s3, s4, s5 and 3 more)" in str(late.value)


async def test_an_unreachable_platform_is_waited_out(caplog):
    """An outage is logged once and does not end a wait."""
    work = Work(a="succeeded")
    work.down = True
    with caplog.at_level("WARNING", "ivcap_flows.waiting"):
        poller = work.poller()
        waits = asyncio.create_task(poller.wait(["a"]))
        await until(lambda: "Still waiting" in caplog.text)
        work.down = False
        assert await waits == [("a", "succeeded")]
        await poller._ticker
    assert sum("Still waiting" in r.message for r in caplog.records) == 1
    assert sum("answers again" in r.message for r in caplog.records) == 1


async def test_a_record_that_cannot_be_read_hides_no_other():
    """A record that always fails to be read does not stop a wait for another one."""
    work = Work(a="unreadable", b="succeeded")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["a"]))
    await asyncio.sleep(0)
    assert await poller.wait(["b"], timeout=5) == [("b", "succeeded")]
    assert not first.done()
    first.cancel()


async def test_a_fault_in_one_record_ends_its_own_wait_alone():
    """An error that is not the platform's, such as that of a malformed URN, ends the wait for this record only."""
    work = Work(a="malformed", b="executing")
    poller = work.poller()
    second = asyncio.create_task(poller.wait(["b"]))
    with pytest.raises(InputError):
        await poller.wait(["a"], timeout=5)
    work.status["b"] = "succeeded"
    assert await asyncio.wait_for(second, 5) == [("b", "succeeded")]


async def test_a_read_that_is_tried_for_long_delays_no_other(monkeypatch):
    """A read that is retried for long does not delay the round: ends of other work are reported meanwhile."""
    work = Work(a="executing", b="executing")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["a"]))
    await until(lambda: work.reads["a"] == 1)
    work.status["a"] = "tried for long"
    poller._hear_of_end("a")
    poller._stirred.set()
    await until(lambda: work.reads["a"] == 2)
    later(0.5, work.status.update, {"b": "succeeded"})
    assert await poller.wait(["b"], timeout=5) == [("b", "succeeded")]
    assert not first.done() and work.reads["a"] == 2
    first.cancel()


async def test_many_ends_delay_no_round():
    """Rounds go on while records of ended work are read, however often an end is reported."""
    work = Work(**{f"o{i}": "executing" for i in range(60)})
    poller = work.poller()
    waits = asyncio.create_task(poller.wait(list(work.status)))
    await until(lambda: poller.rounds >= 1)
    before = poller.rounds
    for urn in list(work.status)[:-1]:
        work.end(urn)
        poller._hear_of_end(urn)
        poller._stirred.set()
        await asyncio.sleep(0.05)
    assert poller.rounds - before >= 5
    waits.cancel()


async def test_young_work_does_not_wait_for_old_work():
    """New work is looked at as soon as if it were alone, although the poller rests long for old work."""
    work = Work(old="executing", young="succeeded")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["old"]))
    await until(lambda: work.reads["old"] == 1)
    poller._watched["old"].since -= 36_000
    assert await poller.wait(["young"], timeout=10) == [("young", "succeeded")]
    first.cancel()


async def test_old_work_is_not_read_whenever_others_ask():
    """Rounds for young work of one list do not make the poller read old work of another list, or on no page, again."""
    work = Work(**{f"young{i}": "executing" for i in range(5)}, old="executing", hidden="executing")
    work.service = {urn: "b" if urn == "old" else "a" for urn in work.status}
    pages = work.pages

    async def without(name: str):
        async for page in pages(name):
            yield [each for each in page if each[0] != "hidden"]

    work.pages = without  # type: ignore[method-assign]
    poller = work.poller()
    waits = [asyncio.create_task(poller.wait(["old", "hidden"], services=work.service))]
    await until(lambda: work.reads["old"] == work.reads["hidden"] == 1)
    for urn in ("old", "hidden"):
        poller._watched[urn].since -= 36_000
    waits.append(asyncio.create_task(poller.wait([f"young{i}" for i in range(5)], services=work.service)))
    rounds = poller.rounds
    await until(lambda: poller.rounds >= rounds + 6)
    assert work.reads["old"] == 1 and work.reads["hidden"] <= 2
    for each in waits:
        each.cancel()


async def test_a_late_record_is_waited_for_until_it_settles():
    """A record that is not visible yet is not an error; one that never appears is."""
    work = Work()
    later(0.3, work.status.update, {"a": "succeeded"})
    assert await work.poller().wait(["a"]) == [("a", "succeeded")]
    with pytest.raises(NotFoundError):
        await work.poller(visibility_delay=0.2).wait(["never"])


async def test_the_servers_word_is_first():
    """Work for which the platform named a time is not asked for before it. Other work is asked for at once."""
    work = Work(a="succeeded", b="succeeded")
    poller = work.poller()
    waits = asyncio.create_task(poller.wait(["a"], not_before={"a": time.monotonic() + 3.0}))
    await asyncio.sleep(0.5)
    assert work.requests == 0
    assert await poller.wait(["b"], timeout=10) == [("b", "succeeded")]
    assert work.reads["a"] == 0
    assert await asyncio.wait_for(waits, 10) == [("a", "succeeded")]


@pytest.mark.long
async def test_no_minute_has_more_requests_than_the_budget():
    """The rate limit holds even if all work has ended: a burst, and then a steady rate."""
    work = Work(**{f"o{i}": "succeeded" for i in range(2000)})
    poller = work.poller(per_minute=240)
    waits = asyncio.create_task(poller.wait(list(work.status)))
    await asyncio.sleep(3.0)
    waits.cancel()
    assert 60 <= work.requests <= 60 + 3.2 * 180 / 60


def test_a_budget_holds_in_every_minute(monkeypatch):
    """Any window of one minute has at most the allowed number of requests, whatever the limit is."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for per_minute in (1, 2, 3, 10, 1200):
        now[0] = 0.0
        rate_limiter, taken = RateLimiter(per_minute), []
        while now[0] < 240:
            now[0] += 0.5
            while rate_limiter.take_now():
                taken.append(now[0])
        assert all(after - before >= 60 for before, after in zip(taken, taken[per_minute:], strict=False))
        assert len(taken) >= per_minute


async def looked(work: Work, wanted: dict[str, Wanted], number: int = 1) -> PollRound:
    """One round; what it saw is known to the next."""
    found = PollRound(Seen(work), RateLimiter(60_000))
    before = work.requests
    await found.look(wanted, number)
    wanted |= found.seen
    assert work.requests - before == found.pages <= PAGES
    return found


async def test_a_round_has_a_bound_and_nobody_starves():
    """A round reads a bounded number of pages, and a process a bounded number of records after it.

    Work that is too old for the pages is read one by one, in turn, also while new work arrives.
    """
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    work.status.update({f"done{i}": "succeeded" for i in range(20_000)})
    old, poller = list(work.status)[:40], work.poller()
    waits = [asyncio.create_task(poller.wait(old))]
    for number in range(8):
        fresh = {f"new{number}-{i}": "executing" for i in range(6)}
        work.status.update(fresh)
        waits.append(asyncio.create_task(poller.wait(list(fresh))))
        rounds, before = poller.rounds, work.requests
        await until(lambda rounds=rounds: poller.rounds > rounds)
        assert work.requests - before <= 2 * ROUND
    await until(lambda: min(work.reads[urn] for urn in old) >= 1)
    for each in waits:
        each.cancel()


async def test_little_work_is_missed_rather_than_looked_for():
    """Pages are read until hardly any work is missing; a lonely old one costs one read and not twenty pages."""
    work = Work(hidden="executing", **{f"done{i}": "succeeded" for i in range(2000)})
    work.status.update({f"o{i}": "executing" for i in range(60)})
    wanted = {urn: Wanted("") for urn, status in work.status.items() if status == "executing"}
    for number in range(3):
        found = await looked(work, wanted)
        assert found.pages == 2 and wanted["hidden"].missed == number + 1
    assert {each.status for urn, each in wanted.items() if urn != "hidden"} == {"executing"}


async def test_five_lists_of_a_thousand_fit_into_a_round():
    """A thousand live jobs of five services, newest in lists of ten thousand, cost 20 pages per round."""
    work = Work()
    for service in "abcde":
        for state, count in (("succeeded", 10_000), ("executing", 200)):
            for number in range(count):
                work.status[f"{service}{state}{number}"] = state
                work.service[f"{service}{state}{number}"] = service
    live = {urn: Wanted(service) for urn, service in work.service.items() if work.status[urn] == "executing"}
    for number in range(3):
        assert (await looked(work, live, number)).pages == 20
    assert {each.status for each in live.values()} == {"executing"}


async def test_a_list_that_does_not_answer_hides_no_other():
    """If a list does not answer, the round reads the others, and who waits reads the records of that list.

    An outage of everything costs a few requests.
    """
    work = Work(**{f"{service}{i}": "executing" for service in "abcdefgh" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    work.lists_down = {"c"}
    wanted = {urn: Wanted(service) for urn, service in work.service.items()}
    for number in range(3):
        found = await looked(work, wanted, number)
        assert found.silent == ["c"]
    assert {urn[0] for urn, each in wanted.items() if each.missed} == {"c"}
    assert all(each.missed == 1 for urn, each in wanted.items() if urn[0] == "c"), "it is not given up"
    work.lists_down = set("abcdefgh")
    assert (await looked(work, wanted)).pages == 4


async def test_a_list_that_cannot_be_read_is_named_once(caplog, monkeypatch):
    """A refusal, and a fault of this package: each is in the log once with its cause, and the work is read singly."""
    work = Work(**{f"{service}{i}": "executing" for service in "abc" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    pages = work.pages

    async def broken(name: str):
        if name != "a":
            raise KeyError("items") if name == "b" else NotFoundError("withdrawn", platform="p")
        async for page in pages(name):
            yield page

    work.pages = broken  # type: ignore[method-assign]
    poller = work.poller()
    waits = asyncio.create_task(poller.wait(list(work.status), services=work.service))
    await until(lambda: poller.rounds >= 4 and work.reads.keys() >= {u for u, s in work.service.items() if s != "a"})
    waits.cancel()
    said = sorted(record.getMessage() for record in caplog.records if "cannot be read" in record.message)
    assert [("KeyError: 'items'" in line, "NotFoundError: withdrawn" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


async def test_work_that_no_page_shows_is_read_singly_and_looked_for_on():
    """Work that is on no page is read by who waits for it, and its status is taken from the pages once it is there."""
    work = Work(**{f"o{i}": "executing" for i in range(5)})
    pages, hidden = work.pages, True

    async def late(name: str):
        async for page in pages(name):
            yield [] if hidden else page

    work.pages = late  # type: ignore[method-assign]
    poller = work.poller()
    waits = asyncio.create_task(poller.wait(list(work.status)))
    await until(
        lambda: poller.rounds > MISSED_ROUNDS + 2 and min(work.reads[urn] for urn in work.status) > MISSED_ROUNDS / 2,
        20,
    )
    hidden = False
    await until(lambda: {each.status for each in poller._sharing.poll.wanted.values()} == {"executing"}, 20)
    work.end("o3")
    await until(lambda: "o3" not in poller.watched)
    waits.cancel()


async def test_a_list_that_does_not_answer_keeps_no_end_unread():
    """If one list never answers, the record of work that has ended is read until it can be read."""
    work = Work(**{f"{service}{i}": "executing" for service in "ac" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    work.lists_down = {"c"}
    read, failing = work.read, ["a0", "a0"]

    async def reads(urn: str, service: str) -> tuple[str, str]:
        record = await read(urn, service)
        if urn in failing:
            failing.remove(urn)
            raise UnreachableError("no reply", platform="p")
        return record

    poller = work.poller()
    waits = asyncio.create_task(poller.wait(list(work.status), services=work.service))
    await until(lambda: poller.rounds >= 2)
    work.read = reads  # type: ignore[method-assign]
    work.end("a0")
    await until(lambda: "a0" not in poller.watched)
    waits.cancel()


@pytest.mark.long
async def test_a_thousand_waits_take_no_thread_and_little_memory():
    """A thousand waits start no thread, and each needs less than 100 KiB of memory."""
    import threading
    import tracemalloc

    work = Work(**{f"o{i}": "executing" for i in range(1000)})
    poller, threads = work.poller(), threading.active_count()
    tracemalloc.start()
    waits = [asyncio.create_task(poller.wait([urn])) for urn in work.status]
    await until(lambda: poller.rounds >= 2)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert threading.active_count() == threads
    assert taken / len(waits) < 100 * 1024
    for each in waits:
        each.cancel()


def test_the_interval_grows_with_age_within_its_bounds():
    """Young work is polled often and old work rarely."""
    assert interval(0) == poll_interval.SHORTEST < SHORTEST and interval(36_000) == LONGEST
    assert interval(100) == SHARE * 100


async def test_a_wait_that_ends_at_once_is_not_named(caplog):
    """As when a run is replayed, or a wait in the flow has ended and the task then waits for the same."""
    work = Work(a="succeeded")
    with caplog.at_level("INFO", "ivcap_flows.waiting"):
        assert await work.poller().wait(["a"], timeout=5) == [("a", "succeeded")]
    assert caplog.messages == []
