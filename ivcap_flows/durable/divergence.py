"""Divergence: a replayed flow must make the requests that it made before. `once` records values that would change."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from ivcap_flows.errors import DivergenceError, InputError
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.secrets import logger_of, scrub_alone

__all__ = ["OnDivergence", "aonce", "check_divergence", "once"]

T = TypeVar("T")

OnDivergence = Literal["raise", "new"]

logger = logger_of("ivcap_flows.durable")

GRACE: Final = 3.0
"""Seconds that concurrent tasks of the replay get to repeat their earlier requests."""


async def check_divergence(
    journal: Journal, wanted: NewIntent, on_divergence: OnDivergence, *, calls: float = 0
) -> None:
    """Check, before a request that the run never made, whether it replaces a request of an earlier attempt.

    Raise DivergenceError if `on_divergence` is "raise" and this attempt does not repeat an earlier attempt's request on
    the same subject. An effect of scope account, such as an upload, replaces no request of the run, so it is not
    checked.

    `calls` is the number of calls that the flow makes in any order, this one included, such as by a map; 0 if those
    before this one have come. As long as they are enough for all requests of the earlier attempt, these may come yet.
    """
    bound = wanted.subject is not None and wanted.scope.startswith(("run:", "flow:"))
    if wanted.run_id is None or wanted.attempt_number < 2 or not bound:
        return
    deadline = time.monotonic() + GRACE
    while earlier := await journal.ask(journal.intents.unasked, wanted):
        if on_divergence == "new":
            logger.warning(
                "The replayed flow asks for a new %s for %s; unasked so far from an earlier attempt: %s.",
                wanted.noun,
                wanted.subject,
                ", ".join(row.urn or row.key for row in earlier),
            )
            return
        due = len({row.base_key for row in earlier})
        if calls and calls > due + await journal.ask(journal.intents.asked, wanted):
            return
        if time.monotonic() > deadline:
            raise DivergenceError(
                _side_by_side(wanted, earlier),
                asked=wanted.request,
                earlier=[{"urn": row.urn, "request": row.request} for row in earlier],
            )
        await asyncio.sleep(0.1)


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


def _side_by_side(wanted: NewIntent, earlier: Sequence[IntentRow]) -> str:
    lines = [
        f"The replayed flow asks for a {wanted.noun} for {wanted.subject} that it did not ask for before, while an "
        "earlier one goes unasked. Nothing was sent.",
        f"  now:     {_short(wanted.request)}",
        *(f"  earlier: {_short(row.request)} ({row.urn or row.state})" for row in earlier[:5]),
        "Record what changes with each run (a time, a random number, a listing) with once(name, fn); or allow it with "
        "on_divergence='new'; or start afresh with IVCAP_FLOWS_FRESH=1.",
    ]
    return "\n".join(lines)


def _short(request: Any) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 1000 else text[:1000] + "…"
