"""Processes that share a journal wait together: one polls for all, and another replaces it when it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from waiting_work import Work

from ivcap_flows.durable import poll_sharing as boards
from ivcap_flows.durable import poller as pollers
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poll_strategy import ROUND
from ivcap_flows.errors import InputError, JournalError, NotFoundError
from ivcap_flows.journal import Journal, poll_status
from ivcap_flows.journal.rows import Watch

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

    def asked(self) -> Counter[int]:
        log = self.folder / "requests"
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter(int(line.split()[0]) for line in lines)

    def asking(self, seconds: float) -> Counter[int]:
        """Return which processes send how many requests during the next seconds."""
        before = self.asked()
        time.sleep(seconds)
        return self.asked() - before

    def only(self, true: Callable[[Counter[int]], bool], within: float) -> int:
        """Wait until exactly one process sends requests and the condition holds. Return it."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            found = self.asking(0.5)
            if len(found) == 1 and true(found):
                return next(iter(found))
        raise AssertionError(f"Not one process asks: {found}")

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


def test_one_asks_for_all_whatever_becomes_of_it(waiting: Waiting):
    """A poll leader that is killed or suspended is replaced within seconds. One that continues becomes a follower."""
    waiting.start(3)
    first = waiting.only(lambda asked: True, 20)
    assert waiting.asking(0.5).keys() == {first}
    waiting.process(first).kill()
    second = waiting.only(lambda asked: first not in asked, 5)
    os.kill(second, signal.SIGSTOP)
    third = waiting.only(lambda asked: second not in asked, 8)
    before = waiting.asked()[second]
    os.kill(second, signal.SIGCONT)
    waiting.only(lambda asked: third in asked, 5)
    assert waiting.asked()[second] - before <= ROUND
    waiting.set(dict.fromkeys(waiting.work, "failed"))
    for each in waiting.processes:
        if each.pid != first:
            said, _ = each.communicate(timeout=20)
            assert each.returncode == 0 and {status for _, status in json.loads(said)} == {"failed"}
    reads = [line for line in (waiting.folder / "requests").read_text().splitlines() if " read " in line]
    assert len(reads) == 20, "each end is read once, by the process that waits for it"


async def test_a_journal_that_fails_is_done_without(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog):
    """If the journal fails, each process polls for itself and logs that, once in a while."""

    def broken(*_: object) -> bool:
        raise JournalError("the disk is full")

    work = Work(a="executing", b="succeeded")
    poller = work.poller(sharing=PollSharing(sqlite_journal, noun="orders", platform="p", account="a"))
    for name in ("lead", "others", "report", "follow", "durations", "learn", "leave"):
        monkeypatch.setattr(sqlite_journal.poll_status, name, broken)
    asyncio.get_running_loop().call_later(0.5, work.end, "a")
    assert await poller.wait(["a", "b"], timeout=10) == [("a", "succeeded"), ("b", "succeeded")]
    assert sum("without what other processes know" in record.message for record in caplog.records) == 1


