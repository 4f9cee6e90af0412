"""Checks of a PostgreSQL server that holds a journal: whether it can be written, and which settings risk losses."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["READ_ONLY", "reads_only", "weaknesses"]

READ_ONLY: Final = (
    "the server is read-only, such as a standby. Name the primary in IVCAP_FLOWS_JOURNAL; if the URL has several "
    "hosts, add `target_session_attrs=read-write`."
)

_OFF: Final = {
    "fsync": "a crash of its machine may lose commits, or the whole journal",
    "full_page_writes": "a crash of its machine during a write may damage the journal",
}


def reads_only(connection: Connection) -> bool:
    """Return whether the server is read-only: a standby, or by a setting of the database or the role."""
    asked = sa.text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean")
    return bool(connection.execute(asked).scalar_one())


def weaknesses(connection: Connection) -> list[str]:
    """Return the risks in the server's settings, each as a sentence with the next step.

    Standbys that fetch archived logs, and replication below the server, such as of its disk, are not visible here.
    """
    found = [
        f"{name} is off on the server: {danger}. Switch it on."
        for name, danger in _OFF.items()
        if not connection.execute(sa.text(f"SELECT current_setting('{name}')::boolean")).scalar_one()
    ]
    waits_for = connection.execute(sa.text("SELECT current_setting('synchronous_standby_names')")).scalar_one()
    # A role without the right to read the columns of these rows can still count them.
    standbys = connection.execute(sa.text("SELECT count(*) FROM pg_stat_replication")).scalar_one()
    if standbys and not waits_for:
        found.append(
            f"Commits do not wait for the server's standbys ({standbys} connected): a failover loses the newest "
            "commits, and what was requested in them may be sent again. Set synchronous_standby_names."
        )
    return found
