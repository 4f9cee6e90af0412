"""Waits that free the worker. The runs here are a deployment's, gone through in the test's own process as a worker's
child would; tests/e2e has a real worker."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyOptions, FlowRun, State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Cancelling, Failed, Pending, Running, Scheduled

from ivcap_flows import await_or_park, loop, recorded, wait_or_park
from ivcap_flows.capture import use_journal
from ivcap_flows.durable import parking as times
from ivcap_flows.errors import InputError, JournalError, OrderFailedError, WaitTimeoutError
from ivcap_flows.in_prefect.flow_run_states import prefect_state
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal
from ivcap_flows.journal.parks import Parks
from ivcap_flows.journal.rows import AttemptRow, Park
from ivcap_flows.journal.runs import Runs
from ivcap_flows.local.register import register
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
)
from ivcap_flows.tasks.flow_run import Obstacle, OwnRun
from ivcap_flows.tasks.park_watcher import Watcher

SERVICE = """
import time
from pathlib import Path

def until(request, job):
    while not Path(request["until"]).exists():
        time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Shorten the waits from minutes to moments."""
    monkeypatch.setenv("IVCAP_FLOWS_PARK_AFTER", "0")
    for name in ("LEAST", "WOKEN", "AGAIN"):
        monkeypatch.setattr(parking, name, 0.3)
    parking._told_once.clear()


class Deployed:
    """A run of a deployment. `go` does what a worker's process would do."""

    def __init__(
        self, function: Any, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, **options: Any
    ) -> None:
        self.flow = function
        self.client = client
        self.monkeypatch = monkeypatch
        flow_id = self.client.create_flow(function)
        self.deployment = self.client.create_deployment(flow_id, uuid.uuid4().hex, **options)
        self.id = self.client.create_flow_run_from_deployment(self.deployment).id

    def go(self) -> Any:
        self.monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(self.id))
        result = run_flow(self.flow, flow_run=self.run, parameters={})
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

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


@pytest.fixture
def deployed(monkeypatch, on_prefect, embedded_platform, ivcap_journal) -> Iterator[Callable[..., Deployed]]:
    """Return `deployed(flow)`, which makes a run of a new deployment of the flow."""
    with get_client(sync_client=True) as client:
        yield lambda function, **options: Deployed(function, client, monkeypatch, **options)


@pytest.fixture(scope="session")
def until_service(_embedded, tmp_path_factory) -> str:
    """The name of a service whose work ends when a file exists."""
    folder = tmp_path_factory.mktemp("parking")
    (folder / "setup.cfg").touch()
    (folder / "services_of_parking_tests.py").write_text(SERVICE)
    parameters = [{"name": "until", "type": "string"}]
    definition = {"name": "parking-until", "entry": "services_of_parking_tests:until", "parameters": parameters}
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, folder / "services.yaml")
    return "parking-until"


@pytest.fixture
def end(until_service, tmp_path, monkeypatch) -> Iterator[Path]:
    """The file that ends the test's work. It exists once a run has said why it does not park at all."""
    path = tmp_path / "end"
    tell = parking._Stay.tell

    def told(stay: Any, obstacle: Obstacle) -> None:
        tell(stay, obstacle)
        # On a busy machine, Prefect learns late that the tasks before the wait have ended.
        if not obstacle.passing:
            path.touch()

    monkeypatch.setattr(parking._Stay, "tell", told)
    yield path
    path.touch()


def ordering(end: Path, discriminator: str | None = None, **options: Any) -> list[str]:
    """Place an order and wait for it."""
    order = place_order("parking-until", {"until": str(end)}, discriminator=discriminator)
    return [done.status for done in wait_or_park([order], **options)]


def finish(run: Deployed, end: Path) -> Any:
    """Let the work end, and wake the run until it sees that."""
    end.touch()
    while True:
        with contextlib.suppress(Pause):
            return run.wake()


