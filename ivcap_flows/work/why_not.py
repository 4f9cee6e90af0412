"""Explain why an order or job was placed although there are earlier ones: how each of them differs. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.identity import short_run
from ivcap_flows.journal import IntentRow
from ivcap_flows.journal.rows import WRITTEN_OFF

__all__ = ["Against", "Difference", "against", "differences", "earlier_rows"]

SHOWN: Final = 5
_LONGEST: Final = 120
_MISSING: Final = "(nothing)"


@dataclass(frozen=True)
class Difference:
    """A path at which two requests differ, with the value in each."""

    where: str
    here: Any
    there: Any


@dataclass(frozen=True)
class Against:
    """An earlier order or job and the reasons why it cannot replace the one in question; without reasons, it can."""

    key: str | None
    urn: str | None
    status: str
    run: str | None
    reasons: list[str]
    differences: list[Difference]


def earlier_rows(row: IntentRow, rows: Iterable[IntentRow]) -> list[IntentRow]:
    """Return the `SHOWN` most similar earlier intents of the same service, most similar first, then newest first.

    `rows` are intents of the same noun as `row`.
    """
    others = [
        other
        for other in rows
        if other.key != row.key
        and other.created_at <= row.created_at
        and (other.platform, other.account) == (row.platform, row.account)
        and (other.subject == row.subject or _service(other) == _service(row))
    ]
    others.sort(key=lambda other: (len(differences(row.request, other.request)), -other.created_at.timestamp()))
    return others[:SHOWN]


def against(row: IntentRow, other: IntentRow) -> Against:
    """Compare `row` with an earlier intent and collect the reasons why the earlier one does not replace it."""
    found = differences(row.request, other.request)
    reasons = [*_of_content(row, other, found), *_of_state(other)]
    if not found:
        reasons += _of_key(row, other)
    return Against(other.key, other.urn, other.standing, other.run_id, reasons, found)


def _of_content(row: IntentRow, other: IntentRow, found: Sequence[Difference]) -> Iterator[str]:
    if found:
        yield f"its request differs in {len(found)} {'places' if len(found) > 1 else 'place'}"
    if None not in (row.definition, other.definition) and row.definition != other.definition:
        yield "the definition of the service has changed since"
    if other.definition is None:
        yield "the definition of its service was not recorded"


def _of_state(other: IntentRow) -> Iterator[str]:
    if other.state == "done" and not other.has_ended:
        yield "this journal does not know its end: it is still running, or no task waited for it"
    elif other.has_ended and other.status != "succeeded":
        yield f"it ended as {other.status}"
    elif other.state == "dropped":
        yield "it was written off" if other.error == WRITTEN_OFF else f"it had no effect: {other.error}"
    elif other.state != "done":
        yield "it is not known whether the platform has it"


def _of_key(row: IntentRow, other: IntentRow) -> Iterator[str]:
    """Say why two equal requests have different keys."""
    if other.base_key == row.base_key:
        yield f"it is generation {other.generation} of this request, resubmitted as generation {row.generation}"
        return
    if other.scope != row.scope:
        scopes = f"{_scope(other.scope)}, here {_scope(row.scope)}"
        yield f"its scope differs ({scopes}), so only reuse=True finds it"
    if other.discriminator != row.discriminator:
        yield f"its discriminator differs ({other.discriminator!r}, here {row.discriminator!r})"


def _scope(scope: str) -> str:
    kind, _, of = scope.partition(":")
    words: dict[str, str] = {"run": f"run {short_run(of)}", "flow": f"flow {of}", "call": "that call only"}
    return words.get(kind, kind)


def _service(row: IntentRow) -> Any:
    return row.request.get("service") if isinstance(row.request, dict) else None


def differences(here: Any, there: Any) -> list[Difference]:
    """Return where two requests differ, in the order of `here`.

    The journal stores digests in place of secrets, so two different secrets show as two different digests.
    """
    return list(_walk("", here, there))


def _walk(where: str, here: Any, there: Any) -> Iterator[Difference]:
    if isinstance(here, dict) and isinstance(there, dict):
        for name in [*here, *(name for name in there if name not in here)]:
            yield from _walk(f"{where}.{name}" if where else name, here.get(name, _MISSING), there.get(name, _MISSING))
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for place, (one, other) in enumerate(zip(here, there, strict=True)):
            yield from _walk(f"{where}[{place}]", one, other)
    elif here != there:
        yield Difference(where, _short(here), _short(there))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
