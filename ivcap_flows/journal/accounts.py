"""The account to which a run's credentials lead. In each attempt of the run, the same credentials must lead there."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.known_runs import parks_of
from ivcap_flows.journal.rows import AccountRow
from ivcap_flows.journal.store import Store

__all__ = ["Accounts"]

_A, _I = schema.accounts, schema.intents


class Accounts:
    """The accounts of the runs of one journal."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, run_id: str, credentials: str, here: AccountRow) -> AccountRow | None:
        """Store that a run acts for this account by these credentials.

        Return the account for which it acted before by the same credentials, and has work, if that is another one; then
        nothing is stored.
        """
        if self._noted(run_id, credentials) == here:
            return None
        with self._store.write() as connection:
            row = {"run_id": run_id, "credentials": credentials, **vars(here)}
            if self._store.insert_new(connection, _A, row):
                return None
            there = self._elsewhere(connection, run_id, credentials, here)
            if there is None:
                self._store.upsert(connection, _A, row)
            return there

    def elsewhere(self, run_id: str, credentials: str, here: AccountRow) -> AccountRow | None:
        """Return what `note` would return. Store nothing."""
        with self._store.read() as connection:
            return self._elsewhere(connection, run_id, credentials, here)

    def _elsewhere(self, connection: Connection, run_id: str, credentials: str, here: AccountRow) -> AccountRow | None:
        there = self._read(connection, run_id, credentials)
        # A run that has nothing there may begin elsewhere: the first try had the wrong credentials.
        return there if there not in (None, here) and _has_work(connection, run_id, there) else None

    def _noted(self, run_id: str, credentials: str) -> AccountRow | None:
        with self._store.read() as connection:
            return self._read(connection, run_id, credentials)

    @staticmethod
    def _read(connection: Connection, run_id: str, credentials: str) -> AccountRow | None:
        query = sa.select(_A.c.platform, _A.c.account).where(_A.c.run_id == run_id, _A.c.credentials == credentials)
        row = connection.execute(query).mappings().first()
        return None if row is None else AccountRow(**row)


def _has_work(connection: Connection, run_id: str, at: AccountRow) -> bool:
    """Return whether a run may have effects of an account, or parked for work that this account can see."""
    own = sa.select(_I.c.key).where(_I.c.run_id == run_id, _I.c.platform == at.platform, _I.c.account == at.account)
    if connection.execute(own.where(_I.c.state.in_(("sent", "done"))).limit(1)).first() is not None:
        return True
    return any((park.platform, park.account) == (at.platform, at.account) for park in parks_of(connection, run_id))
