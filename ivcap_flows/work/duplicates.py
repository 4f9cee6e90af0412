"""What exists twice on IVCAP though it was to be made once: by two journals, or by one that was deleted or damaged.

An order bears its key in its name, an upload in the statement of its content, and idempotency records name what each
journal made. An aspect bears no key and is known by its content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.errors import ForbiddenError, NotFoundError
from ivcap_flows.identity import CONTENT_SCHEMA, INTENT_SCHEMA, fingerprint, short_id, without_key
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import DONE
from ivcap_flows.loop import all_of
from ivcap_flows.work.kinds import LOOKED_AT, ORDERS

__all__ = ["ByKey", "Duplicate", "duplicates_on_ivcap", "note_duplicates", "records_of"]

ASPECTS_LOOKED_AT: Final = 50
"""The newest aspects that a journal has added, for each of which the platform is asked for equal ones."""

_NEXT: Final = {
    "order": "Each is whole and was paid for, and IVCAP cancels none: use one.",
    "job": "Each is whole and was paid for, and IVCAP cancels none: use one.",
    "upload": "Each is whole, and IVCAP deletes none: use one.",
}
_RETRACT: Final = "Another journal may have added it, or somebody meant it; retract_aspect takes back one too many."


@dataclass(frozen=True)
class Duplicate:
    """Effects of which there should be one: `sure` where they bear one key, otherwise they are equal.

    `urns` are in the order of their making, as far as it is known, each with the journal that made it, if known.
    """

    noun: str
    subject: str | None
    key: str
    urns: Mapping[str, str | None]
    next_step: str
    sure: bool = True

    def __str__(self) -> str:
        made = [urn if journal is None else f"{urn} (by {journal})" for urn, journal in self.urns.items()]
        of = "" if self.subject is None else f" for {self.subject}"
        begin = "made twice" if self.sure else "may be made twice"
        return f"{begin}: {self.noun}{of} ({short_id(self.key)}): {', '.join(made)}. {self.next_step}"


@dataclass
class _Group:
    noun: str
    subject: str | None
    key: str
    urns: dict[str, str | None] = field(default_factory=dict)


class ByKey:
    """Effects seen on a platform, by the key that each bears."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._groups: dict[str, _Group] = {}

    def add(self, key: str, urn: str, noun: str, subject: str | None, journal_id: str | None = None) -> None:
        """One more, or one more witness of one that is known; `key` may be the short one, which an order's name has."""
        group = self._groups.setdefault(short_id(key), _Group(noun, subject, key))
        made_by = None if journal_id is None else f"journal {journal_id}"
        group.urns[urn] = group.urns.get(urn) or ("this journal" if journal_id == self._journal.id else made_by)

    def several(self, noun: str) -> Iterator[_Group]:
        """The effects of a kind of which there are several under one key; those that turn out to be none may be
        taken out."""
        return (group for group in self._groups.values() if group.noun == noun and len(group.urns) > 1)

    def duplicates(self, next_steps: Mapping[str, str]) -> list[Duplicate]:
        """Those of which there are several under one key. Reads the journal."""
        found = []
        for group in self._groups.values():
            if len(group.urns) > 1:
                urns = {urn: by or self._here(urn) for urn, by in group.urns.items()}
                step = next_steps.get(group.noun, "Each is whole: use one.")
                found.append(Duplicate(group.noun, group.subject, group.key, urns, step))
        return found

    def _here(self, urn: str) -> str | None:
        return "this journal" if self._journal.intents.where(urn=urn, limit=1) else None


async def records_of(client: IvcapClient) -> list[AspectRecord]:
    """The newest idempotency records of the account, the oldest first; none where they may not be read."""
    with suppress(ForbiddenError):
        return [record async for record in client.aspects.list(schema=INTENT_SCHEMA, limit=LOOKED_AT)][::-1]
    return []