def test_a_run_leaves_its_process_and_goes_on_where_it_was(deployed, ivcap_journal, effects, unique, end):
    """A parked run leaves its process and continues with the same order.

    A task with a kept result runs once, a replay-safe one again, of which the log tells. The journal has both attempts
    and the park, and Prefect knows when to wake the run.
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
    with pytest.raises(Pause):
        run.go()
    assert run.parked
    state = run.run.state
    due = (state.state_details.scheduled_time - datetime.now(timezone.utc)).total_seconds()
    assert times.SHORTEST - 10 < due <= times.SHORTEST
    [(left, park)] = ivcap_journal.parks.open()
    assert (left.flow_run_id, park.round, len(park.waits)) == (str(run.id), 1, 1)
    assert prefect_state(str(run.id)).outcome == "parked"
    run_id = ivcap_journal.runs.recent(1)[0].id
    [attempt] = ivcap_journal.runs.attempts(run_id)
    assert attempt.outcome == "parked"
    assert attempt.cause.startswith("Parked: waits for 1 order (parking-until); wakes at")
    assert re.search(r"When it wakes, 'harmless-\w+' runs again\.$", attempt.cause)
    end.touch()
    assert finish(run, end) == ["succeeded"]
    assert counted[:2] == ["kept", "harmless"] and set(counted[2:]) == {"harmless"}
    assert effects.count("/1/orders") == 1
    outcomes = [a.outcome for a in ivcap_journal.runs.attempts(run_id)]
    assert set(outcomes[:-1]) == {"parked"} and outcomes[-1] == "completed"
    assert ivcap_journal.parks.open() == []


def parks_of(journal: Journal) -> list[Park]:
    """Return the parks of the newest run, oldest first."""
    attempts = journal.runs.attempts(journal.runs.recent(1)[0].id)
    return [attempt.park for attempt in attempts if attempt.park is not None]


@pytest.mark.parametrize("form", ["synchronous", pytest.param("asynchronous", marks=pytest.mark.long)])
def test_many_orders_park_together(deployed, effects, end, form):
    """`run_orders` and `arun_orders` leave the process as `wait_or_park` does, and find their orders when they wake."""
    steps = [OrderStep("parking-until", {"until": str(end)}, discriminator=str(number)) for number in range(3)]

    @flow
    def synchronous() -> list[str]:
        return [order.status for order in run_orders(steps)]

    @flow
    async def asynchronous() -> list[str]:
        return [order.status for order in await arun_orders(steps)]

    run = deployed({"synchronous": synchronous, "asynchronous": asynchronous}[form])
    with pytest.raises(Pause):
        run.go()
    assert run.parked
    assert finish(run, end) == ["succeeded"] * 3
    assert effects.count("/1/orders") == 3


@pytest.mark.long
def test_a_run_that_wakes_too_early_parks_again(deployed, ivcap_journal, end):
    """A run that is resumed by hand, or retried, before its orders have ended parks again.

    The orders decide, not what Prefect knows of earlier rounds.
    """

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    for begin in (run.go, run.wake):
        with pytest.raises(Pause):
            begin()
    run.set(Failed(), force=True)
    run.set(AwaitingRetry())
    with pytest.raises(Pause):
        run.go()
    rounds = parks_of(ivcap_journal)
    assert [park.round for park in rounds] == [1, 2, 3] and len({park.began_at for park in rounds}) == 1
    assert [park for _, park in ivcap_journal.parks.open()] == rounds[-1:]
    assert finish(run, end) == ["succeeded"]


@pytest.mark.long
def test_the_timeout_counts_over_all_rounds(deployed, monkeypatch, end):
    """The timeout of a wait counts over all rounds, and the run wakes in time for it."""
    monkeypatch.setattr(parking, "SHORTEST", 0.1)

    @flow
    def parks() -> list[str]:
        return ordering(end, timeout=3)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    due = (run.run.state.state_details.scheduled_time - datetime.now(timezone.utc)).total_seconds()
    assert due < 3
    time.sleep(max(0.0, due))
    with pytest.raises(WaitTimeoutError, match="1 of 1 orders and jobs not finished after 3 s"):
        run.wake()


def test_a_run_that_wakes_after_its_timeout_asks_the_platform(deployed, monkeypatch, end):
    """Work that ended while the run was parked is the result, also if the run wakes after the timeout of its wait."""
    monkeypatch.setattr(parking, "SHORTEST", 0.1)
    monkeypatch.setattr(parking, "WOKEN", 10.0)

    @flow
    def parks() -> list[str]:
        return ordering(end, timeout=3)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    end.touch()
    time.sleep(3.5)
    assert run.wake() == ["succeeded"]


@pytest.mark.parametrize("again", ["a retry of the flow", "a second call"])
def test_after_its_timeout_a_wait_begins_anew(deployed, ivcap_journal, monkeypatch, end, again):
    """A wait after a WaitTimeoutError has the whole timeout again, in a retry of the flow and in the same attempt.

    When it wakes from that, the first wait is over at once, and the second goes on.
    """
    monkeypatch.setattr(parking, "SHORTEST", 0.1)

    @flow(retries=1)
    def parks() -> list[str]:
        try:
            return ordering(end, timeout=3)
        except WaitTimeoutError:
            if again == "a retry of the flow":
                raise
            return ordering(end, timeout=600)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    time.sleep(3.5)
    rounds = 3 if again == "a second call" else 2
    for _ in range(rounds - 1):
        with pytest.raises(Pause):
            run.wake()
    first, *later = [park.began_at for park in parks_of(ivcap_journal)]
    assert len(later) == rounds - 1 and len(set(later)) == 1 and later[0] > first
    assert finish(run, end) == ["succeeded"]


def test_no_wait_counts_the_time_of_another(deployed, ivcap_journal, end, tmp_path):
    """The timeout of a wait for two orders does not count an earlier wait for one of them."""
    early = tmp_path / "early"

    @flow
    def parks() -> list[str]:
        first = place_order("parking-until", {"until": str(early)})
        second = place_order("parking-until", {"until": str(end)})
        wait_or_park([first])
        return [done.status for done in wait_or_park([first, second], timeout=600)]

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    early.touch()
    rounds: list[Any] = []
    while not rounds or len(rounds[-1].waits) != 1 or rounds[-1].waits == rounds[0].waits:
        with pytest.raises(Pause):
            run.wake()
        rounds = parks_of(ivcap_journal)
    assert rounds[-1].began_at > rounds[0].began_at
    with pytest.raises(Pause):
        run.wake()
    assert parks_of(ivcap_journal)[-1].began_at == rounds[-1].began_at
    assert finish(run, end) == ["succeeded"] * 2


def test_while_somebody_watches_a_run_parks_for_an_hour(deployed, ivcap_journal, end):
    """While a watcher is there, the run wakes by itself only after an hour, in case the watcher does not wake it."""

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with ivcap_journal.leases.hold(times.WATCHER), pytest.raises(Pause):
        run.go()
    due = (run.run.state.state_details.scheduled_time - datetime.now(timezone.utc)).total_seconds()
    assert times.WATCHED - 60 < due <= times.WATCHED


def test_with_another_journal_a_run_that_wakes_finds_its_order(deployed, ivcap_journal, effects, tmp_path, end):
    """A run whose journal was replaced while it was parked finds its order.

    The idempotency record names it, and no other is placed.
    """

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    end.touch()
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert finish(run, end) == ["succeeded"]
        assert other.parks.open() == []
    assert effects.count("/1/orders") == 1


@task
def unkept() -> int:
    return 1


@task(persist_result=True)
def fails() -> None:
    raise ValueError("always")


@flow
def subflow_with_unkept() -> int:
    return unkept()


def with_dequeue() -> None:
    queue = create_queue(uuid.uuid4().hex)
    enqueue(queue, {"$schema": "urn:example:schema:x.1"})
    dequeue(queue)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (unkept, "'unkept-.*' would run again; set persist_result=True for such a task, or the tag 'replay-safe'"),
        pytest.param(lambda: fails(return_state=True), "'fails-.*' would run again", marks=pytest.mark.long),
        pytest.param(subflow_with_unkept, "'unkept-.*' would run again", marks=pytest.mark.long),
        pytest.param(with_dequeue, "'.*dequeue.*' would run again", marks=pytest.mark.long),
    ],
    ids=["not kept", "failed", "in a subflow", "off a queue"],
)
def test_what_would_be_done_again_keeps_a_run_in_its_process(deployed, before, why):
    """A run does not park if a task would run again. The obstacle names the task and what to change."""

    @flow
    def judged() -> Obstacle | None:
        before()
        return obstacle_here()

    found = deployed(judged).go()
    assert re.search(why, found.reason) and not found.passing


@pytest.mark.catches("results that are not read back")
@pytest.mark.parametrize(
    "options", [{"cache_policy": NO_CACHE}, {"refresh_cache": True}, {"cache_expiration": timedelta(hours=1)}]
)
def test_a_kept_result_that_is_not_read_back_keeps_a_run_in_its_process(deployed, options):
    """From wherever the flow has the task, which is no global of its module."""

    def charged() -> int:
        return 1

    # A task of its own for each build.
    charged.__qualname__ = f"charged-{uuid.uuid4()}"
    charge = task(persist_result=True, **options)(charged)

    @flow
    def judged() -> Obstacle | None:
        charge()
        return obstacle_here()

    found = deployed(judged).go()
    assert found is not None and re.search("'charged-.*' would run again", found.reason)


def obstacle_here(*, patient: bool = True) -> Obstacle | None:
    own = OwnRun.here()
    while not isinstance(own, Obstacle):
        found = own.judge()
        if not isinstance(found, Obstacle):
            return None
        # A server under load shows late what the tasks of a run did; a wait asks again, too.
        if not found.passing or not patient:
            return found
    return own


def test_what_is_kept_marked_or_the_packages_own_hinders_nothing(deployed):
    """No obstacle is: a task or subflow with a persisted result, a task with the tag, a task of this package."""

    @task(persist_result=True)
    def kept() -> int:
        return 1

    @flow(persist_result=True)
    def kept_subflow() -> int:
        return unkept()

    @flow
    def judged() -> Obstacle | None:
        kept()
        unkept.with_options(tags=["replay-safe"])()
        kept_subflow()
        create_queue(uuid.uuid4().hex)
        return obstacle_here()

    assert deployed(judged).go() is None


def test_a_task_at_work_is_waited_for(deployed):
    """A task that is still running is an obstacle that passes."""
    let_go = threading.Event()

    @task(persist_result=True)
    def slow() -> None:
        let_go.wait(20)

    @flow
    def judged() -> tuple[Obstacle | None, Obstacle | None]:
        future = slow.submit()
        time.sleep(0.5)
        during = obstacle_here(patient=False)
        let_go.set()
        future.wait()
        time.sleep(0.5)
        return during, obstacle_here()

    during, after = deployed(judged).go()
    assert "still running" in during.reason and during.passing
    assert after is None


@pytest.mark.long
def test_where_a_call_stands_decides(deployed, monkeypatch):
    """Only a call in the flow itself can park, in a deployed run with its own process.

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
    monkeypatch.setattr(Deployed, "go", lambda self: run_flow(self.flow, flow_run=self.run, parameters={}))

    @flow
    def in_a_notebook() -> None:
        here("notebook")

    deployed(in_a_notebook).go()
    words = {
        "task": "task",
        "subflow": "subflow",
        "gather": "asyncio task",
        "thread": "in a thread",
        "outside": "outside",
    }
    assert all(word in seen[where] for where, word in {**words, "notebook": "process of its own"}.items()), seen


