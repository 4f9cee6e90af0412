"""What processes that wait on one account tell each other, so that one of them asks the platform for all.

A watchlist is one kind of work of one account on one platform. Its lookout is the process that asks; the others write
what they watch and read what it saw. Nothing here is needed to be right: whoever reads of an end reads the record
itself, and a journal that is lost costs some requests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import ProcessRow
from ivcap_flows.journal.store import Store

__all__ = ["LOOKOUT_SECONDS", "Sightings", "Watch", "Watches"]

LOOKOUT_SECONDS: Final = 15.0
"""A lookout that did not renew its lease for so long has lost it: its process is suspended, or on a lost machine."""

_KEPT: Final = 20
"""Durations of a service that are kept, the newest."""
_CHUNK: Final = 500
_L, _W, _S, _P, _T = schema.lookouts, schema.watches, schema.sightings, schema.paces, schema.processes


@dataclass(frozen=True)
class Watch:
    """Something that another process waits for. `not_before`: seconds from now before which it is not asked after."""

    urn: str
    service: str
    not_before: float


@dataclass(frozen=True)
class Watches:
    """What the other processes wait for; `mark` changes with it."""

    mark: tuple[int, int] = (0, 0)
    watches: Mapping[str, Watch] | None = None
    """None: as it was at the mark that was given."""


class Sightings:
    """The watchlists of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    def lead(self, watchlist: str, token: str) -> bool:
        """Be the lookout, or stay it, under `token`, unless a live process is. Writes only where something changes."""
        with self._store.read() as connection:
            now = self._store.now(connection)
            row = self._lookout(connection, watchlist)
            if row is not None and row["token"] == token:
                if row["until"] - now > timedelta(seconds=LOOKOUT_SECONDS / 2):
                    return True
            elif row is not None and self._is_held(connection, row, now):
                return False
        with self._store.write() as connection:
            now = self._store.now(connection)
            process_id = self._processes.mine(connection, now)
            values = {"process_id": process_id, "token": token, "until": now + timedelta(seconds=LOOKOUT_SECONDS)}
            if not self._store.insert_new(connection, _L, {"watchlist": watchlist, "trouble": None, **values}):
                row = self._lookout(connection, watchlist, lock=True)
                if row is None or (row["token"] != token and self._is_held(connection, row, now)):
                    return False
                if row["token"] != token:
                    values["trouble"] = None
                connection.execute(sa.update(_L).where(_L.c.watchlist == watchlist).values(values))
            self._processes.begin(token)
        return True

    def resign(self, watchlist: str, token: str) -> None:
        """Be the lookout no longer."""
        self._processes.end(token)
        with self._store.write() as connection:
            connection.execute(sa.delete(_L).where(_L.c.watchlist == watchlist, _L.c.token == token))

    def watch(self, watchlist: str, watcher: str, wanted: Collection[Watch]) -> None:
        """Have the lookout look after these as well, until `unwatch` or the end of this process."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            process_id = self._processes.mine(connection, now)
            rows = [
                {
                    "watchlist": watchlist,
                    "watcher": watcher,
                    "urn": each.urn,
                    "service": each.service,
                    "process_id": process_id,
                    "since": now,
                    "not_before": now + timedelta(seconds=each.not_before) if each.not_before > 0 else None,
                }
                for each in wanted
            ]
            for row in rows:
                self._store.insert_new(connection, _W, row)

    def unwatch(self, watchlist: str, watcher: str, urns: Collection[str] | None = None) -> None:
        """Look after these no longer for this watcher; None: after nothing."""
        mine = sa.and_(_W.c.watchlist == watchlist, _W.c.watcher == watcher)
        with self._store.write() as connection:
            if urns is None:
                connection.execute(sa.delete(_W).where(mine))
                return
            for some in _chunks(list(urns)):
                connection.execute(sa.delete(_W).where(mine, _W.c.urn.in_(some)))

    def others(self, watchlist: str, watcher: str, mark: tuple[int, int]) -> Watches:
        """What the live other watchers wait for; what a dead one waited for is forgotten."""
        theirs = sa.and_(_W.c.watchlist == watchlist, _W.c.watcher != watcher)
        gone: list[str] = []
        with self._store.read() as connection:
            count, newest = connection.execute(sa.select(sa.func.count(), sa.func.max(_W.c.since)).where(theirs)).one()
            found = (int(count), 0 if newest is None else int(newest.timestamp() * 1_000_000))
            if not count:
                return Watches(found, {} if found != mark else None)
            now = self._store.now(connection)
            holders = connection.execute(sa.select(_W.c.watcher, _W.c.process_id).where(theirs).distinct()).all()
            gone = [each for each, process_id in holders if not self._lives(connection, process_id, now)]
            if found == mark and not gone:
                return Watches(found)
            alive: dict[str, Watch] = {}
            chosen = sa.select(_W.c.watcher, _W.c.urn, _W.c.service, _W.c.not_before).where(theirs)
            for holder, urn, service, not_before in connection.execute(chosen):
                if holder not in gone:
                    ahead = 0.0 if not_before is None else max(0.0, (not_before - now).total_seconds())
                    alive[urn] = Watch(urn, service, ahead)
        for each in gone:
            self.unwatch(watchlist, each)
        return Watches((-1, 0) if gone else found, alive)

    def report(self, watchlist: str, token: str, statuses: Mapping[str, str], *, trouble: str | None = None) -> bool:
        """Tell the others what was seen, and what hinders from seeing; False when another is the lookout by now.

        What nobody watches any more is forgotten.
        """
        with self._store.write() as connection:
            now = self._store.now(connection)
            row = self._lookout(connection, watchlist, lock=True)
            if row is None or row["token"] != token:
                return False
            connection.execute(sa.update(_L).where(_L.c.watchlist == watchlist).values(trouble=trouble))
            for urn, status in statuses.items():
                seen = {"watchlist": watchlist, "urn": urn, "status": status, "seen_at": now}
                self._store.upsert(connection, _S, seen)
            watched = sa.select(_W.c.urn).where(_W.c.watchlist == watchlist)
            connection.execute(sa.delete(_S).where(_S.c.watchlist == watchlist, _S.c.urn.not_in(watched)))
        return True

    def seen(self, watchlist: str, after: datetime | None) -> tuple[dict[str, str], datetime | None, str | None]:
        """The statuses seen at or after a time, the newest of these times, and what hinders the lookout."""
        chosen = sa.select(_S.c.urn, _S.c.status, _S.c.seen_at).where(_S.c.watchlist == watchlist)
        if after is not None:
            chosen = chosen.where(_S.c.seen_at >= after)
        with self._store.read() as connection:
            rows = connection.execute(chosen.order_by(_S.c.seen_at)).all()
            lookout = self._lookout(connection, watchlist)
        newest = rows[-1][2] if rows else after
        return {urn: status for urn, status, _ in rows}, newest, None if lookout is None else lookout["trouble"]

    def pace(self, watchlist: str, service: str) -> list[float]:
        """How long, in seconds, the last work of a service took, oldest first."""
        where = (_P.c.watchlist == watchlist, _P.c.service == service)
        with self._store.read() as connection:
            return list(connection.execute(sa.select(_P.c.seconds).where(*where)).scalar() or ())

    def learn(self, watchlist: str, took: Mapping[str, Sequence[float]]) -> None:
        """Note how long work of these services took."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            for service, seconds in took.items():
                where = (_P.c.watchlist == watchlist, _P.c.service == service)
                known = connection.execute(sa.select(_P.c.seconds).where(*where)).scalar() or []
                kept = [round(each, 3) for each in [*known, *seconds][-_KEPT:]]
                row = {"watchlist": watchlist, "service": service, "seconds": kept, "updated_at": now}
                self._store.upsert(connection, _P, row)

    def _lookout(self, connection: Connection, watchlist: str, *, lock: bool = False) -> sa.engine.RowMapping | None:
        chosen = sa.select(_L).where(_L.c.watchlist == watchlist)
        return connection.execute(chosen.with_for_update() if lock else chosen).mappings().first()

    def _is_held(self, connection: Connection, row: sa.engine.RowMapping, now: datetime) -> bool:
        process = self._process(connection, row["process_id"])
        return row["until"] > now and process is not None and self._processes.holds(process, row["token"], now)

    def _lives(self, connection: Connection, process_id: str, now: datetime) -> bool:
        process = self._process(connection, process_id)
        return process is not None and self._processes.alive(process, now)

    def _process(self, connection: Connection, process_id: str) -> ProcessRow | None:
        row = connection.execute(sa.select(_T).where(_T.c.id == process_id)).mappings().first()
        return None if row is None else ProcessRow(**row)


def _chunks(urns: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(urns), _CHUNK):
        yield urns[begin : begin + _CHUNK]
