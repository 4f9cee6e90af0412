"""Waits that free the worker. The runs here are a deployment's, gone through in the test's own process as a worker's
child would; tests/e2e has a real worker."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from on_record import all_have_left
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions, FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateRejectDetails
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import AwaitingRetry, Cancelling, Failed, Pending, Running, Scheduled

from ivcap_flows import a_wait_or_park, loop, recorded, wait_or_park
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import deciding
from ivcap_flows.durable import parking as times
from ivcap_flows.errors import ConfigurationError, JournalError, OrderFailedError, WaitTimeoutError
from ivcap_flows.handles import Order
from ivcap_flows.in_prefect.flow_run_states import prefect_state
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal
from ivcap_flows.journal.parks import Parks
from ivcap_flows.journal.rows import AttemptRow, Park, Wait
from ivcap_flows.journal.runs import Runs
from ivcap_flows.tasks import (
    OrderStep,
    aplace_order,
    arequest_job,
    arun_orders,
    create_queue,
    dequeue,
    enqueue,
    flow_run,
    park_watcher,
    parking,
    place_order,
    run_orders,
    wait_for_orders,
)
from ivcap_flows.tasks.flow_run import Obstacle, OwnRun
from ivcap_flows.tasks.park_watcher import Watcher
from ivcap_flows.tasks.waiting import Patience


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Shorten the waits from minutes to moments."""
    monkeypatch.setenv("IVCAP_FLOWS_PARK_AFTER", "0")
    for name in ("LEAST", "AGAIN"):
        monkeypatch.setattr(parking, name, 0.1)
    monkeypatch.setattr(parking, "WOKEN", 1.0)


class Deployed:
    """A run of a deployment. `go` does what a worker's process would do."""

    def __init__(self, function: Any, client: SyncPrefectClient, **options: Any) -> None:
        self.flow = function
        self.client = client
        flow_id = self.client.create_flow(function)
        self.deployment = self.client.create_deployment(flow_id, uuid.uuid4().hex, **options)
        self.id = self.client.create_flow_run_from_deployment(self.deployment).id

    def go(self) -> Any:
        result = run_flow(self.flow, flow_run=self.run, parameters={})
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    def parks(self, begin: Callable[[], Any] | None = None) -> None:
        """Go, or begin otherwise, until the run parks."""
        with pytest.raises(Pause):
            (begin or self.go)()
        assert self.parked

    def wake(self) -> Any:
        """Continue as if the time had come, or somebody had resumed the run."""
        self.set(Scheduled())
        return self.go()

    def set(self, state: State[Any], *, force: bool = False) -> None:
        self.client.set_flow_run_state(self.id, state, force=force)

    @property
    def run(self) -> FlowRun:
        return self.client.read_flow_run(self.id)

    @property
    def parked(self) -> bool:
        state = self.run.state
        return state is not None and (state.type.value, state.name) == ("SCHEDULED", "Parked")

    @property
    def due(self) -> float:
        """The seconds until the run is started."""
        return (self.run.state.state_details.scheduled_time - datetime.now(timezone.utc)).total_seconds()


@pytest.fixture
def deployed(on_prefect, embedded_platform, ivcap_journal) -> Iterator[Callable[..., Deployed]]:
    """Return `deployed(flow)`, which makes a run of a new deployment of the flow."""
    with get_client(sync_client=True) as client:
        yield lambda function, **options: Deployed(function, client, **options)


@pytest.fixture
def end(file_service, tmp_path) -> Iterator[Path]:
    """The file that ends the test's work. It exists once a run has said why it does not park at all."""
    path = tmp_path / "end"

    def heard(record: logging.LogRecord) -> bool:
        # On a busy machine, Prefect learns late that the tasks before the wait have ended: a run waits "for now".
        if "cannot park and waits in its process:" in record.getMessage():
            path.touch()
        return True

    parking.logger.addFilter(heard)
    yield path
    parking.logger.removeFilter(heard)
    path.touch()


def ordering(end: Path, discriminator: str | None = None, **options: Any) -> list[str]:
    """Place an order and wait for it."""
    order = place_order("ends-with-a-file", {"file": str(end)}, discriminator=discriminator)
    return [done.status for done in wait_or_park([order], **options)]


@pytest.fixture
def run(deployed, end) -> Deployed:
    """A run of a flow that places an order and waits for it."""

    @flow
    @recorded
    def parks() -> list[str]:
        return ordering(end)

    return deployed(parks)


