"""Searches: load the aspects of a program, and answer it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap.access import readable
from ivcap_flows.local.ivcap.search.columns import Columns, to_json
from ivcap_flows.local.ivcap.search.datalog import MOST_ROWS, Plan
from ivcap_flows.local.ivcap.search.program import Program, ProgramError, Value, parse
from ivcap_flows.local.ivcap.thread import StateThread
from ivcap_flows.local.tokens import Principal

__all__ = ["Searches"]

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes of content that one search reads."""

Aspects = dict[str, list[sqlite3.Row]]


class Searches:
    """Answers one program at a time in its own thread. The state thread only reads the aspects for it."""

    def __init__(self, store: Store, state: StateThread) -> None:
        self._store, self._state = store, state
        self._thread = StateThread()

    async def answer(self, who: Principal, text: str, at: int) -> list[Any]:
        """Answer `query` from the aspects that the caller may read and that are valid at `at` (ms).

        An item is the value of a `query` with one term, else the list of its values. Raises ProgramError.
        """
        program = await self._thread.run(parse, text)
        aspects = await self._state.run(self._aspects, who, [load.schema for load in program.loads], at)
        return await self._thread.run(_answer, program, aspects)

    def close(self) -> None:
        self._thread.close()

    def _aspects(self, who: Principal, schemas: Sequence[str], at: int) -> Aspects:
        seen, values = readable(who)
        found: Aspects = {}
        left, size = MOST_ROWS, _MOST_BYTES
        for schema in dict.fromkeys(schemas):
            rows = self._store.execute(
                f"SELECT entity, content FROM aspects WHERE schema = ? AND {seen} AND valid_from <= ?"  # noqa: S608 - values are parameters
                " AND (valid_to IS NULL OR valid_to > ?) ORDER BY seq",
                (schema, *values, at, at),
            )
            kept = found[schema] = []
            for row in rows:
                left, size = left - 1, size - len(row["content"])
                if left < 0 or size < 0:
                    rows.close()
                    raise ProgramError(
                        f"The aspects to load are more than {MOST_ROWS}, or longer than {_MOST_BYTES} bytes together."
                    )
                kept.append(row)
        return found


def _answer(program: Program, aspects: Aspects) -> list[Any]:
    columns = [(load, Columns(load.columns)) for load in program.loads]
    widths: dict[str, int] = {}
    for load, shape in columns:
        if widths.setdefault(load.predicate, shape.width) != shape.width:
            raise ProgramError(
                f"{load.predicate} is loaded with {widths[load.predicate]} columns and with {shape.width}."
            )
    plan = Plan(program, widths)
    loaded: dict[str, list[tuple[Value, ...]]] = {}
    left = MOST_ROWS
    for load, shape in columns:
        rows = loaded.setdefault(load.predicate, [])
        for row in aspects[load.schema]:
            for made in shape.rows(row["entity"], json.loads(row["content"])):
                left -= 1
                if left < 0:
                    raise ProgramError(f"The aspects to load give more than {MOST_ROWS} rows.")
                rows.append(made)
    return [[to_json(value) for value in row] if len(row) != 1 else to_json(row[0]) for row in plan.answer(loaded)]
