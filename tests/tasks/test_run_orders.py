"""`run_orders`, `run_jobs` and their kin: work asked for, waited for, and again where it failed, if it may be."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from eventually import auntil, until
from prefect import flow

from ivcap_flows import loop, wait_or_park
from ivcap_flows.blocks import IvcapCredentials, IvcapService
from ivcap_flows.durable import plan
from ivcap_flows.errors import InputError, JobFailedError, OrderFailedError, WaitTimeoutError
from ivcap_flows.handles import Artifact, Order, Products
from ivcap_flows.ivcap.orders import Orders
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.tasks import (
    JobStep,
    OrderStep,
    ServiceRequest,
    adownload_products,
    arun_job,
    arun_jobs,
    arun_order,
    arun_orders,
    download_products,
    ivcap,
    run_job,
    run_jobs,
    run_order,
    run_orders,
)
from ivcap_flows.tasks.step_window import StepWindow
from ivcap_flows.tasks.waiting import PlannedError

SERVICE = """
from pathlib import Path

def run(request, job):
    ledger = Path(request["ledger"])
    with ledger.open("a") as file:
        file.write("run\\n")
    job.log(f"try of {ledger.name}")
    if len(ledger.read_text().splitlines()) <= int(request["fails"]):
        raise ValueError("not yet")
    for name in request.get("products", "").split():
        job.add_product(name, b"made", "text/plain")
    return {"tried": len(ledger.read_text().splitlines())}
