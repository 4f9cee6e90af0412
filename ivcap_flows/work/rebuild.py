"""Rebuild a lost journal from the platform: the intents of orders and jobs that have idempotency records.

Runs and facts cannot be restored: only the lost journal had them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ivcap_flows.durable.losses import stated_in
from ivcap_flows.identity import INTENT_SCHEMA, canonical, digest, key_entity
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.work.kinds import KINDS

__all__ = ["rebuild"]


async def rebuild(client: IvcapClient, journal: Journal, *, accept_loss: bool = False) -> Counter[str]:
    """Restore the account's orders and jobs that the journal does not know.

    Returns the number of idempotency records by result: "restored", "known" before, and "foreign" if another account
    asserted the record. An intent whose record has no outcome is in doubt; the next call with the same
    request looks for it. With `accept_loss`, the journal no longer reports the loss of other intents.
    """
    platform, account = await client.platform(), await client.account()
    counts: Counter[str] = Counter()
    highest = 0
    # Oldest first: of several records with one key, the first one that names an effect counts.
    found: dict[str, tuple[AspectRecord, Mapping[str, Any]]] = {}
    listed = [record async for record in client.aspects.list(schema=INTENT_SCHEMA, order_direction="ASC")]
    own = await client.aspects.of_account(account, listed)
    counts["foreign"] = len(listed) - len(own)
    for record in own:
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
            # A claim's record was written before the request was sent, an outcome's record after it.
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
    """Return the request from the outcome if its digest is that of the sent request; else its service and digest."""
    outcome, sha256 = content.get("outcome"), content.get("request-sha256")
    service = content.get("service")
    if isinstance(outcome, Mapping):
        service = service or outcome.get("service")
        asked = KINDS[str(content["noun"])].asked
        request = {"service": service, asked: outcome.get(asked), "policy": content.get("policy")}
        if digest(canonical(request)) == sha256:
            return request
    return {"service": service, "sha256": sha256}


def _created(content: Mapping[str, Any], record: AspectRecord) -> datetime:
    try:
        created = datetime.fromisoformat(str(content.get("created-at")))
    except ValueError:
        created = record.valid_from or datetime.now(timezone.utc)
    return created if created.tzinfo is not None else created.replace(tzinfo=timezone.utc)
