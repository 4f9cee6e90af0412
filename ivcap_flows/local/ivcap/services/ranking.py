"""Score how well a service matches the words of a search. Only words are compared, not their meaning."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["score"]

_WORD: Final = re.compile(r"[^\W_]+")
_MOST_WORDS: Final = 50
_NAME, _TAGS, _DESCRIPTION = 1.0, 0.8, 0.6
_BEGINNING: Final = 0.5
"""The weight of a word that is only the beginning of one of the service's words."""


def score(search: str, name: str | None, description: str, tags: str) -> float:
    """Return 0 to 1: the mean, over the words of the search, of each word's best match. `tags` is a list in JSON."""
    wanted = list(dict.fromkeys(_words(search)))[:_MOST_WORDS]
    fields = [
        (_NAME, _words(name or "")),
        (_TAGS, [word for tag in json.loads(tags) for word in _words(tag)]),
        (_DESCRIPTION, _words(description)),
    ]
    best = [max((weight * _found(word, words) for weight, words in fields), default=0.0) for word in wanted]
    return round(sum(best) / len(best), 4) if best else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _found(word: str, words: list[str]) -> float:
    if word in words:
        return 1.0
    return _BEGINNING if any(one.startswith(word) for one in words) else 0.0