"""


@pytest.fixture(scope="session")
def stumbling(serve) -> str:
    """The name of a service that fails `fails` times before it succeeds, and notes each try in the file `ledger`."""
    parameters = [
        {"name": "ledger", "type": "string"},
        {"name": "fails", "type": "int"},
        {"name": "products", "type": "string", "optional": True},
    ]
    return serve("run-orders-stumbles", SERVICE, parameters)


@pytest.fixture(scope="session")
def not_run(_embedded: EmbeddedPlatform) -> str:
    """The name of a service that cannot run here: its orders and jobs end as errors at once, without a process."""
    definition = {
        "name": "tasks-not-run",
        "description": "Runs elsewhere.",
        "controller-schema": "urn:ivcap:schema.service.nextflow.1",
        "controller": {"$schema": "urn:ivcap:schema.service.nextflow.1"},
        "parameters": [{"name": "message", "type": "string"}],
    }

    async def register() -> None:
        credentials = IvcapCredentials(url=_embedded.url, token=_embedded.environment["IVCAP_JWT"])
        async with credentials.get_client() as client:
            await client.services.register(definition)

    loop.run(register())
    return "tasks-not-run"


@pytest.fixture
def steps(stumbling, tmp_path) -> Callable[..., list[OrderStep]]:
    """Return `steps(*fails)`: a step for each number of failures, with a ledger of its own."""

    def make(*fails: int) -> list[OrderStep]:
        return [
            OrderStep(stumbling, {"ledger": str(tmp_path / f"ledger-{place}"), "fails": count}, name=f"step {place}")
            for place, count in enumerate(fails)
        ]

    return make


def tries(folder: Path) -> list[int]:
    return [len(path.read_text().splitlines()) for path in sorted(folder.glob("ledger-*"))]


def test_only_what_failed_is_placed_again(in_script, effects, steps, tmp_path):
    """Each step is tried once more than it fails, and its order has its key: nothing needs to be paired again."""
    named = dict(zip("abc", steps(2, 0, 0), strict=True))
    done = in_script(lambda: run_orders(named, at_once=2, max_resubmits=2))
    assert {key: order.name.partition(" ~")[0] for key, order in done.items()} == {
        key: step.name for key, step in named.items()
    }
    assert all(order.succeeded for order in done.values())
    assert tries(tmp_path) == [3, 1, 1] and effects.count("/1/orders") == 5


@pytest.mark.catches("waves instead of a window")
@pytest.mark.parametrize("form", ["run_orders", pytest.param("arun_orders", marks=pytest.mark.long)])
def test_a_straggler_holds_one_place(in_script, effects, file_service, tmp_path, form):
    """At most `at_once` orders are on their way together, and the next is placed as soon as one has ended."""
    files = [tmp_path / str(number) for number in range(5)]
    steps = [OrderStep("ends-with-a-file", {"file": str(file)}) for file in files]
    for file in files[1:4]:
        file.touch()

    placed_beside = []

    def end_the_straggler():
        try:
            until(lambda: effects.count("/1/orders") == 5, seconds=20)
            placed_beside.append(True)
        finally:
            files[0].touch()
            files[4].touch()

    ending = threading.Thread(target=end_the_straggler)
    ending.start()
    if form == "run_orders":
        done = in_script(lambda: run_orders(steps, at_once=2))
    else:
        done = in_script(lambda: asyncio.run(arun_orders(steps, at_once=2)))
    ending.join()
    assert placed_beside == [True] and [order.succeeded for order in done] == [True] * 5
    # Each but the straggler makes place for the next.
    assert all(later.requested_at >= before.finished_at for before, later in itertools.pairwise(done[1:]))


@pytest.mark.catches("a failure stops nothing")
def test_a_step_that_failed_stops_what_was_not_requested(in_flow, effects, not_run, steps, unique):
    """Of 12 steps of a service that refuses each, `at_once` are paid for. The error names the others and the ways on.

    The same command pays for no more, `keep_going=True` for all, and so does `raise_on_failure=False`. Where all are
    requested together, nothing is left to stop.
    """
    asked = {f"step {number}": OrderStep(not_run, {"message": f"{unique} {number}"}) for number in range(6)}
    attempts = []

    def body():
        attempts.append(1)
        with pytest.raises(OrderFailedError, match="2 of 2 orders did not succeed") as caught:
            run_orders(asked, at_once=2)
        if len(attempts) == 1:
            raise RuntimeError("once")
        paid = effects.count("/1/orders")
        with pytest.raises(OrderFailedError, match="6 of 6 orders did not succeed") as all_of_it:
            run_orders(asked, at_once=2, keep_going=True)
        return caught.value, paid, all_of_it.value, run_orders(asked, at_once=2, raise_on_failure=False)

    error, paid, other, done = in_flow(body, retries=1)
    assert paid == 2 and effects.count("/1/orders") == 6
    assert error.not_requested == ["step 2", "step 3", "step 4", "step 5"]
    assert "4 of 6 steps were not requested: step 2, step 3, step 4, step 5. The same command" in str(error)
    for way in ("keep_going=True", "max_resubmits", "IVCAP_FLOWS_FRESH=1"):
        assert way in str(error)
    assert "not requested" not in str(other) and [*done] == [*asked]


@pytest.mark.catches("steps begin at their beginning")
def test_what_the_journal_has_under_a_key_counts_as_requested(in_flow, effects, file_service, tmp_path):
    """However the window moves: a retry with the steps in another order places none beside those on their way. One
    that failed meanwhile stops it, and what else was requested is waited for."""
    files = [tmp_path / str(number) for number in range(4)]
    asked = {number: OrderStep("ends-with-a-file", {"file": str(file)}) for number, file in enumerate(files)}
    turned = dict(reversed(asked.items()))
    attempts = []

    def body():
        attempts.append(1)
        if len(attempts) == 1:
            run_orders(asked, at_once=2, timeout=0)
        with pytest.raises(WaitTimeoutError) as late:
            run_orders(turned, at_once=2, timeout=0)
        placed = effects.count("/1/orders"), len(late.value.pending)
        for file in files:
            file.touch()
        return placed, [order.succeeded for order in run_orders(turned, at_once=2).values()]

    assert in_flow(body, retries=1) == ((2, 2), [True] * 4)
    assert effects.count("/1/orders") == 4


def test_jobs_are_asked_for_as_orders_are(in_script, stumbling, tmp_path):
    """By the keys of the steps, and again where they failed."""

    def step(name, fails):
        return JobStep(stumbling, {"ledger": str(tmp_path / f"ledger-{name}"), "fails": fails})

    done = in_script(lambda: run_jobs({"a": step("a", 1), "b": step("b", 0)}, max_resubmits=1))
    assert {key: job.result for key, job in done.items()} == {"a": {"tried": 2}, "b": {"tried": 1}}
    with pytest.raises(JobFailedError, match="1 of 1 jobs did not succeed"):
        in_script(lambda: run_jobs([step("c", 9)]))
    with pytest.raises(InputError, match="The steps of run_jobs are JobSteps, not OrderStep"):
        run_jobs([OrderStep("echo", {})])


def test_a_typed_request_serves_orders_and_jobs(in_script, stumbling, tmp_path):
    """A class that `services --python` has written has the service and all that it takes."""

    class Stumbles(ServiceRequest):
        service: ClassVar[str] = stumbling
        ledger: str
        fails: int

    def asked(name):
        return Stumbles(ledger=str(tmp_path / name), fails=0)

    order, job, [other] = in_script(
        lambda: (run_order(asked("1")), run_job(asked("2")), run_jobs([JobStep(asked("2"))]))
    )
    assert order.succeeded and job.result == {"tried": 1} and other.urn == job.urn
    with pytest.raises(InputError, match="Stumbles has the request; give no other"):
        in_script(lambda: run_job(asked("4"), {"ledger": "x"}))


@pytest.mark.parametrize("run", [run_order, run_job])
def test_what_does_not_end_in_time_goes_on_alone(in_script, run):
    """The error names it. Asked for again, it is the same one, which is returned at once where it has ended."""
    given = {"seconds": 0.5}

    def body():
        with pytest.raises(WaitTimeoutError) as late:
            run("sleep", given, timeout=0)
        return late.value.pending, run("sleep", given, timeout=60), run("sleep", given, timeout=0)

    pending, done, again = in_script(body)
    assert set(pending) == {done.urn} and again.urn == done.urn and again.succeeded


def test_one_order_or_job_is_one_call(in_script, effects, stumbling, tmp_path):
    """If it failed, it is requested again. An order comes with its products, which a folder gets by their names, a job
    with its result. Without steps, there is no order."""

    def given(ledger, fails):
        return {"ledger": str(tmp_path / f"ledger-{ledger}"), "fails": fails}

    def body():
        done = run_order(stumbling, given(0, 1) | {"products": "a.txt b.txt"}, name="one", max_resubmits=3)
        files = download_products(done, tmp_path / "new" / "folder")
        job = run_job(stumbling, given(1, 1), max_resubmits=3)
        assert run_orders([]) == []
        return done, files, job

    done, files, job = in_script(body)
    assert done.succeeded and effects.count("/1/orders") == 2
    assert tries(tmp_path) == [2, 2] and job.result == {"tried": 2}
    assert {name: Path(file).relative_to(tmp_path).as_posix() for name, file in files.items()} == {
        "a.txt": "new/folder/a.txt",
        "b.txt": "new/folder/b.txt",
    }
    assert all(Path(file).read_bytes() == b"made" for file in files.values())


async def test_the_asynchronous_forms_do_the_same(embedded_platform, ivcap_journal, stumbling, steps, tmp_path):
    """Also where an order fails."""

    @flow
    async def asynchronous():
        given = {"ledger": str(tmp_path / "one"), "fails": 0, "products": "a.txt"}
        done = await arun_order(stumbling, given)
        job = await arun_job(stumbling, given)
        assert [each.result for each in await arun_jobs([JobStep(stumbling, given)])] == [job.result]
        many = await arun_orders(steps(1, 0), max_resubmits=1)
        return await adownload_products(done, tmp_path / "products"), job.result, [order.status for order in many]

    files, result, statuses = await asynchronous()
    assert Path(files["a.txt"]).read_bytes() == b"made" and result == {"tried": 2}
    assert statuses == ["succeeded"] * 2 and tries(tmp_path) == [2, 1]


@pytest.mark.parametrize("form", ["run_orders", pytest.param("arun_orders", marks=pytest.mark.long)])
async def test_eight_are_placed_at_a_time(embedded_platform, effects, not_run, unique, monkeypatch, form):
    """In both forms alike, however many the steps are."""
    steps = [OrderStep(not_run, {"message": f"{unique} {number}"}) for number in range(12)]
    place, seen, ended = Orders.place, [], []

    async def watched(*given, **named):
        seen.append(len(seen) + 1 - len(ended))
        if len(seen) <= 8:
            # The first wait for each other, and then for a ninth.
            await auntil(lambda: len(seen) >= 8, 20)
            await asyncio.sleep(0.5)
        try:
            return await place(*given, **named)
        finally:
            ended.append(1)

    @flow
    def synchronous():
        return run_orders(steps, raise_on_failure=False)

    @flow
    async def asynchronous():
        return await arun_orders(steps, raise_on_failure=False)

    monkeypatch.setattr(Orders, "place", watched)
    done = await (asyncio.to_thread(synchronous) if form == "run_orders" else asynchronous())
    assert [order.parameters["message"] for order in done] == [step.parameters["message"] for step in steps]
    assert max(seen) == 8 and effects.count("/1/orders") == 12


async def test_the_synchronous_form_is_refused_in_an_asynchronous_flow(embedded_platform, effects, unique):
    """It would block the flow's loop. The function that the user called is named. Nothing is placed."""

    @flow
    async def wrong():
        with pytest.raises(InputError, match="awaits `arun_orders`"):
            run_orders([OrderStep("echo", {"message": unique})])
        for function in (run_order, run_job):
            with pytest.raises(InputError, match=f"awaits `a{function.__name__}`: `{function.__name__}` would"):
                function("echo", {"message": unique})
        with pytest.raises(InputError, match="awaits `adownload_products`"):
            download_products(products("a"), "folder")

    await wrong()
    assert effects.count("/1/orders") == 0


