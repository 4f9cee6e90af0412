"""Polls: how processes that share a journal ask a platform only once for all that they wait for.

A watchlist is one kind of work of one account on one platform, and has one row. The row names the work that any process
waits for, with the status that was seen last. A process that wants to know more begins a *round* by counting `begun`
up, which succeeds for one process alone; it stores what it saw, and the others read it. Nothing depends on these rows:
who reads there that work has ended reads the platform's record, and lost rows cost some requests. No time is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import Poll, Wanted
from ivcap_flows.journal.store import Store

__all__ = ["Polls"]

_P = schema.polls


class Polls:
    """The watchlists of one journal."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, watchlist: str, noted: Poll | None = None) -> Poll:
        """Return the watchlist; `noted`, the result of the last call, if no round has begun or ended since then."""
        counts = _P.c.begun, _P.c.ended
        new = sa.case((_P.c.ended != (-1 if noted is None else noted.ended), _P.c.wanted), else_=sa.null())
        with self._store.read() as connection:
            row = connection.execute(sa.select(*counts, new).where(_P.c.watchlist == watchlist)).one_or_none()
        if row is None:
            return Poll()
        begun, ended, wanted = row
        if wanted is None and noted is not None:
            return noted if begun == noted.begun else Poll(begun, ended, noted.wanted)
        return _poll(begun, ended, wanted)

    def add(self, watchlist: str, wanted: Mapping[str, str]) -> Poll:
        """Let the next rounds ask for this work, too (URN to service), until it has ended. Return the watchlist."""
        return self._change(watchlist, lambda poll: poll.with_new(wanted))

    def unwatch(self, watchlist: str, urns: Iterable[str]) -> Poll:
        """No longer ask for this work. Another process that waits for it adds it again after the next round."""
        left = frozenset(urns)

        def without(poll: Poll) -> Poll:
            return Poll(poll.begun, poll.ended, {urn: each for urn, each in poll.wanted.items() if urn not in left})

        return self._change(watchlist, without)

    def begin(self, watchlist: str, begun: int) -> Poll | None:
        """Begin the round after this one. Return the watchlist, or None if another process was first."""
        here = _P.c.watchlist == watchlist
        with self._store.write() as connection:
            taken = sa.update(_P).where(here, _P.c.begun == begun).values(begun=begun + 1)
            if not connection.execute(taken).rowcount:
                return None
            row = connection.execute(sa.select(_P.c.begun, _P.c.ended, _P.c.wanted).where(here)).one()
        return _poll(*row)

    def end(self, watchlist: str, begun: int, seen: Mapping[str, Wanted]) -> Poll:
        """End a round: store what was seen in it. Return the watchlist."""
        return self._change(watchlist, lambda poll: poll.after(begun, seen))

    def _change(self, watchlist: str, change: Callable[[Poll], Poll]) -> Poll:
        with self._store.write() as connection:
            poll = change(self._locked(connection, watchlist))
            wanted = {urn: [each.service, each.status, each.missed] for urn, each in poll.wanted.items()}
            values: dict[str, Any] = {"begun": poll.begun, "ended": poll.ended, "wanted": wanted}
            connection.execute(sa.update(_P).where(_P.c.watchlist == watchlist).values(values))
        return poll

    def _locked(self, connection: Connection, watchlist: str) -> Poll:
        self._store.insert_new(connection, _P, {"watchlist": watchlist, "begun": 0, "ended": 0, "wanted": {}})
        chosen = sa.select(_P.c.begun, _P.c.ended, _P.c.wanted).where(_P.c.watchlist == watchlist)
        return _poll(*connection.execute(chosen.with_for_update()).one())


def _poll(begun: int, ended: int, wanted: Mapping[str, tuple[str, str | None, int]]) -> Poll:
    return Poll(begun, ended, {urn: Wanted(*each) for urn, each in wanted.items()})