def test_the_limit_of_the_deployment_decides(deployed):
    """A run with CANCEL_NEW does not park, since waking would cancel it. ENQUEUE is no obstacle."""

    @flow
    def judged() -> Obstacle | None:
        return obstacle_here()

    def limited(strategy: str) -> dict[str, Any]:
        options = ConcurrencyOptions(collision_strategy=strategy)
        return {"concurrency_limit": 1, "concurrency_options": options}

    assert "CANCEL_NEW" in deployed(judged, **limited("CANCEL_NEW")).go().reason
    assert deployed(judged, **limited("ENQUEUE")).go() is None


def test_parking_uses_no_retry_of_the_flow(deployed, ivcap_journal, effects, end):
    """A flow with `retries=` parks before and after a retry, wakes each time, and still has its retries."""
    begun: list[int] = []

    @flow(retries=2)
    def retried() -> list[str]:
        begun.append(len(begun))
        done = ordering(end)
        if len(begun) < 5:
            raise RuntimeError("not yet")
        return done

    run = deployed(retried)
    for begin in (run.go, run.wake):
        with pytest.raises(Pause):
            begin()
        assert run.parked and run.run.run_count == 1
    end.touch()
    # The third begin, the first retry and the second.
    assert finish(run, end) == ["succeeded"]
    assert len(begun) == 5 and run.run.run_count == 3
    assert effects.count("/1/orders") == 1