SPENDING = sorted(
    name
    for name in ivcap.__all__
    if callable(getattr(ivcap, name)) and "max_resubmits" in inspect.signature(getattr(ivcap, name)).parameters
)


@pytest.mark.parametrize("name", SPENDING)
def test_a_default_never_pays_again(name):
    """Each function that requests work requests it once, unless it is asked for more."""
    assert inspect.signature(getattr(ivcap, name)).parameters["max_resubmits"].default == 0


PAID = [
    ("run_order", OrderFailedError, lambda name, given: run_order(name, given)),
    ("run_orders", OrderFailedError, lambda name, given: run_orders([OrderStep(name, given)])),
    ("run_job", JobFailedError, lambda name, given: run_job(name, given)),
    ("run_jobs", JobFailedError, lambda name, given: run_jobs([JobStep(name, given)])),
    ("exec_agent", JobFailedError, lambda name, given: ivcap.exec_agent(name, given)),
    ("request_job", JobFailedError, lambda name, given: ivcap.wait_for_jobs([ivcap.request_job(name, given)])),
    ("place_order", OrderFailedError, lambda name, given: wait_or_park([ivcap.place_order(name, given)])),
    *(
        ("trigger", error, lambda name, given, kind=kind: triggered(name, given, kind).wait_for_completion())
        for kind, error in (("order", OrderFailedError), ("job", JobFailedError))
    ),
]


