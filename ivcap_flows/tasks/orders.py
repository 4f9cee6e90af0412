"""Tasks for IVCAP orders: place once, wait for several, get by URN, list, read the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable import Effect, Found, Resume, Reusable, planning
from ivcap_flows.errors import InputError, OrderFailedError
from ivcap_flows.handles import Collection, Order, Products, Service
from ivcap_flows.identity import OncePer, key_in, short_id, with_key
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of, scrub_text
from ivcap_flows.tasks.assets import note_assets, products_of
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.collection_definitions import holding, known
from ivcap_flows.tasks.following import following
from ivcap_flows.tasks.missing import missing_inputs
from ivcap_flows.tasks.pair import called, task_pair
from ivcap_flows.tasks.planned import planned
from ivcap_flows.tasks.poll_sources import OrderSource, wait_for
from ivcap_flows.tasks.progress import progress_of
from ivcap_flows.tasks.service_request import ServiceRequest
from ivcap_flows.tasks.waiting import (
    Ended,
    Patience,
    PlannedError,
    failure,
    first_of,
    log_tail,
    note_end,
    service_named,
    tag,
    wait_of,
    waiting_for,
    what_helps,
    with_reason,
)
from ivcap_flows.work.kinds import ORDERS
from ivcap_flows.work.reuse import definition_of, look_for_reuse

if TYPE_CHECKING:
    from ivcap_flows.ivcap.orders import OrderRecord
    from ivcap_flows.ivcap.services import ServiceRecord
    from ivcap_flows.journal import IntentRow, NewIntent

__all__ = [
    "a_wait_for_orders",
    "aget_order",
    "alist_orders",
    "aorder_log",
    "aplace_order",
    "get_order",
    "list_orders",
    "order_log",
    "place_order",
    "wait_for_orders",
]

logger = logger_of("ivcap_flows.waiting")

_LONGEST_LOG: Final = 100_000


async def _place_order(
    service: Service | ServiceRequest | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    collection: Collection | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    max_resubmits: int = 0,
    reuse: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Order:
    """Place an order for a service, once per run unless `once_per` says otherwise, and return without waiting for it.

    `service` is a handle, name or URN, or a ServiceRequest, which has the parameters. `parameters` are Python values
    and handles. They are checked before anything is sent, and all faults are reported at once. `wait_for_orders` adds
    the products to the `collection`, since the platform does not accept one with an order.

    An equal request of the same run, from a retry, a restart or a second call, returns the same order. With
    `once_per="flow"` all runs of flows of this name share it, and with `"account"` all that the account does. With
    `"call"` each call has an order of its own. Two equal requests with different `discriminator`s are two orders.

    An order that failed remains the result, unless `max_resubmits` says how often it may be placed again; while the
    platform lacks an upload among its inputs, it is not. If a replayed flow completes with a new order in place of an
    earlier one of the service, a warning shows both.

    With `reuse`, an earlier order is used instead of paying again, from any run or machine of the account, if it
    succeeded with the same service definition, equal parameters and policy, and its products can still be read.

    Raises ParameterError, InputError for an unknown service, NotFoundError for an unknown collection, InDoubtError and
    SpendLimitError.
    """
    if isinstance(service, ServiceRequest):
        if parameters is not None:
            raise InputError(f"{type(service).__name__} has the parameters; give no others.")
        parameters, service = service.parameters(), service.service
    if not isinstance(parameters, Mapping):
        raise InputError(f"Parameters must be a mapping of names to values, not {type(parameters).__name__}.")
    if name is not None and not isinstance(name, str):
        raise InputError(f"The name of an order is a text, not {type(name).__name__}.")
    call = await IvcapCall.of(credentials)
    call.check(service, parameters, collection)
    PlannedError.refuse([service])
    record = await call.service(str(service))
    encoded = call.client.services.encode_parameters(record, parameters)
    into = None if collection is None else (await known(call, collection)).urn
    done = await call.perform(
        OrderEffect(
            call=call,
            service=record,
            title=name or record.name or "order",
            tags=tags,
            request={"service": record.urn, "parameters": encoded, "policy": policy},
            visibility_delay=call.client.visibility_delay,
            once_per=once_per,
            discriminator=discriminator,
            subject=record.name or record.urn,
            name=name,
            definition=definition_of(record),
            reuses=call.reuses(reuse),
            limit=call.limit,
        ),
        idempotency_records=call.records,
        max_resubmits=max_resubmits,
    )
    # A handle from the journal has its secrets redacted, so return the parameters as given.
    return done.value.model_copy(update={"collection": into, "parameters": encoded})


@dataclass(frozen=True, kw_only=True)
class OrderEffect(Effect[Order]):
    """Placing an order for a service. Its name contains the key, by which it is found again; so does a tag."""

    noun: str = "order"
    spends: bool = True
    call: IvcapCall
    service: ServiceRecord
    title: str
    tags: Sequence[str]

    async def send(self, intent: IntentRow, progress: Resume) -> Order:
        placed = await self.call.client.orders.place(
            self.service.urn,
            self.request["parameters"],
            name=with_key(scrub_text(self.title), intent.key),
            tags=[*self.tags, tag(intent.key)],
            policy=self.request["policy"],
        )
        return self._handle(placed, intent.key)

    async def find(self, intent: IntentRow) -> list[Found[Order]]:
        found = []
        async for placed in _since(self.call, intent):
            if key_in(placed.name) == short_id(intent.key):
                # Another account may open an order to all, under any name.
                if placed.account not in (None, self.call.account):
                    continue
                # One that bears the key and cannot be read may be ours: the error keeps the doubt.
                whole = await self.call.client.orders.read(placed.urn)
                if whole.account in (None, self.call.account):
                    found.append(Found(self._handle(whole, intent.key), whole.urn, whole.ordered_at))
        return found

    async def earlier(self, wanted: NewIntent) -> Reusable[Order]:
        def value(order: OrderRecord, products: Products) -> Order:
            return self._handle(order, wanted.key).model_copy(update={"products": products})

        forms = [self.request["parameters"]]
        return await look_for_reuse(self.call.client, ORDERS, wanted, self.request, forms=forms, value=value)

    def decode(self, outcome: Any) -> Order:
        return Order.model_validate(outcome)

    def placeholder(self, key: str) -> Order:
        return Order(
            urn=f"urn:ivcap-flows:planned:{key}",
            platform=self.call.platform,
            service=self.service.urn,
            service_name=self.service.name,
            status="planned",
            parameters=self.request["parameters"],
            key=key,
        )

    def _handle(self, placed: OrderRecord, key: str) -> Order:
        handle = placed.handle(self.call.platform, service_name=self.service.name, key=key)
        # The platform adds parameters, or its reply has none. Lineage reads the requested ones.
        return handle.model_copy(
            update={
                "service": handle.service or self.service.urn,
                "service_version": self.definition,
                "parameters": self.request["parameters"],
            }
        )


async def _since(call: IvcapCall, intent: IntentRow) -> AsyncIterator[OrderRecord]:
    """Yield the account's orders that are not older than the intent, by the platform's clock, newest first."""
    since = await call.since(intent)
    async for placed in call.client.orders.list(order_by="ordered-at", order_desc=True):
        if since is not None and placed.ordered_at is not None and placed.ordered_at < since:
            return
        yield placed


async def _wait_for_orders(
    orders: Sequence[Order | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]:
    """Wait until all orders have ended. Return them in the given order, with their products.

    All waits of a process share one poller, which reads lists instead of single orders, and asks less often the longer
    the work takes. If the platform cannot be reached, the wait continues until it can. The progress is logged once a
    minute. After `timeout` seconds, WaitTimeoutError is raised, and the orders continue on the platform.

    If `raise_on_failure` is set and an order did not succeed, OrderFailedError is raised after all orders have ended;
    it names each failed order with the end of its log. Otherwise a warning names each with its reason, which its
    `error_message` has. The products of a successful order that was placed with a `collection` are added to it.

    With `follow`, the flow's log shows the lines of the orders' logs as they come, of the first eight orders.
    """
    patience = Patience.of(orders, timeout)
    call = await patience.read(lambda: IvcapCall.of(credentials))
    call.check(orders)
    PlannedError.refuse(orders)
    asked = {urn_of(order): order for order in orders}
    waits = [wait_of(order, "order", order.service if isinstance(order, Order) else "") for order in asked.values()]
    async with following(call, waits, asked=follow), progress_of("orders", asked) as told:
        records = await wait_for(call, OrderSource(call.client.orders), waits, timeout=patience.left, told=told)
    patience.has_ended = True
    into = _collections(orders)
    ended = await all_of(
        lambda record: _ended(call, patience, record, asked[record.urn], into.get(record.urn, ())), records
    )
    failed = [each for each in ended if not each.work.succeeded]
    if failed and raise_on_failure:
        lines = [*failure(failed, len(ended), "order", logs=True), *await what_helps(call, failed, "place_order")]
        logs = {each.work.urn: each.log for each in failed}
        raise OrderFailedError("\n".join(lines), orders=[each.work for each in failed], logs=logs)
    note_assets(
        [version for each in ended for version in products_of(each.work, new=each.is_news)],
        inputs={urn for each in ended for urn in each.work.inputs},
    )
    if failed:
        lines = failure(failed, len(ended), "order", logs=False)
        logger.warning("\n".join([*lines, *await missing_inputs(call, [each.work for each in failed])]))
    known = {each.work.urn: each.work for each in ended}
    return [_as_asked(known[urn_of(order)], order) for order in orders]


def _as_asked(ended: Order, order: Order | str) -> Order:
    """Return the handle with the collection of its own: equal requests share an order, and each may name another."""
    own = order.collection if isinstance(order, Order) else None
    return ended if own == ended.collection else ended.model_copy(update={"collection": own})


def _collections(orders: Sequence[Order | str]) -> dict[str, list[str]]:
    """Return the collections that are to get the products of each order, by its URN."""
    found: dict[str, list[str]] = {}
    for order in orders:
        if isinstance(order, Order) and order.collection is not None:
            named = found.setdefault(order.urn, [])
            named += [order.collection] if order.collection not in named else []
    return found


async def _ended(
    call: IvcapCall, patience: Patience, record: OrderRecord, before: Order | str, collections: Sequence[str]
) -> Ended[Order]:
    """Write an order's end to the journal. Return its handle, with all its products or the reason of its failure.

    The collections get the products.
    """
    handle = record.handle(call.platform)
    if isinstance(before, Order):
        # Lineage reads the requested parameters, so keep those of the given handle if it has them.
        kept = {name: getattr(before, name) for name in ("service_name", "key", "parameters", "collection")}
        handle = handle.model_copy(update={name: value for name, value in kept.items() if value})
        handle._how = before.how

    async def whole() -> Order:
        named = await service_named(call, handle)
        products = [product.handle(call.platform) async for product in call.client.orders.products(record.urn)]
        return named.model_copy(update={"products": Products(products)})

    ended, log = await patience.read(whole), ""
    if not ended.succeeded:
        log = await log_tail(call, ended.urn)
        ended = with_reason(ended, log)
    is_news = await note_end(call.journal, ended)
    for into in collections if ended.succeeded and ended.products and planning() is None else ():
        # Adding reads what is there first, so it is safe to repeat.
        await patience.read(partial(call.client.collections.add, into, [product.urn for product in ended.products]))
        holding(call, into, ended.products)
    return Ended(ended, is_news, log)


async def _get_order(urn: str, *, credentials: IvcapCredentialsLike = None) -> Order:
    """Return the handle of an existing order, whoever placed it. You can wait for it as for your own orders.

    Raises NotFoundError if the account cannot see it.
    """
    call = await IvcapCall.of(credentials)
    if (order := planned(urn_of(urn), Order)) is not None:
        return order
    record = await call.client.orders.read(urn_of(urn))
    return await service_named(call, record.handle(call.platform))


async def _list_orders(
    *,
    status: str | None = None,
    filter: str | None = None,  # noqa: A002 - the API's word
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Order]:
    """List the orders that the account can see, newest first: all orders, or the first `limit`.

    `status` selects the orders with that status. `filter` is an expression in the platform's grammar, such as
    `name ~= 'survey%'`. The handles have neither parameters nor products; `get_order` reads an order completely.
    """
    call = await IvcapCall.of(credentials)
    records = call.client.orders.list(
        order_by="ordered-at", order_desc=True, filter=filter, limit=limit if status is None else None
    )
    return await first_of(records, lambda each: each.handle(call.platform), status=status, limit=limit)


async def _order_log(order: Order | str, *, lines: int | None = None, credentials: IvcapCredentialsLike = None) -> str:
    """Return the log of an order, or its last `lines` lines.

    Lines longer than 4096 bytes are cut. Raises InputError if the log has more than 100,000 lines and `lines` is not
    given, and NotFoundError if the account cannot see the order.
    """
    call = await IvcapCall.of(credentials)
    call.check(order)
    if lines is not None and lines < 1:
        raise InputError(f"The argument lines must be at least 1, not {lines}.")
    urn = urn_of(order)
    if lines is not None:
        return await call.client.orders.log_tail(urn, lines)
    whole: list[str] = []
    async for line in call.client.orders.logs(urn):
        whole.append(line)
        if len(whole) > _LONGEST_LOG:
            raise InputError(f"The log of {urn} has more than {_LONGEST_LOG} lines: pass `lines` to read its end.")
    return "\n".join(whole)


def _order_run(parameters: dict[str, Any]) -> str:
    return f"order {parameters['name'] or called(parameters['service'])}"


place_order, aplace_order = task_pair(_place_order, _order_run, writes=("collection",))
wait_for_orders, a_wait_for_orders = task_pair(_wait_for_orders, waiting_for("orders"))
get_order, aget_order = task_pair(_get_order, "get {urn}")
list_orders, alist_orders = task_pair(_list_orders)
order_log, aorder_log = task_pair(_order_log, "log of {order}")
