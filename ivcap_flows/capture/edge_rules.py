"""What a call did with a thing, from what is known about it: two tables, without side effects.

They hold for files, folders, stores, tables, arrays, all other objects, and the handles of the platforms.
`docs/reference/provenance.md` shows them, and `tests/capture/test_edge_rules.py` holds each of their rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ivcap_flows.provenance.decision_table import holds

__all__ = [
    "MADE",
    "READ_OR_NOT",
    "USED",
    "WHO_WROTE",
    "WHO_WROTE_WHAT",
    "Basis",
    "Change",
    "Declaration",
    "EdgeFacts",
    "Edges",
    "Writer",
    "edges_of",
]

Change = Literal["new", "found", "same", "changed", "gone"]
Writer = Literal["me", "several", "another", "unseen"]
Declaration = Literal["nothing", "read", "written", "changed"]
Basis = Literal["seen", "given", "declared"]

READ_OR_NOT: Final = "it is not known whether it was read before it was overwritten or removed"
WHO_WROTE: Final = "it is not known which of the concurrent calls wrote it"
WHO_WROTE_WHAT: Final = "it is not known what each of the concurrent calls wrote"


class EdgeFacts(NamedTuple):
    """What is known of a thing when a call ends.

    `change` compares it with the begin of the call; `found` was there before, although nobody had looked. `read`: the
    call was seen to read what was there when it began, or had it in memory. `writer` is who was seen to write it: this
    call, this and another one at once, another one, or nobody. `kept`: a part of what was there is in what is there
    now. `alone`: no other call could have written it unseen. `declared` is what `@recorded` says of the parameter.
    `named`: it is in the result. `given`: it was passed to the call, so a C library or a program may have read it
    unseen.
    """

    change: Change
    read: bool = False
    writer: Writer = "unseen"
    kept: bool = False
    alone: bool = True
    declared: Declaration = "nothing"
    named: bool = False
    given: bool = False


class Edges(NamedTuple):
    """What follows.

    `used` says that the call used what was there, and how that is known; `made`, that it made what is there now;
    `derived`, that it made the one from the other; `unknown`, what cannot be said.
    """

    used: Basis | None = None
    made: bool = False
    derived: bool = False
    unknown: str | None = None


class Row(NamedTuple):
    """A row of a table: what follows, and what of the facts it holds for. What is None is not asked."""

    then: str
    change: Change | frozenset[Change] | None = None
    read: bool | None = None
    writer: Writer | frozenset[Writer] | None = None
    kept: bool | None = None
    alone: bool | None = None
    declared: Declaration | frozenset[Declaration] | None = None
    named: bool | None = None
    given: bool | None = None


_SEEN: Final = frozenset[Writer]({"me", "several", "another"})

MADE: Final[tuple[Row, ...]] = (
    Row("no", change=frozenset({"found", "same", "gone"})),
    Row("yes", writer="me"),
    Row(WHO_WROTE_WHAT, writer="several"),
    Row("no", declared="read"),
    Row("yes", declared=frozenset({"written", "changed"})),
    Row("no", writer="another"),
    Row("yes", named=True),
    Row("yes", alone=True),
    Row(WHO_WROTE),
)
"""Whether the call made what is there now."""

USED: Final[tuple[Row, ...]] = (
    Row("no", change="new"),
    Row("no", declared="written"),
    Row("declared", declared=frozenset({"read", "changed"})),
    Row("seen", read=True),
    # What is appended to is not read, and yet it is in the result.
    Row("seen", change="changed", kept=True),
    # A library may have read it before another call wrote it.
    Row(READ_OR_NOT, change=frozenset({"changed", "gone"}), writer="another", given=True),
    Row("no", writer=_SEEN),
    Row("no", change="found"),
    Row("given", change="same", given=True),
    Row("no", change="same"),
    Row(READ_OR_NOT),
)
"""Whether the call used what was there before, and how that is known. `kept` counts if the call made what is there."""

DERIVED: Final[tuple[Row, ...]] = (
    Row("no", declared="written"),
    Row("yes", change="changed", declared="changed"),
    Row("yes", change="changed", read=True),
    Row("yes", change="changed", kept=True),
    Row("no"),
)
"""Whether what the call made is a later version of what was there."""

_BASES: Final[dict[str, Basis]] = {"seen": "seen", "given": "given", "declared": "declared"}


@lru_cache(maxsize=4096)
def edges_of(facts: EdgeFacts) -> Edges:
    """Decide what a call did with a thing."""
    made = _first(MADE, facts)
    if made != "yes":
        facts = facts._replace(kept=False)
    used, derived = _first(USED, facts), _first(DERIVED, facts)
    unknown = next((why for why in (made, used) if why.startswith("it is not known")), None)
    return Edges(_BASES.get(used), made == "yes", made == derived == "yes", unknown)


def _first(rows: tuple[Row, ...], facts: EdgeFacts) -> str:
    return next(row.then for row in rows if holds(row[1:], facts))
