"""Request orders and jobs, wait for them, and if asked to again for what failed. Functions for a flow's body.

They are no tasks, so that the run can park while it waits. Each request and each wait is a task run of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, Generic, TypeVar, overload

from pydantic import BaseModel

from ivcap_flows import loop
from ivcap_flows.arguments import several, texts
from ivcap_flows.durable import planning, requested_before
from ivcap_flows.durable.wording import listed
from ivcap_flows.errors import InputError, OutcomeError
from ivcap_flows.handles import Aspect, Collection, Job, Order, Service
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow
from ivcap_flows.loop import AT_ONCE, all_in_threads, all_of
from ivcap_flows.tasks.call import IvcapCredentialsLike
from ivcap_flows.tasks.jobs import _request_job, a_wait_for_jobs, arequest_job, request_job, wait_for_jobs
from ivcap_flows.tasks.orders import _place_order, a_wait_for_orders, aplace_order, place_order, wait_for_orders
from ivcap_flows.tasks.pair import refuse_in_asynchronous_flow
from ivcap_flows.tasks.parking import READING, a_ended_or_park, a_wait_or_park, ended_or_park, wait_or_park
from ivcap_flows.tasks.service_request import ServiceRequest
from ivcap_flows.tasks.step_window import StepWindow
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
    keep_going: bool = False,
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
    keep_going: bool = False,
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
    keep_going: bool = False,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Place the orders of all steps, and wait for them. Return one order a step.

    The steps are a list or the like, or a mapping; then the orders are a mapping with the same keys.

    Call it in the flow's body, where it waits like `wait_or_park`: a deployed run may park, and then begins again from
    its first line, so your own tasks need a persisted result or the tag `replay-safe`.

    At most `at_once` orders are on their way together, by default all: as soon as one has ended, the next is placed.
    Eight are placed at a time. An order is placed once, however often the flow is killed, retried or started again, and
    one that is on its way has its place, whatever `at_once` says then. A run that has parked wakes once a quarter of
    the places is free, and once all are placed, when all have ended. If for `timeout` seconds since the last order was
    placed no place gets free, or in the end not all have ended, WaitTimeoutError is raised; by default never. With
    `follow`, the flow's log shows what the services say, of the first eight orders on their way together, until the run
    parks.

    With `max_resubmits`, an order that failed is placed again, so many times at most for each step, in all attempts of
    the run together. Each costs again. Use it for failures that pass, such as a lost machine: a service that refuses
    its parameters refuses them each time. If orders have failed after that, no further step is ordered, and when those
    on their way have ended, OrderFailedError names each that failed with the end of its log, and what was not ordered.
    With `keep_going`, all steps are ordered before it is raised. With `raise_on_failure=False` they are, too, and the
    failed orders are among the results. Raises the errors of `place_order`.
    """
    options = _Options(at_once, max_resubmits, raise_on_failure, keep_going, timeout, follow, credentials)
    return _run(_ORDERS, steps, options)


