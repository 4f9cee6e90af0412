"""Divergence: a replayed flow should make the requests that it made before. `once` keeps values that would change."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from ivcap_flows.errors import InputError
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.secrets import logger_of, scrub_alone

__all__ = ["aonce", "once", "tell_of_divergence", "warn_of_what_was_left"]

T = TypeVar("T")

logger = logger_of("ivcap_flows.durable")

_told: deque[tuple[str | None, int, str | None]] = deque(maxlen=1_000)
_SHOWN: Final = 5
"""The maximum number of requests to show of each attempt."""


async def tell_of_divergence(journal: Journal, wanted: NewIntent) -> None:
    """Compare a request that the run never made with what earlier attempts requested on the same subject.

    If the present attempt has not requested all of that yet, log it, once for each subject and attempt: perhaps the
    request replaces one of these, perhaps they are still to come, since a replay may ask in another order. Only the end
    of the attempt shows which.

    An effect of scope account, such as an upload, replaces no request of the run, so it is not compared.
    """
    bound = wanted.subject is not None and wanted.scope.startswith(("run:", "flow:"))
    place = wanted.run_id, wanted.attempt_number, wanted.subject
    if wanted.run_id is None or wanted.attempt_number < 2 or not bound or place in _told:
        return
    unasked = await journal.ask(journal.intents.unasked, wanted.run_id, wanted.attempt_number)
    like = wanted.noun, wanted.subject
    earlier = [row for row in unasked if (row.noun, row.subject) == like and row.base_key != wanted.base_key]
    if earlier and place not in _told:
        _told.append(place)
        logger.info(
            "This attempt requests another %s for %s than the earlier attempts, of which %d %s not requested again so "
            "far.\n%s\n%s",
            wanted.noun,
            wanted.subject,
            len(earlier),
            "is" if len(earlier) == 1 else "are",
            _side_by_side([wanted], earlier),
            _WAYS,
        )


def warn_of_what_was_left(journal: Journal, run_id: str, attempt_number: int) -> None:
    """Log for each subject what a completed attempt requested in place of what earlier attempts had requested."""
    unasked = [row for row in journal.intents.unasked(run_id, attempt_number) if row.scope.startswith("run:")]
    if attempt_number < 2 or not unasked:
        return
    here = {each.id for each in journal.runs.attempts(run_id) if each.number == attempt_number}
    first = [row for row in journal.intents.where(run_id=run_id, limit=None) if not row.generation]
    for like in dict.fromkeys((row.noun, row.subject) for row in unasked):
        earlier = [row for row in unasked if (row.noun, row.subject) == like]
        instead = [row for row in first if row.attempt_id in here and (row.noun, row.subject) == like]
        if instead:
            logger.warning(
                "The run completed without requesting again what an earlier attempt requested (%s for %s), and "
                "requested other things.\n%s\nUnless a persisted result of a task stands for it, it was %s in vain. %s",
                *like,
                _side_by_side(instead, earlier),
                "paid for" if earlier[0].spends else "requested",
                _WAYS,
            )


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


def _side_by_side(instead: Sequence[NewIntent | IntentRow], earlier: Sequence[IntentRow]) -> str:
    return "\n".join(
        [
            *(f"  now:     {_short(each.request)}" for each in instead[:_SHOWN]),
            *(f"  earlier: {_short(row.request)} ({row.urn or row.state})" for row in earlier[:_SHOWN]),
        ]
    )


def _short(request: Any) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 1000 else text[:1000] + "…"