def finish(run: Deployed, end: Path) -> Any:
    """Let the work end, and wake the run until it sees that."""
    end.touch()
    while True:
        with contextlib.suppress(Pause):
            return run.wake()


def test_a_run_leaves_its_process_and_goes_on_where_it_was(deployed, ivcap_journal, effects, unique, end):
    """A parked run leaves its process and continues with the same order.

    A task with a kept result runs once, a replay-safe one again, of which the log tells. The journal has all attempts
    and parks. A run that wakes before its order has ended parks again, while a watcher is there for an hour, in case
    that does not wake it. The order decides, not what Prefect knows of earlier rounds.
    """
    counted: list[str] = []

    @task(persist_result=True)
    def kept(mark: str) -> str:
        counted.append("kept")
        return mark

    @task(tags=["replay-safe"])
    def harmless() -> None:
        counted.append("harmless")

    @flow
    @recorded
    def parks() -> list[str]:
        kept(unique)
        harmless()
        return ordering(end)

    run = deployed(parks)
    run.parks()
    assert times.SHORTEST - 10 < run.due <= times.SHORTEST
    [(left, park)] = ivcap_journal.parks.open()
    assert (left.flow_run_id, park.round, len(park.waits)) == (str(run.id), 1, 1)
    assert prefect_state(str(run.id)).outcome == "parked"
    run_id = ivcap_journal.runs.recent(1)[0].id
    [attempt] = ivcap_journal.runs.attempts(run_id)
    assert attempt.outcome == "parked"
    assert attempt.cause.startswith("Parked: waits for 1 order (ends-with-a-file); wakes at")
    assert re.search(r"When it wakes, 'harmless-\w+' runs again\.$", attempt.cause)
    with ivcap_journal.leases.hold(times.watcher_of(park.platform, park.account, park.credentials)):
        run.parks(run.wake)
    assert times.WATCHED - 60 < run.due <= times.WATCHED
    run.set(Failed(), force=True)
    run.set(AwaitingRetry())
    run.parks()
    rounds = parks_of(ivcap_journal)
    assert [park.round for park in rounds] == [1, 2, 3] and len({park.began_at for park in rounds}) == 1
    assert [park for _, park in ivcap_journal.parks.open()] == rounds[-1:]
    assert finish(run, end) == ["succeeded"]
    assert counted[:2] == ["kept", "harmless"] and set(counted[2:]) == {"harmless"}
    assert effects.count("/1/orders") == 1
    outcomes = [a.outcome for a in ivcap_journal.runs.attempts(run_id)]
    assert set(outcomes[:-1]) == {"parked"} and outcomes[-1] == "completed"
    assert ivcap_journal.parks.open() == []


class Answer(RunInput):
    goes_on: bool


def test_a_run_that_prefect_suspends_is_paused_and_can_be_given_up(deployed, ivcap_journal):
    """It has another word than a parked one. Given up, it is cancelled in Prefect, so nobody can resume it."""

    @flow
    @recorded
    def asks() -> None:
        suspend_flow_run(wait_for_input=Answer)

    run = deployed(asks)
    with pytest.raises(Pause):
        run.go()
    [found] = ivcap_journal.runs.recent(1)
    assert (found.outcome, prefect_state(str(run.id)).outcome) == ("paused", "paused")
    assert ivcap_journal.parks.open() == [] and loop.run(Watcher(ivcap_journal).once()) == (0, 0)
    assert "is paused: it continues when somebody resumes it" in deciding.consequences(ivcap_journal, found)
    deciding.abandon(ivcap_journal, found)
    assert run.run.state.is_cancelled() and ivcap_journal.runs.recent(1)[0].outcome == "abandoned"
    with contextlib.suppress(Exception):
        run.client.resume_flow_run(run.id, run_input={"goes_on": True})
    assert run.run.state.is_cancelled()


def parks_of(journal: Journal) -> list[Park]:
    """Return the parks of the newest run, oldest first."""
    attempts = journal.runs.attempts(journal.runs.recent(1)[0].id)
    return [attempt.park for attempt in attempts if attempt.park is not None]


