"""After a request was sent again because no effect of it had shown: does the first one show after all?

A platform that shows an accepted request later than it should cannot be kept from having two effects then; they can be
found: by the key that they bear, or by an equal content that no key of the journal claims. The look goes on beside the
flow, for some visibility delays, and ends with the process. What was found, `doctor` tells whenever it is asked.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ivcap_flows.durable.effects import Effect
from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.secrets import logger_of

__all__ = ["watch"]

logger = logger_of("ivcap_flows.durable")

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Between the looks, in visibility delays."""
_TWICE: Final = (
    "Two effects exist under the key %s: %s is kept, %s showed later than the %g s within which the platform should"
    " show a request. `ivcap-flows orders` lists them."
)
_ALIKE: Final = (
    "Two effects may exist under the key %s: %s is kept, %s asks for the same, and no key of this journal claims it."
    " It showed later than the %g s within which the platform should show a request, or somebody else asked for it."
    " `ivcap-flows orders` lists them."
)
_watching: set[asyncio.Task[None]] = set()


def watch(effect: Effect[Any], kept: IntentRow, journal: Journal) -> None:
    """Report what shows up under the key beside what is kept; returns at once."""
    task = asyncio.get_running_loop().create_task(_look_again(effect, kept, journal))
    _watching.add(task)
    task.add_done_callback(_watching.discard)


async def _look_again(effect: Effect[Any], kept: IntentRow, journal: Journal) -> None:
    reported: set[str] = set()
    for pause in _PAUSES:
        await asyncio.sleep(pause * effect.visibility_delay)
        try:
            found = [one for one in await effect.find(kept) if one.urn not in {kept.urn, *reported}]
            sure = [one.urn for one in found if one.matched_by == "key"]
            alike = [one.urn for one in found if one.matched_by == "content"]
            alike = await asyncio.to_thread(_unclaimed, kept, alike, journal) if alike else []
            reported.update(sure, alike)
            if sure:
                await _report(_TWICE, kept, sure, effect.visibility_delay, journal)
            if alike:
                await _report(_ALIKE, kept, alike, effect.visibility_delay, journal)
        except IvcapFlowsError as error:
            logger.debug("The %s %s was not looked for again: %s", kept.noun, kept.key, error)


def _unclaimed(kept: IntentRow, urns: list[str], journal: Journal) -> list[str]:
    """Those that no other key has. None while another intent of the same content may still be about to claim one."""
    if journal.intents.rivals(kept):
        return []
    others = journal.intents.claimed_by_others(kept.key, urns)
    return [urn for urn in urns if urn not in others]


async def _report(said: str, kept: IntentRow, more: list[str], visibility_delay: float, journal: Journal) -> None:
    logger.error(said, kept.key, kept.urn, ", ".join(more), visibility_delay)
    await asyncio.to_thread(journal.intents.note_duplicates, kept.key, more)