async def test_a_fault_of_the_waiter_itself_ends_the_wait(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """An unexpected error in the poller ends the wait with that error, and the next wait works."""

    def wrong(*_: object) -> None:
        raise LookupError("not thought of")

    work = Work(a="executing")
    poller = work.poller(sharing=PollSharing(sqlite_journal, noun="orders", platform="p", account="a"))
    with monkeypatch.context() as patched:
        patched.setattr(poller, "_first_asking", wrong)
        with pytest.raises(LookupError):
            await poller.wait(["a"], timeout=10)
    asyncio.get_running_loop().call_later(0.5, work.end, "a")
    assert await poller.wait(["a"], timeout=10) == [("a", "succeeded")]


async def test_a_long_round_keeps_the_lead(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """The lead is renewed during a round, however many ends are reported meanwhile."""
    monkeypatch.setattr(pollers, "RENEWAL", 0.2)
    sharing = PollSharing(sqlite_journal, noun="orders", platform="p", account="a")
    work = Work(a="tried for long")
    poller = work.poller(sharing=sharing)
    wait = asyncio.create_task(poller.wait(["a"]))
    while not work.reads:
        await asyncio.sleep(0.02)
    renewals: list[bool] = []
    lead = sharing.lead

    async def renewed() -> bool:
        renewals.append(await lead())
        return renewals[-1]

    monkeypatch.setattr(sharing, "lead", renewed)
    for _ in range(20):
        poller._stirred.set()
        await asyncio.sleep(0.1)
    assert len(renewals) >= 4
    wait.cancel()
    poller._ticker.cancel()


async def test_who_waits_alone_hardly_uses_the_journal(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """A process that waits alone writes to the journal twice, to take and to leave the lead.

    It renews its lease every few seconds.
    """
    begins = time.monotonic()
    writes = []
    here = lambda: threading.current_thread().name  # noqa: E731
    begun = sqlite_journal.poll_status._store.write
    monkeypatch.setattr(sqlite_journal.poll_status._store, "write", lambda: writes.append(here()) or begun())
    monkeypatch.setattr("ivcap_flows.durable.poll_interval.SHORTEST", 0.1)
    writes.clear()
    work = Work(a="executing")
    poller = work.poller(sharing=PollSharing(sqlite_journal, noun="orders", platform="p", account="a"))
    waits = asyncio.create_task(poller.wait(["a"]))
    while poller.rounds < 8:
        await asyncio.sleep(0.02)
    work.end("a")
    await waits
    await poller._ticker
    renewals = (time.monotonic() - begins) // 7
    writes = [thread for thread in writes if thread != "ivcap-flows-heartbeat"]
    assert poller.rounds >= 8 and 2 <= len(writes) <= 2 + renewals


def test_who_led_before_tells_nothing(durable_journal: Journal):
    """Reports of a former leader are refused. What was reported is stored in the row of each process that waits."""
    seen = durable_journal.poll_status
    first = seen.lead("list", "one")
    assert first.mine and seen.lead("list", "one", first) == first
    assert not seen.lead("list", "two").mine
    assert seen.follow("list", "me", {"o1": "s", "o2": "t"}) == ({}, None)
    assert seen.others("list", "somebody") == {"o1": Watch("s", None), "o2": Watch("t", None)}
    assert seen.others("list", "me") == {}
    assert seen.report("list", "one", {"o1": "executing", "o3": "executing"}, trouble="it rains")
    assert seen.follow("list", "me", {"o1": "s", "o2": "t"}) == ({"o1": "executing"}, "it rains")
    assert seen.others("list", "somebody") == {"o1": Watch("s", "executing"), "o2": Watch("t", None)}
    seen.follow("list", "joins", {"o1": "s"})
    assert seen.others("list", "somebody")["o1"] == Watch("s", None), "one of two was told nothing yet"
    seen.leave("list", "one")
    assert seen.lead("list", "two").mine
    assert not seen.report("list", "one", {"o1": "succeeded"})
    assert seen.report("list", "two", {"o1": "failed"})
    for watcher in ("me", "joins"):
        assert seen.follow("list", watcher, {"o1": "s"})[0] == {"o1": "failed"}
        seen.leave("list", watcher)
    assert seen.others("list", "somebody") == {}


def test_many_watchers_cost_the_leader_no_statement_each(durable_journal: Journal):
    """What the others wait for, and which of them live, are read together."""
    seen = durable_journal.poll_status
    for number in range(20):
        seen.follow("many", f"watcher {number}", {f"o{number}": "s"})
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(durable_journal._store.engine, "before_cursor_execute", note)
    try:
        assert len(seen.others("many", "leader")) == 20
    finally:
        sa.event.remove(durable_journal._store.engine, "before_cursor_execute", note)
    assert len([each for each in sent if "SELECT" in each]) <= 3
    for number in range(20):
        seen.leave("many", f"watcher {number}")


def test_the_lead_goes_to_another_by_its_renewals_alone(durable_journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """A process takes the lead if it has seen no renewal for long enough by its own clock.

    Only one process succeeds.
    """
    at = [100.0]
    monkeypatch.setattr(poll_status, "time", SimpleNamespace(monotonic=lambda: at[0]))
    seen = durable_journal.poll_status
    leads, waits, late = seen.lead("silent", "one"), seen.lead("silent", "two"), seen.lead("silent", "three")
    at[0] += 8
    leads = seen.lead("silent", "one", leads)
    assert leads.mine and leads.renewal == 1
    at[0] += 8
    waits = seen.lead("silent", "two", waits)
    assert not waits.mine and waits.since == at[0], "16 s after the first look, but it was renewed"
    at[0] += 16
    taken = seen.lead("silent", "two", waits)
    assert taken.mine
    assert not seen.lead("silent", "three", late).mine, "what it noted was before"
    assert not seen.lead("silent", "one", leads).mine


def test_the_lead_of_a_dead_process_is_free_at_once(durable_url: str, durable_journal: Journal):
    """The lead of a process that the process table shows as dead is free at once, and its work is not polled."""
    code = """
import os, sys
from ivcap_flows.journal import Journal, poll_status
seen = Journal.open(sys.argv[1]).poll_status
seen.follow("orphaned", "gone", {"o1": "s"})
assert seen.lead("orphaned", "gone").mine
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, durable_url], check=True)
    assert durable_journal.poll_status.lead("orphaned", "here").mine
    assert durable_journal.poll_status.others("orphaned", "here") == {}


@pytest.mark.long
async def test_a_process_hears_what_another_saw(durable_journal: Journal):
    """Of two waits on one journal, only one asks the platform. The other reads its own records once, at their end."""
    asked: list[Work] = []
    waits = []
    for part in ("a", "b"):
        work = Work(**{f"{part}{i}": "executing" for i in range(10)})
        asked.append(work)
        sharing = PollSharing(durable_journal, noun="orders", platform="p", account="two")
        waits.append(asyncio.create_task(work.poller(sharing=sharing).wait(list(work.status))))
        await asyncio.sleep(0.3)
    first, second = asked
    first.status |= second.status
    await asyncio.sleep(2.0)
    assert second.requests == 0 and first.asked["page"] >= 2
    for work in asked:
        work.status = dict.fromkeys(work.status, "succeeded")
    assert await asyncio.wait_for(waits[1], 10) == [(f"b{i}", "succeeded") for i in range(10)]
    assert second.asked["read"] == 10 and second.asked["page"] <= 1
    await waits[0]
    await asyncio.sleep(0.3)


@pytest.mark.long
async def test_what_the_lookout_may_not_read_is_read_by_who_waits(sqlite_journal: Journal, monkeypatch):
    """A process reads by itself what the poll leader's account may not read.

    A record that never appears is an error of its own wait.
    """
    monkeypatch.setattr("ivcap_flows.durable.poll_interval.SHORTEST", 0.2)
    first, second = Work(a="executing"), Work(b="executing")

    def waits(work: Work, urn: str) -> asyncio.Task[object]:
        sharing = PollSharing(sqlite_journal, noun="orders", platform="p", account="strangers")
        return asyncio.create_task(work.poller(sharing=sharing, visibility_delay=0.3).wait([urn]))

    one = waits(first, "a")
    await asyncio.sleep(0.3)
    two, three = waits(second, "b"), waits(Work(), "never")
    await asyncio.sleep(2.0)
    second.end("b")
    assert await asyncio.wait_for(two, 10) == [("b", "succeeded")]
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(three, 10)
    first.end("a")
    await one
    await asyncio.sleep(0.3)


async def test_a_malformed_urn_of_another_process_does_not_end_the_leaders_waits(sqlite_journal: Journal, monkeypatch):
    """The process that waits for it gets the error. The waits of the poll leader go on."""
    monkeypatch.setattr("ivcap_flows.durable.poll_interval.SHORTEST", 0.2)
    first, second = Work(a="executing", b="malformed"), Work(b="malformed")

    def waits(work: Work, urn: str) -> asyncio.Task[object]:
        sharing = PollSharing(sqlite_journal, noun="orders", platform="p", account="malformed")
        return asyncio.create_task(work.poller(sharing=sharing).wait([urn]))

    one = waits(first, "a")
    await asyncio.sleep(0.3)
    with pytest.raises(InputError):
        await asyncio.wait_for(waits(second, "b"), 10)
    assert first.reads["b"] and not one.done()
    first.end("a")
    assert await asyncio.wait_for(one, 10) == [("a", "succeeded")]


async def test_how_long_work_takes_is_known_to_the_next_process(durable_journal: Journal):
    """The journal keeps the last twenty durations of each service, and each wait adds its own."""
    work = Work(a="succeeded")
    work.took_seconds, work.service["a"] = 7.0, "waited"
    poller = work.poller(sharing=PollSharing(durable_journal, noun="orders", platform="p", account="pace"))
    await poller.wait(["a"])
    await poller._ticker
    sharing = PollSharing(durable_journal, noun="orders", platform="p", account="pace")
    assert await sharing.durations("s") == () and await sharing.durations("waited") == [7.0]
    await sharing.learn({"s": [1.0, 2.0], "t": [9.0]})
    await sharing.learn({"s": [float(i) for i in range(19)]})
    later = boards.PollSharing(durable_journal, noun="orders", platform="p", account="pace")
    assert await later.durations("s") == [2.0, *map(float, range(19))]