@pytest.mark.parametrize("form", ["synchronous", pytest.param("asynchronous", marks=pytest.mark.long)])
def test_many_orders_park_together(deployed, effects, tmp_path, end, form):
    """`run_orders` and `arun_orders` leave the process as `wait_or_park` does, and find their orders when they wake.

    Also if the journal was replaced meanwhile: the idempotency records name them, and no others are placed.
    """
    steps = [OrderStep("ends-with-a-file", {"file": str(end)}, discriminator=str(number)) for number in range(3)]

    @flow
    def synchronous() -> list[str]:
        return [order.status for order in run_orders(steps)]

    @flow
    async def asynchronous() -> list[str]:
        return [order.status for order in await arun_orders(steps)]

    run = deployed({"synchronous": synchronous, "asynchronous": asynchronous}[form])
    run.parks()
    end.touch()
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert finish(run, end) == ["succeeded"] * 3
        assert other.parks.open() == []
    assert effects.count("/1/orders") == 3


@pytest.mark.catches("a run goes on anywhere")
def test_a_run_that_wakes_with_other_credentials_sends_nothing(run, effects, end, monkeypatch, second_account):
    """It fails with an error that names both accounts. With the credentials of before, it goes on."""
    run.parks()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("IVCAP_JWT", os.environ["IVCAP_JWT_2"])
        with pytest.raises((ConfigurationError, Pause)) as raised:
            run.wake()
    assert "but the environment of this process leads to" in str(raised.value)
    assert effects.count("/1/orders") == 1
    assert finish(run, end) == ["succeeded"] and effects.count("/1/orders") == 1


@pytest.fixture
def ahead(ivcap_journal, monkeypatch) -> Callable[[float], None]:
    """Return `ahead(hours)`, which sets the journal's clock ahead."""

    def set_clock(hours: float) -> None:
        monkeypatch.setattr(ivcap_journal, "now", lambda: datetime.now(timezone.utc) + timedelta(hours=hours))

    return set_clock


@pytest.mark.long
@pytest.mark.parametrize("again", ["a second call", "a retry of the flow"])
def test_after_its_timeout_a_wait_begins_anew(deployed, ivcap_journal, ahead, monkeypatch, end, again):
    """The timeout of a wait counts over all rounds, and the run wakes in time for it. A wait after a WaitTimeoutError
    has the whole timeout again: when the run wakes from that, the first is over at once, and the second goes on. Work
    that ended while the run was parked is the result, also after the timeout."""
    late: list[str] = []

    @flow(retries=1)
    def parks() -> list[str]:
        try:
            return ordering(end, timeout=60)
        except WaitTimeoutError as error:
            late.append(str(error))
            if again == "a retry of the flow":
                raise
            return ordering(end, timeout=600)

    ahead(1)
    run = deployed(parks)
    run.parks()
    assert run.due < 60
    ahead(2)
    rounds = 3 if again == "a second call" else 2
    for _ in range(rounds - 1):
        run.parks(run.wake)
    first, *later = [park.began_at for park in parks_of(ivcap_journal)]
    assert len(later) == rounds - 1 and len(set(later)) == 1 and later[0] > first
    assert len(late) == rounds - 1 and "1 of 1 orders and jobs not finished after 60 s" in late[0]
    monkeypatch.setattr(parking, "WOKEN", 10.0)
    ahead(9)
    end.touch()
    assert run.wake() == ["succeeded"] and len(late) == rounds - 1


def test_what_a_woken_run_reads_before_it_waits_counts_once(deployed, ahead, monkeypatch, end):
    """All the time since the first call was spent on that, for instance since the platform was away."""

    @flow
    def parks() -> list[str]:
        return ordering(end, timeout=1000)

    run = deployed(parks)
    run.parks()
    ahead(600 / 3600)
    begun = [Patience(["urn:ivcap:order:1"], 1000, time.monotonic() - 600)]
    monkeypatch.setattr(Patience, "of", lambda *_: begun.pop())
    run.parks(run.wake)
    assert not begun


def test_no_wait_counts_the_time_of_another(in_script, ivcap_journal, end, tmp_path):
    """The timeout of a wait for two orders does not count an earlier wait for one that has ended since."""
    early = tmp_path / "early"
    early.touch()

    def body() -> list[str]:
        orders = [place_order("ends-with-a-file", {"file": str(path)}) for path in (early, end)]
        wait_for_orders(orders[:1])
        [attempt] = ivcap_journal.runs.attempts(ivcap_journal.runs.recent(1)[0].id)

        def parked_for(order: Order) -> None:
            before = ivcap_journal.now() - timedelta(hours=1)
            waits = (Wait(order.urn, "order", order.service),)
            ivcap_journal.parks.note(attempt.id, Park(1, order.platform, "a", None, waits, before, before))

        parked_for(orders[1])
        with pytest.raises(WaitTimeoutError):
            wait_or_park(orders, timeout=60)
        assert not end.exists()
        parked_for(orders[0])
        threading.Timer(1.0, end.touch).start()
        return [done.status for done in wait_or_park(orders, timeout=60)]

    assert in_script(body) == ["succeeded"] * 2


