"""After a request was sent again because no effect of it had shown: does the first one show after all?

A platform that shows an accepted request later than it should cannot be kept from having two effects then; they can be
found. The look goes on beside the flow, for some settling times, and ends with the process; `doctor` looks whenever it
is asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from ivcap_flows.durable.effects import Effect
from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.journal import IntentRow, Journal

__all__ = ["watch"]

logger = logging.getLogger("ivcap_flows.durable")

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Between the looks, in settling times."""
_watching: set[asyncio.Task[None]] = set()


def watch(effect: Effect[Any], kept: IntentRow, journal: Journal) -> None:
    """Report what shows up under the key beside what is kept; returns at once."""
    task = asyncio.get_running_loop().create_task(_look_again(effect, kept, journal))
    _watching.add(task)
    task.add_done_callback(_watching.discard)


async def _look_again(effect: Effect[Any], kept: IntentRow, journal: Journal) -> None:
    reported: set[str] = set()
    for pause in _PAUSES:
        await asyncio.sleep(pause * effect.settle)
        try:
            found = [one.urn for one in await effect.find(kept) if one.matched_by == "key" and one.urn != kept.urn]
            more = [urn for urn in found if urn not in reported]
            if more:
                reported.update(more)
                await _report(kept, more, effect.settle, journal)
        except IvcapFlowsError as error:
            logger.debug("The %s %s was not looked for again: %s", kept.noun, kept.key, error)


async def _report(kept: IntentRow, more: list[str], settle: float, journal: Journal) -> None:
    logger.error(
        "Two effects exist under the key %s: %s is kept, %s showed later than the %g s within which the platform should"
        " show a request. `ivcap-flows orders` lists them.",
        kept.key,
        kept.urn,
        ", ".join(more),
        settle,
    )
    await asyncio.to_thread(journal.intents.note_duplicates, kept.key, more)
