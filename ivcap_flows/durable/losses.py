"""Detect, by idempotency records on the platform, that the journal which wrote them has lost rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ivcap_flows.journal import Journal, Stated
from ivcap_flows.secrets import logger_of

__all__ = ["LOST", "notice_loss", "stated_in"]

logger = logger_of("ivcap_flows.durable")

LOST = (
    "The journal %s has lost rows: the platform has its record of the intent %s, made %s, which is not in it. Its "
    "database was damaged, restored from an older copy, or failed over to a standby that was behind; or two copies of "
    "it are in use. What else it had asked for may be sent again. Restore a complete backup, or go on without what is "
    "lost by `ivcap-flows journal rebuild --accept-loss`."
)


def stated_in(content: Any, journal: str) -> Stated | None:
    """Return the intent that an idempotency record of this journal describes; None for any other record."""
    if not isinstance(content, Mapping) or content.get("journal") != journal:
        return None
    try:
        return Stated(str(content["key"]), int(content["serial"]), datetime.fromisoformat(str(content["created-at"])))
    except (KeyError, TypeError, ValueError):
        return None


async def notice_loss(journal: Journal, content: Mapping[str, Any]) -> None:
    """Store and log, once, that an idempotency record of this journal describes an intent that the journal lacks."""
    stated = stated_in(content, journal.id)
    if stated is not None and await journal.ask(journal.losses.note, stated):
        logger.error(LOST, journal.url, stated.key, stated.created_at.isoformat(timespec="seconds"))
