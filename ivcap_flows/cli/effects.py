"""What runs asked of the platforms, as `show` and `orders` print it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ivcap_flows.cli.output import console, moment, table
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import scrub

__all__ = ["as_json", "print_effects"]

_INNER: Final = frozenset({"token", "fence", "process_id", "base_key", "progress"})
"""How the journal guards an effect; of no use outside of it."""


def as_json(row: IntentRow) -> dict[str, Any]:
    """All that is known of an effect, without secrets."""
    shown: dict[str, Any] = scrub({name: value for name, value in vars(row).items() if name not in _INNER})
    return shown


def print_effects(title: str, rows: Sequence[IntentRow]) -> None:
    """A table, and a line for each effect that was found twice on the platform."""
    table(
        title,
        ("what", "of", "state", "how", "urn", "asked", "run", "key"),
        [
            (
                row.noun,
                row.subject or "",
                row.status or row.state,
                row.how or "",
                row.urn or row.error or "",
                moment(row.created_at),
                (row.run_id or "")[:8],
                short_id(row.key),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row.duplicates:
            console.print(f"{row.urn}: also found under its key: {', '.join(row.duplicates)}", style="red")