async def duplicates_on_ivcap(
    client: IvcapClient, journal: Journal, records: Sequence[AspectRecord]
) -> tuple[list[Duplicate], str]:
    """Orders, jobs, uploads and aspects that exist twice, and what was looked at to find them.

    `records` are the account's idempotency records, of which the first under a key is the oldest.
    """
    seen = ByKey(journal)
    for record in records:
        content = record.content
        if isinstance(content, Mapping) and isinstance(content.get("urn"), str):
            key = content.get("key") or record.entity.rpartition(":")[2]
            seen.add(key, content["urn"], str(content.get("noun")), content.get("subject"), content.get("journal"))
    _, _, alike = await asyncio.gather(_orders(client, seen), _uploads(client, seen), _aspects(client, journal))
    sure = await journal.ask(seen.duplicates, _NEXT)
    looked_at = (
        f"the newest {LOOKED_AT} idempotency records, orders, and statements of uploaded contents of the account, and "
        f"the newest {ASPECTS_LOOKED_AT} aspects of this journal"
    )
    return [*sure, *alike], looked_at


async def _orders(client: IvcapClient, seen: ByKey) -> None:
    for order in [order async for order in ORDERS.newest(client)][::-1]:
        key = ORDERS.key(order)
        if key is not None:
            seen.add(key, order.urn, "order", without_key(order.name) or None)


async def _uploads(client: IvcapClient, seen: ByKey) -> None:
    try:
        listed = client.aspects.list(schema=CONTENT_SCHEMA, limit=LOOKED_AT)
        for record in [record async for record in listed][::-1]:
            key = record.content.get("key") if isinstance(record.content, Mapping) else None
            if isinstance(key, str):
                seen.add(key, record.entity, "upload", None)
    except ForbiddenError:
        return
    for group in seen.several("upload"):
        for urn in list(group.urns):
            # One that lacks bytes is no second one; it is named as unfinished.
            with suppress(NotFoundError):
                if not (await client.artifacts.read(urn)).ready:
                    del group.urns[urn]


async def _aspects(client: IvcapClient, journal: Journal) -> list[Duplicate]:
    """The journal's newest aspects that equal another active one which no key of the journal claims."""
    platform, account = await client.platform(), await client.account()
    rows = await journal.ask(_added, journal, platform, account)
    like = await all_of(lambda row: _like(client, journal, row, account), rows)
    return [found for found in like if found is not None]


def _added(journal: Journal, platform: str, account: str) -> list[IntentRow]:
    rows = journal.intents.where(noun="aspect", newest=True, limit=ASPECTS_LOOKED_AT)
    return [row for row in rows if row.state in DONE and (row.platform, row.account) == (platform, account)]


async def _like(client: IvcapClient, journal: Journal, row: IntentRow, account: str) -> Duplicate | None:
    request: Mapping[str, Any] = row.request
    redaction, wanted = journal.redaction, fingerprint(request["content"])
    listed = client.aspects.list(entity=request["entity"], schema=request["schema"], order_direction="ASC")
    alike = [record.urn async for record in listed if fingerprint(redaction.of(record.content)) == wanted]
    if row.urn not in alike:
        # It was retracted since.
        return None
    claimed = await journal.ask(journal.intents.claimed_by_others, row.key, alike)
    others = [urn for urn in alike if urn != row.urn and urn not in claimed]
    # What somebody else stated is none of ours; lists do not tell whose it is.
    others = [urn for urn in others if (await client.aspects.read(urn)).account in (None, account)]
    if not others:
        return None
    urns = {urn: "this journal" if urn == row.urn else None for urn in alike if urn == row.urn or urn in others}
    return Duplicate("aspect", str(request["schema"]), row.key, urns, _RETRACT, sure=False)


def note_duplicates(journal: Journal, found: Sequence[Duplicate]) -> None:
    """Keep in the journal, where it knows one of them, that there are others."""
    for each in found:
        for urn in each.urns:
            for row in journal.intents.where(urn=urn, limit=None):
                others = [other for other in each.urns if other != urn and other not in row.duplicates]
                if short_id(row.key) == short_id(each.key) and row.state in DONE and others:
                    journal.intents.note_duplicates(row.key, others)
