"""The watcher with many runs and a failing journal. Prefect's answers are given by the tests."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import psycopg
import pytest
from eventually import auntil, until
from on_record import all_have_left
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Scheduled

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.durable.parking import watcher_of
from ivcap_flows.errors import ConfigurationError, ForbiddenError, JournalError
from ivcap_flows.handles import Order
from ivcap_flows.journal import Journal, RunIdentity, store
from ivcap_flows.journal.leases import Leases
from ivcap_flows.journal.moves import move
from ivcap_flows.journal.parks import Parks
from ivcap_flows.journal.rows import AttemptRow, Park, Wait
from ivcap_flows.tasks import park_watcher, place_order
from ivcap_flows.tasks.park_watcher import Watcher

pytestmark = pytest.mark.canary

MANY = 200


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch, on_prefect: object) -> list[str]:
    """The flow runs that were woken. All others are parked in Prefect."""
    found: list[str] = []
    parked = Scheduled(name=park_watcher.PARKED, scheduled_time=datetime.now(timezone.utc) + timedelta(hours=1))
    monkeypatch.setattr(park_watcher, "standing", lambda ids: {id_: parked for id_ in ids if id_ not in found})
    monkeypatch.setattr(park_watcher, "wake", lambda flow_run_id: found.append(flow_run_id) or "woken")
    monkeypatch.setattr(park_watcher, "EVERY", 0.2)
    return found


@pytest.fixture
def account(embedded_platform: object) -> str:
    """The account of this process."""

    async def own() -> str:
        return await (await ivcap_client(None, deployed=False)).account()

    return loop.run(own())


@pytest.fixture
def park(account: str) -> Callable[..., AttemptRow]:
    """Return `park(journal, order)`, which notes a run that waits for it; `changed` are other values of its park."""

    def note(journal: Journal, order: Order, **changed: Any) -> AttemptRow:
        root, now = uuid.uuid4().hex, journal.now()
        opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, root, root, deployed=True))
        made = Park(1, order.platform, account, None, (Wait(order.urn, "order", order.service),), now, now)
        journal.parks.note(opened.attempt.id, replace(made, **changed))
        return opened.attempt

    return note


@contextlib.asynccontextmanager
async def watches(journal: Journal) -> Any:
    said: list[str] = []
    watch = asyncio.ensure_future(Watcher(journal, tell=said.append).watch())
    try:
        yield said
        assert not watch.done()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.long
def test_many_parked_runs_take_no_thread_each(embedded_platform, ivcap_journal, woken, park, monkeypatch):
    """Parked runs take no thread each, and those whose process still lives do not keep others from being woken."""
    order = place_order("echo", {"message": "many"})
    parks = [park(ivcap_journal, order) for _ in range(MANY)]
    last = parks[-1].run_id
    monkeypatch.setattr(Parks, "left", lambda _, some: {each.id for each in some if each.run_id == last})
    before, most = threading.active_count(), 0

    async def watch() -> None:
        nonlocal most
        async with watches(ivcap_journal):
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, threading.active_count())
            await auntil(lambda: bool(woken))
            most = max(most, threading.active_count())

    loop.run(watch())
    assert woken == [parks[-1].flow_run_id]
    assert most - before <= 40, "what a process may have at most, whatever is parked"


def test_a_journal_that_is_watched_is_not_moved(ivcap_journal, woken, tmp_path):
    """Also while nothing is parked: the watcher would read what nobody writes any more."""

    async def watch() -> None:
        async with watches(ivcap_journal) as said:
            await auntil(lambda: bool(said))
            with pytest.raises(JournalError, match=r"uses the journal .* when it has ended"):
                await asyncio.to_thread(move, ivcap_journal.url, f"sqlite:///{tmp_path}/new.sqlite")

    loop.run(watch())


def test_a_watch_for_a_time_ends_with_the_last_parked_run(embedded_platform, ivcap_journal, woken, park, monkeypatch):
    """So that a scheduled watcher keeps a process of its worker only while something is parked."""
    monkeypatch.setattr(Parks, "left", all_have_left)
    parked = park(ivcap_journal, place_order("sleep", {"seconds": 2.0}))
    begun = time.monotonic()
    loop.run(Watcher(ivcap_journal).watch(seconds=300))
    assert woken == [parked.flow_run_id] and time.monotonic() - begun < 150


@pytest.mark.catches("runs wake in turn")
def test_runs_wake_as_their_work_ends(ivcap_journal, woken, park, file_service, tmp_path, monkeypatch):
    """The first to wake is the one whose work ends first, though it parked last and has the latest wake time. Those
    whose work has ended when the watcher looks wake together."""
    monkeypatch.setattr(Parks, "left", all_have_left)
    files = [tmp_path / f"{number}" for number in range(4)]
    orders = [place_order(file_service, {"file": str(file)}) for file in files]
    now = ivcap_journal.now()
    runs = [
        park(ivcap_journal, order, wake_at=now + timedelta(minutes=minute)).flow_run_id
        for minute, order in enumerate(orders)
    ]

    async def scenario() -> None:
        async with watches(ivcap_journal):
            files[3].touch()
            await auntil(lambda: woken == runs[3:])
            files[2].touch()
            await auntil(lambda: woken == runs[:1:-1])
        for file in files:
            file.touch()
        assert await Watcher(ivcap_journal).once() == (2, 0)

    loop.run(scenario())
    assert sorted(woken[2:]) == sorted(runs[:2])


def test_a_run_is_woken_though_its_process_lives_on(embedded_platform, ivcap_journal, woken, park, monkeypatch):
    """A thread or a `finally` of a flow may keep its process for hours. Once the run has left it for a while, it wakes
    as any other does; one that has not left does not.
    """
    monkeypatch.setattr(park_watcher, "_LIVES_ON", 0.5)
    order = place_order("echo", {"message": "lives on"})
    here, left = park(ivcap_journal, order), park(ivcap_journal, order)
    ivcap_journal.runs.close_attempt(left.id, "parked")

    async def watch() -> None:
        async with watches(ivcap_journal):
            await auntil(lambda: bool(woken))

    loop.run(watch())
    assert woken == [left.flow_run_id] and here.flow_run_id not in woken


def test_a_watcher_ends_if_prefect_refuses_to_say_what_is_parked(embedded_platform, ivcap_journal, park, monkeypatch):
    """It would promise to wake runs that it cannot see."""
    park(ivcap_journal, place_order("echo", {"message": "refused"}))

    def refused(*_: Any, **__: Any) -> Any:
        httpx.Response(401, request=httpx.Request("POST", "http://prefect.test/api")).raise_for_status()

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", refused)
    for ask in (Watcher(ivcap_journal).watch, Watcher(ivcap_journal).once):
        with pytest.raises(
            ConfigurationError, match=r"refuses to say which runs are parked \(401 Unauthorized\).*PREFECT_API_KEY"
        ):
            loop.run(asyncio.wait_for(ask(), 20))


@pytest.fixture
def hasty_journal(journal_url: str) -> Iterator[Journal]:
    """A journal that waits only a moment for other writers, where the database is SQLite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BUSY_SECONDS", 0.2)
        journal = Journal.open(journal_url)
    with journal:
        yield journal


