"""Regular expressions as in `like_regex` of a PostgreSQL JSON path, run by the library regex.

Taken are `\\d \\s \\w` and their opposites, `\\A \\Z \\m \\M \\y \\Y`, `\\t`, `\\u00e9` and escaped signs; brackets
with ranges and `[:alpha:]`; groups `( (?: (?= (?! (?<= (?<!`; the quantifiers `* + ? {m} {m,} {m,n}`, each also
followed by `?`; and the flags `i`, `s`, `m` and `q`. The rest is refused. Beyond ASCII, the classes of characters are
Unicode's.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Final

import regex

__all__ = ["RegexError", "finder"]

_TOKENS: Final = regex.compile(
    r"""\\(?P<escape>u[0-9a-fA-F]{4}|.)
    | (?P<bracket>\[\^?+\]?(?:\[:\w+:\]|\\.|[^\]\\])*\])
    | \((?P<group>\?(?:[:=!]|<[=!]))?(?!\?)
    | (?P<quantifier>[*+?]|\{(?P<least>\d+)(?P<to>,(?P<most>\d*))?\})\??
    | (?P<constraint>[\^$])
    | (?P<other>[^\\\[(*+?{]|\{(?!\d))""",
    regex.VERBOSE | regex.DOTALL,
)
_ITEMS: Final = regex.compile(r"(?P<cls>\[:\w+:\])|\\(?P<escape>u[0-9a-fA-F]{4}|.)|(?P<other>.)", regex.DOTALL)
_CONSTRAINTS: Final = {"A": r"\A", "Z": r"\Z", "m": r"\m", "M": r"\M", "y": r"\b", "Y": r"\B"}
_CLASSES: Final = {"d": "[:digit:]", "s": "[:space:]", "w": "[:word:]"}
_CHARACTERS: Final = dict(zip("abBefnrtv", "\a\b\\\x1b\f\n\r\t\v", strict=True))
_NAMES: Final = frozenset(
    (
        "alpha",
        "alnum",
        "digit",
        "xdigit",
        "space",
        "blank",
        "upper",
        "lower",
        "punct",
        "cntrl",
        "graph",
        "print",
        "word",
    )
)
_FLAGS: Final = {"i": regex.IGNORECASE, "s": regex.DOTALL, "m": regex.MULTILINE}
_MOST_REPEATS: Final = 255
_LONGEST_SEARCH: Final = 2.0
"""Seconds after which a search is given up. It is a guard: the library answers what would take others years."""


class RegexError(ValueError):
    """An expression is invalid or not supported, or takes too long."""


def finder(pattern: str, flags: str) -> Callable[[str], bool]:
    """Return whether the expression is found in a text, as a function. Raises RegexError, which may name PostgreSQL."""
    if strange := set(flags) - {*_FLAGS, "q"}:
        raise RegexError(f"the flag {min(strange)!r} of like_regex")
    options = regex.VERSION0
    for flag in set(flags) - {"q"}:
        options |= _FLAGS[flag]
    translated = regex.escape(pattern) if "q" in flags else "".join(_translated(pattern, flags))
    try:
        compiled = regex.compile(translated, options)
    except (regex.error, RecursionError, OverflowError) as error:
        raise RegexError(f"the regular expression {pattern[:60]!r}: {error}") from None

    def found(text: str) -> bool:
        try:
            return compiled.search(text, timeout=_LONGEST_SEARCH) is not None
        except TimeoutError:
            raise RegexError(f"the regular expression {pattern[:60]!r}, which takes too long") from None

    return found


def _translated(pattern: str, flags: str) -> Iterator[str]:
    """Yield the parts of an expression as the library spells them."""
    at = 0
    repeatable = False
    open_groups: list[bool] = []
    while at < len(pattern):
        token = _TOKENS.match(pattern, at)
        if token is None:
            raise RegexError(f"{pattern[at : at + 10]!r} in a regular expression")
        at = token.end()
        given = token.groupdict()
        if token["quantifier"] is not None:
            bounds = [int(each) for each in (token["least"], token["most"]) if each]
            if not repeatable or any(bound > _MOST_REPEATS for bound in bounds):
                raise RegexError(f"{token[0]!r} in a regular expression")
            repeatable = False
            yield token[0]
        elif token["bracket"] is not None:
            repeatable = True
            yield _bracket(token["bracket"], newlines="s" in flags)
        elif token["escape"] is not None:
            repeatable = token["escape"] not in _CONSTRAINTS
            yield _CONSTRAINTS.get(token["escape"]) or _escape(token["escape"])
        elif token["constraint"] is not None:
            repeatable = False
            yield "^" if token[0] == "^" else r"(?=\n|\Z)" if "m" in flags else r"\Z"
        elif token[0].startswith("("):
            open_groups.append(given["group"] in (None, "?:"))
            repeatable = False
            yield f"({given['group'] or '?:'}"
        elif token[0] == ")":
            if not open_groups:
                raise RegexError("a `)` without its `(` in a regular expression")
            repeatable = open_groups.pop()
            yield ")"
        else:
            repeatable = token[0] != "|"
            yield token[0] if token[0] in ".|" else regex.escape(token[0])
    if open_groups:
        raise RegexError("a group that is not closed in a regular expression")


def _escape(escape: str, *, inside: bool = False) -> str:
    """Return an escape as the library spells it; `inside` brackets."""
    if escape.lower() in _CLASSES:
        named = _CLASSES[escape.lower()]
        named = named.replace("[:", "[:^") if escape.isupper() else named
        return named if inside else f"[{named}]"
    if len(escape) == 5:
        return _literal(chr(int(escape[1:], 16)))
    if escape in _CHARACTERS:
        return _literal(_CHARACTERS[escape])
    if escape in string.ascii_letters or escape in string.digits:
        raise RegexError(f"the escape \\{escape} in a regular expression")
    return _literal(escape)


def _literal(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _bracket(bracket: str, *, newlines: bool) -> str:
    """Return a bracket expression as the library spells it. Without `newlines`, one with `^` matches no line feed."""
    negated = bracket.startswith("[^")
    inner = bracket[2 if negated else 1 : -1]
    parts = []
    for item in _ITEMS.finditer(inner):
        if item["cls"] is not None:
            if item["cls"][2:-2] not in _NAMES:
                raise RegexError(f"the class {item['cls']} in a regular expression")
            parts.append(item["cls"])
        elif item["escape"] is not None:
            parts.append(_escape(item["escape"], inside=True))
        elif item["other"] == "-" and 0 < item.start() < len(inner) - 1:
            parts.append("-")
        else:
            parts.append(_literal(item["other"]))
    if negated and not newlines:
        parts.append(_literal("\n"))
    return f"[{'^' if negated else ''}{''.join(parts)}]"
