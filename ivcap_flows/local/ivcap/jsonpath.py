"""The JSON paths of `content-path`, of the forms that IVCAP's clients and documents show, with PostgreSQL's answers.

    $.item ? (@ == "urn:x:1")          $.images[*] ? (@.size > 10000 && @.kind != "raw")

A path has steps `.key`, `."key"`, `[*]`, `[0]` and conditions `? (...)`. A condition compares (`==`, `!=`, `<>`, `<`,
`<=`, `>`, `>=`) the values of paths from `@` or `$` with each other or with a text, a number, `true`, `false` or
`null`, or asks whether a text `starts with "..."` or is `like_regex "..."`, with `flag "i"` for either case; `&&` and
`||` combine conditions. A regular expression has what Python and PostgreSQL read alike: characters, `\\` before a sign,
`.`, `*`, `+`, `?`, `|`, `^` at its begin and `$` at its end. It is matched in one pass over the text: `re` goes back
for each `*`, and would hold up all requests meanwhile.

The mode is lax: a key is applied to the elements of an array, and a comparison uses the elements of an array. An aspect
is selected if the path returns any value. Values of different kinds do not compare. PostgreSQL calls that unknown, the
same as false here, since no form negates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from ivcap_flows.local.ivcap.errors import Problem, bad_request

__all__ = ["compile_path", "matches"]

Path = Callable[[Any, Any], list[Any]]
"""Returns the values of a path, from the whole (`$`) and the current value (`@`)."""
Step = Callable[[Any, Any], Iterator[Any]]
"""Returns the values of a step, from the whole and one value."""
Test = Callable[[Any, Any], bool]
"""Returns whether a condition holds."""

_TOKEN: Final = re.compile(
    r"""(?: (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<sign>&&|\|\||==|!=|<>|<=|>=|[<>?@$.*()\[\]]) | (?P<word>[^\W\d]\w*) )\s*""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_COMPARE: Final = {"==", "!=", "<>", "<", "<=", ">", ">="}
_ATOM: Final = r"([^\\()\[\]{}.*+?^$|]|\.|\\[^\w\s])([*+?]?)"
_REGEX: Final = re.compile(rf"(?P<begin>\^?)(?P<body>(?:{_ATOM}|\|)*)(?P<end>\$?)")
_LONGEST: Final = 4000
_DEEPEST: Final = 40


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _key(name: str) -> Step:
    def step(whole: Any, value: Any) -> Iterator[Any]:
        for element in _elements(value):
            if isinstance(element, dict) and name in element:
                yield element[name]

    return step


def _all_elements(whole: Any, value: Any) -> Iterator[Any]:
    return iter(_elements(value))


def _element(number: int) -> Step:
    return lambda whole, value: iter(_elements(value)[number : number + 1])


@dataclass(frozen=True)
class _Alternative:
    """One of the texts that a regular expression finds: characters, None for any but a line feed, each with its `*`,
    `+` or `?`."""

    atoms: list[tuple[str | None, str]]
    at_begin: bool
    at_end: bool
    any_case: bool

    def is_in(self, text: str) -> bool:
        """Return whether it is found. The time is that of the text's length, times that of the atoms'."""
        end = len(self.atoms)
        reached = self._reach({0})
        for character in text:
            if end in reached and not self.at_end:
                return True
            further = set() if self.at_begin else {0}
            for number in reached - {end}:
                if self._fits(number, character):
                    further |= {number, number + 1} if self.atoms[number][1] in ("*", "+") else {number + 1}
            reached = self._reach(further)
        return end in reached

    def _reach(self, numbers: set[int]) -> set[int]:
        """Return the atoms that may be next, if these may be: also what follows one that may be left out."""
        for number, (_, often) in enumerate(self.atoms):
            if number in numbers and often in ("*", "?"):
                numbers.add(number + 1)
        return numbers

    def _fits(self, number: int, character: str) -> bool:
        wanted = self.atoms[number][0]
        if wanted is None:
            return character != "\n"
        return character == wanted or (self.any_case and character.lower() == wanted.lower())


def _expression(text: str, flags: str) -> list[_Alternative] | None:
    """Return the alternatives of a regular expression; None for one that PostgreSQL may read otherwise."""
    found = _REGEX.fullmatch(text)
    if found is None or flags not in ("", "i"):
        return None
    bodies: list[list[tuple[str | None, str]]] = [[]]
    for atom, often in re.findall(rf"{_ATOM}|\|", found["body"]):
        if atom:
            bodies[-1].append((None if atom == "." else atom[-1], often))
        else:
            bodies.append([])
    last = len(bodies) - 1
    return [
        _Alternative(atoms, bool(found["begin"]) and not number, bool(found["end"]) and number == last, bool(flags))
        for number, atoms in enumerate(bodies)
    ]


