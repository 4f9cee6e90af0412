"""The aspects of an account in virtual time, on which the package's own idempotency records are kept."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from ivcap_flows.errors import NotUniqueError, PlatformError, UnavailableError, UnreachableError
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords

if TYPE_CHECKING:
    from durable_platform import Platform

__all__ = ["ACCOUNT", "RECORD_FAULTS", "KeptRecord", "records_on"]

T = TypeVar("T")

ACCOUNT = "urn:acc"
SENDS = 4
"""How often a session sends a request within its time."""
RECORD_FAULTS: dict[str, tuple[bool, Callable[[], PlatformError]]] = {
    "503": (False, lambda: UnavailableError("busy", status=503)),
    "cut": (False, lambda: UnreachableError("the connection was cut", sent=True)),
    "lost": (True, lambda: UnreachableError("time-out", sent=True)),
    "late": (True, lambda: UnreachableError("time-out", sent=True)),
}
"""What befalls a request for a record: whether it takes effect, and what is answered. What is late shows later."""


@dataclass
class KeptRecord:
    """A record, and from when to when it shows."""

    record: AspectRecord
    shown: float
    gone: float = math.inf


class _Aspects:
    """`Aspects` as far as idempotency records use it. `platform.record_faults` befall its requests in turn."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._there = platform.account.records

    async def _request(self, said: str, act: Callable[[bool], T], *, reads: bool = False) -> T:
        """Let `act` happen at the platform, again after a fault: all requests for records are idempotent."""
        for _ in range(SENDS - 1):
            try:
                return await self._once(said, act, reads=reads)
            except PlatformError:
                await asyncio.sleep(0.5)
        return await self._once(said, act, reads=reads)

    async def _once(self, said: str, act: Callable[[bool], T], *, reads: bool) -> T:
        """Send once. `act` gets whether what it writes shows later."""
        platform = self._platform
        platform.asked.append(said)
        fault = platform.record_faults.pop(0) if platform.record_faults else ""
        takes_effect, error = RECORD_FAULTS.get(fault, (True, None))
        await platform.rest()
        await platform.travel()
        if not takes_effect and error is not None:
            raise error()
        done = act(fault == "late")
        if not reads:
            platform.step()
        if error is not None:
            raise error()
        await platform.rest()
        return done

    def _active(self, entity: str, *, ago: float = 0.0) -> list[AspectRecord]:
        seconds = self._platform.account.clock.seconds - ago
        found = [kept.record for kept in self._there.get(entity, []) if kept.shown <= seconds < kept.gone]
        return sorted(found, key=lambda record: record.valid_from)

    def _new(self, entity: str, schema: str, content: Any, *, hidden: bool) -> str:
        account = self._platform.account
        record = AspectRecord(
            id=f"urn:ivcap:aspect:{uuid.uuid4()}",
            entity=entity,
            schema=schema,
            content=content,
            **{"valid-from": account.time},
        )
        shown = account.clock.seconds + (1.0 if hidden else account.hides_new)
        self._there.setdefault(entity, []).append(KeptRecord(record, shown))
        return record.urn

    async def add(self, entity: str, schema: str, content: Any, *, repeat: Literal["idempotent"]) -> str:
        said = "claim" if content["urn"] is None else "outcome"
        return await self._request(said, lambda late: self._new(entity, schema, content, hidden=late))

    async def update(self, entity: str, schema: str, content: Any, *, repeat: Literal["idempotent"]) -> str:
        def replace(late: bool) -> str:
            if len(self._active(entity)) > 1:
                raise NotUniqueError("several are active", status=424)
            for record in self._active(entity):
                self._drop(record.urn)
            return self._new(entity, schema, content, hidden=late)

        return await self._request("claim" if content["urn"] is None else "outcome", replace)

    def _drop(self, urn: str) -> str:
        for records in self._there.values():
            for kept in records:
                if kept.record.urn == urn:
                    kept.gone = min(kept.gone, self._platform.account.clock.seconds)
        return urn

    async def retract(self, urn: str) -> None:
        await self._request("retract", lambda late: self._drop(urn))

    async def list(
        self, *, schema: str, entity: str = "", content_path: str = "", order_direction: str = "DESC"
    ) -> AsyncIterator[AspectRecord]:
        def found(late: bool) -> list[AspectRecord]:
            entities, ago = [entity] if entity else list(self._there), self._platform.lists_lag
            records = sorted((r for each in entities for r in self._active(each, ago=ago)), key=lambda r: r.valid_from)
            return records if order_direction == "ASC" else records[::-1]

        for record in await self._request("read" if entity else "select", found, reads=True):
            yield record

    async def of_account(self, account: str, records: Sequence[AspectRecord]) -> Sequence[AspectRecord]:
        return records


def records_on(platform: Platform) -> IdempotencyRecords:
    """Return the account's idempotency records as one call uses them."""
    return IdempotencyRecords(cast("Aspects", _Aspects(platform)), ACCOUNT, platform.shows_within)