def triggered(name, given, kind):
    return IvcapService(service=name, kind=kind, parameters=given).trigger()


def test_what_fails_is_paid_once_and_names_the_function_that_was_called(in_flow, effects, not_run, unique):
    """The next step is told with the name that stands in the flow."""

    def body():
        for number, (function, error, ask) in enumerate(PAID):
            with pytest.raises(error, match=rf" {function}\(…, max_resubmits=1\).* \(IVCAP_FLOWS_FRESH=1\)"):
                ask(not_run, {"message": f"{unique} {number}"})

    in_flow(body)
    assert effects.count("/1/orders") + effects.posts("/jobs") == len(PAID)


def test_what_other_runs_share_is_not_said_to_be_new_in_a_new_run(in_script, stumbling, tmp_path):
    """A new run gets the failed order of an account again, so the error names the setting that pays again."""
    given = {"ledger": str(tmp_path / "ledger-0"), "fails": 9}
    with pytest.raises(OrderFailedError, match=r"\(IVCAP_FLOWS_FRESH=1 IVCAP_FLOWS_PAY_AGAIN=1\)"):
        in_script(lambda: run_order(stumbling, given, once_per="account"))


def products(*names: str, status: str = "succeeded") -> Order:
    made = [Artifact(urn=f"urn:ivcap:artifact:{place}", platform="p", name=name) for place, name in enumerate(names)]
    return Order(urn="urn:ivcap:order:1", platform="p", service="s", status=status, products=Products(made))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (products("a.txt", "a.txt"), "several products have the name 'a.txt'"),
        (products("../a.txt"), "no file can have the name of the product '../a.txt'"),
        (products(status="executing"), "is executing; wait for it"),
    ],
)
def test_products_that_no_folder_can_hold_are_refused(order, words, tmp_path):
    """Before anything is downloaded, and with the way that there is."""
    with pytest.raises(InputError, match=re.escape(words)):
        download_products(order, tmp_path)


