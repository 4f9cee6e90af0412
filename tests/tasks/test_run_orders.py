"""`run_orders`: many orders placed, waited for, and placed again where they failed, each as often as allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from ivcap_flows.durable import plan
from ivcap_flows.errors import InputError, OrderFailedError
from ivcap_flows.local.register import register
from ivcap_flows.tasks import OrderStep, arun_orders, run_orders
from ivcap_flows.tasks.waiting import PlannedError

SERVICE = """
from pathlib import Path

def stumbles(request, job):
    ledger = Path(request["ledger"])
    with ledger.open("a") as file:
        file.write("run\\n")
    job.log(f"try of {ledger.name}")
    if len(ledger.read_text().splitlines()) <= int(request["fails"]):
        raise ValueError("not yet")
"""


@pytest.fixture(scope="session")
def stumbling(_embedded, tmp_path_factory) -> str:
    """The name of a service that fails `fails` times before it succeeds, and notes each try in the file `ledger`."""
    folder = tmp_path_factory.mktemp("run-orders")
    (folder / "setup.cfg").touch()
    (folder / "services_of_run_orders.py").write_text(SERVICE)
    parameters = [{"name": "ledger", "type": "string"}, {"name": "fails", "type": "int"}]
    definition = {"name": "run-orders-stumbles", "entry": "services_of_run_orders:stumbles", "parameters": parameters}
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, folder / "services.yaml")
    return "run-orders-stumbles"


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


def test_only_what_failed_is_placed_again(in_flow, effects, steps, tmp_path):
    """Each step ends with an order that succeeded, in the order of the steps, and is tried once more than it fails."""
    done = in_flow(lambda: run_orders(iter(steps(1, 0, 2)), max_resubmits=2))
    assert [order.status for order in done] == ["succeeded"] * 3
    assert [Path(order.parameters["ledger"]).name for order in done] == ["ledger-0", "ledger-1", "ledger-2"]
    assert tries(tmp_path) == [2, 1, 3] and effects.count("/1/orders") == 6


async def test_the_asynchronous_form_does_the_same(embedded_platform, ivcap_journal, effects, steps, tmp_path):
    """`arun_orders` in an asynchronous flow places as many orders."""

    @flow
    async def asynchronous() -> list[str]:
        return [order.status for order in await arun_orders(steps(1, 0, 2), max_resubmits=2)]

    assert await asynchronous() == ["succeeded"] * 3
    assert tries(tmp_path) == [2, 1, 3] and effects.count("/1/orders") == 6


def test_what_fails_each_time_is_an_error_that_names_it(in_flow, effects, steps, tmp_path):
    """After the last resubmission, the error counts all steps and has the log of the order that failed."""

    def body():
        with pytest.raises(OrderFailedError, match="1 of 2 orders did not succeed") as caught:
            run_orders(steps(9, 0), max_resubmits=1)
        return caught.value

    error = in_flow(body)
    [failed] = error.orders
    assert "try of ledger-0" in error.logs[failed.urn] and "max_resubmits" in str(error)
    assert tries(tmp_path) == [2, 1] and effects.count("/1/orders") == 3


def test_failures_can_be_taken_as_results(in_flow, effects, steps):
    """With `raise_on_failure=False`, the failed order is returned at its place; `max_resubmits=0` places each once."""
    done = in_flow(lambda: run_orders(steps(9, 0), max_resubmits=0, raise_on_failure=False))
    assert [order.succeeded for order in done] == [False, True]
    assert effects.count("/1/orders") == 2


def test_a_retried_run_places_nothing_again_and_counts_on(in_flow, effects, steps, tmp_path):
    """The limit holds for all attempts together: a retry keeps what succeeded, and does not begin to count anew."""
    attempts = []

    def body():
        attempts.append(run_orders(steps(1, 9), max_resubmits=1, raise_on_failure=False))
        if len(attempts) == 1:
            raise RuntimeError("once")

    in_flow(body, retries=1)
    first, second = ([order.urn for order in each] for each in attempts)
    assert first == second
    assert tries(tmp_path) == [2, 2] and effects.count("/1/orders") == 4


def test_a_plan_has_an_order_for_each_step(in_flow, effects, steps):
    """A plan lists the orders of the first round, and nothing is sent."""
    with plan() as planned, pytest.raises(PlannedError):
        in_flow(lambda: run_orders(steps(0, 0)))
    assert [each.noun for each in planned.effects] == ["order", "order"]
    assert effects.count("/1/orders") == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [({"steps": [("echo", {})]}, "OrderSteps, not tuple"), ({"steps": [], "max_resubmits": -1}, "at least 0, not -1")],
)
def test_what_is_no_step_is_refused(in_flow, effects, given: dict[str, Any], words):
    """Nothing is placed for a wrong argument."""
    with pytest.raises(InputError, match=words):
        in_flow(lambda: run_orders(**given))
    assert effects.count("/1/orders") == 0


def test_no_step_is_no_order(in_flow, effects):
    """Without steps, the result is empty."""
    assert in_flow(lambda: run_orders([])) == []
    assert effects.count("/1/orders") == 0
