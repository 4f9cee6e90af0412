"""Reuse an earlier order or job with an equal request instead of paying again.

Every idempotency record of an order or job has a *reuse fingerprint*: a digest over platform, account, noun, the
service's definition and the request, without scope and discriminator. So one look-up finds what the account requested
before, from any run, journal or machine. The order or job found is then read and compared with the request, and used
only if it says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ivcap_flows.durable.effects import Found, Reusable
from ivcap_flows.errors import (
    ForbiddenError,
    NotFoundError,
    PlatformError,
)
from ivcap_flows.handles import TERMINAL, Products
from ivcap_flows.identity import fingerprint, fingerprint_for_reuse
from ivcap_flows.ivcap.idempotency_records import having
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of
from ivcap_flows.work.kinds import R, WorkKind, is_of

if TYPE_CHECKING:
    from ivcap_flows.ivcap.artifacts import ArtifactRecord
    from ivcap_flows.ivcap.aspects import Aspects
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.services import ServiceRecord
    from ivcap_flows.journal import NewIntent

__all__ = ["Earlier", "Refused", "definition_of", "earlier_of", "look_for_reuse"]

T = TypeVar("T")

logger = logger_of("ivcap_flows.durable")

CANDIDATES: Final = 10
"""Maximum number of earlier orders or jobs to check, newest first."""


class Refused(Exception):  # noqa: N818 - an answer, not an error: it never leaves this module
    """The reason why an earlier order or job is not used. `running`: it has not ended yet."""

    def __init__(self, why: str, *, running: bool = False) -> None:
        super().__init__(why)
        self.running = running


@dataclass(frozen=True)
class Earlier:
    """An order or job with an equal request, as its idempotency record describes it."""

    urn: str
    at: datetime | None
    key: str | None = None
    run: str | None = None
    flow: str | None = None


def definition_of(service: ServiceRecord, request_schema: Mapping[str, Any] | None = None) -> str:
    """Return a digest of a service's definition; for a service that takes jobs, including the request's schema."""
    return service.definition if request_schema is None else fingerprint([service.definition, request_schema])


async def earlier_of(aspects: Aspects, reuse_fingerprint: str) -> list[Earlier]:
    """Return the orders or jobs with a reuse fingerprint, newest first, each once, at most `CANDIDATES`."""
    known: dict[str, Earlier] = {}
    async for record in having(aspects, "reuse_fingerprint", reuse_fingerprint):
        content = record.content if isinstance(record.content, Mapping) else {}
        urn = content.get("urn")
        if content.get("reuse_fingerprint") == reuse_fingerprint and isinstance(urn, str) and urn not in known:
            origin = {name: content.get(name) for name in ("key", "run", "flow")}
            known[urn] = Earlier(urn, record.valid_from, **origin)
            if len(known) == CANDIDATES:
                break
    return list(known.values())


async def look_for_reuse(
    client: IvcapClient,
    kind: WorkKind[R],
    wanted: NewIntent,
    request: Mapping[str, Any],
    *,
    forms: Sequence[Any],
    value: Callable[[R, Products], T],
) -> Reusable[T]:
    """Look for the newest earlier order or job that can replace the wanted one; `value` makes the result from it.

    `forms` are the forms in which the platform may show an equal request. One that still runs is only reported, since
    it may still fail.
    """
    assert wanted.definition is not None
    reuse_fingerprint = fingerprint_for_reuse(
        platform=wanted.platform,
        account=wanted.account,
        noun=wanted.noun,
        definition=wanted.definition,
        request=wanted.request,
    )
    try:
        candidates = await earlier_of(client.aspects, reuse_fingerprint)
    except ForbiddenError as error:
        return Reusable(None, f"idempotency records cannot be read: {error.message}")
    reasons: list[str] = []
    for earlier in candidates:
        try:
            record = await kind.read(client, earlier.urn, request["service"], result=True)
            products = await _usable(client, kind, record, wanted.account, request, forms)
        except Refused as refused:
            reasons.append(str(refused))
            if refused.running:
                logger.warning(
                    "An equal %s for %s is still running: %s. Another one is requested, because that one may fail. "
                    "To use the running one instead, call `get_%s` with its URN and wait for it.",
                    wanted.noun,
                    wanted.subject,
                    earlier.urn,
                    wanted.noun,
                )
        except (NotFoundError, ForbiddenError) as error:
            reasons.append(f"{earlier.urn} or one of its products can no longer be read: {error.message}")
        else:
            by = f" of the flow {earlier.flow}" if earlier.flow else ""
            logger.info("Reusing %s%s instead of paying for another equal %s.", earlier.urn, by, wanted.noun)
            handles = Products(product.handle(wanted.platform) for product in products)
            return Reusable(
                Found(value(record, handles), record.urn, kind.requested_at(record)), f"{earlier.urn}{by} is used"
            )
    if reasons:
        logger.info("No earlier %s for %s can be reused: %s", wanted.noun, wanted.subject, "; ".join(reasons))
    return Reusable(None, "; ".join(reasons) or "no earlier one has an equal request and the same service definition")


async def _usable(
    client: IvcapClient, kind: WorkKind[R], record: R, account: str, request: Mapping[str, Any], forms: Sequence[Any]
) -> list[ArtifactRecord]:
    """Return the products of work that can be reused.

    Raises `Refused` with the reason if it cannot, and the platform's error if something cannot be read.
    """
    urn = record.urn
    if record.status not in TERMINAL:
        raise Refused(f"{urn} is {record.status}", running=True)
    if record.status != "succeeded":
        raise Refused(f"{urn} ended as {record.status}")
    if record.account not in (None, account):
        raise Refused(f"{urn} belongs to another account")
    # Compare policies only if both are known: not every server shows it, and a request may leave it to the platform.
    other_policy = None not in (request["policy"], record.policy) and record.policy != request["policy"]
    shown = kind.shown(record)
    other_request = shown is not None and not any(kind.equal(shown, form) for form in forms)
    if other_policy or other_request or not is_of(record, request["service"]):
        raise Refused(f"the request, policy or service of {urn} is not what its idempotency record says")
    products = await kind.products(client, record)

    async def ready(product: ArtifactRecord) -> None:
        try:
            found = await client.artifacts.read(product.urn)
        except PlatformError as error:
            raise Refused(f"the product {product.urn} of {urn} cannot be read: {error.message}") from error
        if not found.complete:
            raise Refused(f"the product {product.urn} of {urn} is {found.status}")

    await all_of(ready, products)
    return products
