"""The part of PostgreSQL's JSON path language that `content-path` uses, in lax mode.

    $.item ? (@ == "urn:x:1")                            $.name ? (@ like_regex "^a" flag "i")
    $.images[*] ? (@.size > 10000 && @.kind != "raw")    $.tags[last] ? (@ starts with "A")

Supported are paths of `.key`, `."key"`, `.*`, `[*]`, `[0]`, `[last]`, `[last - 1]`, `[0 to 2, last]` and conditions `?
(...)`. A condition compares (`==`, `!=`, `<>`, `<`, `<=`, `>`, `>=`) the values of paths from `@` or `$` with each
other or with a text, a number, `true`, `false` or `null`. It can also use `starts with`, `like_regex` and
`exists`; `&&`, `||`, `!` and `is unknown` combine conditions. Methods, arithmetic, `.**`, variables and strict mode are
refused.

As in PostgreSQL, a key is applied to the elements of an array, and a comparison uses the elements of an array. A
condition is true, false or unknown (None); comparing values of different kinds is unknown. An aspect is selected if the
path returns any value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from ivcap_flows.local.ivcap.errors import Problem, bad_request
from ivcap_flows.local.ivcap.like_regex import RegexError, finder

__all__ = ["compile_path", "matches"]

Path = Callable[[Any, Any], list[Any]]
"""Returns the values of a path, from the whole (`$`) and the current value (`@`)."""
Step = Callable[[Any, Any], Iterator[Any]]
"""Returns the values of a step, from the whole and one value."""
Test = Callable[[Any, Any], bool | None]
"""Returns whether a condition holds; None if that is unknown."""
Range = tuple[bool, int, bool, int]
"""First and last element of a subscript, each with whether it is counted from the end."""

_TOKEN: Final = re.compile(
    r"""(?: (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<sign>&&|\|\||==|!=|<>|<=|>=|[-,<>!?@$.*()\[\]]) | (?P<word>[^\W\d]\w*) )""",
    re.VERBOSE | re.DOTALL,
)
_BLANK: Final = re.compile(r"(?:\s|/\*.*?\*/)*", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([^ux]))", re.DOTALL)
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_COMPARE: Final = {"==", "!=", "<>", "<", "<=", ">", ">="}
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


def _all_keys(whole: Any, value: Any) -> Iterator[Any]:
    for element in _elements(value):
        if isinstance(element, dict):
            yield from element.values()


def _all_elements(whole: Any, value: Any) -> Iterator[Any]:
    return iter(_elements(value))


def _subscript(ranges: list[Range]) -> Step:
    def step(whole: Any, value: Any) -> Iterator[Any]:
        elements = _elements(value)
        for from_last, first, to_last, last in ranges:
            end = len(elements) - 1
            begin, stop = (end - at if behind else at for behind, at in ((from_last, first), (to_last, last)))
            yield from elements[max(0, begin) : max(0, stop + 1)]

    return step


def _kind(value: Any) -> str:
    """Return the kind of a value for comparisons; arrays and objects are the same kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | Decimal) else "container"


def _compare(operator: str, left: Any, right: Any) -> bool | None:
    """Compare as jsonb does: only values of the same kind.

    A null differs from every other kind. Other mixed kinds, and arrays and objects, are unknown (None).
    """
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        return operator in ("!=", "<>") if "null" in kinds else None
    if kinds[0] == "container":
        return None
    if kinds[0] == "null":
        left = right = 0
    if operator == "==":
        return bool(left == right)
    if operator in ("!=", "<>"):
        return bool(left != right)
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


def _some(found: Iterator[bool | None]) -> bool | None:
    """Return True if any is true, else None if any is unknown, else False."""
    seen = set()
    for one in found:
        if one is True:
            return True
        seen.add(one)
    return None if None in seen else False


def _every(found: Iterator[bool | None]) -> bool | None:
    """Return False if any is false, else None if any is unknown, else True."""
    seen = set()
    for one in found:
        if one is False:
            return False
        seen.add(one)
    return None if None in seen else True


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        # The exponent is out of range; PostgreSQL does not store such a number.
        return Decimal("Infinity")


