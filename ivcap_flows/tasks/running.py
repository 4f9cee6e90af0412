"""Place orders, request a job, wait for them, and if asked to again for what failed. Functions for a flow's body.

They are no tasks, so that the run can park while it waits. Each order and each wait is a task run of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from ivcap_flows.arguments import several, texts
from ivcap_flows.durable import planning
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Collection, Job, Order, Service
from ivcap_flows.identity import OncePer
from ivcap_flows.loop import AT_ONCE, all_in_threads, all_of
from ivcap_flows.tasks.call import IvcapCredentialsLike
from ivcap_flows.tasks.jobs import arequest_job, request_job
from ivcap_flows.tasks.orders import aplace_order, place_order
from ivcap_flows.tasks.pair import refuse_in_asynchronous_flow
from ivcap_flows.tasks.parking import await_or_park, wait_or_park
from ivcap_flows.tasks.service_request import ServiceRequest
from ivcap_flows.tasks.waiting import requested_with

__all__ = ["OrderStep", "arun_job", "arun_order", "arun_orders", "run_job", "run_order", "run_orders"]

K = TypeVar("K")


@dataclass(frozen=True)
class OrderStep:
    """One order of `run_orders`: arguments of `place_order`. Two steps with equal requests share one order."""

    service: Service | ServiceRequest | str
    parameters: Mapping[str, Any] | None = None
    name: str | None = None
    tags: Sequence[str] = ()
    collection: Collection | str | None = None
    policy: str | None = None
    once_per: OncePer = "run"
    discriminator: str | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        texts(self.tags, "tags", "OrderStep")


@overload
def run_orders(  # type: ignore[overload-overlap] # a mapping whose keys are steps is a mapping
    steps: Mapping[K, OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Order]: ...


@overload
def run_orders(
    steps: Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]: ...


def run_orders(
    steps: Mapping[Any, OrderStep] | Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Place the orders of all steps, and wait for them. Return one order a step.

    The steps are a list or the like, or a mapping; then the orders are a mapping with the same keys.

    Call it in the flow's body, where it waits like `wait_or_park`: a deployed run may park, and then begins again from
    its first line, so your own tasks need a persisted result or the tag `replay-safe`.

    At most `at_once` orders are on their way together, by default all: the next ones are placed when these have ended.
    Eight are placed at a time. An order is placed once, however often the flow is killed, retried or started again.

    With `max_resubmits`, an order that failed is placed again, so many times at most for each step, in all attempts of
    the run together. Each costs again. Use it for failures that pass, such as a lost machine: a service that refuses
    its parameters refuses them each time. If orders have failed after that, OrderFailedError names each with the end of
    its log; with `raise_on_failure=False`, they are among the results. Raises the errors of `place_order`.
    """
    refuse_in_asynchronous_flow("run_orders")
    asked, done = _checked(steps, at_once), dict[Any, Order]()
    again = _resubmitting(max_resubmits, credentials)

    def placed(key: Any) -> Order:
        order: Order = place_order(**_arguments(asked[key]), **again)
        return order

    for wanted in _rounds(asked, done, at_once, max_resubmits):
        orders = all_in_threads(placed, wanted, _placed_at_once())
        ended = wait_or_park(orders, raise_on_failure=False, credentials=credentials)
        done |= zip(wanted, ended, strict=True)
    result = {key: done[key] for key in asked}
    if raise_on_failure and _without_success(asked, done):
        with requested_with("run_orders"):
            wait_or_park([*result.values()], credentials=credentials)  # All have ended: it does not wait, it raises.
    return result if isinstance(steps, Mapping) else [*result.values()]