@task
def unkept() -> int:
    return 1


@pytest.mark.catches("results that are not read back")
def test_a_kept_result_that_is_not_read_back_keeps_a_run_in_its_process(deployed):
    """From wherever the flow has the task, which is no global of its module."""

    @flow
    def judged() -> Obstacle | None:
        no_reads = ({"cache_policy": NO_CACHE}, {"refresh_cache": True}, {"cache_expiration": timedelta(hours=1)})
        for number, options in enumerate(no_reads):

            def charged(number: int) -> int:
                return number

            charged.__qualname__ = f"charged-{uuid.uuid4()}"
            # Each with an argument of its own: else Prefect answers the last one from what the second one kept.
            task(persist_result=True, **options)(charged)(number)
        return obstacle_here()

    found = deployed(judged).go()
    assert found is not None and len(re.findall("'charged-[^']*'", found.reason)) == 3
    assert "would run again" in found.reason


def obstacle_here(*, patient: bool = True) -> Obstacle | None:
    own = OwnRun.here()
    while not isinstance(own, Obstacle):
        found = own.judge()
        if not isinstance(found, Obstacle):
            return None
        # A server under load shows late what the tasks of a run did; a wait asks again, too.
        if not found.passing or not patient:
            return found
        time.sleep(0.1)
    return own


def test_what_hinders_a_run(deployed):
    """No obstacle is: a task or subflow with a persisted result, a task with the tag, a task of this package, a limit
    of the deployment with ENQUEUE.

    A task that is still running passes. A failed task, one of a subflow, or one that took a message off a queue would
    run again; the reason names them, and says what to change. With CANCEL_NEW, waking would cancel the run.
    """
    let_go = threading.Event()

    @task(persist_result=True)
    def slow() -> None:
        let_go.wait(150)

    @task(persist_result=True)
    def fails() -> None:
        raise ValueError("always")

    @flow
    def subflow() -> int:
        return unkept()

    @flow
    def judged() -> list[Obstacle | None]:
        unkept.with_options(tags=["replay-safe"])()
        subflow.with_options(persist_result=True)()
        queue = create_queue(uuid.uuid4().hex)
        enqueue(queue, {"$schema": "urn:example:schema:x.1"})
        found = [obstacle_here()]
        future = slow.submit()
        while (running := obstacle_here(patient=False)) is None:
            time.sleep(0.05)
        let_go.set()
        future.wait()
        found += [running, obstacle_here()]
        fails(return_state=True)
        subflow()
        dequeue(queue)
        found.append(obstacle_here())
        run.client.update_deployment(run.deployment, DeploymentUpdate(concurrency_options=limit("CANCEL_NEW")))
        return [*found, obstacle_here()]

    def limit(strategy: str) -> ConcurrencyOptions:
        return ConcurrencyOptions(collision_strategy=strategy)

    run = deployed(judged, concurrency_limit=1, concurrency_options=limit("ENQUEUE"))
    nothing, running, ended, again, cancels = run.go()
    assert nothing is ended is None
    assert "still running" in running.reason and running.passing
    for name in ("'fails-.*'", "'unkept-.*'", "'.*dequeue.*'"):
        assert re.search(f"{name}.* would run again", again.reason), name
    assert "set persist_result=True for such a task, or the tag 'replay-safe'" in again.reason and not again.passing
    assert "CANCEL_NEW" in cancels.reason