def test_a_run_parks_in_a_retry(deployed, effects, end):
    """After a retry in its process, Prefect gives a parked run to a worker nevertheless."""
    begun: list[int] = []

    @flow(retries=1)
    def retried() -> list[str]:
        begun.append(len(begun))
        if len(begun) == 1:
            raise RuntimeError("at first")
        return ordering(end)

    run = deployed(retried)
    with pytest.raises(Pause):
        run.go()
    policy = run.run.empirical_policy
    assert run.parked and len(begun) == 2 and (policy.resuming, policy.retry_type) == (True, None)
    assert finish(run, end) == ["succeeded"]
    assert run.run.run_count == 2 and effects.count("/1/orders") == 1


def test_a_journal_that_fails_ends_no_wait(deployed, monkeypatch, caplog, end):
    """If the earlier rounds of a wait cannot be read, it goes on, and its timeout counts from now."""

    def broken(*_: Any) -> Any:
        raise JournalError("the database is locked")

    @flow
    def waits() -> list[str]:
        unkept()
        order = place_order("parking-until", {"until": str(end)})
        with monkeypatch.context() as patch:
            patch.setattr(Runs, "attempts", broken)
            return [done.status for done in wait_or_park([order], timeout=300)]

    assert deployed(waits).go() == ["succeeded"]
    assert "the database is locked" in caplog.text


