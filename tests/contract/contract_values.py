"""Compares what the official IVCAP client read with what ours did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from ivcap_flows.ivcap.wire import Wire


def plain(value: Any, name: str = "") -> Any:
    """A record of ours, or one of the official client's as JSON, by the names of the wire; nulls left out."""
    if isinstance(value, Wire):
        named = {"schema" if field == "schema_urn" else field.replace("_", "-"): part for field, part in value}
        return {field: plain(part, field) for field, part in named.items() if part is not None}
    if isinstance(value, dict):
        return {field: plain(part, field) for field, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, str) and name.endswith(("-at", "-from", "-to")):
        value = datetime.fromisoformat(value)
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


def agree(theirs: dict[str, Any], record: Wire, *, unread: tuple[str, ...] = ()) -> None:
    """Each field of an object of the official client has the value that our record has; `unread` it never fills."""
    own = plain(record)
    found = {name.replace("_", "-"): part for name, part in theirs.items() if name not in unread}
    assert plain(found) == {name: own.get(name) for name in found}


async def gather(records: AsyncIterator[Any]) -> list[Any]:
    return [record async for record in records]
