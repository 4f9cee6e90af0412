"""What a PostgreSQL server promises of the journal in it, as far as its settings tell."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["READ_ONLY", "reads_only", "weaknesses"]

READ_ONLY: Final = (
    "the server only reads, as a standby does. Name the primary in IVCAP_FLOWS_JOURNAL; with several hosts in the URL, "
    "add `target_session_attrs=read-write`."
)

_OFF: Final = {
    "fsync": "a crash of its machine may lose commits, or the whole journal",
    "full_page_writes": "a crash of its machine amid a write may damage the journal",
}


def reads_only(connection: Connection) -> bool:
    """Whether nothing can be written: on a standby, or by a setting of the database or the role."""
    asked = sa.text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")
    return bool(connection.execute(asked).scalar_one())


def weaknesses(connection: Connection) -> list[str]:
    """What the server does not promise, each in a sentence with the next step. Standbys that fetch archived logs, and
    replication below the server, cannot be seen."""
    found = [
        f"{name} is off on the server: {danger}. Switch it on."
        for name, danger in _OFF.items()
        if not connection.execute(sa.text(f"SELECT current_setting('{name}')::boolean")).scalar_one()
    ]
    waits_for = connection.execute(sa.text("SELECT current_setting('synchronous_standby_names')")).scalar_one()
    # Who may not see the rest of these rows still sees that there are some.
    standbys = connection.execute(sa.text("SELECT count(*) FROM pg_stat_replication")).scalar_one()
    if standbys and not waits_for:
        found.append(
            f"No commit waits for a standby of the server ({standbys} connected): a failover loses the newest commits, "
            "and what they had asked for may be sent again. Set synchronous_standby_names."
        )
    return found
