"""Idempotency records on IVCAP, found by exact entity and schema: the only look-up that every platform serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ivcap_flows.errors import BadRequestError, ForbiddenError, InvalidParameterError, NotUniqueError
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, same_claim, same_intent
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects

__all__ = ["IdempotencyRecords", "having"]

LOOKED_AT: Final = 500
"""Number of idempotency records to read if the platform cannot filter them by content."""
_ANNOUNCED: Final = timedelta(hours=1)
"""Within it, whatever a record announces is requested, or not at all."""
_OF_A_CLAIM: Final = frozenset({"send", "supersedes"})
"""Fields that an outcome has in its own way, or not at all."""


async def having(aspects: Aspects, member: str, value: str) -> AsyncIterator[AspectRecord]:
    """Yield the active idempotency records with a member of this value, newest first.

    Where the platform does not select by content, these are the newest `LOOKED_AT` of all: look at the member.
    """
    path = f"$.{json.dumps(member)} ? (@ == {json.dumps(value)})"
    try:
        async for record in aspects.list(schema=INTENT_SCHEMA, content_path=path):
            yield record
    except (BadRequestError, InvalidParameterError):
        async for record in aspects.list(schema=INTENT_SCHEMA, limit=LOOKED_AT):
            yield record


class IdempotencyRecords:
    """Records at `urn:ivcap-flows:key:<hash>` under `urn:ivcap-flows:schema:intent.1`, one for each intent.

    A record that names an effect stays. One that names none, a claim, gives way only to the outcome of the same intent.
    So what was ever found under a key is found again, whatever becomes of the journals.

    Only those of the own account count: anybody may open a record to all that names an effect of their own. Create an
    object for each call: it remembers what it last read, and whose that is, so a write after a read takes fewer
    requests.

    `shows_within` is the number of seconds within which the platform lists a record that it has accepted. Whoever
    writes one looks for it that long, then goes on without it.
    """

    def __init__(self, aspects: Aspects, account: str, shows_within: float) -> None:
        self._aspects = aspects
        self._account = account
        self.shows_within = shows_within
        self._lists_at_once = False
        self._own: set[str] = set()
        self._read: dict[str, list[AspectRecord]] = {}

    async def read(self, key: str) -> list[dict[str, Any]]:
        """Return the contents of the active records, oldest first."""
        return _contents(await self._active(key_entity(key)))

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
        """Add a record unless those that are there say as much. Return the contents of all afterwards, oldest first.

        Set `first` if nothing is known to be there: then the records are read only after the write. A record bears its
        claim, so two copies of one, after a lost reply, say no more than one: the writes are idempotent.
        """
        entity = key_entity(key)
        if first:
            self._read[entity] = []
        return _contents(await self._write(entity, content))

    async def asserted_at(self, key: str) -> datetime | None:
        """Return when the platform accepted the oldest record, by its own clock.

        None if there is no record or it may not be read.
        """
        try:
            return next((record.valid_from for record in await self._active(key_entity(key))), None)
        except ForbiddenError:
            return None

    async def equal(self, key: str, noun: str, request_sha256: str) -> list[dict[str, Any]] | None:
        """Return the contents of the active records of an equal request, under any key, newest first.

        Those that were written an hour before the oldest record under `key` are left out: what is announced is
        requested within minutes. None if the platform does not select by content, and its newest `LOOKED_AT` records
        are younger than that oldest one.
        """
        entity = key_entity(key)
        own = self._read.get(entity) or await self._active(entity)
        claimed = min((record.valid_from for record in own if record.valid_from is not None), default=None)
        found, read, whole = [], 0, claimed is None
        async for record in having(self._aspects, "request-sha256", request_sha256):
            read += 1
            content = _content(record)
            if claimed is not None and record.valid_from is not None:
                whole = whole or record.valid_from <= claimed
                if record.valid_from < claimed - _ANNOUNCED:
                    break
            if content.get("request-sha256") == request_sha256 and content.get("noun") == noun and "key" in content:
                found.append(record)
        if read == LOOKED_AT and not whole:
            return None
        unknown = [record for record in found if record.urn not in self._own]
        self._own |= {record.urn for record in await self._aspects.of_account(self._account, unknown)}
        return _contents([record for record in found if record.urn in self._own])

    async def _write(self, entity: str, content: dict[str, Any]) -> list[AspectRecord]:
        """Write once, and return the records that exist afterwards."""
        there = self._read.pop(entity, None)
        if there is None:
            there = await self._active(entity)
        says_enough = _says_enough([_content(record) for record in there], content)
        gone = [record for record in there if _gives_way(_content(record), content)]
        for record in gone:
            content = {**_unknown(_content(record), content), **content}
        if gone and not says_enough and not self._lists_at_once:
            # Where lists may lag, nothing is taken away before what follows it shows.
            await self._aspects.add(entity, INTENT_SCHEMA, content, repeat="idempotent")
            return await self._active(entity)
        if len(there) == len(gone) == 1:
            # One request, and the platform itself reports if another journal added a record in between.
            try:
                urn = await self._aspects.update(entity, INTENT_SCHEMA, content, repeat="idempotent")
                return [self._written(urn, entity, content)]
            except NotUniqueError:
                there = await self._active(entity)
                says_enough = _says_enough([_content(record) for record in there], content)
        if not says_enough:
            urn = await self._aspects.add(entity, INTENT_SCHEMA, content, repeat="idempotent")
            # Of two journals that write at the same time, at least one sees the other's record.
            there = await self._with(self._written(urn, entity, content))
        # Retract last: if the process ends in between, two records remain rather than none.
        gone = [record for record in there if _gives_way(_content(record), content)]
        for record in gone:
            await self._aspects.retract(record.urn)
        return [record for record in there if record not in gone]

    async def _with(self, written: AspectRecord) -> list[AspectRecord]:
        """Return the records once they show the one that was just written, or what there is after `shows_within`.

        A list without it may lack those of others, too.
        """
        end = asyncio.get_running_loop().time() + self.shows_within
        pauses, self._lists_at_once = Pauses(0.1, 1.0), True
        while True:
            there = await self._active(written.entity)
            left = end - asyncio.get_running_loop().time()
            if left <= 0 or any(record.urn == written.urn for record in there):
                return there
            self._lists_at_once = False
            await pauses.sleep(left)

    async def _active(self, entity: str) -> list[AspectRecord]:
        # In the platform's own order: it may know more of a time than the seconds that it shows.
        records = self._aspects.list(entity=entity, schema=INTENT_SCHEMA, order_direction="ASC")
        listed = [record async for record in records]
        unknown = [record for record in listed if record.urn not in self._own]
        self._own |= {record.urn for record in await self._aspects.of_account(self._account, unknown)}
        found = [record for record in listed if record.urn in self._own]
        self._read[entity] = found
        return found

    def _written(self, urn: str, entity: str, content: dict[str, Any]) -> AspectRecord:
        record = AspectRecord(id=urn, entity=entity, schema=INTENT_SCHEMA, content=content)
        self._own.add(record.urn)
        return record


def _gives_way(record: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Return whether a record is replaced or retracted when `content` is written: only a claim, by its own outcome."""
    return record.get("urn") is None and content.get("urn") is not None and same_intent(record, content)


def _says_enough(there: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> bool:
    """Return whether the records that are there leave nothing to add.

    A claim says nothing beside a record that names an effect, unless it supersedes that, or beside itself; an outcome
    nothing beside one that names the same effect.
    """
    urn, superseded = content.get("urn"), (None, *content.get("supersedes", ()))
    if urn is None:
        return any(record.get("urn") not in superseded or same_claim(record, content) for record in there)
    return any(record.get("urn") == urn for record in there)


def _unknown(record: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a claim that only newer code knows: the outcome that takes its place keeps them."""
    return {name: value for name, value in record.items() if name not in content and name not in _OF_A_CLAIM}


def _content(record: AspectRecord) -> Mapping[str, Any]:
    return record.content if isinstance(record.content, dict) else {}


def _contents(records: list[AspectRecord]) -> list[dict[str, Any]]:
    return [dict(record.content) for record in records if isinstance(record.content, dict)]
