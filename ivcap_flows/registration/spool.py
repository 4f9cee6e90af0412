"""The spool: the rows of one source on local disk, so that memory does not grow with their number.

A spool exists as long as its process. What must survive is in the journal, with Provena, and in the outcome file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from ivcap_flows.registration.rows import Fault, FaultKind
from ivcap_flows.registration.spool_file import PAGE, SpoolFile

__all__ = ["Outcome", "Spool", "Spooled", "Standing"]

Standing = Literal["wrong", "ready", "done", "registered", "failed", "doubtful"]
"""`wrong`: the row has a fault and is not sent. `ready`: it has no end yet. `done`: the source says that it was
registered before. `registered`: it has a handle. `failed`: it has no run, and a reason. `doubtful`: it was sent, and
its end is unknown."""

_SCHEMA: Final = """
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, key TEXT, own_key TEXT, subject TEXT, workflow TEXT, name TEXT, body TEXT,
    standing TEXT NOT NULL, handle TEXT, job TEXT, since TEXT, words TEXT
);
CREATE INDEX rows_key ON rows (key);
CREATE INDEX rows_standing ON rows (standing, number);
CREATE TABLE faults (row INTEGER, place TEXT, kind TEXT, words TEXT);
CREATE INDEX faults_row ON faults (row);
"""


@dataclass(frozen=True)
class NewRow:
    """A row as it is read. Only one with a record has a `body`, its JSON without the key, and what is made of it."""

    number: int
    standing: Standing
    own_key: str | None = None
    key: str | None = None
    subject: str | None = None
    workflow: str | None = None
    name: str | None = None
    body: dict[str, Any] | None = None
    handle: str | None = None
    job: str | None = None


@dataclass(frozen=True)
class Spooled:
    """A row to register. `body` is the record's JSON without the key."""

    number: int
    key: str
    subject: str
    workflow: str
    name: str
    body: dict[str, Any]
    called: str
    """The user's own key; if there is none, the idempotency key."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a row. `key` is the user's own key; if there is none, the idempotency key.

    `words` is the reason of a failure, an explanation of a doubt, or a remark about a run. `since` is when a doubt
    began.
    """

    number: int
    key: str | None
    standing: Standing
    handle: str | None = None
    job: str | None = None
    since: str | None = None
    words: str | None = None


class Spool(SpoolFile):
    """The rows of one source."""

    def __init__(self) -> None:
        super().__init__(_SCHEMA)

    def add_rows(self, rows: Iterable[NewRow]) -> None:
        columns = [each.name for each in fields(NewRow)]
        values = [{**vars(row), "body": None if row.body is None else json.dumps(row.body)} for row in rows]
        self._many(
            f"INSERT INTO rows ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})",  # noqa: S608
            values,
        )

    def add_faults(self, faults: Iterable[Fault]) -> None:
        """Add faults and mark their rows as wrong."""
        found = [(fault.row, fault.column, fault.kind, fault.words) for fault in faults]
        self._many("INSERT INTO faults VALUES (?, ?, ?, ?)", found)
        self._many("UPDATE rows SET standing = 'wrong' WHERE number = ?", [(row,) for row in {f[0] for f in found}])

    def faults(self) -> Iterator[Fault]:
        """Yield all faults, row by row, and within a row in the order in which they were added."""
        last = (0, 0)
        query = (
            "SELECT row, rowid, place, kind, words FROM faults WHERE (row, rowid) > (?, ?) ORDER BY row, rowid LIMIT ?"
        )
        while page := self._all(query, *last, PAGE):
            for row, _, place, kind, words in page:
                fault_kind: FaultKind = kind
                yield Fault(row, place, fault_kind, words)
            last = (page[-1][0], page[-1][1])

    def explain_wrong(self) -> None:
        """Set the words of wrong rows to their faults."""
        self._many(
            "UPDATE rows SET words = (SELECT group_concat(place || ': ' || words, '; ') FROM faults"
            " WHERE faults.row = rows.number) WHERE standing = ?",
            [("wrong",)],
        )

    def count_faults(self) -> int:
        return int(self._all("SELECT count(*) FROM faults")[0][0])

    def count_differing(self) -> int:
        """Return the number of registered rows with a remark about their run."""
        return int(self._all("SELECT count(*) FROM rows WHERE standing = 'registered' AND words IS NOT NULL")[0][0])

    def repeated(self) -> list[tuple[int, int, str | None]]:
        """Return rows with the key of an earlier row: their number, that of the first row, and the user's own key."""
        return self._all(
            "SELECT r.number, f.first, r.own_key FROM rows r JOIN (SELECT key, min(number) AS first FROM rows"
            " WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1) f ON f.key = r.key AND r.number > f.first"
            " ORDER BY r.number"
        )

    def page(self, *standings: Standing, after: int = 0) -> list[Spooled]:
        """Return the next page of rows after `after` with these standings and a record."""
        marks = ",".join("?" * len(standings))
        found = self._all(
            "SELECT number, key, subject, workflow, name, body, coalesce(own_key, key) FROM rows"  # noqa: S608
            f" WHERE body IS NOT NULL AND {_column(standings)} IN ({marks}) AND number > ? ORDER BY number LIMIT ?",
            *(*standings, after, PAGE),
        )
        return [
            Spooled(number, key, subject, workflow, name, json.loads(body), called)
            for number, key, subject, workflow, name, body, called in found
        ]

    def pages(self, *standings: Standing) -> Iterator[list[Spooled]]:
        """Yield all rows with these standings, page by page. The caller may change the rows of a page meanwhile."""
        last = 0
        while page := self.page(*standings, after=last):
            yield page
            last = page[-1].number

    def rename(self, rows: Iterable[tuple[str, str, str, int]]) -> None:
        """Store what rows are now called, as `(key, workflow, body, number)`, body as JSON."""
        self._many("UPDATE rows SET key = ?, workflow = ?, body = ? WHERE number = ?", rows)

    def stand(self, outcomes: Iterable[Outcome]) -> None:
        """Store the outcomes of rows."""
        self._many(
            "UPDATE rows SET standing = ?, handle = ?, job = ?, since = ?, words = ? WHERE number = ?",
            [(each.standing, each.handle, each.job, each.since, each.words, each.number) for each in outcomes],
        )

    def outcomes(self, *standings: Standing) -> Iterator[Outcome]:
        """Yield the outcomes of all rows, or of those with these standings, in their order."""
        last = 0
        where = f" AND {_column(standings)} IN ({','.join('?' * len(standings))})" if standings else ""
        query = (
            "SELECT number, coalesce(own_key, key), standing, handle, job, since, words FROM rows"  # noqa: S608
            f" WHERE number > ?{where} ORDER BY number LIMIT ?"
        )
        while page := self._all(query, last, *standings, PAGE):
            for row in page:
                yield Outcome(*row)
            last = page[-1][0]

    def counts(self) -> dict[str, int]:
        """Return the number of rows by standing."""
        return dict(self._all("SELECT standing, count(*) FROM rows GROUP BY standing"))


def _column(standings: Sequence[Standing]) -> str:
    """Return the column to compare. For several standings, `+` avoids an index that is not in the rows' order."""
    return "standing" if len(standings) == 1 else "+standing"