def _kind(value: Any) -> str:
    """Return the kind of a value for comparisons; arrays and objects are the same kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | Decimal) else "container"


def _compare(operator: str, left: Any, right: Any) -> bool:
    """Compare as jsonb does: values of the same kind, but no arrays and objects. A null differs from other kinds."""
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        return operator in ("!=", "<>") and "null" in kinds
    if kinds[0] == "container":
        return False
    if kinds[0] == "null":
        left = right = 0
    if operator == "==":
        return bool(left == right)
    if operator in ("!=", "<>"):
        return bool(left != right)
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        # The exponent is out of range; PostgreSQL does not store such a number.
        return Decimal("Infinity")


def _unescaped(text: str) -> str:
    """Return a string literal without its quotes. Raises ValueError for one that JSON does not have."""
    plain = str(json.loads(text))
    plain.encode()
    if "\0" in plain:
        raise ValueError(text)
    return plain


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = self._depth = 0
        text = text.strip()
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._unsupported(f"{text[position : position + 20]!r}")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            position = found.end()

    @staticmethod
    def _unsupported(what: str) -> Problem:
        return bad_request(
            f"content-path: cannot use {what}. The embedded platform takes paths such as $.a.b[*] with a condition"
            ' such as ? (@.c == "x" && @.n > 1).'
        )

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end")

    def _next(self) -> tuple[str, str]:
        found = self._peek()
        self._at += 1
        return found

    def _take(self, *texts: str) -> bool:
        """Consume these tokens if they follow; return whether they did."""
        found = self._tokens[self._at : self._at + len(texts)]
        if [text for kind, text in found if kind in ("sign", "word")] != list(texts):
            return False
        self._at += len(texts)
        return True

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._unsupported(f"{self._peek()[1][:60]!r} where {text!r} is expected")

    def whole(self) -> Path:
        self._need("$")
        path = self._path(from_whole=True)
        if self._peek()[0] != "end":
            raise self._unsupported(repr(self._peek()[1][:60]))
        return path

    def _path(self, *, from_whole: bool) -> Path:
        steps: list[Step] = []
        while True:
            if self._take("."):
                steps.append(self._member())
            elif self._take("["):
                steps.append(self._subscript())
                self._need("]")
            elif self._take("?"):
                self._need("(")
                steps.append(self._where(self._any()))
                self._need(")")
            else:
                break

        def path(whole: Any, current: Any) -> list[Any]:
            values = [whole if from_whole else current]
            for step in steps:
                values = [found for each in values for found in step(whole, each)]
            return values

        return path

    @staticmethod
    def _where(test: Test) -> Step:
        return lambda whole, value: (one for one in _elements(value) if test(whole, one))

    def _member(self) -> Step:
        kind, text = self._next()
        if kind == "string":
            return _key(_unescaped(text))
        if kind == "word" and self._peek() != ("sign", "("):
            return _key(text)
        raise self._unsupported(f"{text[:60]!r} after a dot")

    def _subscript(self) -> Step:
        if self._take("*"):
            return _all_elements
        kind, text = self._next()
        if kind != "number" or not text.isdigit() or len(text) > 9:
            raise self._unsupported(f"the subscript {text[:60]!r}")
        return _element(int(text))

    def _any(self) -> Test:
        tests = [self._all()]
        while self._take("||"):
            tests.append(self._all())
        return lambda whole, value: any(test(whole, value) for test in tests)

    def _all(self) -> Test:
        tests = [self._test()]
        while self._take("&&"):
            tests.append(self._test())
        return lambda whole, value: all(test(whole, value) for test in tests)

    def _test(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._unsupported(f"more than {_DEEPEST} levels")
        if self._take("("):
            test = self._any()
            self._need(")")
        else:
            test = self._comparison()
        self._depth -= 1
        return test

    def _operand(self) -> Path:
        if self._take("@"):
            return self._path(from_whole=False)
        if self._take("$"):
            return self._path(from_whole=True)
        kind, text = self._next()
        constant: Any
        if kind == "number":
            constant = _number(text)
        elif kind == "string":
            constant = _unescaped(text)
        elif kind == "word" and text in _CONSTANTS:
            constant = _CONSTANTS[text]
        else:
            raise self._unsupported(repr(text[:60]))
        return lambda whole, value: [constant]

    def _regex(self) -> list[_Alternative]:
        given = [self._next()]
        if self._take("flag"):
            given.append(self._next())
        texts = [_unescaped(text) for kind, text in given if kind == "string"]
        found = _expression(*texts, *[""] * (2 - len(given))) if len(texts) == len(given) else None
        if found is None:
            raise self._unsupported(f"like_regex {' flag '.join(text[:60] for _, text in given)}")
        return found

    def _comparison(self) -> Test:
        left = self._operand()
        if self._take("starts", "with"):
            kind, text = self._next()
            if kind != "string":
                raise self._unsupported(f"starts with {text[:60]!r}")
            start = _unescaped(text)
            return lambda whole, value: any(
                isinstance(one, str) and one.startswith(start) for one in _flat(left(whole, value))
            )
        if self._take("like_regex"):
            alternatives = self._regex()
            return lambda whole, value: any(
                isinstance(one, str) and any(each.is_in(one) for each in alternatives)
                for one in _flat(left(whole, value))
            )
        kind, operator = self._next()
        if kind != "sign" or operator not in _COMPARE:
            raise self._unsupported(repr(operator[:60]))
        right = self._operand()
        return lambda whole, value: any(
            _compare(operator, one, other) for one in _flat(left(whole, value)) for other in _flat(right(whole, value))
        )


def _flat(values: list[Any]) -> list[Any]:
    return [element for value in values for element in _elements(value)]


@lru_cache(maxsize=256)
def compile_path(text: str) -> Path:
    """Return a function for the values of a path. Raises Problem 400 with what is not supported."""
    if len(text) > _LONGEST:
        raise bad_request(f"content-path is longer than {_LONGEST} characters.")
    try:
        return _Parser(text).whole()
    except ValueError:
        raise bad_request("content-path: a string in it is not valid.") from None


def matches(content: str, path: str) -> bool:
    """Return whether a path returns any value from JSON text. A function of the database."""
    value = json.loads(content, parse_float=_number)
    return bool(compile_path(path)(value, value))
