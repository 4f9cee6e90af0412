"""Orders and jobs that equal an earlier one which has succeeded: what `reuse=True` would use, by the journal alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ivcap_flows.identity import fingerprint_for_reuse
from ivcap_flows.journal import IntentRow, Journal, NewIntent

__all__ = ["EarlierSuccesses", "in_words"]


class EarlierSuccesses:
    """The orders and jobs that other runs requested and that have succeeded. Reads those of each service once."""

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal, self._run_id = journal, run_id
        self._known: dict[tuple[str, ...], Mapping[str, tuple[str, datetime]]] = {}

    def equal_to(self, wanted: NewIntent | IntentRow) -> str | None:
        """Return the URN of the oldest of these with an equal request, by the law of `reuse=True`; None without.

        An intent that was made before it counts as the earlier one. What is no order or job has no definition.
        """
        if wanted.definition is None:
            return None
        of = {name: getattr(wanted, name) for name in ("platform", "account", "noun", "definition")}
        place = tuple(of.values())
        if place not in self._known:
            rows = self._journal.intents.succeeded(besides=self._run_id, **of)
            self._known[place] = {fingerprint_for_reuse(**of, request=row[0]): row[1:] for row in rows}
        urn, at = self._known[place].get(fingerprint_for_reuse(**of, request=wanted.request), (None, None))
        return None if isinstance(wanted, IntentRow) and at is not None and at > wanted.created_at else urn


def in_words(equal: int, new: int) -> str:
    """Return the sentences on how many of the new orders and jobs equal an earlier one; nothing for none."""
    if not equal:
        return ""
    return (
        f"{equal} of {new} new orders and jobs equal{'s' if equal == 1 else ''} an earlier one that has succeeded. "
        "With `reuse=True`, that is used instead of paying again."
    )
