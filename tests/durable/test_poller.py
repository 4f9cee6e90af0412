"""The poller that all waits of a process share: the results, and the requests that it makes. In virtual time."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
import tracemalloc

import pytest
from eventually import auntil
from simulated import Clock, run_on
from waiting_work import Seen, Work, wait_by

from ivcap_flows.durable.poll_round import PAGES, ROUND, PollRound
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import LONGEST, SHARE, SHORTEST, interval
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, JournalError, NotFoundError, UnreachableError, WaitTimeoutError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import MISSED_ROUNDS, Wanted


def virtually(test):
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(*arguments, **options):
        clock = Clock()
        with pytest.MonkeyPatch.context() as patch:
            wait_by(patch, lambda: clock)
            run_on(clock, test(*arguments, **options))

    return run


def seconds() -> float:
    return asyncio.get_running_loop().time()


def later(pause: float, do, *args) -> None:
    asyncio.get_running_loop().call_later(pause, do, *args)


def begin(poller, *urns, **options) -> asyncio.Task:
    return asyncio.create_task(poller.wait(urns, **options))


@virtually
async def test_many_are_looked_for_in_the_list_and_read_once_when_done():
    """Forty orders cost a page a round and a read each at their end. A few are read singly; the records come in the
    order asked for, whatever ends first."""
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    poller = work.poller()
    waits = begin(poller, *work.status)
    await auntil(lambda: work.asked["page"] >= 2)
    work.end(*work.status)
    await waits
    assert work.asked["read"] == 40 and 2 <= work.asked["page"] <= poller.rounds
    few = Work(a="executing", b="succeeded")
    later(2, few.status.update, {"a": "failed"})
    assert await few.poller().wait(["a", "b", "a"]) == [("a", "failed"), ("b", "succeeded"), ("a", "failed")]


@virtually
async def test_a_wait_says_what_it_waits_for_by_name(caplog):
    """At its begin, and in the error after its time is up, which ends the wait and not the work; equal names and long
    lists are short. A wait that ends at once is not named."""
    work = Work(**{f"o{n}": "executing" for n in range(9)}, done="succeeded")
    names = {"o0": "north", "o1": "north", **{f"o{n}": f"s{n}" for n in range(2, 8)}}
    poller = work.poller()
    with caplog.at_level("INFO", "ivcap_flows.waiting"):
        assert await poller.wait(["done"], timeout=5) == [("done", "succeeded")]
        assert caplog.messages == []
        with pytest.raises(WaitTimeoutError) as late:
            await poller.wait(list(work.status), names=names, timeout=5)
    assert caplog.messages[0] == "Waiting for 10 orders: north (2), s2, s3, s4, s5 and 4 more."
    assert "(north (2), s2, s3, s4, s5 and 3 more)" in str(late.value)
    assert late.value.pending == [f"o{n}" for n in range(9)]
    work.end("o3")
    assert await poller.wait(["o3"], timeout=60) == [("o3", "succeeded")]


@virtually
async def test_a_wait_without_time_asks_once():
    """What has ended is returned, though it was never looked at before. A platform that is away is not waited for, and
    what was looked at in the time of the wait is not read again.
    """
    work = Work(a="succeeded", b="executing")
    assert await work.poller().wait(["a"], timeout=0) == [("a", "succeeded")]
    poller = work.poller()
    for expected in (0, 30):
        with pytest.raises(WaitTimeoutError) as late:
            await poller.wait(["a", "b"], timeout=expected)
        assert late.value.pending == ["b"]
    many = Work(**{f"o{i}": "executing" for i in range(100)})
    with pytest.raises(WaitTimeoutError):
        await many.poller().wait([*many.status], timeout=30)
    assert many.asked["read"] == 0
    work.down = True
    began = seconds()
    with pytest.raises(WaitTimeoutError):
        await work.poller().wait(["a"], timeout=0)
    assert seconds() - began < 0.1


@virtually
async def test_an_unreachable_platform_is_waited_out(caplog):
    """An outage is logged once and does not end a wait."""
    work = Work(a="succeeded")
    work.down = True
    waits = begin(work.poller(), "a")
    await auntil(lambda: "Still waiting" in caplog.text)
    work.down = False
    assert await waits == [("a", "succeeded")]
    assert [sum(each in said for said in caplog.messages) for each in ("Still waiting", "answers again")] == [1, 1]


@virtually
async def test_a_record_that_cannot_be_read_ends_no_other_wait():
    """Neither one that is tried in vain, nor one that takes long; a malformed URN ends the wait for it alone. A late
    record is no error before the visibility delay is over."""
    work = Work(unreadable="unreadable", slow="executing", malformed="malformed", good="executing")
    poller = work.poller()
    vain, slow = begin(poller, "unreadable"), begin(poller, "slow")
    await auntil(lambda: work.reads["slow"])
    work.status["slow"] = "tried for long"
    with pytest.raises(InputError):
        await poller.wait(["malformed"], timeout=60)
    await auntil(lambda: work.reads["slow"] >= 2)
    later(5, work.end, "good")
    later(3, work.end, "late")
    assert await poller.wait(["good", "late"], timeout=60) == [("good", "succeeded"), ("late", "succeeded")]
    with pytest.raises(NotFoundError):
        await poller.wait(["never"])
    assert not vain.done() and not slow.done() and work.reads["slow"] == 2


@virtually
async def test_many_ends_delay_no_round():
    """Rounds go on while records of ended work are read, however long that takes; each end is read until it can be,
    also beside a list that never answers."""
    work = Work(**{f"{service}{i}": "executing" for service in "ac" for i in range(30)})
    work.service = {urn: urn[0] for urn in work.status}
    work.lists_down = {"c": UnreachableError("no reply", platform="p")}
    poller, failing = work.poller(), ["a1"] * 3
    waits = begin(poller, *work.status, services=work.service)
    await auntil(lambda: poller.rounds >= 2)
    before, read = poller.rounds, work.read

    async def fails_at_first(urn, service):
        record = await read(urn, service)
        if urn in failing:
            failing.remove(urn)
            raise UnreachableError("no reply", platform="p")
        return record

    work.read = fails_at_first
    for number in range(30):
        work.end(f"a{number}")
        await asyncio.sleep(2)
    await auntil(lambda: poller.watched == {f"c{i}" for i in range(30)})
    assert not failing and poller.rounds - before >= 5
    waits.cancel()


@virtually
async def test_work_is_looked_at_by_its_own_age():
    """New work is looked at as soon as if it were alone, and old work is not read whenever others ask: neither work of
    another list, nor what is on no page."""
    work = Work(**{f"young{i}": "executing" for i in range(5)}, old="executing", hidden="executing")
    work.service = {urn: "b" if urn == "old" else "a" for urn in work.status}
    work.hidden = {"hidden"}
    poller = work.poller()
    begin(poller, "old", "hidden", services=work.service)
    await asyncio.sleep(7_200)
    reads = work.reads.copy()
    begin(poller, *(f"young{i}" for i in range(5)), services=work.service)
    rounds, began = poller.rounds, seconds()
    await auntil(lambda: poller.rounds >= rounds + 6)
    assert seconds() - began < 10
    assert work.reads["old"] <= reads["old"] + 1 and work.reads["hidden"] <= reads["hidden"] + 2


@virtually
async def test_the_servers_word_is_first():
    """Work for which the platform named a time is not asked for before it. Other work is asked for at once."""
    work = Work(a="succeeded", b="succeeded")
    poller = work.poller()
    waits = begin(poller, "a", not_before={"a": seconds() + 30.0})
    await asyncio.sleep(5)
    assert work.requests == 0
    assert await poller.wait(["b"], timeout=10) == [("b", "succeeded")]
    assert work.reads["a"] == 0 and seconds() < 10
    assert await waits == [("a", "succeeded")] and 30 <= seconds() < 32


@virtually
async def test_no_minute_has_more_requests_than_the_limit():
    """A burst, and then a steady rate, whatever the limit is, also if all work has ended."""
    for per_minute in (1, 2, 3, 10, 1200):
        limiter, taken = RateLimiter(per_minute), []
        begun = seconds()
        while seconds() < begun + 240:
            await asyncio.sleep(0.5)
            while limiter.take_now():
                taken.append(seconds())
        assert all(after - before >= 60 for before, after in zip(taken, taken[per_minute:], strict=False))
        assert len(taken) >= per_minute
    work = Work(**{f"o{i}": "succeeded" for i in range(2000)})
    begin(work.poller(per_minute=240), *work.status)
    await asyncio.sleep(3.0)
    assert 60 <= work.requests <= 60 + 3.2 * 180 / 60


@virtually
async def test_a_round_has_a_bound_and_nobody_starves():
    """A round reads a bounded number of pages, and a process a bounded number of records after it.

    Work that is too old for the pages is read one by one, in turn, also while new work arrives.
    """
    work = Work(**{f"o{i}": "executing" for i in range(40)})
    work.status.update({f"done{i}": "succeeded" for i in range(2_000)})
    old, poller = list(work.status)[:40], work.poller()
    begin(poller, *old)
    for number in range(8):
        fresh = {f"new{number}-{i}": "executing" for i in range(6)}
        work.status.update(fresh)
        begin(poller, *fresh)
        rounds, before = poller.rounds, work.requests
        await auntil(lambda rounds=rounds: poller.rounds > rounds)
        assert work.requests - before <= 2 * ROUND
    await auntil(lambda: min(work.reads[urn] for urn in old) >= 1)


async def three_rounds(work, wanted):
    """What one saw is known to the next."""
    found = []
    for number in range(3):
        found.append(PollRound(Seen(work), RateLimiter(60_000)))
        before = work.requests
        await found[-1].look(wanted, number)
        wanted |= found[-1].seen
        assert work.requests - before == found[-1].pages <= PAGES
    return found


@virtually
async def test_little_work_is_missed_rather_than_looked_for():
    """Pages are read until hardly any work is missing; a lonely old one costs one read and not twenty pages."""
    work = Work(hidden="executing", **{f"done{i}": "succeeded" for i in range(2000)})
    work.status.update({f"o{i}": "executing" for i in range(60)})
    wanted = {urn: Wanted("") for urn, status in work.status.items() if status == "executing"}
    assert [each.pages for each in await three_rounds(work, wanted)] == [2, 2, 2]
    assert wanted.pop("hidden").missed == 3
    assert {each.status for each in wanted.values()} == {"executing"}


@virtually
async def test_five_lists_of_a_thousand_fit_into_a_round():
    """A thousand live jobs of five services, newest in lists of ten thousand, cost 20 pages per round."""
    work = Work()
    for service in "abcde":
        for state, count in (("succeeded", 10_000), ("executing", 200)):
            named = [f"{service}{state}{number}" for number in range(count)]
            work.status |= dict.fromkeys(named, state)
            work.service |= dict.fromkeys(named, service)
    live = {urn: Wanted(service) for urn, service in work.service.items() if work.status[urn] == "executing"}
    assert [each.pages for each in await three_rounds(work, live)] == [20, 20, 20]
    assert {each.status for each in live.values()} == {"executing"}


@virtually
async def test_a_list_that_does_not_answer_hides_no_other():
    """If a list does not answer, the round reads the others, and who waits reads the records of that list.

    An outage of everything costs a few requests.
    """
    work = Work(**{f"{service}{i}": "executing" for service in "abcdefgh" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    silence = UnreachableError("no reply", platform="p")
    work.lists_down = {"c": silence}
    wanted = {urn: Wanted(service) for urn, service in work.service.items()}
    assert [each.silent for each in await three_rounds(work, wanted)] == [["c"]] * 3
    assert {urn: each.missed for urn, each in wanted.items() if each.missed} == {f"c{i}": 1 for i in range(5)}
    work.lists_down = dict.fromkeys("abcdefgh", silence)
    assert [each.pages for each in await three_rounds(work, wanted)] == [4, 4, 4]


@virtually
async def test_a_list_that_cannot_be_read_is_named_once(caplog):
    """A refusal, and a fault of this package: each is in the log once with its cause, and the work is read singly."""
    work = Work(**{f"{service}{i}": "executing" for service in "abc" for i in range(5)})
    work.service = {urn: urn[0] for urn in work.status}
    work.lists_down = {"b": KeyError("items"), "c": NotFoundError("withdrawn", platform="p")}
    poller = work.poller()
    begin(poller, *work.status, services=work.service)
    await auntil(lambda: poller.rounds >= 4 and work.reads.keys() >= {u for u, s in work.service.items() if s != "a"})
    b, c = sorted(said for said in caplog.messages if "cannot be read" in said)
    assert "list of orders b" in b and "KeyError: 'items'" in b
    assert "list of orders c" in c and "NotFoundError: withdrawn" in c


@virtually
async def test_work_that_no_page_shows_is_read_singly_and_looked_for_on():
    """Its status is taken from the pages once it is there."""
    work = Work(**{f"o{i}": "executing" for i in range(5)})
    work.hidden = set(work.status)
    poller = work.poller()
    begin(poller, *work.status)
    await auntil(lambda: poller.rounds > MISSED_ROUNDS + 2)
    assert min(work.reads[urn] for urn in work.status) > MISSED_ROUNDS / 2
    work.hidden = set()
    await auntil(lambda: {each.status for each in poller._sharing.poll.wanted.values()} == {"executing"})
    work.end("o3")
    await auntil(lambda: "o3" not in poller.watched)


@pytest.mark.long
@virtually
async def test_a_thousand_waits_take_no_thread_and_little_memory():
    """A thousand waits start no thread, and each needs less than 100 KiB of memory."""
    work = Work(**{f"o{i}": "executing" for i in range(1000)})
    poller, threads = work.poller(), threading.active_count()
    tracemalloc.start()
    waits = [begin(poller, urn) for urn in work.status]
    await auntil(lambda: poller.rounds >= 2)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert threading.active_count() == threads
    assert taken / len(waits) < 100 * 1024


def test_the_interval_grows_with_age_within_its_bounds():
    """Young work is polled often and old work rarely."""
    assert (interval(0), interval(100), interval(36_000)) == (SHORTEST, SHARE * 100, LONGEST)


@virtually
async def test_a_journal_that_fails_is_done_without(sqlite_journal, monkeypatch, caplog):
    """Each process polls for itself, and logs that, once in a while. A fault of the poller itself ends the wait with
    that fault; the next wait works."""

    def broken(*_):
        raise JournalError("the disk is full")

    def wrong(*_):
        raise LookupError("not thought of")

    work = Work(a="executing", b="succeeded")
    poller = work.poller(PollSharing(sqlite_journal, "a"))
    with monkeypatch.context() as patched:
        patched.setattr(poller, "_due_at", wrong)
        with pytest.raises(LookupError):
            await poller.wait(["a"], timeout=10)
    for name in ("read", "add", "begin", "end", "unwatch"):
        monkeypatch.setattr(sqlite_journal.polls, name, broken)
    later(3, work.end, "a")
    assert await poller.wait(["a", "b"], timeout=20) == [("a", "succeeded"), ("b", "succeeded")]
    assert caplog.text.count("without what other processes know") == 1


@virtually
async def test_who_waits_alone_hardly_uses_the_journal(sqlite_journal: Journal, monkeypatch):
    """A process that waits alone for little work writes to the journal twice, however long it waits."""
    writes, begun = [], sqlite_journal.polls._store.write
    monkeypatch.setattr(sqlite_journal.polls._store, "write", lambda: writes.append(1) or begun())
    work = Work(a="executing")
    poller = work.poller(PollSharing(sqlite_journal, "a"))
    waits = begin(poller, "a")
    await auntil(lambda: poller.rounds >= 8)
    work.end("a")
    await waits
    await poller._ticker
    assert len(writes) == 2 and not sqlite_journal.polls.read("a").wanted


@virtually
async def test_processes_ask_together_and_hear_what_another_saw(durable_journal: Journal):
    """Two ask for about as many pages as one, and each reads its own records once, at their end."""
    both = [Work(**{f"{letter}{i}": "executing" for letter in "ab" for i in range(10)}) for _ in range(2)]
    waits = []
    for part, work in zip("ab", both, strict=True):
        urns = [urn for urn in work.status if urn[0] == part]
        waits.append(begin(work.poller(PollSharing(durable_journal, "two")), *urns))
        await asyncio.sleep(0.3)
    await asyncio.sleep(4.0)
    assert 3 <= sum(work.asked["page"] for work in both) <= 7 and not any(work.asked["read"] for work in both)
    for work in both:
        work.end(*work.status)
    ended = await asyncio.gather(*waits)
    assert list(itertools.chain(*ended)) == list(both[0].status.items())
    assert [work.asked["read"] for work in both] == [10, 10]


@virtually
async def test_what_another_may_not_see_is_read_by_who_waits(sqlite_journal):
    """A process reads by itself what the pages do not show. A record that never appears is an error of its own wait."""
    first, second = Work(**{f"a{i}": "executing" for i in range(5)}), Work(b="executing")

    def waits(work, *urns):
        return begin(work.poller(PollSharing(sqlite_journal, "strangers"), visibility_delay=0.3), *urns)

    one = waits(first, *first.status)
    await asyncio.sleep(0.3)
    two, three = waits(second, "b"), waits(Work(), "never")
    with pytest.raises(NotFoundError):
        await three
    second.end("b")
    assert await two == [("b", "succeeded")]
    first.end(*first.status)
    await one
    assert not first.reads["b"]
