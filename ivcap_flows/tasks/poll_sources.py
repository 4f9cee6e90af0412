"""Orders and jobs as sources of the poller, and the one poller for each that all waits of an account share."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ivcap_flows.durable.poll_round import PollSource
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import ForbiddenError, ForeignHandleError, NotFoundError
from ivcap_flows.identity import ivcap_urn, urn_id
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.orders import OrderRecord, Orders
from ivcap_flows.journal.rows import Wait
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.jobs import Jobs
    from ivcap_flows.tasks.call import IvcapCall

__all__ = ["JobSource", "OrderSource", "ask_later", "poller_of", "wait_for"]

R = TypeVar("R", OrderRecord, JobRecord)


class OrderSource:
    """The orders of an account: one list for all services."""

    what = "orders"

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def read(self, urn: str, service: str) -> OrderRecord:
        return await self._orders.read(urn)

    def list_of(self, service: str) -> str:
        return ""

    async def pages(self, name: str) -> AsyncGenerator[Sequence[tuple[str, str]], None]:
        async with aclosing(self._orders.pages()) as pages:
            async for page in pages:
                yield [(order.urn, order.status) for order in page]

    def status(self, record: OrderRecord) -> str:
        return record.status


class JobSource:
    """The jobs of an account: a list for each service."""

    what = "jobs"

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def read(self, urn: str, service: str) -> JobRecord:
        return await self._jobs.read(service, urn, with_request=True)

    def list_of(self, service: str) -> str:
        return service

    async def pages(self, name: str) -> AsyncGenerator[Sequence[tuple[str, str]], None]:
        async with aclosing(self._jobs.pages(name)) as pages:
            async for page in pages:
                yield [(job.urn, job.status) for job in page]

    def status(self, record: JobRecord) -> str:
        return record.status


_pollers: WeakKeyDictionary[IvcapClient, dict[tuple[str, str], Poller[Any]]] = WeakKeyDictionary()
"""Pollers by noun and journal, while they wait. They reference parts of the client but not the client itself, so that
they are deleted with it."""
_rate_limiters: WeakKeyDictionary[IvcapClient, RateLimiter] = WeakKeyDictionary()
_not_before: dict[str, float] = {}


def ask_later(urn: str, seconds: float | None) -> None:
    """Note that the platform's reply asked not to poll this work before so many seconds have passed."""
    now = time.monotonic()
    for known in [known for known, at in _not_before.items() if at <= now]:
        del _not_before[known]
    if seconds is not None and seconds > 0:
        _not_before[urn] = now + seconds


async def wait_for(
    call: IvcapCall,
    source: PollSource[R],
    waits: Collection[Wait],
    *,
    timeout: float | None,
    told: Callable[[Mapping[str, R | str]], None] | None = None,
) -> list[R]:
    """Wait until all work has ended, and return the records in the order of `waits`.

    `told` is called from time to time with the status of each, or its record if it has ended. Raises WaitTimeoutError
    after `timeout` seconds, and ForeignHandleError for work of another account that this one cannot see.
    """
    try:
        return await poller_of(call, source).wait(
            [wait.urn for wait in waits],
            services={wait.urn: wait.service for wait in waits},
            names={wait.urn: wait.name for wait in waits if wait.name},
            not_before={wait.urn: _not_before[wait.urn] for wait in waits if wait.urn in _not_before},
            timeout=timeout,
            told=told,
        )
    except (NotFoundError, ForbiddenError) as error:
        foreign = await _of_another_account(call, waits, str(error.data.get("path")))
        if foreign is None:
            raise
        raise foreign from None


async def _of_another_account(call: IvcapCall, waits: Collection[Wait], path: str) -> ForeignHandleError | None:
    """Return the error for the work at this path, if another account placed it, as the handle or the journal knows."""
    for wait in waits:
        if urn_id(wait.urn) in path:
            rows = await call.journal.ask(partial(call.journal.intents.where, urn=wait.urn))
            account = ivcap_urn("account", wait.account or next((row.account for row in rows), call.account))
            if account != call.account:
                return ForeignHandleError(
                    f"{wait.urn} is of the account {account}, and these credentials are of {call.account}, which "
                    f"cannot see it. Pass the credentials with which the {wait.noun} was placed.",
                    urn=wait.urn,
                    handle_account=account,
                    account=call.account,
                )
    return None


def poller_of(call: IvcapCall, source: PollSource[R]) -> Poller[R]:
    """Return the poller for a noun, which all waits with a client share."""
    pollers, key = _pollers.setdefault(call.client, {}), (source.what, call.journal.id)
    if key not in pollers:
        pollers[key] = Poller(
            source,
            rate_limiter=_rate_limiter(call.client),
            visibility_delay=call.client.visibility_delay,
            sharing=PollSharing(call.journal, f"{source.what} {call.account} {call.platform}"),
            on_idle=lambda: pollers.pop(key, None),
        )
    found: Poller[R] = pollers[key]
    return found


def _rate_limiter(client: IvcapClient) -> RateLimiter:
    """Return the limit on requests per minute that all waits with a client share."""
    wanted = Settings.current().polls_per_minute
    if client not in _rate_limiters or _rate_limiters[client].per_minute != wanted:
        _rate_limiters[client] = RateLimiter(wanted)
    return _rate_limiters[client]
