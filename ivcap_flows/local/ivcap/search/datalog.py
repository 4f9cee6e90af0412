"""Evaluate a program bottom up, stratum by stratum. Each round uses only the rows found in the last one (semi-naive).

No rule depends on a negation within its own stratum, so a negated atom reads a predicate that is complete. Steps and
rows are counted, so that no program runs or grows for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.local.ivcap.search.program import (
    Atom,
    Comparison,
    Name,
    Premise,
    Program,
    ProgramError,
    Rule,
    Term,
    Value,
    Variable,
)

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

    `free` has the first position of each free variable.
    """

    atom: Atom
    known: tuple[int, ...]
    free: tuple[tuple[Variable, int], ...]
    same: tuple[tuple[int, int], ...]
    fresh: bool = False
    """Whether it uses only the rows found in the last round."""


@dataclass(frozen=True)
class _Absent:
    atom: Atom
    known: tuple[int, ...]


@dataclass(frozen=True)
class _Test:
    comparison: Comparison


@dataclass(frozen=True)
class _Assign:
    variable: Variable
    term: Term


_Step = _Join | _Absent | _Test | _Assign


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
    _strata: list[list[Rule]] = field(init=False)

    def __post_init__(self) -> None:
        self._check_widths()
        for rule in self.program.rules:
            _ordered_steps(rule, None)
        self._strata = self._stratified()

    def answer(self, loaded: Mapping[str, Sequence[Row]]) -> list[Row]:
        """Return the rows of `query`, in an order that depends on the rows only. Raises ProgramError if too large."""
        budget = _Budget()
        budget.row(sum(len(rows) for rows in loaded.values()))
        relations = {name: _Relation(loaded.get(name, ())) for name in {*self.widths, *self._heads()}}
        for rules in self._strata:
            _complete(rules, relations, budget)
        return sorted(relations[QUERY].rows, key=ordered)

    def _heads(self) -> set[str]:
        return {rule.head.predicate for rule in self.program.rules}

    def _check_widths(self) -> None:
        widths = dict(self.widths)
        for rule in self.program.rules:
            if rule.head.predicate in self.widths:
                raise ProgramError(f"{rule.head.predicate} is loaded from aspects, so no rule can add to it.")
            premises = [one.atom for one in rule.body if isinstance(one, Premise)]
            for atom in (rule.head, *premises):
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

    def _stratified(self) -> list[list[Rule]]:
        level = dict.fromkeys(self._heads(), 0)
        changed = True
        while changed:
            changed = False
            for rule in self.program.rules:
                for premise in rule.body:
                    if isinstance(premise, Premise) and premise.atom.predicate in level:
                        least = level[premise.atom.predicate] + premise.negated
                        if level[rule.head.predicate] < least:
                            level[rule.head.predicate], changed = least, True
                            if least > len(level):
                                name = rule.head.predicate
                                raise ProgramError(f"{name} depends on its own negation, which has no answer.")
        strata: list[list[Rule]] = [[] for _ in range(max(level.values(), default=0) + 1)]
        for rule in self.program.rules:
            strata[level[rule.head.predicate]].append(rule)
        return strata


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


def _complete(rules: Sequence[Rule], relations: dict[str, _Relation], budget: _Budget) -> None:
    """Add all rows that the rules of a stratum give."""
    inside = {rule.head.predicate for rule in rules}
    plans = [(rule.head, _ordered_steps(rule, None)) for rule in rules]
    again = [
        (rule.head, _ordered_steps(rule, at))
        for rule in rules
        for at, premise in enumerate(rule.body)
        if isinstance(premise, Premise) and not premise.negated and premise.atom.predicate in inside
    ]
    fresh: dict[str, _Relation] = {}
    while True:
        found: dict[str, _Relation] = {}
        for head, steps in plans:
            known = relations[head.predicate]
            # Add the rows after the rule has run, since it must not change the rows it iterates over.
            new: dict[Row, None] = {}
            for binding in _solutions(steps, 0, {}, relations, fresh, budget):
                row = _row(head, binding)
                if row not in known.rows and row not in new:
                    budget.row()
                    new[row] = None
            for row in new:
                known.add(row)
                found.setdefault(head.predicate, _Relation()).add(row)
        if not found or not again:
            return
        plans, fresh = again, found


def _row(head: Atom, binding: Binding) -> Row:
    return tuple(binding[term] if isinstance(term, Variable) else term for term in head.terms)


def _value(term: Term, binding: Binding) -> Value:
    return binding[term] if isinstance(term, Variable) else term


