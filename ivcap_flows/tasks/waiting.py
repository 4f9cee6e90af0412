"""What orders and jobs share: the mark by which they are found again, and waits that a plan cannot make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from ivcap_flows.durable import planning
from ivcap_flows.errors import JournalError
from ivcap_flows.handles import Handle, Job, Order
from ivcap_flows.identity import short_id
from ivcap_flows.journal import Journal

__all__ = ["PAGES", "PlannedError", "note_end", "tag", "waiting_for"]

logger = logging.getLogger("ivcap_flows.waiting")

PAGES: Final = 20
"""Pages of a list that one look of a poller reads at most; what is older is read by itself."""


class PlannedError(BaseException):
    """Ends a flow that is only being planned, where it would wait for work that was not sent.

    Not an Exception: a flow that catches errors must not go on as if the work had failed.
    """

    @classmethod
    def refuse(cls, work: Sequence[Handle | str]) -> None:
        """Raise if a plan is being made and any of this work would still have to be sent."""
        waiting = [str(each) for each in work if str(each).startswith("urn:ivcap-flows:planned:")]
        if waiting and planning() is not None:
            raise cls(f"The plan ends here: the flow would wait for {len(waiting)} that are not sent.")


async def note_end(journal: Journal, work: Order | Job) -> None:
    """Tell the journal how work ended. Where it cannot be written the flow goes on; the next wait tells it again."""
    if work.key is None:
        return
    try:
        await asyncio.to_thread(journal.intents.finish, work.key, work.status, work.model_dump(mode="json"))
    except JournalError as error:
        logger.error("That %s ended as %s is not in the journal: %s", work.urn, work.status, error)


def tag(key: str) -> str:
    """The tag that an order placed under a key bears."""
    return f"ivcap-flows:{short_id(key)}"


def waiting_for(what: str) -> Callable[[dict[str, Any]], str]:
    """The name of a run that waits for the given `orders` or `jobs`."""

    def name(given: dict[str, Any]) -> str:
        count = len(given[what])
        return f"wait for {count} {what if count != 1 else what.removesuffix('s')}"

    return name