def _unescaped(text: str) -> str:
    """Return a string literal without its quotes. Raises ValueError."""

    def meant(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else _ESCAPED.get(found[4], found[4])

    if re.search(r"\\[ux]", _ESCAPE.sub("", text)):
        raise ValueError(text)
    # Characters beyond the first 65,536 may be written as two surrogates; half of a pair is an error.
    plain = _ESCAPE.sub(meant, text[1:-1]).encode("utf-16", "surrogatepass").decode("utf-16")
    if "\0" in plain:
        raise ValueError(text)
    return plain


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = self._depth = 0
        position = self._skip(text, 0)
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._unsupported(f"character {position + 1}")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            position = self._skip(text, found.end())

    @staticmethod
    def _skip(text: str, position: int) -> int:
        found = _BLANK.match(text, position)
        return found.end() if found else position

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
        """Consume these tokens if they follow, words in any case; return whether they did."""
        found = self._tokens[self._at : self._at + len(texts)]
        plain = [text.lower() if kind == "word" else text for kind, text in found if kind in ("sign", "word")]
        if plain != list(texts):
            return False
        self._at += len(texts)
        return True

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._unsupported(f"{self._peek()[1][:60]!r} where {text!r} is expected")

    def _string(self, what: str) -> str:
        kind, text = self._next()
        if kind != "string":
            raise self._unsupported(f"{what} {text[:60]!r}")
        return _unescaped(text)

    def whole(self) -> Path:
        if self._take("strict"):
            raise self._unsupported("strict mode")
        self._take("lax")
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
                steps.append(self._subscripts())
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
        return lambda whole, value: (one for one in _elements(value) if test(whole, one) is True)

    def _member(self) -> Step:
        kind, text = self._next()
        if kind == "string":
            return _key(_unescaped(text))
        if kind == "word" and self._peek() != ("sign", "("):
            return _key(text)
        if (kind, text) == ("sign", "*"):
            return _all_keys
        raise self._unsupported(f"{text[:60]!r} after a dot")

    def _subscripts(self) -> Step:
        if self._take("*"):
            return _all_elements
        ranges: list[Range] = []
        while not ranges or self._take(","):
            first = self._place()
            ranges.append((*first, *(self._place() if self._take("to") else first)))
        return _subscript(ranges)

    def _place(self) -> tuple[bool, int]:
        """Read a position in an array, and whether it is counted from the end."""
        if self._take("last"):
            return True, self._whole_number() if self._take("-") else 0
        return False, self._whole_number()

    def _whole_number(self) -> int:
        kind, text = self._next()
        if kind != "number" or not text.isdigit() or len(text) > 9:
            raise self._unsupported(f"the subscript {text[:60]!r}")
        return int(text)

    def _any(self) -> Test:
        tests = [self._all()]
        while self._take("||"):
            tests.append(self._all())
        return lambda whole, value: _some(test(whole, value) for test in tests)

    def _all(self) -> Test:
        tests = [self._test()]
        while self._take("&&"):
            tests.append(self._test())
        return lambda whole, value: _every(test(whole, value) for test in tests)

    def _test(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._unsupported(f"more than {_DEEPEST} levels")
        try:
            if self._take("!"):
                inner = self._exists() if self._take("exists", "(") else self._in_brackets()
                return lambda whole, value: None if (found := inner(whole, value)) is None else not found
            if self._take("exists", "("):
                return self._exists()
            if self._peek() == ("sign", "("):
                inner = self._in_brackets()
                if self._take("is", "unknown"):
                    return lambda whole, value: inner(whole, value) is None
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _in_brackets(self) -> Test:
        self._need("(")
        inner = self._any()
        self._need(")")
        return inner

    def _exists(self) -> Test:
        path = self._operand()
        self._need(")")
        return lambda whole, value: bool(path(whole, value))

    def _operand(self) -> Path:
        if self._take("@"):
            return self._path(from_whole=False)
        if self._take("$"):
            return self._path(from_whole=True)
        negative = self._take("-")
        kind, text = self._next()
        constant: Any
        if kind == "number":
            constant = -_number(text) if negative else _number(text)
        elif negative:
            raise self._unsupported(f"a minus before {text[:60]!r}")
        elif kind == "string":
            constant = _unescaped(text)
        elif kind == "word" and text in _CONSTANTS:
            constant = _CONSTANTS[text]
        else:
            raise self._unsupported(repr(text[:60]))
        return lambda whole, value: [constant]

    def _comparison(self) -> Test:
        left = self._operand()
        if self._take("starts", "with"):
            start = self._string("starts with")
            return _of_texts(left, lambda text: text.startswith(start))
        if self._take("like_regex"):
            pattern = self._string("like_regex")
            flags = self._string("flag") if self._take("flag") else ""
            try:
                return _of_texts(left, finder(pattern, flags))
            except RegexError as error:
                raise self._unsupported(str(error)) from None
        kind, operator = self._next()
        if kind != "sign" or operator not in _COMPARE:
            raise self._unsupported(repr(operator[:60]))
        right = self._operand()
        return lambda whole, value: _some(
            _compare(operator, one, other) for one in _flat(left(whole, value)) for other in _flat(right(whole, value))
        )


def _of_texts(path: Path, fits: Callable[[str], bool]) -> Test:
    return lambda whole, value: _some(fits(one) if isinstance(one, str) else None for one in _flat(path(whole, value)))


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
