"""Evaluate a program bottom up: apply its rules until they give no new row.

Steps and rows are counted, so that no program runs or grows for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.local.ivcap.search.program import Atom, Name, Program, ProgramError, Rule, Term, Value, Variable

__all__ = ["MOST_ROWS", "Plan", "ordered"]

QUERY: Final = "query"
MOST_STEPS: Final = 2_000_000
"""Maximum number of rows to examine, which takes seconds."""
MOST_ROWS: Final = 300_000
"""Maximum number of rows of all predicates together."""

Row = tuple[Value, ...]
Binding = dict[Variable, Value]


class _Relation:
    """The rows of a predicate, with an index for each set of positions used in a look-up."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = dict.fromkeys(rows)
        self._indexes: dict[tuple[int, ...], dict[Row, list[Row]]] = {}

    def add(self, row: Row) -> None:
        """Add a row that is not there yet."""
        self.rows[row] = None
        for positions, index in self._indexes.items():
            index.setdefault(tuple(row[at] for at in positions), []).append(row)

    def find(self, positions: tuple[int, ...], key: Row) -> Sequence[Row]:
        if not positions:
            return list(self.rows)
        index = self._indexes.get(positions)
        if index is None:
            index = self._indexes[positions] = {}
            for row in self.rows:
                index.setdefault(tuple(row[at] for at in positions), []).append(row)
        return index.get(key, ())


@dataclass(frozen=True)
class _Join:
    """An atom whose terms at `known` have values when it is evaluated.

    `free` has the first position of each free variable, `same` the pairs of positions that must be equal.
    """

    atom: Atom
    known: tuple[int, ...]
    free: tuple[tuple[Variable, int], ...]
    same: tuple[tuple[int, int], ...]


@dataclass
class _Budget:
    steps: int = MOST_STEPS
    rows: int = MOST_ROWS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise ProgramError(f"The search needs more than {MOST_STEPS} steps. Begin its rules with rare atoms.")

    def row(self, count: int = 1) -> None:
        self.rows -= count
        if self.rows < 0:
            raise ProgramError(f"The search produces more than {MOST_ROWS} rows. Make it narrower.")


@dataclass
class Plan:
    """A checked program. Raises ProgramError for one that cannot be answered.

    `widths` are the numbers of terms of the loaded predicates.
    """

    program: Program
    widths: Mapping[str, int]

    def __post_init__(self) -> None:
        self._check_widths()
        self._joins = [(rule.head, _joins(rule)) for rule in self.program.rules]

    def answer(self, loaded: Mapping[str, Sequence[Row]]) -> list[Row]:
        """Return the rows of `query`, in an order that depends on the rows only. Raises ProgramError if too large."""
        budget = _Budget()
        budget.row(sum(len(rows) for rows in loaded.values()))
        relations = {name: _Relation(loaded.get(name, ())) for name in {*self.widths, *self._heads()}}
        grows = True
        while grows:
            grows = False
            for head, joins in self._joins:
                grows |= _apply(head, joins, relations, budget)
        return sorted(relations[QUERY].rows, key=ordered)

    def _heads(self) -> set[str]:
        return {rule.head.predicate for rule in self.program.rules}

    def _check_widths(self) -> None:
        widths = dict(self.widths)
        for rule in self.program.rules:
            if rule.head.predicate in self.widths:
                raise ProgramError(f"{rule.head.predicate} is loaded from aspects, so no rule can add to it.")
            for atom in (rule.head, *rule.body):
                known = widths.setdefault(atom.predicate, len(atom.terms))
                if known != len(atom.terms):
                    raise ProgramError(
                        f"{atom.predicate} has {known} terms in one place, {len(atom.terms)} in another."
                    )
        unknown = sorted(widths.keys() - self.widths.keys() - self._heads())
        if unknown:
            raise ProgramError(f"{unknown[0]} is not defined by any :load_aspect, fact or rule.")
        if QUERY not in widths or QUERY in self.widths:
            raise ProgramError("A search needs a rule for query, such as query(X) :- collection(C, X).")


def ordered(row: Row) -> list[tuple[int, Any]]:
    """Return the sort key of a row: numbers, then texts, names, trees."""
    return [
        (0, value)
        if isinstance(value, int | float)
        else (1, value)
        if isinstance(value, str)
        else (2 if isinstance(value, Name) else 3, value.text)
        for value in row
    ]


def _apply(head: Atom, joins: Sequence[_Join], relations: dict[str, _Relation], budget: _Budget) -> bool:
    """Add the rows that a rule gives. Return whether there was a new one."""
    known = relations[head.predicate]
    # Add the rows after the rule has run, since it must not change the rows it iterates over.
    new: dict[Row, None] = {}
    for binding in _solutions(joins, {}, relations, budget):
        row = tuple(_value(term, binding) for term in head.terms)
        if row not in known.rows and row not in new:
            budget.row()
            new[row] = None
    for row in new:
        known.add(row)
    return bool(new)


def _value(term: Term, binding: Binding) -> Value:
    return binding[term] if isinstance(term, Variable) else term


def _solutions(
    joins: Sequence[_Join], binding: Binding, relations: Mapping[str, _Relation], budget: _Budget
) -> Iterator[Binding]:
    """Yield each way to satisfy the atoms. A binding is valid until the next one is requested."""
    if not joins:
        yield binding
        return
    join, *rest = joins
    terms = join.atom.terms
    key = tuple(_value(terms[position], binding) for position in join.known)
    for row in relations[join.atom.predicate].find(join.known, key):
        budget.step()
        if all(row[one] == row[other] for one, other in join.same):
            for variable, position in join.free:
                binding[variable] = row[position]
            yield from _solutions(rest, binding, relations, budget)


def _joins(rule: Rule) -> list[_Join]:
    """Order the atoms of a rule, each time the one with the most known terms. Raises ProgramError for a free head."""
    waiting, bound = list(rule.body), set[Variable]()
    joins = []
    while waiting:
        best = max(waiting, key=lambda atom: len(_known(atom, bound)))
        waiting.remove(best)
        joins.append(_join(best, bound))
    for term in rule.head.terms:
        if isinstance(term, Variable) and term not in bound:
            name = term.name.partition(" ")[0]
            raise ProgramError(f"In a rule for {rule.head.predicate}, no atom gives {name} a value.")
    return joins


def _known(atom: Atom, bound: set[Variable]) -> tuple[int, ...]:
    return tuple(at for at, term in enumerate(atom.terms) if not isinstance(term, Variable) or term in bound)


def _join(atom: Atom, bound: set[Variable]) -> _Join:
    known = _known(atom, bound)
    first: dict[Variable, int] = {}
    same = []
    for at, term in enumerate(atom.terms):
        if isinstance(term, Variable) and at not in known:
            if term in first:
                same.append((first[term], at))
            else:
                first[term] = at
    bound.update(first)
    return _Join(atom, known, tuple(first.items()), tuple(same))