def _solutions(
    steps: Sequence[_Step],
    at: int,
    binding: Binding,
    relations: Mapping[str, _Relation],
    fresh: Mapping[str, _Relation],
    budget: _Budget,
) -> Iterator[Binding]:
    """Yield each way to satisfy the steps. A binding is valid until the next one is requested."""
    if at == len(steps):
        yield binding
        return
    step = steps[at]
    budget.step()
    if isinstance(step, _Test):
        left, right = _value(step.comparison.left, binding), _value(step.comparison.right, binding)
        if _holds(step.comparison.operator, left, right):
            yield from _solutions(steps, at + 1, binding, relations, fresh, budget)
        return
    if isinstance(step, _Assign):
        binding[step.variable] = _value(step.term, binding)
        yield from _solutions(steps, at + 1, binding, relations, fresh, budget)
        return
    name, terms = step.atom.predicate, step.atom.terms
    key = tuple(_value(terms[position], binding) for position in step.known)
    if isinstance(step, _Absent):
        if not relations[name].find(step.known, key):
            yield from _solutions(steps, at + 1, binding, relations, fresh, budget)
        return
    source = fresh.get(name, _NOTHING) if step.fresh else relations[name]
    for row in source.find(step.known, key):
        budget.step()
        if all(row[one] == row[other] for one, other in step.same):
            for variable, position in step.free:
                binding[variable] = row[position]
            yield from _solutions(steps, at + 1, binding, relations, fresh, budget)


_NOTHING: Final = _Relation()


def _holds(operator: str, left: Value, right: Value) -> bool:
    """Return whether a comparison holds. Numbers have an order, and texts have one; other or mixed values have none."""
    if operator == "=":
        return left == right
    if operator == "!=":
        return left != right
    a: Any = left
    b: Any = right
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    if not numbers and not (isinstance(a, str) and isinstance(b, str)):
        return False
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])


def _ordered_steps(rule: Rule, fresh: int | None) -> list[_Step]:
    """Order the premises so that each has its values: tests as early as possible, then atoms with the most known terms.

    `fresh` is the position of the premise that uses only new rows; it comes first. Raises ProgramError if a variable
    never gets a value.
    """
    waiting = list(enumerate(rule.body))
    bound: set[Variable] = set()
    steps: list[_Step] = []
    if fresh is not None:
        premise = rule.body[fresh]
        assert isinstance(premise, Premise)
        del waiting[fresh]
        steps.append(_join(premise.atom, bound, fresh=True))
    while waiting:
        chosen, step = _next(waiting, bound)
        if step is None:
            missing = sorted({one.shown for _, premise in waiting for one in _variables(premise) if one not in bound})
            raise _unbound(rule, missing[0])
        waiting.remove(chosen)
        steps.append(step)
    for term in rule.head.terms:
        if isinstance(term, Variable) and term not in bound:
            raise _unbound(rule, term.shown)
    return steps


def _unbound(rule: Rule, name: str) -> ProgramError:
    return ProgramError(f"In a rule for {rule.head.predicate}, no positive atom gives {name} a value.")


def _variables(premise: Premise | Comparison) -> list[Variable]:
    terms = premise.atom.terms if isinstance(premise, Premise) else (premise.left, premise.right)
    return [term for term in terms if isinstance(term, Variable)]


def _next(
    waiting: Sequence[tuple[int, Premise | Comparison]], bound: set[Variable]
) -> tuple[tuple[int, Premise | Comparison], _Step | None]:
    """Choose the next premise and bind its variables: a test if possible, else the atom with the most known terms."""
    for entry in waiting:
        premise = entry[1]
        open_ = [one for one in _variables(premise) if one not in bound]
        if isinstance(premise, Comparison):
            if not open_:
                return entry, _Test(premise)
            if premise.operator == "=" and len(open_) == 1:
                bound.add(open_[0])
                return entry, _Assign(open_[0], premise.right if premise.left == open_[0] else premise.left)
        elif premise.negated and all(one.shown == "_" for one in open_):
            return entry, _Absent(premise.atom, _known(premise.atom, bound))
    atoms = [entry for entry in waiting if isinstance(entry[1], Premise) and not entry[1].negated]
    if not atoms:
        return waiting[0], None
    best = max(atoms, key=lambda entry: len(_known(_atom(entry), bound)))
    return best, _join(_atom(best), bound, fresh=False)


def _atom(entry: tuple[int, Premise | Comparison]) -> Atom:
    premise = entry[1]
    assert isinstance(premise, Premise)
    return premise.atom


def _known(atom: Atom, bound: set[Variable]) -> tuple[int, ...]:
    return tuple(at for at, term in enumerate(atom.terms) if not isinstance(term, Variable) or term in bound)


def _join(atom: Atom, bound: set[Variable], *, fresh: bool) -> _Join:
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
    return _Join(atom, known, tuple(first.items()), tuple(same), fresh)
