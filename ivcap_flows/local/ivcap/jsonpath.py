"""The part of PostgreSQL's JSON path language that `content-path` is used with.

    $.item ? (@ == "urn:x:1")     $.images[*] ? (@.size > 10000 && @.kind != "raw")     $.name ? (@ starts with "A")

Paths of `.key`, `."key"`, `.*`, `[0]`, `[*]`; a predicate of `==`, `!=`, `<>`, `<`, `<=`, `>`, `>=`, `starts with`,
`exists`, `&&`, `||`, `!`. As in PostgreSQL's lax mode, a key looks into the elements of an array and a comparison takes
the elements of one. An aspect is selected when the path gives anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from ivcap_flows.local.ivcap.errors import Problem, bad_request

__all__ = ["compile_path", "matches"]

Step = Callable[[Any], Iterator[Any]]
Path = Callable[[Any], list[Any]]
Test = Callable[[Any], bool]

_TOKEN: Final = re.compile(
    r"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*") | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<sign>&&|\|\||==|!=|<>|<=|>=|[<>!?@$.*()\[\]]) | (?P<word>[A-Za-z_][A-Za-z0-9_]*) )""",
    re.VERBOSE,
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_COMPARE: Final = {"==", "!=", "<>", "<", "<=", ">", ">="}
_LONGEST: Final = 4000
_DEEPEST: Final = 40


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _key(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        for element in _elements(value):
            if isinstance(element, dict) and name in element:
                yield element[name]

    return step


def _all_keys(value: Any) -> Iterator[Any]:
    for element in _elements(value):
        if isinstance(element, dict):
            yield from element.values()


def _index(number: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        elements = _elements(value)
        if 0 <= number < len(elements):
            yield elements[number]

    return step


def _compare(operator: str, left: Any, right: Any) -> bool:
    """As jsonb: numbers with numbers, texts with texts; other mixes are neither equal nor ordered."""
    numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right))
    if not numbers and (type(left) is not type(right) or isinstance(left, dict | list)):
        return operator in ("!=", "<>") and not isinstance(left, dict | list) and (left is None or right is None)
    if operator == "==":
        return bool(left == right)
    if operator in ("!=", "<>"):
        return bool(left != right)
    if left is None:
        return operator in ("<=", ">=")
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = self._depth = 0
        position, text = 0, text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._unsupported(f"character {position + 1}")
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

    def _take(self, text: str) -> bool:
        if self._peek()[1] == text and self._peek()[0] in ("sign", "word"):
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._unsupported(f"{self._peek()[1][:60]!r} where {text!r} is expected")

    def whole(self) -> Path:
        for mode in ("lax", "strict"):
            if self._take(mode) and mode == "strict":
                raise self._unsupported("strict mode")
        self._need("$")
        path = self._path()
        if self._peek()[0] != "end":
            raise self._unsupported(repr(self._peek()[1][:60]))
        return path

    def _path(self) -> Path:
        steps: list[Step] = []
        while True:
            if self._take("."):
                steps.append(self._member())
            elif self._take("["):
                steps.append(self._subscript())
                self._need("]")
            elif self._take("?"):
                self._need("(")
                test = self._any()
                self._need(")")
                steps.append(self._where(test))
            else:
                break

        def path(value: Any) -> list[Any]:
            values = [value]
            for step in steps:
                values = [found for each in values for found in step(each)]
            return values

        return path

    @staticmethod
    def _where(test: Test) -> Step:
        return lambda value: (element for element in _elements(value) if test(element))

    def _member(self) -> Step:
        kind, text = self._peek()
        self._at += 1
        if kind == "string":
            return _key(json.loads(text))
        if kind == "word" and self._peek() != ("sign", "("):
            return _key(text)
        if (kind, text) == ("sign", "*"):
            return _all_keys
        raise self._unsupported(f"{text[:60]!r} after a dot")

    def _subscript(self) -> Step:
        kind, text = self._peek()
        self._at += 1
        if (kind, text) == ("sign", "*"):
            return lambda value: iter(_elements(value))
        if kind == "number" and text.isdigit() and len(text) < 10:
            return _index(int(text))
        if kind == "string":
            return _key(json.loads(text))
        raise self._unsupported(f"the subscript {text[:60]!r}")

    def _any(self) -> Test:
        tests = [self._every()]
        while self._take("||"):
            tests.append(self._every())
        return lambda value: any(test(value) for test in tests)

    def _every(self) -> Test:
        tests = [self._test()]
        while self._take("&&"):
            tests.append(self._test())
        return lambda value: all(test(value) for test in tests)

    def _test(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._unsupported(f"more than {_DEEPEST} levels")
        try:
            if self._take("!"):
                self._need("(")
                inner = self._any()
                self._need(")")
                return lambda value: not inner(value)
            if self._take("exists"):
                self._need("(")
                self._need("@")
                path = self._path()
                self._need(")")
                return lambda value: bool(path(value))
            if self._take("("):
                inner = self._any()
                self._need(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _operand(self) -> Path:
        if self._take("@"):
            return self._path()
        kind, text = self._peek()
        self._at += 1
        if kind in ("string", "number"):
            constant = json.loads(text)
        elif kind == "word" and text in _CONSTANTS:
            constant = _CONSTANTS[text]
        else:
            raise self._unsupported(repr(text[:60]))
        return lambda value: [constant]

    def _comparison(self) -> Test:
        left = self._operand()
        operator = self._peek()[1]
        if self._take("starts"):
            self._need("with")
            kind, text = self._peek()
            if kind != "string":
                raise self._unsupported(f"starts with {text[:60]!r}")
            self._at += 1
            start = json.loads(text)
            return lambda value: any(isinstance(one, str) and one.startswith(start) for one in _flat(left(value)))
        if self._peek()[0] != "sign" or operator not in _COMPARE:
            raise self._unsupported(repr(operator[:60]))
        self._at += 1
        right = self._operand()
        return lambda value: any(
            _compare(operator, one, other) for one in _flat(left(value)) for other in _flat(right(value))
        )


def _flat(values: list[Any]) -> list[Any]:
    return [element for value in values for element in _elements(value)]


@lru_cache(maxsize=256)
def compile_path(text: str) -> Path:
    """What a path gives from a value. Raises Problem 400 naming what it does not take."""
    if len(text) > _LONGEST:
        raise bad_request(f"content-path is longer than {_LONGEST} characters.")
    try:
        return _Parser(text).whole()
    except ValueError:
        raise bad_request("content-path: a string in it is not valid.") from None


def matches(content: str, path: str) -> bool:
    """Whether a path gives anything from JSON text; a function of the database."""
    return bool(compile_path(path)(json.loads(content)))
