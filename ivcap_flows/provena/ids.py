"""Handles of the ARDC handle service (id-service). Only administrators have its roles; items get handles automatically.

The service replies 500 to everything that the handle service behind it refuses, so no request is repeated after a 500.
UnavailableError may therefore also mean an unknown handle or index.
"""

from __future__ import annotations

from typing import Any, Literal

from ivcap_flows.provena.api import Api, members, parse
from ivcap_flows.provena.wire import Wire

__all__ = ["HandleRecord", "HandleValue", "IdsApi"]

ValueType = Literal["DESC", "URL"]


class HandleValue(Wire):
    """A value of a handle: a URL that the handle leads to, or a description (DESC). The index counts from 1."""

    type: str
    value: str
    index: int


class HandleRecord(Wire):
    """A handle such as `102.100.100/123456`, and its values."""

    id: str
    properties: list[HandleValue]


class IdsApi(Api):
    """Handles. Minting and adding are not idempotent: a second call makes a second one."""

    async def mint(self, type: ValueType, value: str) -> HandleRecord:  # noqa: A002 - the platform's own word
        """Create a handle with one value."""
        body = await self.call("POST", "/handle/mint", repeat="unsafe", json={"value_type": type, "value": value})
        return _record(body)

    async def get(self, id: str) -> HandleRecord:  # noqa: A002
        """Read a handle with its values."""
        return _record(await self.call("GET", "/handle/get", repeat="idempotent", params={"id": id}, final=(500,)))

    async def list(self) -> list[str]:
        """Return all handles."""
        body = await self.call("GET", "/handle/list", repeat="idempotent", final=(500,))
        return [str(handle) for handle in members(body, "ids", "list of handles")]

    async def add(self, id: str, type: ValueType, value: str) -> HandleRecord:  # noqa: A002
        """Add a value to a handle, at the next index."""
        wanted = {"id": id, "value_type": type, "value": value}
        return _record(await self.call("POST", "/handle/add_value", repeat="unsafe", json=wanted))

    async def add_at(self, id: str, index: int, type: ValueType, value: str) -> HandleRecord:  # noqa: A002
        """Add a value to a handle, at a free index."""
        wanted = {"id": id, "index": index, "value_type": type, "value": value}
        return _record(await self.call("POST", "/handle/add_value_by_index", repeat="keyed", json=wanted))

    async def modify(self, id: str, index: int, value: str) -> HandleRecord:  # noqa: A002
        """Replace the value at an index; its type stays."""
        wanted = {"id": id, "index": index, "value": value}
        path = "/handle/modify_by_index"
        return _record(await self.call("PUT", path, repeat="idempotent", json=wanted, final=(500,)))

    async def remove(self, id: str, index: int) -> HandleRecord:  # noqa: A002
        """Remove the value at an index."""
        wanted = {"id": id, "index": index}
        return _record(await self.call("POST", "/handle/remove_by_index", repeat="keyed", json=wanted))


def _record(body: dict[str, Any]) -> HandleRecord:
    return parse(HandleRecord, body, "handle")