def fail(url: str) -> None:
    """Let every write by others to the journal fail for a while: SQLite is locked, PostgreSQL connections are cut."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(0.8)
        return
    end = time.monotonic() + 0.8
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        while time.monotonic() < end:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_a_watcher_outlives_what_its_journal_does(
    embedded_platform, ivcap_journal, journal_url, hasty_journal, woken, park, monkeypatch, caplog
):
    """A watcher survives a failing journal, says so at most once, and wakes runs afterwards."""
    order = place_order("echo", {"message": "outlives"})
    monkeypatch.setattr(Parks, "left", all_have_left)

    async def scenario() -> None:
        async with watches(hasty_journal) as said:
            await auntil(lambda: bool(said))
            await asyncio.to_thread(fail, journal_url)
            # By a journal that waits: while the watcher writes, the hasty one might not come to its turn.
            with Journal.open(journal_url) as patient:
                parked = park(patient, order)
                await auntil(lambda: parked.flow_run_id in woken)

    loop.run(scenario())
    assert sum("Cannot read parked runs" in record.message for record in caplog.records) <= 1


@pytest.mark.catches("any watcher promises")
def test_a_watcher_promises_for_those_whose_work_it_can_poll(
    embedded_platform, ivcap_journal, woken, park, account, monkeypatch, caplog
):
    """A run may count on a watcher that polls for the same account by the same credentials.

    Not on one that has other credentials, nor on one that is refused. When it ends, another one takes its place.
    """
    ask = park_watcher.pending_of

    async def asked(call: Any, waits: tuple[Wait, ...], **options: Any) -> set[str]:
        if waits == (refused,):
            raise ForbiddenError("This work is not yours.")
        return await ask(call, waits, **options)

    monkeypatch.setattr(park_watcher, "pending_of", asked)
    order = place_order("echo", {"message": "promises"})
    others = {"account": "urn:ivcap:account:other"}, {"platform": "https://other"}, {"credentials": "no-such-block"}
    refused = Wait("urn:ivcap:order:forbidden", "order", order.service)

    def promised(**changed: Any) -> bool:
        asks = {"platform": order.platform, "account": account, "credentials": None, **changed}
        return ivcap_journal.leases.held(watcher_of(**asks))

    async def scenario() -> None:
        async with watches(ivcap_journal):
            for other in ({"waits": (refused,)}, *others):
                park(ivcap_journal, order, **other)
            await auntil(lambda: sum("The watcher cannot" in record.message for record in caplog.records) == 4)
            assert not any(promised(**each) for each in ({}, *others))
            park(ivcap_journal, order)
            await auntil(promised)
            assert not any(promised(**other) for other in others)
            async with watches(ivcap_journal):
                await asyncio.sleep(0.5)
        await auntil(lambda: not promised())

    loop.run(scenario())


def test_no_two_wake_a_run_at_once(embedded_platform, ivcap_journal, woken, park, monkeypatch):
    """Of two commands that look once at the same time, one wakes the run."""
    parked = park(ivcap_journal, place_order("echo", {"message": "at once"}))
    monkeypatch.setattr(Parks, "left", lambda _, some: {each.id for each in some if each.run_id == parked.run_id})
    wake, hold, asked = park_watcher.wake, Leases.hold, []

    @contextlib.contextmanager
    def held(leases: Leases, name: str) -> Iterator[bool]:
        with hold(leases, name) as mine:
            asked.append(name)
            yield mine

    def when_both_have_asked(flow_run_id: str) -> str:
        until(lambda: asked.count(park_watcher._WAKING) == 2)
        return wake(flow_run_id)

    monkeypatch.setattr(Leases, "hold", held)
    monkeypatch.setattr(park_watcher, "wake", when_both_have_asked)

    async def both() -> list[tuple[int, int]]:
        return await asyncio.gather(*(Watcher(ivcap_journal).once() for _ in range(2)))

    assert sorted(woken for woken, _ in loop.run(both())) == [0, 1]
    assert woken == [parked.flow_run_id]