@pytest.mark.long
def test_where_a_call_stands_decides(deployed):
    """Only a call in the flow itself can park, in a deployed run.

    A call in a task, a subflow, a thread or another asyncio task cannot.
    """
    seen: dict[str, str] = {}

    def here(where: str) -> None:
        found = obstacle_here()
        seen[where] = "" if found is None else found.reason

    @task(persist_result=True)
    def in_task() -> None:
        here("task")

    @flow(persist_result=True)
    def in_subflow() -> bool:
        here("subflow")
        return True

    async def beside() -> None:
        here("gather")

    @flow
    async def judged() -> None:
        here("body")
        in_task()
        in_subflow()
        await asyncio.gather(beside())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(here, "thread"))
        thread.start()
        thread.join()

    deployed(judged).go()
    first = dict(seen)
    assert first.pop("body") == ""
    asyncio.run(judged())
    assert seen.pop("body") == "the flow was not started from a deployment, so no worker can start it again"
    seen |= first
    here("outside")
    words = {
        "task": "task",
        "subflow": "subflow",
        "gather": "asyncio task",
        "thread": "in a thread",
        "outside": "outside",
    }
    assert all(word in seen[where] for where, word in words.items()), seen


@pytest.mark.long
def test_parking_uses_no_retry_of_the_flow(deployed, effects, end):
    """A flow with `retries=` parks before and after a retry, wakes each time, and still has its retries.

    After a retry in its process, Prefect gives a parked run to a worker nevertheless.
    """
    begun: list[Any] = []

    @flow(retries=2)
    def retried() -> list[str]:
        begun.append(len(begun))
        if len(begun) == 1:
            raise RuntimeError("at first")
        done = ordering(end)
        if "late" not in begun:
            begun.append("late")
            raise RuntimeError("at last")
        return done

    run = deployed(retried)
    run.parks()
    policy = run.run.empirical_policy
    assert begun == [0, 1] and (policy.resuming, policy.retry_type, run.run.run_count) == (True, None, 2)
    run.parks(run.wake)
    assert run.run.run_count == 2
    # The retry after the work's end begins in the same process.
    assert finish(run, end) == ["succeeded"]
    assert begun[-2] == "late" and run.run.run_count == 3
    assert effects.count("/1/orders") == 1


def test_a_run_that_may_not_park_waits_and_says_why_once(deployed, ivcap_journal, monkeypatch, caplog, end):
    """Two such waits log one warning. If the earlier rounds of a wait cannot be read, it goes on, timed from now."""

    def broken(*_: Any) -> Any:
        raise JournalError("the database is locked")

    @flow
    def stays() -> list[str]:
        unkept()
        order = place_order("ends-with-a-file", {"file": str(end)})
        with monkeypatch.context() as patch:
            patch.setattr(Runs, "attempts", broken)
            [done] = wait_or_park([order], timeout=300)
        return [done.status, *ordering(end, "more")]

    with caplog.at_level(logging.WARNING, logger="ivcap_flows.waiting"):
        assert deployed(stays).go() == ["succeeded"] * 2
    assert len([message for message in caplog.messages if "cannot park" in message]) == 1
    assert "the database is locked" in caplog.text and ivcap_journal.parks.open() == []


def test_a_run_of_no_deployment_is_not_told_that_it_cannot_park(effects, in_flow, in_script, unique, caplog):
    """A script, or a flow that a script calls, waits in its process: there is nothing that its user could change."""
    for number, run in enumerate((in_script, in_flow)):
        order = run(lambda number=number: run_orders([OrderStep("sleep", {"seconds": 0.7}, discriminator=f"{number}")]))
        assert order[0].succeeded
    assert "cannot park" not in caplog.text


@pytest.mark.long
def test_without_prefects_word_a_run_waits_in_its_process(run, caplog, monkeypatch, end):
    """If Prefect's API cannot be reached, the run waits in its process and logs a warning."""

    def gone(**_: Any) -> None:
        end.touch()
        raise ConnectionError("refused")

    monkeypatch.setattr(flow_run, "get_client", gone)
    assert run.go() == ["succeeded"]
    assert "Prefect's API cannot be asked" in caplog.text


LOST = ("obeyed", "obeyed, and started", "answered after the start")


