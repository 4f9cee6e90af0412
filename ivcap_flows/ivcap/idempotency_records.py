"""Idempotency records on IVCAP: an exact (entity, schema) is the one look-up that the platform serves for certain."""

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
"""Seconds for which an entity without records is taken to have none."""


class IdempotencyRecords:
    """Records at `urn:ivcap-flows:key:<hash>` under `urn:ivcap-flows:schema:intent.1`, one for each journal.

    For one call: it keeps what it read last, so that a write soon after a read costs one request.
    """

    def __init__(self, aspects: Aspects) -> None:
        self._aspects = aspects
        self._read: dict[str, tuple[float, list[AspectRecord] | None]] = {}

    async def read(self, key: str) -> dict[str, Any] | None:
        """The content of the oldest active record that names an effect, else of the oldest that has begun one, else of
        the oldest; None if there is none."""
        contents = _contents(await self._active(key_entity(key)))
        for has in ("urn", "progress"):
            if any(content.get(has) is not None for content in contents):
                return next(content for content in contents if content.get(has) is not None)
        return next(iter(contents), None)

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> Sequence[dict[str, Any]]:
        """Add this journal's record, or replace it; what other journals say, as far as it came to be known.

        A lost reply is answered by looking and writing again. `first`: this journal has none, as far as it knows.
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
        """When the platform took the oldest record, by its own clock; None without one or where it may not be read."""
        try:
            return next((record.valid_from for record in await self._active(key_entity(key))), None)
        except ForbiddenError:
            return None

    async def _write(self, entity: str, content: dict[str, Any]) -> list[AspectRecord]:
        """Write once; the records there are then."""
        read_at, there = self._read.pop(entity, (0.0, None))
        # Where nothing of ours is there, the platform cannot tell of another's that has come in between.
        if there is None or (not there and time.monotonic() - read_at > FRESH):
            there = await self._active(entity)
        mine = [record for record in there if _journal(record) == content["journal"]]
        named = content.get("urn") is not None and any(_urn(r) == content["urn"] for r in there if r not in mine)
        if named:
            # Another journal's record says it already.
            for record in mine:
                await self._aspects.retract(record.urn)
            return [record for record in there if record not in mine]
        alike = [record for record in mine if _urn(record) == content.get("urn")]
        same = [record for record in alike if fingerprint(record.content) == fingerprint(content)]
        if len(mine) == len(there) == 1 and not same:
            # One request, and the platform itself tells when another journal has come in between.
            try:
                return [_record(await self._aspects.update(entity, INTENT_SCHEMA, content), entity, content)]
            except NotUniqueError:
                there = await self._active(entity)
                mine = [record for record in there if _journal(record) == content["journal"]]
        if not same:
            urn = await self._aspects.add(entity, INTENT_SCHEMA, content)
            # Of two journals that replace their records at once, the later one must see the earlier one's.
            there = await self._active(entity) if mine else [*there, _record(urn, entity, content)]
        # Retracting last leaves two records rather than none where the process ends in between.
        gone = [record for record in mine if record not in same[:1]]
        for record in gone:
            await self._aspects.retract(record.urn)
        return [record for record in there if record not in gone]

    async def _active(self, entity: str) -> list[AspectRecord]:
        records = self._aspects.list(entity=entity, schema=INTENT_SCHEMA, order_direction="ASC")
        found = [record async for record in records]
        self._read[entity] = (time.monotonic(), found)
        return found


def _contents(records: list[AspectRecord]) -> list[dict[str, Any]]:
    return [dict(record.content) for record in records if isinstance(record.content, dict)]


def _journal(record: AspectRecord) -> Any:
    return record.content.get("journal") if isinstance(record.content, dict) else None


def _urn(record: AspectRecord) -> Any:
    return record.content.get("urn") if isinstance(record.content, dict) else None


def _record(urn: str, entity: str, content: dict[str, Any]) -> AspectRecord:
    return AspectRecord(id=urn, entity=entity, schema=INTENT_SCHEMA, content=content)
