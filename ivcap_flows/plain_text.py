"""Texts from outside, such as names of files and messages of platforms, as people may be shown them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["CONTROL_CHARACTERS", "described", "in_markdown", "near_names", "unknown_name", "visible"]

_DIRECTIONS: Final = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROL_CHARACTERS: Final = {
    number: "\ufffd" for number in (*range(0x20), *range(0x7F, 0xA0), *_DIRECTIONS) if chr(number) not in "\t\n"
} | {number: f"\\u{number:04x}" for number in range(0xD800, 0xE000)}
"""What to show instead of characters that could move a terminal's cursor, change its title or reverse the text.

Anybody may have written such a text. Halves of surrogate pairs, as in file names, are escaped, because no encoding has
them."""
_IN_MARKDOWN: Final = re.compile(r"[\\`*_\[\]<>|~&#!@]")


def visible(value: Any) -> Any:
    """Return a JSON value in which each character shows and stays at its place."""
    if isinstance(value, str):
        return value.translate(CONTROL_CHARACTERS)
    if isinstance(value, dict):
        return {visible(name): visible(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [visible(inner) for inner in value]
    return value


def described(error: BaseException) -> str:
    """Return an error's class and message; only the class if it has no message, as many a TimeoutError."""
    try:
        message = str(error)
    except Exception as other:  # noqa: BLE001 - whatever a user's type does
        message = f"its text cannot be shown, which raises {type(other).__name__}"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def in_markdown(text: str) -> str:
    """Return a text on one line that means nothing in Markdown or HTML."""
    return _IN_MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()).translate(CONTROL_CHARACTERS))


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence that says that nothing declares this name, with similar names that are declared."""
    near = near_names(name, known)
    return f"There is no {what} {name!r}; {near}" + ("" if near.endswith("?") else ".")


def near_names(name: str, known: Iterable[str]) -> str:
    """Return the question whether a similar name was meant, else what there is."""
    from difflib import get_close_matches

    names = list(known)
    if close := get_close_matches(str(name), names, n=3):
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return "there are: " + (", ".join(map(repr, names)) or "none")
