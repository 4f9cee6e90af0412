"""The filter grammar of lists, compiled to SQL with every value as a parameter.

    expression := conjunction ('||' conjunction)*          conjunction := factor ('&&' factor)*
    factor     := '!' factor | '(' expression ')' | name operator value
    operator   := '~=' | '==' | '=' | '!=' | '<=' | '>=' | '<' | '>' | eq | ne | lt | le | gt | ge
    value      := 'text' | "text" | word

`~=` matches the whole value, with `%` for any characters, as in `name ~= 'Scott%'` (IVCAP OpenAPI 0.48). The word
operators are those of the OData example in the same document. Inside quotes, the same quote is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap.errors import Problem, bad_request

__all__ = ["Column", "compile_filter", "glob"]

_TOKEN: Final = re.compile(
    r"""\s*(?: (?P<quoted>'(?:[^']|'')*' | "(?:[^"]|"")*") | (?P<sign>&&|\|\||~=|==|!=|<=|>=|[=<>()!])
    | (?P<word>[^\s()'"&|~=!<>]+) )""",
    re.VERBOSE,
)
_OPERATORS: Final = {"~=": "GLOB", "==": "=", "=": "=", "!=": "<>", "<=": "<=", ">=": ">=", "<": "<", ">": ">"} | {
    "eq": "=",
    "ne": "<>",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
_JOINS: Final = {"&&": "AND", "and": "AND", "||": "OR", "or": "OR"}
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")
_LONGEST: Final = 4000
_DEEPEST: Final = 40


@dataclass(frozen=True)
class Column:
    """The meaning of a name in a filter or in `order-by`; `values` are parameters inside `sql`.

    A column of kind `any` has JSON values: a number without quotes is compared as a number. A column that is
    `never_null` sorts as it is, so that a plain index of it can be used.
    """

    sql: str
    kind: Literal["text", "number", "time", "any"] = "text"
    values: tuple[Any, ...] = ()
    never_null: bool = False

    @property
    def sortable(self) -> str:
        """An expression that is never null, since no key compares as after a null."""
        empty = "0" if self.kind in ("number", "time") else "''"
        return self.sql if self.never_null else f"COALESCE({self.sql}, {empty})"


def glob(pattern: str) -> str:
    """Return a `%` pattern as a case-sensitive SQLite GLOB."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", pattern).replace("%", "*")


def compile_filter(text: str, column: Callable[[str], Column | None]) -> tuple[str, list[Any]] | None:
    """Return SQL and its parameters; None for an empty filter. Raises Problem 400 with the fault."""
    if not text.strip():
        return None
    if len(text) > _LONGEST:
        raise bad_request(f"filter is longer than {_LONGEST} characters.")
    return _Parser(text, column).whole()


class _Parser:
    def __init__(self, text: str, column: Callable[[str], Column | None]) -> None:
        self._column = column
        self._tokens: list[tuple[str, str]] = []
        self._at, self._depth = 0, 0
        position = 0
        text = text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise bad_request(f"filter cannot be read at character {position + 1}.")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            position = found.end()

    def whole(self) -> tuple[str, list[Any]]:
        sql, values = self._expression()
        if self._at < len(self._tokens):
            raise self._fault("&& or || or the end")
        return sql, values

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _fault(self, expected: str) -> Problem:
        kind, text = self._peek()
        return bad_request(f"filter: expected {expected}, found {'the end' if kind == 'end' else text[:60]!r}.")

    def _joined(self, sign: str, part: Callable[[], tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
        sql, values = part()
        while self._peek()[0] != "quoted" and _JOINS.get(self._peek()[1].lower()) == sign:
            self._at += 1
            more, added = part()
            sql, values = f"{sql} {sign} {more}", values + added
        return sql, values

    def _expression(self) -> tuple[str, list[Any]]:
        return self._joined("OR", lambda: self._joined("AND", self._factor))

    def _factor(self) -> tuple[str, list[Any]]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise bad_request(f"filter is nested more than {_DEEPEST} deep.")
        try:
            if self._peek() == ("sign", "!"):
                self._at += 1
                sql, values = self._factor()
                return f"NOT ({sql})", values
            if self._peek() == ("sign", "("):
                self._at += 1
                sql, values = self._expression()
                if self._peek() != ("sign", ")"):
                    raise self._fault("')'")
                self._at += 1
                return f"({sql})", values
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> tuple[str, list[Any]]:
        if self._peek()[0] != "word":
            raise self._fault("a name")
        name = self._next()[1]
        column = self._column(name)
        if column is None:
            raise bad_request(f"filter: there is no column {name[:60]!r}.")
        operator = _OPERATORS.get(self._peek()[1].lower()) if self._peek()[0] != "quoted" else None
        if operator is None:
            raise self._fault("an operator such as ~= or ==")
        self._at += 1
        if self._peek()[0] not in ("quoted", "word"):
            raise self._fault("a value")
        kind, text = self._next()
        quoted = kind == "quoted"
        if quoted:
            text = text[1:-1].replace(text[0] * 2, text[0])
        if operator == "GLOB":
            return f"CAST({column.sql} AS TEXT) GLOB ?", [*column.values, glob(text)]
        return f"{column.sql} {operator} ?", [*column.values, _value(column, name, text, quoted)]


def _value(column: Column, name: str, text: str, quoted: bool) -> Any:
    try:
        if column.kind == "number" or (column.kind == "any" and not quoted and _NUMBER.fullmatch(text)):
            number = float(text)
            return int(number) if number.is_integer() and abs(number) < 2**62 else number
        if column.kind == "time":
            return clock.parse(text)
    except (ValueError, OverflowError):
        raise bad_request(f"filter: {text[:60]!r} is no {column.kind} to compare {name} with.") from None
    return text
