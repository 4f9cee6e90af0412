"""Find artifacts without all their bytes that no upload continues: what lost replies and kills left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable.wording import duration
from ivcap_flows.errors import NotFoundError
from ivcap_flows.journal.states import OPEN

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import Journal

__all__ = ["unfinished_uploads"]

_LOOKED_AT: Final = 500
"""Artifacts that are read at most, newest first."""
_EVER: Final = datetime.min.replace(tzinfo=timezone.utc)


async def unfinished_uploads(client: IvcapClient, journal: Journal) -> AsyncIterator[str]:
    """Yield a sentence for each unfinished artifact of the account that no upload in the journal continues."""
    named, since = await journal.ask(_open_uploads, journal)
    account = await client.account()
    async for item in client.artifacts.list(limit=_LOOKED_AT):
        when = item.created_at
        if item.complete or item.status == "error" or item.urn in named:
            continue
        if when is not None and since is not None and when >= since:
            continue
        try:
            record = await client.artifacts.read(item.urn)
            if record.account not in (None, account) or record.status != item.status:
                continue
            sent = await client.artifacts.offset(record)
        except NotFoundError:
            continue
        of = "an unknown number of" if record.known_size is None else record.known_size
        yield (
            f"unfinished upload: {record.urn} ({record.name}), {record.status} with {sent} of {of} bytes, "
            f"{_age(when, client.time)}; no upload in this journal continues it. IVCAP cannot delete artifacts: "
            f"leave it, or send the rest with `ivcap artifact upload {record.urn} -f <file>`"
        )


def _open_uploads(journal: Journal) -> tuple[set[str], datetime | None]:
    """Return the artifacts that open uploads name, and the time since which a live upload may have made another one.

    An upload that has just begun does not name its artifact yet. The time is the platform's.
    """
    rows = [row for state in OPEN for row in journal.intents.where(noun="upload", state=state, limit=None)]
    nameless = [row for row in rows if row.progress is None and journal.intents.held(row)]
    named = {str(row.progress.get("urn")) for row in rows if isinstance(row.progress, dict)}
    return named, min((row.platform_time or _EVER for row in nameless), default=None)


def _age(since: datetime | None, now: ServerTime | None) -> str:
    if since is None or now is None:
        return "of unknown age"
    return f"{duration((now.earliest - since).total_seconds())} old"
