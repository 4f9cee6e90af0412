"""Key aspects on IVCAP: an exact (entity, schema) is the one look-up that the platform serves for certain."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final

from ivcap_flows.errors import ForbiddenError, PlatformError
from ivcap_flows.identity import INTENT_SCHEMA, fingerprint, key_entity
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects

__all__ = ["AspectKeys"]

TRIES: Final = 4


class AspectKeys:
    """Records at `urn:ivcap-flows:key:<hash>` under `urn:ivcap-flows:schema:intent.1`, one for each journal."""

    def __init__(self, aspects: Aspects) -> None:
        self._aspects = aspects

    async def read(self, key: str) -> dict[str, Any] | None:
        """The content of the oldest active record that names an effect, else of the oldest; None if there is none."""
        contents = [dict(r.content) for r in await self._active(key_entity(key)) if isinstance(r.content, dict)]
        named = [content for content in contents if content.get("urn") is not None]
        return next(iter(named or contents), None)

    async def write(self, key: str, content: dict[str, Any]) -> None:
        """Add this journal's record, or replace it. A lost reply is answered by looking and writing again."""
        for left in reversed(range(TRIES)):
            try:
                await self._write(key_entity(key), content)
            except PlatformError as error:
                if not (error.retryable and left):
                    raise
                await asyncio.sleep(0.5 * (TRIES - left))
            else:
                return

    async def asserted_at(self, key: str) -> datetime | None:
        """When the platform took the oldest record, by its own clock; None without one or where it may not be read."""
        try:
            return next((record.valid_from for record in await self._active(key_entity(key))), None)
        except ForbiddenError:
            return None

    async def _write(self, entity: str, content: dict[str, Any]) -> None:
        mine = [
            record
            for record in await self._active(entity)
            if isinstance(record.content, dict) and record.content.get("journal") == content["journal"]
        ]
        same = [record for record in mine if fingerprint(record.content) == fingerprint(content)]
        if not same:
            await self._aspects.add(entity, INTENT_SCHEMA, content)
        # Retracting last leaves two records rather than none where the process ends in between.
        for record in mine:
            if record not in same[:1]:
                await self._aspects.retract(record.urn)

    async def _active(self, entity: str) -> list[AspectRecord]:
        records = self._aspects.list(entity=entity, schema=INTENT_SCHEMA, order_direction="ASC")
        return [record async for record in records]