@overload
async def arun_orders(  # type: ignore[overload-overlap]
    steps: Mapping[K, OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Order]: ...


@overload
async def arun_orders(
    steps: Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]: ...


async def arun_orders(
    steps: Mapping[Any, OrderStep] | Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Like `run_orders`, for asynchronous flows. Await it directly in the flow's body."""
    asked, done = _checked(steps, at_once), dict[Any, Order]()
    again = _resubmitting(max_resubmits, credentials)

    async def placed(key: Any) -> Order:
        order: Order = await aplace_order(**_arguments(asked[key]), **again)
        return order

    for wanted in _rounds(asked, done, at_once, max_resubmits):
        orders = await all_of(placed, wanted, _placed_at_once())
        ended = await await_or_park(orders, raise_on_failure=False, credentials=credentials)
        done |= zip(wanted, ended, strict=True)
    result = {key: done[key] for key in asked}
    if raise_on_failure and _without_success(asked, done):
        with requested_with("arun_orders"):
            await await_or_park([*result.values()], credentials=credentials)
    return result if isinstance(steps, Mapping) else [*result.values()]


def run_order(
    service: Service | ServiceRequest | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    collection: Collection | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Place one order and wait for it, as `run_orders` does for many. Return it with its products."""
    step = OrderStep(service, parameters, name, tags, collection, policy, once_per, discriminator, reuse)
    with requested_with("run_order"):
        return run_orders([step], max_resubmits=max_resubmits, credentials=credentials)[0]


async def arun_order(
    service: Service | ServiceRequest | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    collection: Collection | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Like `run_order`, for asynchronous flows. Await it directly in the flow's body."""
    step = OrderStep(service, parameters, name, tags, collection, policy, once_per, discriminator, reuse)
    with requested_with("arun_order"):
        return (await arun_orders([step], max_resubmits=max_resubmits, credentials=credentials))[0]


def run_job(
    service: Service | str,
    request: Mapping[str, Any] | BaseModel,
    *,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Request a job and wait for it. Return it with its result and products.

    Call it in the flow's body, where it waits like `wait_or_park`. With `max_resubmits`, a job that failed is requested
    again, so many times at most; each costs again. If it has failed after that, JobFailedError names it with the end of
    its log. Raises the errors of `request_job`.
    """
    options = _resubmitting(max_resubmits, credentials)
    options |= {"policy": policy, "once_per": once_per, "discriminator": discriminator, "reuse": reuse}
    for _ in range(max_resubmits + 1):
        asked: Job = request_job(service, request, **options)
        [job] = wait_or_park([asked], raise_on_failure=False, credentials=credentials)
        if job.succeeded:
            return job
    with requested_with("run_job"):
        return wait_or_park([job], credentials=credentials)[0]


async def arun_job(
    service: Service | str,
    request: Mapping[str, Any] | BaseModel,
    *,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Like `run_job`, for asynchronous flows. Await it directly in the flow's body."""
    options = _resubmitting(max_resubmits, credentials)
    options |= {"policy": policy, "once_per": once_per, "discriminator": discriminator, "reuse": reuse}
    for _ in range(max_resubmits + 1):
        asked: Job = await arequest_job(service, request, **options)
        [job] = await await_or_park([asked], raise_on_failure=False, credentials=credentials)
        if job.succeeded:
            return job
    with requested_with("arun_job"):
        return (await await_or_park([job], credentials=credentials))[0]


def _checked(steps: Mapping[Any, OrderStep] | Iterable[OrderStep], at_once: int | None) -> dict[Any, OrderStep]:
    asked = dict(steps) if isinstance(steps, Mapping) else dict(enumerate(_listed(steps)))
    for step in asked.values():
        if not isinstance(step, OrderStep):
            raise InputError(f"The steps of run_orders are OrderSteps, not {type(step).__name__}.")
    if at_once is not None and at_once < 1:
        raise InputError(f"The argument at_once must be at least 1, not {at_once}.")
    return asked


def _listed(steps: Any) -> Iterable[OrderStep]:
    # A generator has no length.
    return steps if isinstance(steps, Iterator) else several(steps, "steps", "run_orders")


def _resubmitting(max_resubmits: int, credentials: IvcapCredentialsLike) -> dict[str, Any]:
    if max_resubmits < 0:
        raise InputError(f"The argument max_resubmits must be at least 0, not {max_resubmits}.")
    return {"max_resubmits": max_resubmits, "credentials": credentials}


def _placed_at_once() -> int:
    """Return how many orders to place at a time. A plan lists them in the order of the steps."""
    return AT_ONCE if planning() is None else 1


def _arguments(step: OrderStep) -> dict[str, Any]:
    return {field.name: getattr(step, field.name) for field in fields(OrderStep)}


def _rounds(
    steps: Mapping[Any, OrderStep], done: Mapping[Any, Order], at_once: int | None, max_resubmits: int
) -> Iterator[list[Any]]:
    """Yield the keys of the steps to place next, until each has succeeded or was placed as often as it may be."""
    keys = [*steps]
    size = at_once or max(len(keys), 1)
    for first in range(0, len(keys), size):
        for _ in range(max_resubmits + 1):
            if wanted := _without_success(keys[first : first + size], done):
                yield wanted


def _without_success(keys: Iterable[Any], done: Mapping[Any, Order]) -> list[Any]:
    """Return the keys of the steps that have no order that succeeded."""
    return [key for key in keys if key not in done or not done[key].succeeded]
