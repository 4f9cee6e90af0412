"""Poll status: rows by which one process, the poll leader, asks the platform for all that wait on one account.

A watchlist is one kind of work of one account on one platform, and has one leader. The other processes write a row for
each order or job that they wait for, and the leader writes the status that it saw into that row. A process compares
only times of its own monotonic clock. Nothing depends on these rows: a process that reads there that work has ended
reads the platform's record itself, and lost rows cost some requests.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import Lead, ProcessRow, Watch
from ivcap_flows.journal.store import Store

__all__ = ["POLL_LEASE_SECONDS", "PollStatus"]

POLL_LEASE_SECONDS: Final = 15.0
"""A leader that does not renew its lead for so long loses it: its process is suspended, or its machine is gone."""

_KEPT: Final = 20
"""Number of durations to keep per service: the newest."""
_CHUNK: Final = 500
_L, _W, _P, _T = schema.poll_leaders, schema.poll_targets, schema.work_durations, schema.processes


class PollStatus:
    """The watchlists of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    def lead(self, watchlist: str, token: str, noted: Lead | None = None) -> Lead:
        """Take or keep the lead under `token`, unless a live process has it. `noted` is the result of the last call.

        A process that is gone loses the lead at once. Any other loses it when the caller has seen no renewal for
        POLL_LEASE_SECONDS. The call writes only to take the lead, and to renew it after half of that time.
        """
        # Before the row is read: time that the caller is suspended in between must not count as silence.
        now = time.monotonic()
        with self._store.read() as connection:
            row = self._leader(connection, watchlist)
            if row is not None:
                known = noted is not None and (noted.token, noted.renewal) == (row["token"], row["renewal"])
                since = noted.since if noted is not None and known else now
                found = Lead(row["token"] == token, row["token"], row["renewal"], since)
                left = POLL_LEASE_SECONDS - (now - since)
                if left > POLL_LEASE_SECONDS / 2 if found.mine else left > 0 and self._is_held(connection, row):
                    return found
        renewal = 0 if row is None else row["renewal"] + 1
        with self._store.write() as connection:
            process_id = self._processes.mine(connection, self._store.now(connection))
            values = {"process_id": process_id, "token": token, "renewal": renewal}
            if row is None:
                done = self._store.insert_new(connection, _L, {"watchlist": watchlist, "trouble": None, **values})
            else:
                if row["token"] != token:
                    values["trouble"] = None
                as_read = sa.and_(_L.c.token == row["token"], _L.c.renewal == row["renewal"])
                change = sa.update(_L).where(_L.c.watchlist == watchlist, as_read).values(values)
                done = connection.execute(change).rowcount > 0
            if done:
                self._processes.begin(token)
        return Lead(done, token, renewal, now) if done else Lead(False, "", 0, now)

    def follow(self, watchlist: str, watcher: str, wanted: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
        """Let the leader ask for exactly these (URN to service), until `leave` or the end of this process.

        Return the statuses that the leader saw of them, and the problem that it has, if any.
        """
        mine = sa.and_(_W.c.watchlist == watchlist, _W.c.watcher == watcher)
        with self._store.read() as connection:
            found = connection.execute(sa.select(_W.c.urn, _W.c.status).where(mine))
            told: dict[str, str | None] = dict(found.tuples().all())
            leader = self._leader(connection, watchlist)
        new = [urn for urn in wanted if urn not in told]
        if new or len(told) > len(wanted):
            with self._store.write() as connection:
                process_id = self._processes.mine(connection, self._store.now(connection))
                self._processes.begin(watcher)
                for some in _chunks([urn for urn in told if urn not in wanted]):
                    connection.execute(sa.delete(_W).where(mine, _W.c.urn.in_(some)))
                row = {"watchlist": watchlist, "watcher": watcher, "process_id": process_id, "status": None}
                rows = [{**row, "urn": urn, "service": wanted[urn]} for urn in new]
                self._store.insert_all_new(connection, _W, rows)
        statuses = {urn: status for urn, status in told.items() if urn in wanted and status is not None}
        return statuses, None if leader is None else leader["trouble"]

    def leave(self, watchlist: str, watcher: str) -> None:
        """Stop following and leading."""
        self._processes.end(watcher)
        with self._store.write() as connection:
            self._forget(connection, watchlist, [watcher])
            connection.execute(sa.delete(_L).where(_L.c.watchlist == watchlist, _L.c.token == watcher))

    def others(self, watchlist: str, watcher: str) -> dict[str, Watch]:
        """Return what the other live watchers wait for, by URN, and delete the rows of dead ones.

        A watcher that only seemed dead finds its rows missing at its next call of `follow`, and writes them again.
        """
        theirs = sa.and_(_W.c.watchlist == watchlist, _W.c.watcher != watcher)
        chosen = sa.select(_W.c.watcher, _W.c.process_id, _W.c.urn, _W.c.service, _W.c.status).where(theirs)
        of_them = _T.c.id.in_(sa.select(_W.c.process_id).where(theirs))
        with self._store.read() as connection:
            rows = connection.execute(chosen).all()
            processes = connection.execute(sa.select(_T).where(of_them)).mappings()
            known = {row["id"]: ProcessRow(**row) for row in processes}
        holders = {each: known.get(process_id) for each, process_id, *_ in rows}
        gone = {each for each, process in holders.items() if not self._lives(process, each)}
        if gone:
            with self._store.write() as connection:
                self._forget(connection, watchlist, gone)
        found: dict[str, Watch] = {}
        for each, _, urn, service, status in rows:
            if each not in gone:
                same = urn not in found or found[urn].status == status
                found[urn] = Watch(service, status if same else None)
        return found

    def report(self, watchlist: str, token: str, statuses: Mapping[str, str], *, trouble: str | None = None) -> bool:
        """Write the seen statuses into the rows of all watchers, and `trouble`, the leader's problem, if any.

        Return False if another process leads by now.
        """
        by_status: dict[str, list[str]] = {}
        for urn, status in statuses.items():
            by_status.setdefault(status, []).append(urn)
        with self._store.write() as connection:
            row = self._leader(connection, watchlist, lock=True)
            if row is None or row["token"] != token:
                return False
            connection.execute(sa.update(_L).where(_L.c.watchlist == watchlist).values(trouble=trouble))
            for status, urns in by_status.items():
                for some in _chunks(urns):
                    told = sa.and_(_W.c.watchlist == watchlist, _W.c.urn.in_(some))
                    connection.execute(sa.update(_W).where(told).values(status=status))
        return True

    def durations(self, watchlist: str, service: str) -> list[float]:
        """Return how long the last orders or jobs of a service took, in seconds, oldest first."""
        where = (_P.c.watchlist == watchlist, _P.c.service == service)
        with self._store.read() as connection:
            return list(connection.execute(sa.select(_P.c.seconds).where(*where)).scalar() or ())

    def learn(self, watchlist: str, took: Mapping[str, Sequence[float]]) -> None:
        """Store how long orders or jobs of these services took, in seconds."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            for service, seconds in took.items():
                where = (_P.c.watchlist == watchlist, _P.c.service == service)
                known = connection.execute(sa.select(_P.c.seconds).where(*where)).scalar() or []
                kept = [round(each, 3) for each in [*known, *seconds][-_KEPT:]]
                row = {"watchlist": watchlist, "service": service, "seconds": kept, "updated_at": now}
                self._store.upsert(connection, _P, row)

    def _leader(self, connection: Connection, watchlist: str, *, lock: bool = False) -> RowMapping | None:
        chosen = sa.select(_L).where(_L.c.watchlist == watchlist)
        return connection.execute(chosen.with_for_update() if lock else chosen).mappings().first()

    def _is_held(self, connection: Connection, row: RowMapping) -> bool:
        found = connection.execute(sa.select(_T).where(_T.c.id == row["process_id"])).mappings().first()
        process = None if found is None else ProcessRow(**found)
        return self._lives(process, row["token"])

    def _lives(self, process: ProcessRow | None, token: str) -> bool:
        return process is not None and self._processes.holds(process, token)

    def _forget(self, connection: Connection, watchlist: str, watchers: Collection[str]) -> None:
        connection.execute(sa.delete(_W).where(_W.c.watchlist == watchlist, _W.c.watcher.in_(watchers)))


def _chunks(urns: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(urns), _CHUNK):
        yield urns[begin : begin + _CHUNK]
