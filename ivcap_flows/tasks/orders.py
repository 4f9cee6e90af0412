"""Tasks for IVCAP orders: place once, wait together, attach by URN."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from ivcap_flows.durable import CLOCKS, Effect, Found, OnDivergence, OnFailure, Progress
from ivcap_flows.durable.waiter import Poller
from ivcap_flows.errors import InputError, OrderFailedError, PlatformError
from ivcap_flows.handles import Order
from ivcap_flows.identity import Scope, short_id
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PAGES, PlannedError, note_end, tag, waiting_for

__all__ = ["aattach_order", "aplace_order", "attach_order", "await_for_orders", "place_order", "wait_for_orders"]

_LOG_LINES: Final = 20


async def _place_order(
    service: str,
    parameters: Mapping[str, Any],
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    policy: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    on_failure: OnFailure = "keep",
    max_resubmits: int = 3,
    on_divergence: OnDivergence = "raise",
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Place an order for a service, at most once within `scope`, and return without waiting for it.

    `service` is a name or URN. `parameters` are Python values and handles; all faults are named at once, before
    anything is sent. The same request asked for again in the scope, by a retry, a restart or a second call, is the
    same order; `discriminator` tells two apart that are meant. An order that ended badly stays the answer, unless
    `on_failure="resubmit"` places it anew, up to `max_resubmits` times. `on_divergence` says what happens when a
    replayed flow asks for something else than it did before.

    Raises ParameterError, InputError for an unknown service, InDoubtError, DivergenceError and SpendLimitError.
    """
    if not isinstance(parameters, Mapping):
        raise InputError(f"An order's parameters are a mapping of names to values, not {type(parameters).__name__}.")
    call = await IvcapCall.of(credentials)
    call.check(parameters)
    record = await call.client.services.by_name(service)
    encoded = call.client.services.encode_parameters(record, parameters)
    title = name or record.name or "order"

    async def send(intent: IntentRow, progress: Progress) -> Order:
        placed = await call.client.orders.place(
            record.urn,
            encoded,
            name=f"{title} [{short_id(intent.key)}]",
            tags=[*tags, tag(intent.key)],
            policy=policy,
        )
        return _handle(placed, call, record, encoded, intent.key)

    async def find(intent: IntentRow) -> list[Found[Order]]:
        found = []
        async for placed in _since(call, intent):
            if f"[{short_id(intent.key)}]" in (placed.name or ""):
                whole = await call.client.orders.read(placed.urn)
                found.append(Found(_handle(whole, call, record, encoded, intent.key), whole.urn, whole.ordered_at))
        return found

    done = await call.perform(
        Effect(
            noun="order",
            request={"service": record.urn, "parameters": encoded, "policy": policy},
            send=send,
            find=find,
            decode=Order.model_validate,
            placeholder=lambda key: Order(
                urn=f"urn:ivcap-flows:planned:{key}",
                platform=call.platform,
                service=record.urn,
                service_name=record.name,
                status="planned",
                parameters=encoded,
                key=key,
            ),
            settle=call.client.settle,
            scope=scope,
            discriminator=discriminator,
            subject=record.name or record.urn,
            spends=True,
        ),
        key_aspects=call.keys,
        on_failure=on_failure,
        max_resubmits=max_resubmits,
        on_divergence=on_divergence,
    )
    return done.value


def _handle(
    placed: OrderRecord, call: IvcapCall, service: ServiceRecord, parameters: dict[str, str], key: str
) -> Order:
    handle = placed.handle(call.platform, service_name=service.name, key=key)
    # The platform adds parameters of its own and may answer without any; what was asked for is what lineage reads.
    return handle.model_copy(update={"service": handle.service or service.urn, "parameters": parameters})


async def _since(call: IvcapCall, intent: IntentRow) -> AsyncIterator[OrderRecord]:
    """The account's orders that are not older than the intent, newest first."""
    async for placed in call.client.orders.list(order_by="ordered-at", order_desc=True):
        if placed.ordered_at is not None and placed.ordered_at < intent.created_at - CLOCKS:
            return
        yield placed


