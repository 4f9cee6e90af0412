"""Regular expressions as in `like_regex` of a PostgreSQL JSON path: its advanced ones (AREs), with found or not found.

Supported: characters, `.`, `[...]` with ranges and classes such as `[:alpha:]`, `\\d \\s \\w \\D \\S \\W`, groups, `|`,
the quantifiers `* + ? {m} {m,} {m,n}`, also followed by `?`, the constraints `^ $ \\A \\Z \\m \\M \\y \\Y (?=...)
(?!...) (?<=...) (?<!...)`, and the escapes `\\a \\b \\B \\e \\f \\n \\r \\t \\v \\uXXXX` and those of signs. Not
supported: back references, options and comments within the expression, collating elements. Flags: `i`, `s`, `m` and
`q`; PostgreSQL refuses `x`, too.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable
from typing import Final

from ivcap_flows.local.ivcap.automaton import Check, Node, Program, Test, TooLargeError, holds, program_of

__all__ = ["RegexError", "finder"]

_MOST_REPEATS: Final = 255
_DEEPEST: Final = 100
_SPACES: Final = frozenset(" \t\n\v\f\r\u1680\u2028\u2029\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B) if code != 0x2007
}


class RegexError(ValueError):
    """An expression is invalid or not supported."""


def _is_letter(char: str) -> bool:
    """Return whether a C library counts this as a letter, which includes the digits of other scripts."""
    return char.isalpha() or (char.isdecimal() and char not in string.digits)


def _is_alnum(char: str) -> bool:
    return _is_letter(char) or char in string.digits


def _is_word(char: str) -> bool:
    return _is_alnum(char) or char == "_"


def _is_print(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cn", "Co", "Cs", "Zl", "Zp")


_CLASSES: Final[dict[str, Test]] = {
    "alpha": _is_letter,
    "alnum": _is_alnum,
    "digit": lambda char: char in string.digits,
    "xdigit": lambda char: char in string.hexdigits,
    "space": lambda char: char in _SPACES,
    "blank": lambda char: char in " \t",
    "upper": str.isupper,
    "lower": str.islower,
    "punct": lambda char: _is_print(char) and char not in _SPACES and not _is_alnum(char),
    "cntrl": lambda char: unicodedata.category(char) == "Cc",
    "graph": lambda char: _is_print(char) and char not in _SPACES,
    "print": _is_print,
    "word": _is_word,
}
_SHORT: Final = {"d": "digit", "s": "space", "w": "word"}
_CHARACTERS: Final = dict(zip("abBefnrtv", "\a\b\\\x1b\f\n\r\t\v", strict=True))


def _begins_word(text: str, at: int) -> bool:
    return _word_at(text, at) and not _word_at(text, at - 1)


def _ends_word(text: str, at: int) -> bool:
    return _word_at(text, at - 1) and not _word_at(text, at)


def _word_at(text: str, at: int) -> bool:
    return 0 <= at < len(text) and _is_word(text[at])


_CONSTRAINTS: Final[dict[str, Check]] = {
    "A": lambda text, at: at == 0,
    "Z": lambda text, at: at == len(text),
    "m": _begins_word,
    "M": _ends_word,
    "y": lambda text, at: _begins_word(text, at) or _ends_word(text, at),
    "Y": lambda text, at: not (_begins_word(text, at) or _ends_word(text, at)),
}


def finder(pattern: str, flags: str = "") -> Callable[[str], bool]:
    """Return a function that tells whether a pattern is found in a text. Raises RegexError."""
    if unknown := set(flags) - set("ismxq"):
        raise RegexError(f"the flag {min(unknown)!r}")
    ignores_case = "i" in flags
    if "q" in flags:
        node: Node = ("row", [("char", _one_of(char, ignores_case)) for char in pattern])
    elif "x" in flags:
        raise RegexError("the flag 'x', which PostgreSQL does not know either,")
    else:
        node = _Reader(pattern, ignores_case, dot_all="s" in flags, by_line="m" in flags).whole()
    program = _program(node)
    return lambda text: holds(program, text, 0)


def _one_of(char: str, ignores_case: bool) -> Test:
    """Return a test for a character, or for all its forms if case is ignored."""
    forms = {char, *(form for form in (char.lower(), char.upper()) if len(form) == 1)} if ignores_case else {char}
    return lambda other: other in forms


class _Reader:
    """Reads an expression into nodes."""

    def __init__(self, text: str, ignores_case: bool, *, dot_all: bool, by_line: bool) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._ignores_case, self._dot_all, self._by_line = ignores_case, dot_all, by_line

    def whole(self) -> Node:
        node = self._branches()
        if self._at < len(self._text):
            raise RegexError("the regular expression: a ) without its (")
        return node

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise RegexError("the regular expression: it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _branches(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RegexError(f"a regular expression of more than {_DEEPEST} levels")
        branches = [self._branch()]
        while self._take("|"):
            branches.append(self._branch())
        self._depth -= 1
        return ("either", branches) if len(branches) > 1 else branches[0]

    def _branch(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            part = self._part()
            bounds = self._quantifier()
            if bounds is not None:
                if part[0] == "check":
                    raise RegexError("the regular expression: a quantifier behind a constraint")
                part = ("repeat", part, *bounds)
                if self._quantifier() is not None:
                    raise RegexError("the regular expression: a quantifier behind another")
            parts.append(part)
        return ("row", parts)

    def _quantifier(self) -> tuple[int, int | None] | None:
        bounds: tuple[int, int | None]
        if self._peek() in ("*", "+", "?") and self._peek():
            bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}[self._next()]
        elif self._peek() == "{" and self._peek(2)[1:] in tuple(string.digits):
            self._at += 1
            bounds = self._counts()
        else:
            return None
        # Greedy or not makes no difference, since only whether there is a match counts.
        self._take("?")
        return bounds

    def _counts(self) -> tuple[int, int | None]:
        least = self._number()
        most: int | None = least
        if self._take(","):
            most = self._number() if self._peek() in tuple(string.digits) else None
        if not self._take("}"):
            raise RegexError("the regular expression: unbalanced braces")
        if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
            raise RegexError("the regular expression: invalid repetition counts")
        return least, most

    def _number(self) -> int:
        digits = ""
        while self._peek() in tuple(string.digits):
            digits += self._next()
        return int(digits[:6])

    def _part(self) -> Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == ".":
            return ("char", (lambda other: True) if self._dot_all else (lambda other: other != "\n"))
        if char == "[":
            return self._bracket()
        if char == "^":
            if self._by_line:
                return ("check", lambda text, at: at == 0 or text[at - 1] == "\n")
            return ("check", _CONSTRAINTS["A"])
        if char == "$":
            if self._by_line:
                return ("check", lambda text, at: at == len(text) or text[at] == "\n")
            return ("check", _CONSTRAINTS["Z"])
        if char == "\\":
            return self._escape()
        if char in "*+?" or (char == "{" and self._peek() in tuple(string.digits)):
            raise RegexError("the regular expression: a quantifier with nothing before it")
        return ("char", _one_of(char, self._ignores_case))

    def _group(self) -> Node:
        looks = {"?=": (True, True), "?!": (True, False), "?<=": (False, True), "?<!": (False, False)}
        sign = next((sign for sign in sorted(looks, key=len, reverse=True) if self._take(sign)), None)
        if sign is None and not self._take("?:") and self._peek() == "?":
            raise RegexError(f"the group ({self._peek(3)} in a regular expression")
        inner = self._branches()
        if not self._take(")"):
            raise RegexError("the regular expression: a ( without its )")
        # A group is not a constraint, even if it contains only one.
        return _look(_program(inner), *looks[sign]) if sign else ("row", [inner])

    def _escape(self) -> Node:
        char = self._next()
        if char in _CONSTRAINTS:
            return ("check", _CONSTRAINTS[char])
        if char.lower() in _SHORT:
            return ("char", self._class(char))
        return ("char", _one_of(self._character(char), self._ignores_case))

    def _class(self, letter: str) -> Test:
        test = _CLASSES[_SHORT[letter.lower()]]
        return test if letter.islower() else (lambda char: not test(char))

    def _character(self, letter: str) -> str:
        """Return the character that an escape of this letter means."""
        if letter == "u":
            code = "".join(self._next() for _ in range(4))
            if set(code) - set(string.hexdigits):
                raise RegexError("the regular expression: \\u without four hexadecimal digits")
            return chr(int(code, 16))
        if letter.isalnum() and letter not in _CHARACTERS:
            raise RegexError(f"the escape \\{letter} in a regular expression")
        return _CHARACTERS.get(letter, letter)

    def _bracket(self) -> Node:
        negated = self._take("^")
        tests: list[Test] = []
        begun = self._at
        while not (self._peek() == "]" and self._at > begun):
            tests.append(self._member(begun))
        self._at += 1
        if negated:
            # A negated class excludes the line feed, unless the flag `s` makes it an ordinary character.
            line = "" if self._dot_all else "\n"
            return ("char", lambda char: char != line and not any(test(char) for test in tests))
        return ("char", lambda char: any(test(char) for test in tests))

    def _member(self, begun: int) -> Test:
        if self._take("[:"):
            return self._named_class()
        if self._peek(2) in ("[.", "[="):
            raise RegexError("a collating element in a regular expression")
        if self._peek() == "-" and self._at > begun and self._peek(2) != "-]":
            raise RegexError("the regular expression: an invalid range")
        first: str | Test = self._endpoint()
        is_range = self._peek() == "-" and self._peek(2) != "-]"
        if not isinstance(first, str):
            if is_range:
                raise RegexError("the regular expression: an invalid range")
            return first
        if not is_range:
            return _one_of(first, self._ignores_case)
        self._at += 1
        last = self._endpoint()
        if not isinstance(last, str) or last < first:
            raise RegexError("the regular expression: an invalid range")
        return _between(first, last, self._ignores_case)

    def _endpoint(self) -> str | Test:
        char = self._next()
        if char != "\\":
            return char
        letter = self._next()
        if letter.lower() in _SHORT:
            return self._class(letter)
        if letter in _CONSTRAINTS:
            raise RegexError(f"the escape \\{letter} in brackets")
        return self._character(letter)

    def _named_class(self) -> Test:
        end = self._text.find(":]", self._at)
        name = self._text[self._at : end]
        if end < 0 or name not in _CLASSES:
            raise RegexError("the regular expression: an invalid class of characters")
        self._at = end + 2
        return _CLASSES["alpha" if self._ignores_case and name in ("upper", "lower") else name]


def _between(first: str, last: str, ignores_case: bool) -> Test:
    if not ignores_case:
        return lambda char: first <= char <= last
    return lambda char: any(first <= form <= last for form in (char, char.lower(), char.upper()) if len(form) == 1)


def _look(program: Program, ahead: bool, wanted: bool) -> Node:
    if ahead:
        return ("check", lambda text, at: holds(program, text, at, anchored=True) is wanted)
    return ("check", lambda text, at: holds(program, text, 0, end=at) is wanted)


def _program(node: Node) -> Program:
    try:
        return program_of(node)
    except TooLargeError as error:
        raise RegexError(str(error)) from None
