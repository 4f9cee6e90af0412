"""The poller that all waits of a process share: the results, and the requests that it makes."""

from __future__ import annotations

import asyncio
import time

import pytest
from waiting_work import Work

from ivcap_flows.durable import poll_interval, poll_strategy
from ivcap_flows.durable import poller as pollers
from ivcap_flows.durable.poll_interval import LONGEST, PROMPT, SHARE, SHORTEST, WorkDurations, interval
from ivcap_flows.durable.poll_strategy import PAGES, ROUND, Change, PollStrategy
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError, WaitTimeoutError


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll interval to a fifth, and do not use the change feed at first."""
    monkeypatch.setattr(poll_interval, "SHORTEST", 0.2)
    monkeypatch.setattr(poll_strategy, "EASE", 0.0)


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
    monkeypatch.setattr(pollers, "RENEWAL", 0.2)
    work = Work(a="executing", b="executing")
    poller = work.poller()
    first = asyncio.create_task(poller.wait(["a"]))
    await until(lambda: work.reads["a"] == 1)
    work.status["a"] = "tried for long"
    poller._note("a", "succeeded")
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
        poller._note(urn, "succeeded")
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


async def test_an_event_is_a_hint_to_look_at_once(monkeypatch):
    """An event makes the poller read the record at once, long before the next round."""
    monkeypatch.setattr(poll_interval, "PROMPT", 30.0)
    monkeypatch.setattr(pollers.random, "random", lambda: 1.0)
    work = Work(a="executing")
    work.events = {"a": asyncio.Event()}
    wait = asyncio.create_task(work.poller().wait(["a"]))
    await until(lambda: work.asked["stream"] == 1)
    await asyncio.sleep(0.5)
    assert work.reads["a"] == 1
    work.end("a", status="failed")
    assert await asyncio.wait_for(wait, 10) == [("a", "failed")]


async def test_an_event_is_not_the_truth():
    """The record decides: if it does not show the end that an event announced, it is read again."""
    work = Work(a="executing")
    work.events = {"a": asyncio.Event()}
    wait = asyncio.create_task(work.poller().wait(["a"]))
    await until(lambda: work.asked["stream"] == 1)
    work.events["a"].set()
    await until(lambda: work.reads["a"] >= 2)
    assert not wait.done()
    work.status["a"] = "succeeded"
    assert await asyncio.wait_for(wait, 10) == [("a", "succeeded")]


async def test_streams_are_few():
    """Event streams are opened only if little work is left, and end with their wait."""
    names = [f"o{i}" for i in range(pollers.STREAMS + 1)]
    work = Work(**dict.fromkeys(names, "executing"))
    work.events = {name: asyncio.Event() for name in names}
    poller = work.poller()
    many = asyncio.create_task(poller.wait(names))
    await until(lambda: poller.rounds >= 2)
    assert work.asked["stream"] == 0
    work.end(names[0])
    await until(lambda: work.asked["stream"] == pollers.STREAMS)
    many.cancel()
    await until(lambda: poller._ticker.done())
    assert not poller._listeners or all(each.cancelling() or each.done() for each in poller._listeners.values())


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


def round_of(work: Work, heard: dict[str, str], per_minute: int = 60_000) -> PollStrategy:
    async def read(urn: str) -> str:
        heard[urn] = (await work.poller()._source.read(urn, ""))[1]
        return heard[urn]

    return PollStrategy(work.poller()._source, RateLimiter(per_minute), heard.__setitem__, read)


async def test_a_round_has_a_bound_and_nobody_starves():
    """A round makes a bounded number of requests.

    Work that is too old for the pages is read one by one, in turn, also while new work arrives.
    """
    pages = 400
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    work.status.update({f"done{i}": "succeeded" for i in range(pages * 50)})
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    targets = {f"o{i}": "" for i in range(40)}
    for number in range(40):
        before = work.requests
        fresh = {f"new{number}-{i}": "" for i in range(6)}
        work.status.update(dict.fromkeys(fresh, "executing"))
        await rounds.look(targets | fresh)
        assert work.requests - before <= ROUND
    assert set(targets) <= heard.keys()
    assert min(work.reads[urn] for urn in targets) >= 1


async def test_barren_pages_are_not_read_again_and_again():
    """Once the poller knows how deep in the list its work is, it rarely reads the pages after that."""
    work = Work(**{f"done{i}": "succeeded" for i in range(2000)})
    work.status["gone"] = "executing"
    work.status.update({f"o{i}": "executing" for i in range(60)})
    work.status = {"hidden": "executing"} | work.status
    rounds = round_of(work, {})
    targets = {**{f"o{i}": "" for i in range(60)}, "hidden": ""}
    asked = []
    for _ in range(7):
        before = work.asked["page"]
        await rounds.look(targets)
        asked.append(work.asked["page"] - before)
    assert asked[0] == PAGES and max(asked[1:]) <= 4


async def test_five_lists_of_a_thousand_fit_into_a_round():
    """A thousand live jobs of five services, newest in lists of ten thousand, cost 20 pages per round."""
    work = Work()
    for service in "abcde":
        for state, count in (("succeeded", 10_000), ("executing", 200)):
            for number in range(count):
                work.status[f"{service}{state}{number}"] = state
                work.service[f"{service}{state}{number}"] = service
    live = {urn: service for urn, service in work.service.items() if work.status[urn] == "executing"}
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    for _ in range(3):
        await rounds.look(live)
    assert heard.keys() == live.keys() and work.requests == 60


async def test_a_list_that_does_not_answer_hides_no_other():
    """If a list or the change feed does not answer, the round reads the others, and raises the error at its end.

    The work of that list is read one by one. An outage of everything costs a few requests.
    """
    work = Work(**{f"{service}{i}": "executing" for service in "abcdefgh" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    work.lists_down, work.told, work.feed_down = {"c"}, [], True
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    for _ in range(3):
        heard.clear()
        with pytest.raises(UnreachableError):
            await rounds.look(work.service)
        assert heard.keys() == work.status.keys()
    work.down, work.lists_down, before = True, set("abcdefgh"), work.requests
    with pytest.raises(UnreachableError):
        await rounds.look(work.service)
    assert work.requests - before == 4


async def test_a_list_that_cannot_be_read_is_named_once(caplog):
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
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    for _ in range(4):
        await rounds.look(work.service)
    assert heard.keys() == work.status.keys()
    said = sorted(record.getMessage() for record in caplog.records)
    assert [("KeyError: 'items'" in line, "NotFoundError: withdrawn" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


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


async def test_changes_spare_the_lists():
    """With a change feed a round is one request, and the lists are read only now and then."""
    work = Work(**{f"o{i}": "executing" for i in range(1000)})
    work.told = [Change(f"b{i}", f"o{i}", "executing") for i in range(1000)]
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    targets = dict.fromkeys(work.status, "")
    await rounds.look(targets)
    before = work.requests
    for number in range(5):
        work.end(f"o{number}")
        await rounds.look(targets)
        assert heard[f"o{number}"] == "succeeded"
    assert work.requests - before == 5
    work.end(*(f"o{i}" for i in range(100, 500)))
    await rounds.look(targets)
    await rounds.look(targets)
    assert all(heard[f"o{i}"] == "succeeded" for i in range(500) if not 5 <= i < 100)


async def test_changes_without_a_status_stay_within_the_round():
    """Records that a round may read no more because of many such changes are read in the next rounds."""
    work = Work(**{f"o{i}": "executing" for i in range(2000)})
    work.told = [Change(f"b{i}", f"o{i}", "executing") for i in range(2000)]
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    targets = dict.fromkeys(work.status, "")
    for _ in range(2):
        await rounds.look(targets)
    ended = [f"o{i}" for i in range(40)]
    work.end(*ended, tell=False)
    work.told += [Change(f"e{urn}", urn, None) for urn in ended]
    for _ in range(4):
        before = work.requests
        await rounds.look(targets)
        assert work.requests - before <= ROUND
    assert all(heard[urn] == "succeeded" for urn in ended)


async def test_changes_that_are_not_complete_are_believed_no_longer():
    """If a list shows an end that the change feed did not report, the lists are read in each round from then on."""
    work = Work(**{f"o{i}": "executing" for i in range(60)})
    work.told = [Change(f"b{i}", f"o{i}", "executing") for i in range(60)]
    heard: dict[str, str] = {}
    rounds = round_of(work, heard)
    targets = dict.fromkeys(work.status, "")
    await rounds.look(targets)
    work.end("o3", tell=False)
    while "o3" in targets and rounds.count < 20:
        await rounds.look(targets)
        if heard["o3"] == "succeeded":
            del targets["o3"]
    assert rounds.count <= 9
    await rounds.look(targets)
    work.end("o4", tell=False)
    await rounds.look(targets)
    assert heard["o4"] == "succeeded"


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
    """Young work is polled often and old work rarely. Events and known durations make it rarer."""
    assert interval(0) == poll_interval.SHORTEST < SHORTEST and interval(36_000) == LONGEST
    assert interval(100) == SHARE * 100 and interval(0, told=True) == PROMPT
    assert interval(0, surely=600) == SHARE * 600


def test_the_pace_is_learned_from_some_ends():
    """From three known durations on, the poller knows how long such work takes at least. It forgets older durations."""
    known = WorkDurations([100, 120])
    assert known.surely == 0
    known.learn(80)
    assert known.surely == 40
    for _ in range(20):
        known.learn(10)
    assert known.surely == 5


@pytest.mark.long
async def test_ends_teach_the_next_wait(monkeypatch):
    """After some ends of a service, its young work is polled more rarely than before."""
    monkeypatch.setattr(pollers.random, "random", lambda: 1.0)
    counts = []
    work = Work()
    poller = work.poller()
    for seconds in (0.0, 60.0):
        work.took_seconds = seconds
        for number in range(3):
            work.status = {f"quick{number}": "succeeded"}
            await poller.wait(list(work.status))
        work.status = {"slow": "executing"}
        work.reads.clear()
        with pytest.raises(WaitTimeoutError):
            await poller.wait(["slow"], timeout=2.4)
        counts.append(work.reads["slow"])
    assert counts[0] >= 4 and counts[1] <= 2


async def test_a_wait_that_ends_at_once_is_not_named(caplog):
    """As when a run is replayed, or a wait in the flow has ended and the task then waits for the same."""
    work = Work(a="succeeded")
    with caplog.at_level("INFO", "ivcap_flows.waiting"):
        assert await work.poller().wait(["a"], timeout=5) == [("a", "succeeded")]
    assert caplog.messages == []