async def _wait_for_orders(
    orders: Sequence[Order | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]:
    """Wait until all orders have ended, and return them, with their products, in the order given.

    All waits of a process share one poller, which reads lists instead of single orders and asks more rarely the
    longer the work takes. A platform that cannot be reached is waited out. `timeout` (seconds) raises
    WaitTimeoutError; the orders go on. With `raise_on_failure`, OrderFailedError names all that ended badly, with the
    tail of each log, once every order has ended.
    """
    call = await IvcapCall.of(credentials)
    call.check(list(orders))
    PlannedError.refuse(orders)
    asked = {urn_of(order): order for order in orders}
    records = await _poller(call.client).wait([urn_of(order) for order in orders], timeout=timeout)
    done = []
    for record in records:
        before = asked[record.urn]
        done.append(await _ended(call, record, before if isinstance(before, Order) else None))
    failed = [order for order in done if not order.succeeded]
    if failed and raise_on_failure:
        raise await _failure(call, failed, len(done))
    return done


async def _ended(call: IvcapCall, record: OrderRecord, before: Order | None) -> Order:
    """The handle of an ended order with all its products; the journal learns how it ended."""
    handle = record.handle(
        call.platform,
        service_name=before.service_name if before else None,
        key=before.key if before else None,
    )
    if before is not None:
        handle = handle.model_copy(update={"parameters": before.parameters})
    if handle.service_name is None and handle.service:
        handle = handle.model_copy(update={"service_name": (await call.client.services.read(handle.service)).name})
    products = [product async for product in call.client.orders.products(record.urn)]
    handle = handle.model_copy(
        update={"products": type(handle.products)(product.handle(call.platform) for product in products)}
    )
    await note_end(call.journal, handle)
    return handle


async def _failure(call: IvcapCall, failed: list[Order], total: int) -> OrderFailedError:
    logs = {order.urn: await _log_tail(call, order.urn) for order in failed}
    lines = [f"{len(failed)} of {total} orders did not succeed."]
    for order in failed:
        lines.append(f"{order.urn} ({order.service_name or order.service}) ended as {order.status}.")
        lines += [f"  | {line}" for line in logs[order.urn].splitlines()]
    lines.append(
        "Asking again in this run gives the same answer; place_order(…, on_failure='resubmit') or a new run "
        "(IVCAP_FLOWS_FRESH=1) places them anew."
    )
    return OrderFailedError("\n".join(lines), orders=failed, logs=logs)


async def _log_tail(call: IvcapCall, urn: str) -> str:
    try:
        return await call.client.orders.log_tail(urn, _LOG_LINES)
    except PlatformError as error:
        return f"(its log cannot be read: {error.message})"


_pollers: WeakKeyDictionary[IvcapClient, Poller[OrderRecord]] = WeakKeyDictionary()


def _poller(client: IvcapClient) -> Poller[OrderRecord]:
    if client not in _pollers:

        async def recent() -> AsyncIterator[tuple[str, str]]:
            async for order in client.orders.list(order_by="ordered-at", order_desc=True, limit=PAGES * 50):
                yield order.urn, order.status

        _pollers[client] = Poller(
            what="orders",
            read=client.orders.read,
            recent=recent,
            status=lambda order: order.status,
            settle=client.settle,
        )
    return _pollers[client]


async def _attach_order(urn: str, *, credentials: IvcapCredentialsLike = None) -> Order:
    """The handle of an order that exists, by its URN, whoever placed it; wait for it as for one of your own.

    Raises NotFoundError for one that the account cannot see.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.orders.read(urn_of(urn))
    handle = record.handle(call.platform)
    if not handle.service:
        return handle
    return handle.model_copy(update={"service_name": (await call.client.services.read(handle.service)).name})


place_order, aplace_order = task_pair(_place_order, name="Place order", run_name="order {service}")
wait_for_orders, await_for_orders = task_pair(_wait_for_orders, name="Wait for orders", run_name=waiting_for("orders"))
attach_order, aattach_order = task_pair(_attach_order, name="Attach order", run_name="attach {urn}")
