"""Request orders and jobs, wait for them, and if asked to again for what failed. Functions for a flow's body.

They are no tasks, so that the run can park while it waits. Each request and each wait is a task run of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Generic, TypeVar, overload

from pydantic import BaseModel

from ivcap_flows.arguments import several, texts
from ivcap_flows.durable import planning
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Aspect, Collection, Job, Order, Service
from ivcap_flows.identity import OncePer
from ivcap_flows.loop import AT_ONCE, all_in_threads, all_of
from ivcap_flows.tasks.call import IvcapCredentialsLike
from ivcap_flows.tasks.jobs import a_wait_for_jobs, arequest_job, request_job, wait_for_jobs
from ivcap_flows.tasks.orders import a_wait_for_orders, aplace_order, place_order, wait_for_orders
from ivcap_flows.tasks.pair import refuse_in_asynchronous_flow
from ivcap_flows.tasks.parking import READING, a_wait_or_park, wait_or_park
from ivcap_flows.tasks.service_request import ServiceRequest
from ivcap_flows.tasks.waiting import function_called, requested_with

__all__ = [
    "JobStep",
    "OrderStep",
    "arun_job",
    "arun_jobs",
    "arun_order",
    "arun_orders",
    "run_job",
    "run_jobs",
    "run_order",
    "run_orders",
]

K = TypeVar("K")
W = TypeVar("W", bound=Order | Job)


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


@dataclass(frozen=True)
class JobStep:
    """One job of `run_jobs`: arguments of `request_job`. Two steps with equal requests share one job."""

    service: Service | ServiceRequest | str
    request: Mapping[str, Any] | BaseModel | None = None
    request_aspect: Aspect | str | None = None
    policy: str | None = None
    once_per: OncePer = "run"
    discriminator: str | None = None
    reuse: bool = False


@overload
def run_orders(  # type: ignore[overload-overlap] # a mapping whose keys are steps is a mapping
    steps: Mapping[K, OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Order]: ...


@overload
def run_orders(
    steps: Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]: ...


def run_orders(
    steps: Mapping[Any, OrderStep] | Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Place the orders of all steps, and wait for them. Return one order a step.

    The steps are a list or the like, or a mapping; then the orders are a mapping with the same keys.

    Call it in the flow's body, where it waits like `wait_or_park`: a deployed run may park, and then begins again from
    its first line, so your own tasks need a persisted result or the tag `replay-safe`.

    At most `at_once` orders are on their way together, by default all: the next ones are placed when these have ended.
    Eight are placed at a time. An order is placed once, however often the flow is killed, retried or started again.
    What is on its way together has `timeout` seconds to end, by default any time; then WaitTimeoutError is raised. With
    `follow`, the flow's log shows what the services say, of the first eight orders on their way together, until the run
    parks.

    With `max_resubmits`, an order that failed is placed again, so many times at most for each step, in all attempts of
    the run together. Each costs again. Use it for failures that pass, such as a lost machine: a service that refuses
    its parameters refuses them each time. If orders have failed after that, OrderFailedError names each with the end of
    its log; with `raise_on_failure=False`, they are among the results. Raises the errors of `place_order`.
    """
    return _run(_ORDERS, steps, _Options(at_once, max_resubmits, raise_on_failure, timeout, follow, credentials))


