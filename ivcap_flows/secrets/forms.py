"""The forms in which secrets appear in a text, and a search for all of them at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from ivcap_flows.secrets.rules import SHORTEST

__all__ = ["Mask", "SecretForms", "replaced"]

Mask = Callable[[str], str]
"""Returns the replacement for a secret."""

_LONG: Final = 8
"""Shorter secrets, and those of letters only, are hidden only as separate words."""
_LINES: Final = re.compile(r"\s*(?:\n|\\n)\s*")
_LINE: Final = 16


class SecretForms:
    """The forms of secrets: as they are, in a URL, in JSON, in Python's `repr`.

    A search takes the same time for one secret and for thousands. Secrets are only ever added, so other threads may
    search meanwhile.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secret_of: dict[str, str] = {}
        self._windows = (_Windows(6, 3), _Windows(SHORTEST, 1))
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Add the forms of a secret. A secret with fewer than 4 characters has none."""
        for form in _forms(secret) if len(secret) >= SHORTEST else ():
            self._secret_of[form] = secret
            next(each for each in self._windows if len(form) >= each.shortest).add(form)

    def found_in(self, text: str) -> dict[str, str]:
        """Return the forms that are in a text, each with its secret."""
        pieces = (piece for windows in self._windows for piece in windows.pieces_of(text))
        return {piece: self._secret_of[piece] for piece in pieces if piece in self._secret_of}


class _Windows:
    """The first `step` windows of each form: parts of `width` characters, each a character further than the last.

    If a text contains a form, one of its windows begins at a multiple of `step`. So it is enough to look at these.
    """

    def __init__(self, width: int, step: int) -> None:
        self._width, self._step = width, step
        self._places: dict[str, tuple[tuple[int, int], ...]] = {}
        self.shortest = width + step - 1

    def add(self, form: str) -> None:
        for offset in range(self._step):
            window, place = form[offset : offset + self._width], (offset, len(form))
            places = self._places.get(window, ())
            if place not in places:
                self._places[window] = (*places, place)

    def pieces_of(self, text: str) -> Iterator[str]:
        """Yield the pieces of a text that share a window with a form and are as long."""
        places, width = self._places, self._width
        if not places:
            return
        starts = range(0, len(text) - width + 1, self._step)
        for start in [start for start in starts if text[start : start + width] in places]:
            for offset, length in places[text[start : start + width]]:
                if offset <= start:
                    yield text[start - offset : start - offset + length]


def _forms(secret: str) -> set[str]:
    forms = {secret, secret.strip() or secret}
    if not secret.isalnum():
        forms |= {quote(secret, safe="", errors="replace"), quote(secret, errors="replace"), unquote(secret)}
        forms |= {quote_plus(secret, errors="replace")}
        forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    # If a key has several lines, each line alone is a part that matters.
    forms |= {line for line in _LINES.split(secret) if len(line) >= _LINE and not line.startswith("-----")}
    return {form for form in forms if len(form) >= SHORTEST}


def replaced(text: str, found: Mapping[str, str], mask: Mask) -> str:
    """Return a text without the forms of secrets that were found in it. Of two at one place, the longer is replaced."""
    present = [form for form in found if form in text]
    if not present:
        return text
    patterns = [_pattern(form) for form in sorted(present, key=len, reverse=True)]
    return re.sub("|".join(patterns), lambda match: mask(found[match[0]]), text)


def _pattern(form: str) -> str:
    is_word = len(form) < _LONG or form.isalpha()
    return rf"(?<!\w){re.escape(form)}(?!\w)" if is_word else re.escape(form)
