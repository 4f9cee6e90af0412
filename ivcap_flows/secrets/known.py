"""The secrets that this process has seen. From then on, they are hidden wherever they appear."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from ivcap_flows.secrets.rules import HIDDEN, ORDINARY, SHORTEST, is_token

__all__ = ["Forms", "Mask", "forms_of", "hidden", "hide", "hide_within", "is_secret_type", "known", "learn", "replaced"]

Mask = Callable[[str], str]
"""Returns the replacement for a secret."""

Forms = Sequence[tuple[str, str]]
"""Pairs of a text in which a secret may appear, and the secret."""

OF_A_NAME: Final = 1_000
"""The number of values of one name that are remembered, the first. A `next_token` may have a new value each time."""
_LONG: Final = 8
"""Shorter secrets, and those of letters only, are hidden only as separate words."""
_LINES: Final = re.compile(r"\s*(?:\n|\\n)\s*")
_LINE: Final = 16
_VARIABLES: Final = (
    "IVCAP_ACCESS_TOKEN",
    "IVCAP_JWT",
    "OPENLINEAGE_API_KEY",
    "PROVENA_OFFLINE_TOKEN",
    "PROVENA_CLIENT_SECRET",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
)


def hidden(secret: str) -> str:
    """Return the mask that reveals nothing."""
    return HIDDEN


class _Known:
    """Only ever added to, so other threads may read meanwhile."""

    def __init__(self) -> None:
        self.forms: list[tuple[str, str]] = []
        self._secrets: set[str] = set()
        self._of_name: Counter[str] = Counter()
        self._environment: tuple[str | None, ...] = ()

    def add(self, secret: str, name: str = "") -> None:
        """Remember a secret, or, if it was given to a `name`, one of the first of this name."""
        if secret in self._secrets or is_token(secret) or (name and self._of_name[name] >= OF_A_NAME):
            return
        self._of_name[name] += 1
        self.forms += forms_of([secret])
        self._secrets.add(secret)

    def read_environment(self) -> None:
        values = tuple(map(os.environ.get, _VARIABLES))
        if values != self._environment:
            self._environment = values
            for value in filter(None, values):
                hide(value)


_known = _Known()


def hide(value: str) -> None:
    """Never record this value from now on, for example a token that a client was given.

    A value with fewer than 4 characters is ignored, since it cannot be told from other text.
    """
    if len(value) >= SHORTEST and not value.startswith(HIDDEN):
        _known.add(value)


def hide_within(value: Any) -> None:
    """Never record from now on the texts in a value of a secret type, or in the fields of a model, such as a block."""
    for secret in secrets_of(value):
        hide(secret)


def learn(found: Iterable[tuple[str, str]]) -> list[str]:
    """Remember secrets that were found, each with the name that it was given to. Return those to hide elsewhere, too.

    Ordinary text is not among them, since other text would be hidden with it.
    """
    secrets = [
        (secret, name)
        for secret, name in found
        if len(secret) >= SHORTEST and HIDDEN not in secret and not ORDINARY.fullmatch(secret)
    ]
    for secret, name in secrets:
        _known.add(secret, name.strip("-").lower())
    return [secret for secret, _ in secrets]


def known() -> Forms:
    """Return the forms of all secrets that this process has seen."""
    _known.read_environment()
    return _known.forms


def forms_of(secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Return the forms in which secrets may appear in a text: as they are, in a URL, in JSON, in Python's `repr`."""
    return [(form, secret) for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)]


def _forms(secret: str) -> set[str]:
    forms = {secret, secret.strip() or secret}
    if not secret.isalnum():
        forms |= {quote(secret, safe="", errors="replace"), quote(secret, errors="replace"), unquote(secret)}
        forms |= {quote_plus(secret, errors="replace")}
        forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    # If a key has several lines, each line alone is a part that matters.
    forms |= {line for line in _LINES.split(secret) if len(line) >= _LINE and not line.startswith("-----")}
    return {form for form in forms if len(form) >= SHORTEST}


def replaced(text: str, forms: Forms, mask: Mask) -> str:
    """Return a text without these secrets. Of two at one place, the longer is replaced."""
    there = {form: secret for form, secret in forms if form in text}
    if not there:
        return text
    patterns = [_pattern(form) for form in sorted(there, key=len, reverse=True)]
    return re.sub("|".join(patterns), lambda match: mask(there[match[0]]), text)


def _pattern(form: str) -> str:
    is_word = len(form) < _LONG or form.isalpha()
    return rf"(?<!\w){re.escape(form)}(?!\w)" if is_word else re.escape(form)


@lru_cache(maxsize=4096)
def is_secret_type(kind: type) -> bool:
    """Whether a type is a secret of pydantic or of Prefect. Prefect's are known by name, without an import."""
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return issubclass(kind, Secret | SecretStr | SecretBytes) or bool(
        names & {("prefect", "Secret"), ("prefect", "SecretDict")}
    )


def secrets_of(value: Any, depth: int = 5, *, secret: bool = False) -> Iterator[str]:
    """Yield the texts in values of secret types, also in a model, mapping or list. With `secret`, all texts are."""
    if isinstance(value, str | bytes):
        if secret:
            yield value if isinstance(value, str) else value.decode(errors="replace")
        return
    inner: Iterable[Any] = ()
    kind: Any = type(value)
    if is_secret_type(kind):
        get = getattr(value, "get_secret_value", None) or getattr(value, "get", None)
        inner, secret = (() if get is None else (get(),)), True
    elif isinstance(value, BaseModel):
        names = (*kind.model_fields, *(value.model_extra or ()))
        inner = (getattr(value, name, None) for name in names)
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    for each in inner if depth else ():
        yield from secrets_of(each, depth - 1, secret=secret)