def test_a_run_that_may_not_park_waits_and_says_why_once(deployed, ivcap_journal, caplog, end):
    """A run that may not park waits in its process. Two such waits log one warning."""

    @flow
    def stays() -> list[str]:
        unkept()
        return ordering(end) + ordering(end, "more")

    with caplog.at_level(logging.WARNING, logger="ivcap_flows.waiting"):
        assert deployed(stays).go() == ["succeeded"] * 2
    assert len([r for r in caplog.records if "cannot park" in r.getMessage()]) == 1
    assert ivcap_journal.parks.open() == []


@pytest.mark.long
def test_without_prefects_word_a_run_waits_in_its_process(deployed, ivcap_journal, caplog, monkeypatch, end):
    """If Prefect's API cannot be reached, the run waits in its process and logs a warning."""

    @flow
    def stays() -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(flow_run, "get_client", lambda **_: gone())
            return ordering(end)

    def gone() -> None:
        end.touch()
        raise ConnectionError("refused")

    assert deployed(stays).go() == ["succeeded"]
    assert "Prefect's API cannot be asked" in caplog.text


@pytest.mark.parametrize("what", ["obeyed", "obeyed, and started", "answered after the start", "not obeyed"])
def test_a_lost_reply_to_the_parking_is_asked_after(deployed, ivcap_journal, monkeypatch, end, what):
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

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    if what != "not obeyed":
        with pytest.raises(Pause):
            run.go()
        assert run.parked == (what == "obeyed") and len(ivcap_journal.parks.open()) == 1
    else:
        assert run.go() == ["succeeded"]
        assert ivcap_journal.parks.open() == []
    assert lost


@pytest.mark.long
def test_orders_and_jobs_come_back_in_their_order(deployed, ivcap_journal, unique, end):
    """One wait of an asynchronous flow returns orders and jobs in input order.

    A failure is raised after all have ended.
    """

    @flow
    async def parks() -> list[str]:
        order = await aplace_order("echo", {"message": unique})
        job = await arequest_job("parking-until", {"until": str(end)})
        wrong = await aplace_order("fail", {"message": unique})
        done = await await_or_park([job, order])
        assert [each.kind for each in done] == ["job", "order"] and all(each.succeeded for each in done)
        with pytest.raises(OrderFailedError, match="1 of 1 orders"):
            await await_or_park([job, wrong])
        return [each.status for each in done]

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    assert "job" in [wait.noun for wait in ivcap_journal.parks.open()[0][1].waits]
    assert finish(run, end) == ["succeeded"] * 2


def test_only_orders_and_jobs_are_waited_for():
    """Another URN is an error before anything is requested."""
    with pytest.raises(InputError, match="neither"):
        wait_or_park(["urn:ivcap:artifact:1"])


def all_have_left(_: object, attempts: list[AttemptRow]) -> set[str]:
    return {attempt.id for attempt in attempts}


def watched(watcher: Watcher) -> int:
    woken, _ = loop.run(watcher.once())
    return woken


