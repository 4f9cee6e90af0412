"""A journal from what the platform tells: the intents of orders and jobs that idempotency records bear witness of.

Runs and facts are lost with a journal. Its intents are not, as far as they have idempotency records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ivcap_flows.durable.losses import stated_in
from ivcap_flows.identity import INTENT_SCHEMA, canonical, digest, key_entity, key_of
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.work.kinds import KINDS

__all__ = ["rebuild"]


async def rebuild(client: IvcapClient, journal: Journal, *, accept_loss: bool = False) -> Counter[str]:
    """Write down the account's orders and jobs that the journal does not know; how many were restored, were known, and
    cannot be told to be this account's.

    One whose outcome the platform was not told is in doubt: the next call that asks for it looks for it. With
    `accept_loss` what the journal has lost beside these is no finding any more.
    """
    platform, account = await client.platform(), await client.account()
    counts: Counter[str] = Counter()
    highest = 0
    # The oldest first: of several records under one key the first that names an effect decides.
    found: dict[str, tuple[AspectRecord, Mapping[str, Any]]] = {}
    async for record in client.aspects.list(schema=INTENT_SCHEMA, order_direction="ASC"):
        content = record.content if isinstance(record.content, Mapping) else {}
        stated = stated_in(content, journal.id)
        highest = max(highest, 0 if stated is None else stated.serial)
        key = content.get("key")
        if content.get("noun") not in KINDS or not isinstance(key, str) or record.entity != key_entity(key):
            continue
        if key not in found or (found[key][1].get("urn") is None and content.get("urn") is not None):
            found[key] = record, content
    for key, (record, content) in found.items():
        if await journal.ask(journal.intents.get, key) is not None:
            counts["known"] += 1
            continue
        request = _request(content)
        if not await _is_ours(client, record, content, request, platform, account):
            counts["foreign"] += 1
            continue
        wanted = NewIntent(
            key=key,
            base_key=key.partition(".")[0],
            noun=str(content["noun"]),
            platform=platform,
            account=account,
            scope=str(content.get("scope")),
            request=request,
            generation=int(content.get("generation") or 0),
            discriminator=content.get("discriminator"),
            subject=content.get("subject"),
            spends=True,
            definition=content.get("definition"),
            # The record of a claim was written before the request left, that of an outcome after it.
            platform_time=record.valid_from if content.get("urn") is None else None,
        )
        made = await journal.ask(
            journal.intents.restore,
            wanted,
            _created(content, record),
            urn=content.get("urn"),
            outcome=content.get("outcome"),
        )
        counts["restored" if made else "known"] += 1
    if accept_loss:
        await journal.ask(journal.losses.accept, highest)
    return counts


def _request(content: Mapping[str, Any]) -> dict[str, Any]:
    """The request as the outcome tells it, where that is the one which was sent; else what is known of it."""
    outcome, sha256 = content.get("outcome"), content.get("request-sha256")
    service = content.get("service")
    if isinstance(outcome, Mapping):
        service = service or outcome.get("service")
        asked = KINDS[str(content["noun"])].asked
        request = {"service": service, asked: outcome.get(asked), "policy": content.get("policy")}
        if digest(canonical(request)) == sha256:
            return request
    return {"service": service, "sha256": sha256}


async def _is_ours(
    client: IvcapClient,
    record: AspectRecord,
    content: Mapping[str, Any],
    request: Mapping[str, Any],
    platform: str,
    account: str,
) -> bool:
    """Whether the key is one of this account on this platform: it is a hash over both."""
    if "sha256" not in request:
        key = key_of(
            platform=platform,
            account=account,
            scope=str(content.get("scope")),
            noun=str(content["noun"]),
            request=request,
            discriminator=content.get("discriminator"),
            generation=int(content.get("generation") or 0),
        )
        if key == content["key"]:
            return True
        # A secret that was known to another process alone is hidden in the request, and not in its key.
    return (await client.aspects.read(record.urn)).account == account


def _created(content: Mapping[str, Any], record: AspectRecord) -> datetime:
    try:
        created = datetime.fromisoformat(str(content.get("created-at")))
    except ValueError:
        created = record.valid_from or datetime.now(timezone.utc)
    return created if created.tzinfo is not None else created.replace(tzinfo=timezone.utc)