@pytest.mark.parametrize("what", ["not obeyed", *(pytest.param(each, marks=pytest.mark.long) for each in LOST)])
def test_a_lost_reply_to_the_parking_is_asked_after(run, ivcap_journal, monkeypatch, end, what):
    """After a lost reply Prefect is asked whether the run was parked.

    It leaves or stays accordingly, so it never has two processes or none, even if a worker has started it since.
    """
    real = SyncPrefectClient.set_flow_run_state
    lost: list[str] = []

    def losing(self: Any, id: Any, state: State[Any], force: bool = False) -> Any:  # noqa: A002
        if state.name != "Parked":
            return real(self, id, state, force)
        lost.append("reply")
        if what == "not obeyed":
            end.touch()
            raise ConnectionError("no reply")
        reply = real(self, id, state, force)
        if what != "obeyed":
            real(self, id, Scheduled(name="Resuming"))
            real(self, id, Pending())
            real(self, id, Running())
        if what == "answered after the start":
            return reply
        raise ConnectionError("no reply")

    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", losing)
    if what != "not obeyed":
        with pytest.raises(Pause):
            run.go()
        assert run.parked == (what == "obeyed") and len(ivcap_journal.parks.open()) == 1
    else:
        assert run.go() == ["succeeded"]
        assert ivcap_journal.parks.open() == []
    assert lost


def refusing(*_: Any, **__: Any) -> Any:
    reply = httpx.Response(403, request=httpx.Request("GET", "http://prefect.test/api/flow_runs"))
    reply.raise_for_status()


def test_a_refusal_to_say_whether_the_run_is_parked_ends_its_process(run, monkeypatch, end):
    """It may be parked, and then a worker starts it: going on here could make two of it. Asking again is vain."""

    def lost(self: Any, id: Any, state: State[Any], force: bool = False) -> Any:  # noqa: A002
        if state.name == "Parked":
            raise ConnectionError("no reply")
        return real(self, id, state, force)

    real = SyncPrefectClient.set_flow_run_state
    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", lost)
    monkeypatch.setattr(SyncPrefectClient, "read_flow_run_states", refusing)
    with pytest.raises(
        ConfigurationError, match=f"whether the run is parked .403 Forbidden.*PREFECT_API_KEY.*{run.id}"
    ):
        run.go()


@pytest.mark.long
def test_orders_and_jobs_come_back_in_their_order(deployed, ivcap_journal, unique, end):
    """One wait of an asynchronous flow returns orders and jobs in input order.

    A failure is raised after all have ended.
    """

    @flow
    async def parks() -> list[str]:
        order = await aplace_order("echo", {"message": unique})
        job = await arequest_job("ends-with-a-file", {"file": str(end)})
        wrong = await aplace_order("fail", {"message": unique})
        done = await a_wait_or_park([job, order])
        assert [each.kind for each in done] == ["job", "order"] and all(each.succeeded for each in done)
        with pytest.raises(OrderFailedError, match="1 of 1 orders"):
            await a_wait_or_park([job, wrong])
        return [each.status for each in done]

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    assert "job" in [wait.noun for wait in ivcap_journal.parks.open()[0][1].waits]
    assert finish(run, end) == ["succeeded"] * 2


def watched(watcher: Watcher) -> int:
    woken, _ = loop.run(watcher.once())
    return woken


def test_a_watcher_wakes_a_run_once_its_process_has_gone(run, ivcap_journal, monkeypatch, caplog, end):
    """The watcher wakes a run whose work has ended only when its process has gone, so it never has two processes.

    One with another platform does not wake it, since it cannot read its orders.
    """
    run.parks()
    end.touch()
    monkeypatch.setattr(Parks, "left", all_have_left)

    async def elsewhere(self: Any) -> str:
        return "https://elsewhere.example"

    with monkeypatch.context() as patch:
        patch.setattr(IvcapClient, "platform", elsewhere)
        assert watched(Watcher(ivcap_journal)) == 0
    assert run.parked and "wakes at its wake time" in caplog.text
    looks, left = iter([False, False, True]), False
    woken_beside: list[bool] = []

    def look(self: Parks, attempts: list[AttemptRow]) -> set[str]:
        nonlocal left
        left = next(looks)
        return {attempt.id for attempt in attempts if left}

    real = park_watcher.wake
    monkeypatch.setattr(Parks, "left", look)
    monkeypatch.setattr(park_watcher, "wake", lambda id_: woken_beside.append(not left) or real(id_))
    assert watched(Watcher(ivcap_journal)) == 1
    assert woken_beside == [False]
    assert run.run.state.name == "Resuming"
    assert run.go() == ["succeeded"]


