"""Tables of the effects that runs requested, for `show` and `orders`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ivcap_flows.cli.output import brief, console, table
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import scrub
from ivcap_flows.work.kinds import KINDS

__all__ = ["ASPECTS", "ON_PROVENA", "as_json", "given", "print_effects", "subject"]

ASPECTS: Final = ("aspect", "aspect update")
ON_PROVENA: Final = ("model run", "registry item", "item version", "dataset")
_INNER: Final = frozenset({"token", "fence", "process_id", "base_key", "progress"})
"""Columns that only the journal itself uses."""
_SHOWN: Final = 100
"""Characters of the parameters that a table shows at most."""


def as_json(row: IntentRow) -> dict[str, Any]:
    """Return all that is known of an effect, without secrets."""
    shown: dict[str, Any] = scrub({name: value for name, value in vars(row).items() if name not in _INNER})
    return shown


def given(noun: str, request: Any) -> str:
    """Return the parameters of an order, the request of a job, or the entity of an aspect, as one short text."""
    if not isinstance(request, Mapping):
        return ""
    values = request.get(KINDS[noun].request_field) if noun in KINDS else None
    if noun in ASPECTS:
        values = {"entity": request.get("entity")}
    if not isinstance(values, Mapping):
        return ""
    words = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in scrub(dict(values)).items()
    )
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"


def subject(noun: str, known: str | None, request: Any) -> str:
    """Return what an effect is of: the journal's subject, or the schema of an aspect."""
    if not known and noun in ASPECTS and isinstance(request, Mapping):
        return str(request.get("schema") or "")
    return known or ""


def print_effects(title: str, rows: Sequence[IntentRow], *, full: bool) -> None:
    """Print a table of effects, then a line for each that was found twice on its platform.

    There is a column for the account only if one platform was used with several accounts, and one for the run only if
    there are several. The embedded IVCAP and Provena, which have one name, are two platforms.
    """
    places = {(row.platform, row.noun in ON_PROVENA, row.account) for row in rows}
    accounts = len(places) > len({place[:2] for place in places})
    runs = len({row.run_id for row in rows}) > 1
    table(
        title,
        ("what", "name", "of", "state", "how", "urn", "account", "asked", "run", "key", "given"),
        [
            (
                row.noun,
                row.name,
                subject(row.noun, row.subject, row.request),
                row.standing,
                row.how,
                brief(row.urn, full=full) if row.urn else row.error,
                row.account if accounts else "",
                row.created_at,
                short_run(row.run_id or "") if runs else "",
                short_id(row.key),
                given(row.noun, row.request),
            )
            for row in rows
        ],
        full=full,
    )
    for row in rows:
        if row.duplicates:
            console.print(f"{row.urn}: also found under its key: {', '.join(row.duplicates)}", style="red")
