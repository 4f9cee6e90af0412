"""Idempotency records on IVCAP, found by exact entity and schema: the only look-up that every platform serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from ivcap_flows.errors import ForbiddenError, NotUniqueError, PlatformError
from ivcap_flows.identity import INTENT_SCHEMA, fingerprint, key_entity
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects

__all__ = ["IdempotencyRecords"]

TRIES: Final = 4
FRESH: Final = 1.0
"""Seconds for which an entity that had no records is assumed to have none still."""


class IdempotencyRecords:
    """Records at `urn:ivcap-flows:key:<hash>` under `urn:ivcap-flows:schema:intent.1`, one for each journal.

    Only those of the own account count: anybody may open a record to all that names an effect of their own. Create an
    object for each call: it remembers what it last read, and whose that is, so a write soon after a read takes one
    request.
    """

    def __init__(self, aspects: Aspects, account: str) -> None:
        self._aspects = aspects
        self._account = account
        self._own: set[str] = set()
        self._read: dict[str, tuple[float, list[AspectRecord] | None]] = {}

    async def read(self, key: str) -> dict[str, Any] | None:
        """Return the content of the active record that says most; None if there is none.

        That is the oldest record that names an effect, else the oldest of all.
        """
        contents = _contents(await self._active(key_entity(key)))
        named = (content for content in contents if content.get("urn") is not None)
        return next(named, next(iter(contents), None))

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> Sequence[dict[str, Any]]:
        """Add or replace this journal's record; return the contents of other journals' records.

        Only records that had to be read are returned. If a reply is lost, the records are read and written again. Set
        `first` if this journal has no record as far as it knows.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        entity = key_entity(key)
        if first:
            self._read[entity] = (time.monotonic(), [])
        again = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, PlatformError) and error.retryable),
            wait=wait_random_exponential(multiplier=0.5, max=2.0),
            stop=stop_after_attempt(TRIES),
            reraise=True,
        )

        async def once() -> list[AspectRecord]:
            try:
                return await self._write(entity, content)
            except PlatformError:
                # What was read before a reply was lost may not hold any more.
                self._read.pop(entity, None)
                raise

        records: list[AspectRecord] = await again(once)
        return [one for one in _contents(records) if one.get("journal") != content["journal"]]

    async def asserted_at(self, key: str) -> datetime | None:
        """Return when the platform accepted the oldest record, by its own clock.

        None if there is no record or it may not be read.
        """
        try:
            return next((record.valid_from for record in await self._active(key_entity(key))), None)
        except ForbiddenError:
            return None

    async def _write(self, entity: str, content: dict[str, Any]) -> list[AspectRecord]:
        """Write once, and return the records that exist afterwards."""
        read_at, there = self._read.pop(entity, (0.0, None))
        # If we have no record to replace, the platform cannot report that another journal added one in between.
        if there is None or (not there and time.monotonic() - read_at > FRESH):
            there = await self._active(entity)
        mine = [record for record in there if _journal(record) == content["journal"]]
        named = content.get("urn") is not None and any(_urn(r) == content["urn"] for r in there if r not in mine)
        if named:
            # Another journal's record names the same effect already.
            for record in mine:
                await self._aspects.retract(record.urn)
            return [record for record in there if record not in mine]
        alike = [record for record in mine if _urn(record) == content.get("urn")]
        same = [record for record in alike if fingerprint(record.content) == fingerprint(content)]
        if len(mine) == len(there) == 1 and not same:
            # One request, and the platform itself reports if another journal added a record in between.
            try:
                return [self._written(await self._aspects.update(entity, INTENT_SCHEMA, content), entity, content)]
            except NotUniqueError:
                there = await self._active(entity)
                mine = [record for record in there if _journal(record) == content["journal"]]
        if not same:
            urn = await self._aspects.add(entity, INTENT_SCHEMA, content)
            # If two journals replace their records at the same time, the later one must see the earlier one's.
            written = self._written(urn, entity, content)
            there = await self._active(entity) if mine else [*there, written]
        # Retract last: if the process ends in between, two records remain rather than none.
        gone = [record for record in mine if record not in same[:1]]
        for record in gone:
            await self._aspects.retract(record.urn)
        return [record for record in there if record not in gone]

    async def _active(self, entity: str) -> list[AspectRecord]:
        records = self._aspects.list(entity=entity, schema=INTENT_SCHEMA, order_direction="ASC")
        listed = [record async for record in records]
        unknown = [record for record in listed if record.urn not in self._own]
        self._own |= {record.urn for record in await self._aspects.of_account(self._account, unknown)}
        found = [record for record in listed if record.urn in self._own]
        self._read[entity] = (time.monotonic(), found)
        return found

    def _written(self, urn: str, entity: str, content: dict[str, Any]) -> AspectRecord:
        record = AspectRecord(id=urn, entity=entity, schema=INTENT_SCHEMA, content=content)
        self._own.add(record.urn)
        return record


def _contents(records: list[AspectRecord]) -> list[dict[str, Any]]:
    return [dict(record.content) for record in records if isinstance(record.content, dict)]


def _journal(record: AspectRecord) -> Any:
    return record.content.get("journal") if isinstance(record.content, dict) else None


def _urn(record: AspectRecord) -> Any:
    return record.content.get("urn") if isinstance(record.content, dict) else None
