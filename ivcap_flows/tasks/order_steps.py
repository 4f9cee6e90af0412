"""`run_orders`: place many orders, wait for all, place again those that failed. Plain functions for a flow's body.

They are no tasks, so that the run can park while it waits. Each order and each wait is a task run of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Collection, Order, Service
from ivcap_flows.identity import Scope
from ivcap_flows.loop import all_of
from ivcap_flows.tasks.call import IvcapCredentialsLike
from ivcap_flows.tasks.orders import aplace_order, place_order
from ivcap_flows.tasks.parking import await_or_park, wait_or_park

__all__ = ["OrderStep", "arun_orders", "run_orders"]


@dataclass(frozen=True)
class OrderStep:
    """One order of `run_orders`: arguments of `place_order`. Two steps with equal requests share one order."""

    service: Service | str
    parameters: Mapping[str, Any]
    name: str | None = None
    tags: Sequence[str] = ()
    collection: Collection | str | None = None
    policy: str | None = None
    scope: Scope = "run"
    discriminator: str | None = None
    reuse: bool = False


def run_orders(
    steps: Iterable[OrderStep],
    *,
    max_resubmits: int = 3,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]:
    """Place the orders of all steps, wait for them, and place again those that failed. Return one order a step.

    Call it in the flow's body, where it waits like `wait_or_park`: a deployed run may park, and then begins again from
    its first line, so your own tasks need a persisted result or the tag `replay-safe`.

    When all orders have ended, each that failed is placed again, and so on: `max_resubmits` times at most for each
    step, in all attempts of the run together. An order that succeeded is not placed again, however often the flow is
    killed, retried or started again.

    Use it for failures that pass, such as a lost machine: a service that refuses its parameters refuses them each time.
    If orders have failed after that, OrderFailedError names each with the end of its log; with
    `raise_on_failure=False`, they are among the results. Raises the errors of `place_order`.
    """
    asked, done = _checked(steps, max_resubmits), dict[int, Order]()
    again = _resubmitting(max_resubmits, credentials)
    for _ in range(max_resubmits + 1):
        if wanted := _without_success(asked, done):
            orders = [place_order(**_arguments(asked[number]), **again) for number in wanted]
            ended = wait_or_park(orders, raise_on_failure=False, credentials=credentials)
            done |= zip(wanted, ended, strict=True)
    result = [done[number] for number in range(len(asked))]
    if raise_on_failure and _without_success(asked, done):
        wait_or_park(result, credentials=credentials)  # All have ended, so this does not wait: it raises.
    return result


async def arun_orders(
    steps: Iterable[OrderStep],
    *,
    max_resubmits: int = 3,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]:
    """Like `run_orders`, for asynchronous flows, and placing eight at a time. Await it directly in the flow's body."""
    asked, done = _checked(steps, max_resubmits), dict[int, Order]()
    again = _resubmitting(max_resubmits, credentials)

    async def placed(number: int) -> Order:
        order: Order = await aplace_order(**_arguments(asked[number]), **again)
        return order

    for _ in range(max_resubmits + 1):
        if wanted := _without_success(asked, done):
            orders = await all_of(placed, wanted)
            ended = await await_or_park(orders, raise_on_failure=False, credentials=credentials)
            done |= zip(wanted, ended, strict=True)
    result = [done[number] for number in range(len(asked))]
    if raise_on_failure and _without_success(asked, done):
        await await_or_park(result, credentials=credentials)
    return result


def _checked(steps: Iterable[OrderStep], max_resubmits: int) -> list[OrderStep]:
    asked = list(steps)
    for step in asked:
        if not isinstance(step, OrderStep):
            raise InputError(f"The steps of run_orders are OrderSteps, not {type(step).__name__}.")
    if max_resubmits < 0:
        raise InputError(f"The argument max_resubmits must be at least 0, not {max_resubmits}.")
    return asked


def _resubmitting(max_resubmits: int, credentials: IvcapCredentialsLike) -> dict[str, Any]:
    return {"on_failure": "resubmit", "max_resubmits": max_resubmits, "credentials": credentials}


def _arguments(step: OrderStep) -> dict[str, Any]:
    return {field.name: getattr(step, field.name) for field in fields(OrderStep)}


def _without_success(steps: Sequence[OrderStep], done: Mapping[int, Order]) -> list[int]:
    """Return the numbers of the steps that have no order that succeeded."""
    return [number for number in range(len(steps)) if number not in done or not done[number].succeeded]