@overload
async def arun_orders(  # type: ignore[overload-overlap]
    steps: Mapping[K, OrderStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    keep_going: bool = False,
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
    keep_going: bool = False,
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
    keep_going: bool = False,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Order] | list[Order]:
    """Like `run_orders`, for asynchronous flows. Await it directly in the flow's body."""
    options = _Options(at_once, max_resubmits, raise_on_failure, keep_going, timeout, follow, credentials)
    return await _arun(_ORDERS, steps, options)


@overload
def run_jobs(  # type: ignore[overload-overlap] # a mapping whose keys are steps is a mapping
    steps: Mapping[K, JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    keep_going: bool = False,
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
    keep_going: bool = False,
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
    keep_going: bool = False,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Job] | list[Job]:
    """Request the jobs of all steps, and wait for them, as `run_orders` does for orders. Return one job a step.

    The jobs have their results and products. If jobs have failed, JobFailedError names each with the end of its log;
    with `raise_on_failure=False`, they are among the results. Raises the errors of `request_job`.
    """
    options = _Options(at_once, max_resubmits, raise_on_failure, keep_going, timeout, follow, credentials)
    return _run(_JOBS, steps, options)


@overload
async def arun_jobs(  # type: ignore[overload-overlap]
    steps: Mapping[K, JobStep],
    *,
    at_once: int | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    keep_going: bool = False,
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
    keep_going: bool = False,
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
    keep_going: bool = False,
    timeout: float | None = None,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> dict[Any, Job] | list[Job]:
    """Like `run_jobs`, for asynchronous flows. Await it directly in the flow's body."""
    options = _Options(at_once, max_resubmits, raise_on_failure, keep_going, timeout, follow, credentials)
    return await _arun(_JOBS, steps, options)


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
    """What differs between orders and jobs: the class of a step, the function for many, and the tasks.

    `body` is what the task `request` does.
    """

    step: type[OrderStep | JobStep]
    many: str
    request: Callable[..., W]
    arequest: Callable[..., Awaitable[W]]
    body: Callable[..., Awaitable[W]]
    wait: Callable[..., list[W]]
    await_: Callable[..., Awaitable[list[W]]]


_ORDERS: Final = _Kind[Order](
    OrderStep, "run_orders", place_order, aplace_order, _place_order, wait_for_orders, a_wait_for_orders
)
_JOBS: Final = _Kind[Job](JobStep, "run_jobs", request_job, arequest_job, _request_job, wait_for_jobs, a_wait_for_jobs)


@dataclass(frozen=True)
class _Options:
    at_once: int | None
    max_resubmits: int
    raise_on_failure: bool
    keep_going: bool
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
    asked = _checked(kind, steps)
    window = _window(asked, options, loop.run(_known(kind, asked, options)))
    for wanted in window:
        requested = all_in_threads(lambda key: kind.request(**options.arguments(asked[key])), wanted, _sent_at_once())
        window.requested(wanted, requested)
        work = [*window.under_way.values()]
        if window.waits and work and window.enough is None:
            window.told(wait_or_park(work, raise_on_failure=False, **options.wait))
        elif window.waits and work and (some := ended_or_park(work, enough=window.enough or 0, **options.wait)):
            window.told(kind.wait(some, raise_on_failure=False, **options.read))
    result = _in_order(asked, window)
    if unread := [result[key] for key in window.unread]:
        result |= zip(window.unread, kind.wait(unread, raise_on_failure=False, **options.read), strict=True)
    if options.raise_on_failure and not all(each.succeeded for each in result.values()):
        with requested_with(kind.many), _naming_what_was_not_requested(asked, window):
            kind.wait([*result.values()], **options.read)  # All have ended: it does not wait, it raises.
    return result if isinstance(steps, Mapping) else [*result.values()]


async def _arun(kind: _Kind[W], steps: Any, options: _Options) -> dict[Any, W] | list[W]:
    asked = _checked(kind, steps)
    window = _window(asked, options, await loop.arun(_known(kind, asked, options)))

    async def request(key: Any) -> W:
        return await kind.arequest(**options.arguments(asked[key]))

    for wanted in window:
        window.requested(wanted, await all_of(request, wanted, _sent_at_once()))
        work = [*window.under_way.values()]
        if window.waits and work and window.enough is None:
            window.told(await a_wait_or_park(work, raise_on_failure=False, **options.wait))
        elif window.waits and work:
            some = await a_ended_or_park(work, enough=window.enough or 0, **options.wait)
            window.told(await kind.await_(some, raise_on_failure=False, **options.read) if some else [])
    result = _in_order(asked, window)
    if unread := [result[key] for key in window.unread]:
        read = await kind.await_(unread, raise_on_failure=False, **options.read)
        result |= zip(window.unread, read, strict=True)
    if options.raise_on_failure and not all(each.succeeded for each in result.values()):
        with requested_with(f"a{kind.many}"), _naming_what_was_not_requested(asked, window):
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


def _sent_at_once() -> int:
    """Return how many requests to send at a time. A plan lists them in the order of the steps."""
    return AT_ONCE if planning() is None else 1


def _window(asked: Mapping[Any, Any], options: _Options, known: Mapping[Any, IntentRow]) -> StepWindow[Any]:
    # A plan sends nothing, so it lists all steps.
    size = min(options.at_once or len(asked), len(asked)) if planning() is None else len(asked)
    # Who wants the failed ones among the results wants the others, too.
    keep_going = options.keep_going or not options.raise_on_failure
    return StepWindow([*asked], size, max_resubmits=options.max_resubmits, keep_going=keep_going, known=known)


async def _known(kind: _Kind[Any], asked: Mapping[Any, Any], options: _Options) -> dict[Any, IntentRow]:
    """Return what the journal has under the keys of the steps, if not all of them are requested together anyway."""
    if planning() is not None or options.at_once is None or options.at_once >= len(asked):
        return {}

    async def before(key: Any) -> IntentRow | None:
        return await requested_before(lambda: kind.body(**options.arguments(asked[key])))

    rows = await all_of(before, asked)
    return {key: row for key, row in zip(asked, rows, strict=True) if row is not None}


def _in_order(asked: Mapping[Any, Any], window: StepWindow[W]) -> dict[Any, W]:
    return {key: window.ended[key] for key in asked if key in window.ended}


@contextmanager
def _naming_what_was_not_requested(asked: Mapping[Any, Any], window: StepWindow[Any]) -> Iterator[None]:
    """In the block, let the error of failed work say which steps were not requested because of it, and what helps."""
    try:
        yield
    except OutcomeError as error:
        if not window.untouched:
            raise
        names = listed(str(getattr(asked[key], "name", None) or key) for key in window.untouched)
        left = f"{len(window.untouched)} of {len(asked)} steps were not requested: {names}."
        message = (
            f"{error.message}\nBecause of that, {left} The same command returns what has failed, and stops here again. "
            "keep_going=True requests them all the same. A higher max_resubmits or a new run (IVCAP_FLOWS_FRESH=1) "
            "first requests again what has failed."
        )
        raise type(error)(message, **error.data, not_requested=window.untouched) from None
