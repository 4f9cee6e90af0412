"""Parse the text of a search: the part of Mangle, a Datalog dialect, that the embedded platform supports.

    # comments
    :load_aspect(/order_parameter, "urn:ivcap:schema:order-placed.1", ["entity", ".parameters[*].name|value"]).
    :load_aspect(/collection, "urn:ivcap:schema:artifact-collection.1", [".collection", ".artifacts[*]"]).

    query(Artifact) :- order_parameter("urn:ivcap:order:1", "images", C), collection(C, Artifact).

These forms are those of the IVCAP OpenAPI description (0.48): aspects are loaded into predicates, and rules combine
atoms. A rule without a body is a fact. Terms are variables (`X`, `_`), texts, numbers and names (`/true`). The rest of
Mangle is refused by name, such as negation, comparisons and functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "Atom",
    "Load",
    "Name",
    "Program",
    "ProgramError",
    "Rule",
    "Term",
    "Tree",
    "Value",
    "Variable",
    "parse",
]


class ProgramError(Exception):
    """A program is not answered; the text is a sentence with the reason."""


@dataclass(frozen=True)
class Name:
    """A name constant such as `/true`."""

    text: str


@dataclass(frozen=True)
class Tree:
    """An array or object of JSON, as canonical text. It can only be compared for equality; its parts are hidden."""

    text: str


Value = str | int | float | Name | Tree


@dataclass(frozen=True)
class Variable:
    name: str


Term = Value | Variable


@dataclass(frozen=True)
class Atom:
    predicate: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Rule:
    """A rule; a fact is a rule without a body."""

    head: Atom
    body: tuple[Atom, ...] = ()


@dataclass(frozen=True)
class Load:
    """Aspects of a schema as rows of a predicate."""

    predicate: str
    schema: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    loads: tuple[Load, ...]
    rules: tuple[Rule, ...]


_LONGEST: Final = 64 * 1024
_MOST_CLAUSES: Final = 500
_MOST_TERMS: Final = 32
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#[^\n]*) | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?) | (?P<name>/[A-Za-z0-9][\w.~%-]*(?:/[\w.~%-]+)*)
    | (?P<builtin>:[a-z]\w*(?::\w+)*) | (?P<function>[a-z]\w*(?::[\w:]+)+)
    | (?P<word>[^\W\d]\w*(?:\.[^\W\d]\w*)*) | (?P<sign>:-|⟸|\|>|!=|<=|>=|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_DECLARATIONS: Final = ("Decl", "Package", "Use")
_UNSUPPORTED: Final = {
    "!": "negation",
    "!=": "comparisons",
    "=": "comparisons",
    "<": "comparisons",
    "<=": "comparisons",
    ">": "comparisons",
    ">=": "comparisons",
    "[": "lists",
    "{": "maps and structs",
    "|>": "transforms (|>)",
    "?": "? queries",
    "@": "times (@)",
}


def parse(text: str) -> Program:
    """Parse a program. Raises ProgramError with what is not supported, and its line."""
    if len(text) > _LONGEST:
        raise ProgramError(f"A program may have at most {_LONGEST} characters.")
    return _Parser(text).program()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._at = self._anonymous = 0
        line = 1
        for found in _TOKEN.finditer(text):
            kind = str(found.lastgroup)
            if kind != "space":
                self._tokens.append((kind, found[0], line))
            line += found[0].count("\n")
        self._end = ("end", "the end", line)

    def program(self) -> Program:
        loads: list[Load] = []
        rules: list[Rule] = []
        while self._peek()[0] != "end":
            if len(loads) + len(rules) >= _MOST_CLAUSES:
                raise ProgramError(f"A program may have at most {_MOST_CLAUSES} clauses.")
            if self._peek()[0] == "builtin":
                loads.append(self._directive())
            else:
                rules.append(self._rule())
        return Program(tuple(loads), tuple(rules))

    def _peek(self, ahead: int = 0) -> tuple[str, str, int]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else self._end

    def _take(self, text: str) -> bool:
        kind, found, _ = self._peek()
        if kind == "sign" and found == text:
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._fault(f"{text!r} is expected")

    def _fault(self, what: str) -> ProgramError:
        kind, found, line = self._peek()
        if kind == "sign" and found in _UNSUPPORTED:
            return self._unsupported(_UNSUPPORTED[found])
        return ProgramError(f"Line {line}: {what} where there is {found[:40]!r}.")

    def _unsupported(self, construct: str) -> ProgramError:
        return ProgramError(
            f"Line {self._peek()[2]}: the embedded platform does not answer {construct}. It takes :load_aspect, facts,"
            " and rules of atoms, such as query(X) :- collection(C, X)."
        )

    def _directive(self) -> Load:
        if self._peek()[1] != ":load_aspect":
            raise self._unsupported(f"the directive {self._peek()[1][:40]}")
        self._at += 1
        self._need("(")
        kind, name, _ = self._peek()
        if kind != "name" or not re.fullmatch(r"/[a-z]\w*(?:\.[a-z]\w*)*", name):
            raise self._fault("the name of a predicate such as /collection is expected")
        self._at += 1
        self._need(",")
        schema = self._text("the URN of a schema")
        self._need(",")
        self._need("[")
        columns = [self._text("a column")]
        while self._take(","):
            columns.append(self._text("a column"))
        self._need("]")
        self._need(")")
        self._need(".")
        if len(columns) > _MOST_TERMS:
            raise ProgramError(f"A predicate may have at most {_MOST_TERMS} columns.")
        return Load(name[1:], schema, tuple(columns))

    def _text(self, what: str) -> str:
        kind, found, _ = self._peek()
        if kind != "string":
            raise self._fault(f"{what} in quotes is expected")
        self._at += 1
        return self._unquoted(found)

    def _unquoted(self, found: str) -> str:
        if found[0] == "`":
            return found[1:-1]

        def escaped(match: re.Match[str]) -> str:
            if match[1] not in _ESCAPES:
                raise ProgramError(f"Line {self._peek(-1)[2]}: a text has the unknown escape \\{match[1]}.")
            return _ESCAPES[match[1]]

        return re.sub(r"\\(.)", escaped, found[1:-1])

    def _rule(self) -> Rule:
        kind, found, _ = self._peek()
        if kind == "word" and found in _DECLARATIONS:
            raise self._unsupported(f"declarations ({found})")
        head = self._atom()
        body: list[Atom] = []
        if self._take(":-") or self._take("⟸"):
            body.append(self._atom())
            while self._take(","):
                body.append(self._atom())
        self._need(".")
        if len(body) > _MOST_TERMS:
            raise ProgramError(f"A rule may have at most {_MOST_TERMS} premises.")
        return Rule(head, tuple(body))

    def _atom(self) -> Atom:
        kind, predicate, _ = self._peek()
        if kind == "builtin":
            raise self._unsupported(f"the built-in predicate {predicate[:40]}")
        if kind != "word" or not predicate[0].islower() or self._peek(1)[:2] != ("sign", "("):
            if kind in ("word", "string", "number", "name"):
                # The sign after a term says best what was meant.
                self._at += 1
            raise self._fault("an atom such as query(X) is expected")
        self._at += 1
        return Atom(predicate, self._terms())

    def _terms(self) -> tuple[Term, ...]:
        self._need("(")
        terms: list[Term] = []
        if not self._take(")"):
            terms.append(self._term())
            while self._take(","):
                terms.append(self._term())
            self._need(")")
        if len(terms) > _MOST_TERMS:
            raise ProgramError(f"An atom may have at most {_MOST_TERMS} terms.")
        return tuple(terms)

    def _term(self) -> Term:
        kind, found, _ = self._peek()
        if kind == "function":
            raise self._unsupported(f"functions ({found[:40]})")
        if kind == "word" and not found[0].islower():
            self._at += 1
            if found == "_":
                # Each `_` is a different variable; a blank in its name keeps it apart from names that can be written.
                self._anonymous += 1
                return Variable(f"_ {self._anonymous}")
            return Variable(found)
        if kind not in ("string", "number", "name"):
            raise self._fault("a variable, a text, a number or a name is expected")
        self._at += 1
        if kind == "string":
            return self._unquoted(found)
        if kind == "name":
            return Name(found)
        return _number(found)


def _number(text: str) -> int | float:
    if len(text) > 300:
        raise ProgramError("A number may have at most 300 characters.")
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ProgramError(f"The number {text} is too large.")
    return value
