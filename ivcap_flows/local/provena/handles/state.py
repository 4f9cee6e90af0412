"""Handles and their values."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from ivcap_flows.local.provena.store import Store

__all__ = ["Handles"]


class Handles:
    """The handles that the id-service itself minted."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def mint(self, type: str, value: str) -> dict[str, Any]:  # noqa: A002 - the wire's own word
        """Create a handle with one value."""
        handle = self._store.new_handle()
        self._put(handle, 1, type, value)
        return self.get(handle)

    def get(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return a handle with its values. Raises a 500 refusal if there is none, as the service behind replies."""
        rows = self._store.rows("SELECT * FROM handle_values WHERE id=? ORDER BY position", id)
        if not rows:
            raise HTTPException(500, f"The handle service does not know {id}.")
        values = [{"type": row["type"], "value": row["value"], "index": row["position"]} for row in rows]
        return {"id": id, "properties": values}

    def add(self, id: str, type: str, value: str, index: int | None = None) -> dict[str, Any]:  # noqa: A002
        """Add a value, at the next index or a given one."""
        taken = {part["index"] for part in self.get(id)["properties"]}
        index = max(taken) + 1 if index is None else _index(index)
        if index in taken:
            raise HTTPException(500, f"The handle {id} already has a value at {index}.")
        self._put(id, index, type, value)
        return self.get(id)

    def modify(self, id: str, index: int, value: str) -> dict[str, Any]:  # noqa: A002
        """Change a value."""
        where = (id, _index(index))
        changed = self._store.run("UPDATE handle_values SET value=? WHERE id=? AND position=?", value, *where)
        return self._shown(id, index, changed)

    def remove(self, id: str, index: int) -> dict[str, Any]:  # noqa: A002
        """Remove a value, but not the last one."""
        if len(self.get(id)["properties"]) == 1:
            raise HTTPException(500, f"The handle {id} has to keep one value.")
        removed = self._store.run("DELETE FROM handle_values WHERE id=? AND position=?", id, _index(index))
        return self._shown(id, index, removed)

    def _put(self, id: str, index: int, type: str, value: str) -> None:  # noqa: A002
        self._store.run("INSERT INTO handle_values VALUES (?, ?, ?, ?)", id, index, type, value)

    def _shown(self, id: str, index: int, changed: int) -> dict[str, Any]:  # noqa: A002
        if not changed:
            raise HTTPException(500, f"The handle {id} has no value at {index}.")
        return self.get(id)


def _index(number: int) -> int:
    """Check the index of a handle's value (RFC 3651: 32 bits). Raises a 500 refusal."""
    if not 0 < number < 2**31:
        raise HTTPException(500, f"{number} is no index of a value.")
    return number