def test_a_watcher_wakes_a_run_once_its_process_has_gone(deployed, ivcap_journal, monkeypatch, end):
    """The watcher wakes a run whose work has ended only when its process has gone, so it never has two processes."""
    looks, left = iter([False, False, True]), False
    woken_beside: list[bool] = []

    def look(self: Parks, attempts: list[AttemptRow]) -> set[str]:
        nonlocal left
        left = next(looks)
        return {attempt.id for attempt in attempts if left}

    real = park_watcher.wake
    monkeypatch.setattr(Parks, "left", look)
    monkeypatch.setattr(park_watcher, "wake", lambda id_: woken_beside.append(not left) or real(id_))

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
    end.touch()
    assert watched(Watcher(ivcap_journal)) == 1
    assert woken_beside == [False]
    assert run.run.state.name == "Resuming"
    assert run.go() == ["succeeded"]


@pytest.mark.parametrize(
    "what", ["cancelled", *(pytest.param(each, marks=pytest.mark.long) for each in ("deleted", "failed"))]
)
def test_a_run_that_does_not_come_back_is_parked_no_more(deployed, ivcap_journal, monkeypatch, end, what):
    """The watcher wakes no run that was cancelled, deleted or failed, and records how it ended if Prefect says so.

    Its order stays open without a live owner.
    """
    monkeypatch.setattr(Parks, "left", all_have_left)

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()
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


def test_of_two_watchers_one_stands_by(ivcap_journal):
    """The second watcher says that it stands by, and takes over when the first ends."""
    said: list[str] = []

    async def both() -> None:
        first = asyncio.ensure_future(Watcher(ivcap_journal, tell=lambda text: said.append(f"1 {text}")).watch())
        await asyncio.sleep(0.3)
        second = asyncio.ensure_future(Watcher(ivcap_journal, tell=lambda text: said.append(f"2 {text}")).watch())
        await asyncio.sleep(0.3)
        assert said == ["1 Watching the parked runs.", "2 Another process watches the parked runs; standing by."]
        first.cancel()
        await asyncio.sleep(0.5)
        second.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(park_watcher, "EVERY", 0.1)
        loop.run(both())
    assert said[-1] == "2 Watching the parked runs."
    assert not ivcap_journal.leases.held(times.WATCHER)


def test_a_watcher_for_another_platform_leaves_a_run_alone(deployed, ivcap_journal, monkeypatch, caplog, end):
    """A watcher with another platform does not wake the run, whose orders it cannot read. The run wakes by itself."""
    monkeypatch.setattr(Parks, "left", all_have_left)

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with pytest.raises(Pause):
        run.go()

    async def elsewhere(self: Any) -> str:
        return "https://elsewhere.example"

    monkeypatch.setattr(IvcapClient, "platform", elsewhere)
    assert watched(Watcher(ivcap_journal)) == 0
    assert run.parked and "wakes at its wake time" in caplog.text


def an_hour_ahead(zone: Any = timezone.utc) -> datetime:
    return datetime.now(zone) + timedelta(hours=1)


def test_a_clock_that_is_ahead_makes_no_run_sleep_longer(deployed, ivcap_journal, monkeypatch, end):
    """A run wakes by Prefect's clock, even if the clock of the journal or of the watcher is wrong."""
    monkeypatch.setattr(Parks, "left", all_have_left)

    @flow
    def parks() -> list[str]:
        return ordering(end)

    run = deployed(parks)
    with monkeypatch.context() as patch, pytest.raises(Pause):
        patch.setattr(ivcap_journal, "now", an_hour_ahead)
        run.go()
    assert due(run) <= times.LONGEST, "the work seems to be an hour old"
    run.set(Scheduled(name="Parked", scheduled_time=datetime.now(timezone.utc) + timedelta(minutes=30)), force=True)
    end.touch()
    with monkeypatch.context() as patch:
        patch.setattr(flow_run, "time", SimpleNamespace(time=lambda: an_hour_ahead().timestamp()))
        patch.setattr("prefect.states.now", an_hour_ahead)
        assert watched(Watcher(ivcap_journal)) == 1
    assert run.run.state.name == "Resuming" and due(run) <= 1


def due(run: Deployed) -> float:
    """Return the seconds until the run is started."""
    return (run.run.state.state_details.scheduled_time - datetime.now(timezone.utc)).total_seconds()