@pytest.mark.catches("a parked run wakes when all has ended")
def test_a_parked_run_wakes_once_a_quarter_of_its_window_is_free(
    deployed, effects, ivcap_journal, file_service, monkeypatch, tmp_path
):
    """Each start repeats the flow's body, so one order that has ended is not enough; then the next ones are placed.

    Once all are placed, it wakes when all have ended. The orders end here in their order, as few as wake the run.
    """
    monkeypatch.setattr(Parks, "left", all_have_left)
    # The watcher leaves a run alone that Prefect is about to wake.
    monkeypatch.setattr(parking, "rest", lambda *_, **__: 3600.0)
    steps, at_once = 8, 5
    files = [tmp_path / str(number) for number in range(steps)]
    asked = [OrderStep("ends-with-a-file", {"file": str(file)}) for file in files]

    @flow
    def stage() -> list[str]:
        return [order.status for order in run_orders(asked, at_once=at_once)]

    run, begun, ended, quarter = deployed(stage), 0, 0, -(-at_once // 4)
    while True:
        begun += 1
        try:
            assert run.go() == ["succeeded"] * steps
            break
        except Pause:
            placed = min(steps, ended + at_once)
            assert effects.count("/1/orders") == placed
            [(_, park)] = ivcap_journal.parks.open()
            assert (len(park.waits), park.enough) == (placed - ended, quarter if placed < steps else None)
        ended = steps if park.enough is None else ended + park.enough
        for file in files[:ended]:
            file.touch()
        assert watched(Watcher(ivcap_journal)) == 1
    assert begun == 4


def test_a_run_that_prefect_does_not_start_is_not_counted_as_woken(run, ivcap_journal, monkeypatch, caplog, end):
    """The watcher gives Prefect's reason, and tries again at its next look."""

    def refused(*_: Any) -> OrchestrationResult[Any]:
        details = StateRejectDetails(reason="The pool is paused.")
        return OrchestrationResult(state=None, status=SetStateStatus.REJECT, details=details)

    run.parks()
    end.touch()
    monkeypatch.setattr(park_watcher, "_ONCE", 2.0)
    monkeypatch.setattr(Parks, "left", all_have_left)
    with monkeypatch.context() as patch:
        patch.setattr(SyncPrefectClient, "set_flow_run_state", refused)
        assert loop.run(Watcher(ivcap_journal).once()) == (0, 1)
    assert "Prefect answered REJECT: The pool is paused." in caplog.text and run.parked
    assert loop.run(Watcher(ivcap_journal).once()) == (1, 0) and not run.parked


@pytest.mark.parametrize(
    "what", ["cancelled", *(pytest.param(each, marks=pytest.mark.long) for each in ("deleted", "failed"))]
)
def test_a_run_that_does_not_come_back_is_parked_no_more(run, ivcap_journal, monkeypatch, end, what):
    """The watcher wakes no run that was cancelled, deleted or failed, and records how it ended if Prefect says so.

    Its order stays open without a live owner.
    """
    monkeypatch.setattr(Parks, "left", all_have_left)
    run.parks()
    assert len(ivcap_journal.parks.open()) == 1
    end.touch()
    if what == "cancelled":
        run.set(Cancelling())
        assert run.run.state.name == "Cancelled"
    elif what == "failed":
        run.set(Failed(), force=True)
    else:
        run.client.delete_flow_run(run.id)
    assert watched(Watcher(ivcap_journal)) == 0
    if what != "deleted":
        assert ivcap_journal.runs.recent(1)[0].outcome == what and ivcap_journal.parks.open() == []
    [order] = ivcap_journal.intents.where(noun="order")
    assert order.state == "done" and not ivcap_journal.intents.held(order)


def test_a_clock_that_is_ahead_makes_no_run_sleep_longer(run, ivcap_journal, ahead, monkeypatch, end):
    """A run wakes by Prefect's clock, even if the clock of the journal or of the watcher is wrong."""
    monkeypatch.setattr(Parks, "left", all_have_left)
    ahead(1)
    run.parks()
    assert run.due <= times.LONGEST, "the work seems to be an hour old"
    ahead(0)
    run.set(Scheduled(name="Parked", scheduled_time=datetime.now(timezone.utc) + timedelta(minutes=30)), force=True)
    end.touch()
    with monkeypatch.context() as patch:
        patch.setattr(flow_run, "time", SimpleNamespace(time=lambda: time.time() + 3600))
        patch.setattr("prefect.states.now", lambda zone=timezone.utc: datetime.now(zone) + timedelta(hours=1))
        assert watched(Watcher(ivcap_journal)) == 1
    assert run.run.state.name == "Resuming" and run.due <= 1
