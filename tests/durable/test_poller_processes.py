"""Processes that share a journal wait together: one polls for all, and another replaces it when it is gone."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting_work import Work

from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.errors import JournalError, NotFoundError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import MISSED_ROUNDS, Poll, Wanted

SCRIPT = Path(__file__).with_name("waiting_process.py")


class Waiting:
    """Processes that wait for ten works each. Their requests are counted by process."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.processes: list[subprocess.Popen[str]] = []
        self.work: dict[str, str] = {}

    def start(self, count: int) -> None:
        for _ in range(count):
            urns = [f"o{len(self.work) + i}" for i in range(10)]
            self.set(dict.fromkeys(urns, "executing"))
            command = [sys.executable, str(SCRIPT), self.url, str(self.folder), ",".join(urns)]
            self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def set(self, statuses: dict[str, str]) -> None:
        self.work |= statuses
        partial = self.folder / "work.part"
        partial.write_text(json.dumps(self.work))
        partial.replace(self.folder / "work.json")

    def asked(self) -> Counter[str]:
        """Return the requests of all processes so far, by kind."""
        log = self.folder / "requests"
        return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()

    def pages(self, seconds: float) -> int:
        """Return how many pages all processes ask for during the next seconds."""
        before = self.asked()["page"]
        time.sleep(seconds)
        return self.asked()["page"] - before

    def process(self, pid: int) -> subprocess.Popen[str]:
        return next(each for each in self.processes if each.pid == pid)


@pytest.fixture
def waiting(durable_url: str, tmp_path: Path) -> Iterator[Waiting]:
    found = Waiting(durable_url, tmp_path)
    yield found
    for each in found.processes:
        if each.poll() is None:
            each.send_signal(signal.SIGCONT)
            each.kill()
        if each.stdout is not None and not each.stdout.closed:
            each.communicate(timeout=5)


def test_processes_ask_together_whatever_becomes_of_one(waiting: Waiting):
    """Three processes ask for one page an interval, as one would. One that is killed or suspended is not missed."""
    waiting.start(3)
    while waiting.asked()["page"] < 3:
        time.sleep(0.1)
    most = 1.5 / 0.2 / 0.8 + 2
    assert 1 <= waiting.pages(1.5) <= most
    killed, stopped, left = waiting.processes
    killed.kill()
    assert waiting.pages(3.0) >= 1
    stopped.send_signal(signal.SIGSTOP)
    assert waiting.pages(3.0) >= 1
    stopped.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    assert waiting.pages(1.5) <= most
    waiting.set(dict.fromkeys(waiting.work, "failed"))
    for each in (stopped, left):
        said, _ = each.communicate(timeout=20)
        assert each.returncode == 0 and {status for _, status in json.loads(said)} == {"failed"}
    assert waiting.asked()["read"] <= 20 + 3, "each end is read once, by the process that waits for it"


async def test_a_journal_that_fails_is_done_without(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog):
    """If the journal fails, each process polls for itself and logs that, once in a while."""

    def broken(*_: object) -> bool:
        raise JournalError("the disk is full")

    work = Work(a="executing", b="succeeded")
    poller = work.poller(PollSharing(sqlite_journal, "a"))
    for name in ("read", "add", "begin", "end", "unwatch"):
        monkeypatch.setattr(sqlite_journal.polls, name, broken)
    asyncio.get_running_loop().call_later(0.5, work.end, "a")
    assert await poller.wait(["a", "b"], timeout=10) == [("a", "succeeded"), ("b", "succeeded")]
    assert sum("without what other processes know" in record.message for record in caplog.records) == 1


