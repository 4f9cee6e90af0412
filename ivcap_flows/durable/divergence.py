"""Divergence: a replayed flow should make the requests that it made before. `once` keeps values that would change."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from ivcap_flows.errors import InputError
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.secrets import logger_of, scrub_alone

__all__ = ["aonce", "once", "warn_of_divergence"]

T = TypeVar("T")

logger = logger_of("ivcap_flows.durable")

_warned: deque[tuple[str | None, int, str | None]] = deque(maxlen=1_000)


async def warn_of_divergence(journal: Journal, wanted: NewIntent) -> None:
    """Compare a request that the run never made with what earlier attempts requested on the same subject.

    If the present attempt has not requested all of that yet, log a warning, once for each subject and attempt: perhaps
    the request replaces one of these, perhaps they are still to come, since a replay may ask in another order.

    An effect of scope account, such as an upload, replaces no request of the run, so it is not compared.
    """
    bound = wanted.subject is not None and wanted.scope.startswith(("run:", "flow:"))
    if wanted.run_id is None or wanted.attempt_number < 2 or not bound:
        return
    earlier = await journal.ask(journal.intents.unasked, wanted)
    if not earlier:
        return
    place = wanted.run_id, wanted.attempt_number, wanted.subject
    if place not in _warned:
        _warned.append(place)
        told = _side_by_side(wanted, earlier)
        logger.warning("%s\nWhat it does not ask for again was paid for in vain. %s", told, _WAYS)


def once(name: str, fn: Callable[[], T], *, journal: Journal, run_id: str) -> T:
    """Return the value of `fn` as the run recorded it; compute and record it if there is none yet.

    The value is always the one read back from JSON. Raise InputError if the value cannot be JSON or contains a secret.
    """
    recorded = journal.once.get(run_id, name)
    if recorded is None:
        recorded = journal.once.keep(run_id, name, _dump(name, fn()))
    value: T = json.loads(recorded)
    return value


async def aonce(name: str, fn: Callable[[], Awaitable[T]], *, journal: Journal, run_id: str) -> T:
    """Do what `once` does, for an asynchronous function."""
    recorded = await journal.ask(journal.once.get, run_id, name)
    if recorded is None:
        recorded = await journal.ask(journal.once.keep, run_id, name, _dump(name, await fn()))
    value: T = json.loads(recorded)
    return value


def _dump(name: str, value: Any) -> str:
    try:
        said = json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"The value of once({name!r}, …) cannot be recorded as JSON: {error}.") from error
    if scrub_alone({name: json.loads(said)}) != {name: json.loads(said)}:
        raise InputError(
            f"The value of once({name!r}, …) holds a secret, and would be kept as it is for later attempts. Get the "
            "secret in each attempt, for instance with `get_secret`, or keep its name."
        )
    return said


_WAYS: Final = (
    "Record what changes with each attempt (a time, a random number, a listing) with once(name, fn), or start afresh "
    "with IVCAP_FLOWS_FRESH=1."
)


def _side_by_side(wanted: NewIntent, earlier: Sequence[IntentRow]) -> str:
    lines = [
        f"The flow asks for what its earlier attempts did not ask for ({wanted.noun} for {wanted.subject}), while "
        f"{len(earlier)} of theirs go unasked so far.",
        f"  now:     {_short(wanted.request)}",
        *(f"  earlier: {_short(row.request)} ({row.urn or row.state})" for row in earlier[:5]),
    ]
    return "\n".join(lines)


def _short(request: Any) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 1000 else text[:1000] + "…"
