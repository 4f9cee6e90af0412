"""Match regular expressions by following all possible states at once, so that no match takes for ever.

Python's `re` backtracks: with some expressions, a text of thirty characters can take it years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Check", "Node", "Program", "Test", "TooLargeError", "holds", "program_of"]

Test = Callable[[str], bool]
"""Returns whether a character matches."""
Check = Callable[[str, int], bool]
"""Returns whether a condition holds at a position in a text."""

_MOST_STEPS: Final = 20_000


class TooLargeError(ValueError):
    """An expression has too many steps."""


@dataclass
class Step:
    """A step of a program: a character that must match, a condition that must hold, or a choice of next steps."""

    test: Test | None = None
    check: Check | None = None
    ways: tuple[int, ...] = ()


Program = list[Step]
Node = tuple[Any, ...]
"""A part of an expression: `("char", test)`, `("check", check)`, `("row", parts)`, `("either", parts)`, `("repeat",
part, least, most)`.
"""


def program_of(node: Node) -> Program:
    program: Program = []
    _write(node, program)
    return program


def _write(node: Node, program: Program) -> None:
    """Append the steps of a node; the steps of the next node follow its last step."""
    if len(program) > _MOST_STEPS:
        raise TooLargeError("a regular expression of that size")
    kind, *parts = node
    if kind == "char":
        program.append(Step(test=parts[0]))
    elif kind == "check":
        program.append(Step(check=parts[0]))
    elif kind == "row":
        for part in parts[0]:
            _write(part, program)
    elif kind == "either":
        _write_branches(parts[0], program)
    else:
        _write_repeats(parts[0], parts[1], parts[2], program)


def _write_branches(branches: list[Node], program: Program) -> None:
    choice, ends = Step(), []
    program.append(choice)
    starts = []
    for branch in branches:
        starts.append(len(program))
        _write(branch, program)
        ends.append(Step())
        program.append(ends[-1])
    choice.ways = tuple(starts)
    for end in ends:
        end.ways = (len(program),)


def _write_repeats(part: Node, least: int, most: int | None, program: Program) -> None:
    for _ in range(least):
        _write(part, program)
    if most is None:
        loop = Step()
        begin = len(program)
        program.append(loop)
        _write(part, program)
        program.append(Step(ways=(begin,)))
        loop.ways = (begin + 1, len(program))
        return
    choices = []
    for _ in range(most - least):
        choices.append((Step(), len(program) + 1))
        program.append(choices[-1][0])
        _write(part, program)
    for choice, begin in choices:
        choice.ways = (begin, len(program))


def holds(program: Program, text: str, begin: int, *, end: int | None = None, anchored: bool = False) -> bool:
    """Return whether the program can end at or after `begin`, or exactly at `end`; anchored, it starts at `begin`."""
    last = len(text) if end is None else end
    waiting: list[int] = []
    for at in range(begin, last + 1):
        starts = [*waiting, 0] if at == begin or not anchored else waiting
        waiting, done = _reached(program, starts, text, at)
        if done and (end is None or at == end):
            return True
        if anchored and not waiting:
            return False
        if at < last:
            waiting = [step + 1 for step in waiting if (test := program[step].test) is not None and test(text[at])]
    return False


def _reached(program: Program, starts: Iterable[int], text: str, at: int) -> tuple[list[int], bool]:
    """Return the steps that wait for a character, and whether the program has ended."""
    seen: set[int] = set()
    waiting: list[int] = []
    open_ = list(starts)
    while open_:
        number = open_.pop()
        if number in seen:
            continue
        seen.add(number)
        if number == len(program):
            continue
        step = program[number]
        if step.test is not None:
            waiting.append(number)
        elif step.check is None:
            open_ += step.ways
        elif step.check(text, at):
            open_.append(number + 1)
    return waiting, len(program) in seen