async def test_a_fault_of_the_waiter_itself_ends_the_wait(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """An unexpected error in the poller ends the wait with that error, and the next wait works."""

    def wrong(*_: object) -> None:
        raise LookupError("not thought of")

    work = Work(a="executing")
    poller = work.poller(PollSharing(sqlite_journal, "a"))
    with monkeypatch.context() as patched:
        patched.setattr(poller, "_due_at", wrong)
        with pytest.raises(LookupError):
            await poller.wait(["a"], timeout=10)
    asyncio.get_running_loop().call_later(0.5, work.end, "a")
    assert await poller.wait(["a"], timeout=10) == [("a", "succeeded")]


async def test_who_waits_alone_hardly_uses_the_journal(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """A process that waits alone for little work writes to the journal twice, however long it waits."""
    writes = []
    begun = sqlite_journal.polls._store.write
    monkeypatch.setattr(sqlite_journal.polls._store, "write", lambda: writes.append(1) or begun())
    monkeypatch.setattr("ivcap_flows.durable.poll_interval.SHORTEST", 0.1)
    work = Work(a="executing")
    poller = work.poller(PollSharing(sqlite_journal, "a"))
    waits = asyncio.create_task(poller.wait(["a"]))
    while poller.rounds < 8:
        await asyncio.sleep(0.02)
    work.end("a")
    await waits
    await poller._ticker
    assert len(writes) == 2 and not sqlite_journal.polls.read("a").wanted


def test_a_round_is_of_one_process(durable_journal: Journal):
    """One process begins a round. What it saw is read by all, and what has ended goes with the next round."""
    polls = durable_journal.polls
    assert polls.read("list") == Poll()
    polls.add("list", {"o1": "s", "o2": "t"})
    noted = polls.add("list", {"o1": "s", "o3": "s"})
    assert noted == Poll(0, 0, {"o1": Wanted("s"), "o2": Wanted("t"), "o3": Wanted("s")}) == polls.read("list")
    assert polls.read("list", noted) is noted
    begun = polls.begin("list", 0)
    assert begun is not None and begun.asking and polls.begin("list", 0) is None
    assert polls.read("list", noted) == begun
    seen = {"o1": Wanted("s", "succeeded"), "o2": Wanted("t", missed=1), "gone": Wanted("s", "executing")}
    polls.add("list", {"late": "s"})
    ended = polls.end("list", 1, seen)
    assert not ended.asking and ended.wanted == {
        "o1": Wanted("s", "succeeded"),
        "o2": Wanted("t", missed=1),
        "o3": Wanted("s"),
        "late": Wanted("s"),
    }
    assert polls.read("list", begun) == ended
    overtaken, newer = polls.begin("list", 1), polls.begin("list", 2)
    assert overtaken is not None and newer is not None
    still = polls.end("list", 2, {"o1": Wanted("s", "executing"), "o2": Wanted("t", missed=MISSED_ROUNDS + 1)})
    assert still.asking and still.wanted.keys() == {"o3", "late"}
    assert not polls.end("list", 3, {}).asking
    assert polls.unwatch("list", ["o3", "late"]).wanted == {}


@pytest.mark.catches("rounds of many")
@pytest.mark.parametrize("waits", [2, 8])
def test_a_round_is_of_one_of_many_processes_at_once(durable_url: str, waits: int):
    """However many begin the same round at the same moment, one succeeds."""
    journals = [Journal.open(durable_url) for _ in range(waits)]
    journals[0].polls.add(f"at once {waits}", {"o1": "s"})
    for number in range(5):
        with ThreadPoolExecutor(waits) as pool:
            found = list(pool.map(lambda journal, n=number: journal.polls.begin(f"at once {waits}", n), journals))
        assert sum(each is not None for each in found) == 1
    for journal in journals:
        journal.close()


@pytest.mark.long
async def test_a_process_hears_what_another_saw(durable_journal: Journal):
    """Two processes together ask for about as many pages as one, and each reads its own records once, at their end."""
    asked: list[Work] = []
    waits = []
    for part in ("a", "b"):
        work = Work(**{f"{letter}{i}": "executing" for letter in "ab" for i in range(10)})
        asked.append(work)
        mine = [urn for urn in work.status if urn[0] == part]
        waits.append(asyncio.create_task(work.poller(PollSharing(durable_journal, "two")).wait(mine)))
        await asyncio.sleep(0.3)
    await asyncio.sleep(4.0)
    pages = sum(work.asked["page"] for work in asked)
    assert 3 <= pages <= 7 and not any(work.asked["read"] for work in asked)
    for work in asked:
        work.status = dict.fromkeys(work.status, "succeeded")
    assert await asyncio.wait_for(waits[1], 10) == [(f"b{i}", "succeeded") for i in range(10)]
    await waits[0]
    assert [work.asked["read"] for work in asked] == [10, 10]
    await asyncio.sleep(0.3)


async def test_what_another_may_not_see_is_read_by_who_waits(sqlite_journal: Journal, monkeypatch):
    """A process reads by itself what the pages do not show. A record that never appears is an error of its own wait."""
    monkeypatch.setattr("ivcap_flows.durable.poll_interval.SHORTEST", 0.2)
    first, second = Work(**{f"a{i}": "executing" for i in range(5)}), Work(b="executing")

    def waits(work: Work, *urns: str) -> asyncio.Task[object]:
        poller = work.poller(PollSharing(sqlite_journal, "strangers"), visibility_delay=0.3)
        return asyncio.create_task(poller.wait(urns))

    one = waits(first, *first.status)
    await asyncio.sleep(0.3)
    two, three = waits(second, "b"), waits(Work(), "never")
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(three, 10)
    second.end("b")
    assert await asyncio.wait_for(two, 10) == [("b", "succeeded")]
    first.end(*first.status)
    await asyncio.wait_for(one, 10)
    assert not first.reads["b"]