def test_what_fails_each_time_is_an_error_that_names_it(in_script, effects, steps, tmp_path):
    """After the last resubmission, the error counts all steps and has the log of the order that failed.

    With `raise_on_failure=False`, the failed order is returned at its place.
    """

    def body():
        with pytest.raises(OrderFailedError, match="1 of 2 orders did not succeed") as caught:
            run_orders(iter(steps(9, 0)), max_resubmits=1)
        return caught.value, run_orders(steps(9, 0), max_resubmits=1, raise_on_failure=False)

    error, done = in_script(body)
    [failed] = error.orders
    assert "try of ledger-0" in error.logs[failed.urn] and "max_resubmits" in str(error)
    assert tries(tmp_path) == [2, 1] and effects.count("/1/orders") == 3
    assert [order.succeeded for order in done] == [False, True] and done[0].urn == failed.urn


def test_a_retried_run_places_nothing_again_and_counts_on(in_flow, effects, steps, tmp_path):
    """The limit holds for all attempts together: a retry keeps what succeeded, and does not begin to count anew."""
    attempts = []

    def body():
        attempts.append(run_orders(steps(0, 9), max_resubmits=1, raise_on_failure=False))
        if len(attempts) == 1:
            raise RuntimeError("once")

    in_flow(body, retries=1)
    first, second = ([order.urn for order in each] for each in attempts)
    assert first == second
    assert tries(tmp_path) == [1, 2] and effects.count("/1/orders") == 3


def test_a_plan_has_an_order_for_each_step_and_what_is_no_step_is_refused(in_script, effects, steps):
    """A plan lists the orders of all steps, however few may be on their way together. Nothing is sent for it, nor for
    a wrong argument."""
    for at_once in (None, 1):
        with plan() as planned, pytest.raises(PlannedError):
            in_script(lambda at_once=at_once: run_orders(steps(0, 0, 0), at_once=at_once))
        assert [each.name for each in planned.effects] == ["step 0", "step 1", "step 2"]
    for given, words in (
        ({"steps": [("echo", {})]}, "OrderSteps, not tuple"),
        ({"steps": OrderStep("echo", {})}, r"pass `steps=\[…\]`, not OrderStep alone"),
        ({"steps": [], "max_resubmits": -1}, "at least 0, not -1"),
        ({"steps": [], "at_once": 0}, "at least 1, not 0"),
    ):
        with pytest.raises(InputError, match=words):
            run_orders(**given)
    assert effects.count("/1/orders") == 0


def test_the_starts_of_a_parked_run_are_few():
    """200 steps with 40 places, of which just enough end each time: 18 starts, each with a window that knows only what
    the journal has."""
    steps, size, ended, begun = 200, 40, 0, 0
    sent: dict[int, Order] = {}
    while ended < steps:
        begun += 1
        known = {
            key: SimpleNamespace(urn=order.urn, has_ended=key < ended, status="succeeded")
            for key, order in sent.items()
        }
        window = StepWindow(range(steps), size, max_resubmits=0, keep_going=False, known=known)
        for wanted in window:
            for key in wanted:
                done = "succeeded" if key < ended else "executing"
                sent[key] = Order(urn=f"urn:ivcap:order:{key}", platform="p", service="s", status=done)
            window.requested(wanted, [sent[key] for key in wanted])
            assert len(window.under_way) <= size
            if window.enough != 0:
                break
        ended = steps if window.enough is None else ended + window.enough
    assert begun + 1 == 18