@overload
async def arun_orders(  # type: ignore[overload-overlap]
    steps: Mapping[K, OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Order]: ...


@overload
async def arun_orders(
    steps: Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]: ...


async def arun_orders(
    steps: Mapping[Any, OrderStep] | Iterable[OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Like `run_orders`, for asynchronous flows. Await it directly in the flow's body."""
    return await _arun(_ORDERS, steps, _Options(at_once, max_resubmits, raise_on_failure, timeout, follow, credentials))


@overload
def run_jobs(  # type: ignore[overload-overlap] # a mapping whose keys are steps is a mapping
    steps: Mapping[K, JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Job]: ...


@overload
def run_jobs(
    steps: Iterable[JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]: ...


def run_jobs(
    steps: Mapping[Any, JobStep] | Iterable[JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Job] | list[Job]:
    """Request the jobs of all steps, and wait for them, as `run_orders` does for orders. Return one job a step.

    The jobs have their results and products. If jobs have failed, JobFailedError names each with the end of its log;
    with `raise_on_failure=False`, they are among the results. Raises the errors of `request_job`.
    """
    return _run(_JOBS, steps, _Options(at_once, max_resubmits, raise_on_failure, timeout, follow, credentials))


@overload
async def arun_jobs(  # type: ignore[overload-overlap]
    steps: Mapping[K, JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[K, Job]: ...


@overload
async def arun_jobs(
    steps: Iterable[JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]: ...


async def arun_jobs(
    steps: Mapping[Any, JobStep] | Iterable[JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Job] | list[Job]:
    """Like `run_jobs`, for asynchronous flows. Await it directly in the flow's body."""
    return await _arun(_JOBS, steps, _Options(at_once, max_resubmits, raise_on_failure, timeout, follow, credentials))


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
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Place one order and wait for it, as `run_orders` does for many. Return it with its products."""
    step = OrderStep(service, parameters, name, tags, collection, policy, once_per, discriminator, reuse)
    with requested_with("run_order"):
        return run_orders([step], max_resubmits=max_resubmits, timeout=timeout, follow=follow, credentials=credentials)[
            0
        ]


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
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Like `run_order`, for asynchronous flows. Await it directly in the flow's body."""
    step = OrderStep(service, parameters, name, tags, collection, policy, once_per, discriminator, reuse)
    with requested_with("arun_order"):
        return (
            await arun_orders(
                [step], max_resubmits=max_resubmits, timeout=timeout, follow=follow, credentials=credentials
            )
        )[0]


def run_job(
    service: Service | ServiceRequest | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Request one job and wait for it, as `run_jobs` does for many. Return it with its result and products."""
    step = JobStep(service, request, request_aspect, policy, once_per, discriminator, reuse)
    with requested_with("run_job"):
        return run_jobs([step], max_resubmits=max_resubmits, timeout=timeout, follow=follow, credentials=credentials)[0]


async def arun_job(
    service: Service | ServiceRequest | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    reuse: bool = False,
    max_resubmits: int = 0,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Like `run_job`, for asynchronous flows. Await it directly in the flow's body."""
    step = JobStep(service, request, request_aspect, policy, once_per, discriminator, reuse)
    with requested_with("arun_job"):
        return (
            await arun_jobs(
                [step], max_resubmits=max_resubmits, timeout=timeout, follow=follow, credentials=credentials
            )
        )[0]


@dataclass(frozen=True)
class _Kind(Generic[W]):
    """What differs between orders and jobs: the class of a step, the function for many, and the tasks."""

    step: type[OrderStep | JobStep]
    many: str
    request: Callable[..., W]
    arequest: Callable[..., Awaitable[W]]
    wait: Callable[..., list[W]]
    await_: Callable[..., Awaitable[list[W]]]


_ORDERS: Final = _Kind[Order](OrderStep, "run_orders", place_order, aplace_order, wait_for_orders, a_wait_for_orders)
_JOBS: Final = _Kind[Job](JobStep, "run_jobs", request_job, arequest_job, wait_for_jobs, a_wait_for_jobs)


@dataclass(frozen=True)
class _Options:
    at_once: int | None
    max_resubmits: int
    raise_on_failure: bool
    timeout: float | None
    follow: bool
    credentials: IvcapCredentialsLike

    def __post_init__(self) -> None:
        if self.at_once is not None and self.at_once < 1:
            raise InputError(f"The argument at_once must be at least 1, not {self.at_once}.")
        if self.max_resubmits < 0:
            raise InputError(f"The argument max_resubmits must be at least 0, not {self.max_resubmits}.")

    def arguments(self, step: OrderStep | JobStep) -> dict[str, Any]:
        """Return the arguments for the request of a step."""
        given = {field.name: getattr(step, field.name) for field in fields(step)}
        return given | {"max_resubmits": self.max_resubmits, "credentials": self.credentials}

    @property
    def wait(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "follow": self.follow, "credentials": self.credentials}

    @property
    def read(self) -> dict[str, Any]:
        """The arguments with which work that has ended is read."""
        timeout = None if self.timeout is None else max(self.timeout, READING)
        return {"timeout": timeout, "credentials": self.credentials}


def _run(kind: _Kind[W], steps: Any, options: _Options) -> dict[Any, W] | list[W]:
    refuse_in_asynchronous_flow(function_called(kind.many))
    asked, done = _checked(kind, steps), dict[Any, W]()
    for wanted in _rounds(asked, done, options):
        work = all_in_threads(lambda key: kind.request(**options.arguments(asked[key])), wanted, _requested_at_once())
        ended = wait_or_park(work, raise_on_failure=False, **options.wait)
        done |= zip(wanted, ended, strict=True)
    result = {key: done[key] for key in asked}
    if options.raise_on_failure and _without_success(asked, done):
        with requested_with(kind.many):
            kind.wait([*result.values()], **options.read)  # All have ended: it does not wait, it raises.
    return result if isinstance(steps, Mapping) else [*result.values()]


async def _arun(kind: _Kind[W], steps: Any, options: _Options) -> dict[Any, W] | list[W]:
    asked, done = _checked(kind, steps), dict[Any, W]()

    async def requested(key: Any) -> W:
        return await kind.arequest(**options.arguments(asked[key]))

    for wanted in _rounds(asked, done, options):
        work = await all_of(requested, wanted, _requested_at_once())
        ended = await a_wait_or_park(work, raise_on_failure=False, **options.wait)
        done |= zip(wanted, ended, strict=True)
    result = {key: done[key] for key in asked}
    if options.raise_on_failure and _without_success(asked, done):
        with requested_with(f"a{kind.many}"):
            await kind.await_([*result.values()], **options.read)
    return result if isinstance(steps, Mapping) else [*result.values()]


def _checked(kind: _Kind[Any], steps: Any) -> dict[Any, Any]:
    # A generator has no length.
    listed = steps if isinstance(steps, Mapping | Iterator) else several(steps, "steps", kind.many)
    asked = dict(listed) if isinstance(listed, Mapping) else dict(enumerate(listed))
    for step in asked.values():
        if not isinstance(step, kind.step):
            raise InputError(f"The steps of {kind.many} are {kind.step.__name__}s, not {type(step).__name__}.")
    return asked


def _requested_at_once() -> int:
    """Return how many requests to send at a time. A plan lists them in the order of the steps."""
    return AT_ONCE if planning() is None else 1


def _rounds(steps: Mapping[Any, Any], done: Mapping[Any, Any], options: _Options) -> Iterator[list[Any]]:
    """Yield the keys of the steps to request next, until each has succeeded or was requested as often as it may be.

    A plan sends nothing, so it lists all steps.
    """
    keys = [*steps]
    size = (options.at_once if planning() is None else None) or max(len(keys), 1)
    for first in range(0, len(keys), size):
        for _ in range(options.max_resubmits + 1):
            if wanted := _without_success(keys[first : first + size], done):
                yield wanted


def _without_success(keys: Iterable[Any], done: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of the steps that have no order or job that succeeded."""
    return [key for key in keys if key not in done or not done[key].succeeded]
