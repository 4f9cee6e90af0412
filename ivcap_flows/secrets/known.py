"""The secrets that this process has seen. From then on, they are hidden wherever they appear."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from ivcap_flows.secrets.mask import HIDDEN, Mask
from ivcap_flows.secrets.types import secrets_of

__all__ = ["Needle", "hide", "hide_within", "known", "learn", "needles_of", "replaced"]

MOST: Final = 1_000
"""The maximum number of known secrets. The one that was seen the longest ago is forgotten first."""
_SHORTEST: Final = 4
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
_ORDINARY: Final = re.compile(
    r"[A-Z]?[a-z]+|[A-Z]+"  # a word
    r"|[\d.,:+eE-]+"  # a number, date or time
    r"|urn:.*"
    r"|[A-Za-z][\w+.-]*://[^@]*",  # a URL without credentials
    re.DOTALL,
)


@dataclass(frozen=True)
class Needle:
    """A secret in one of the forms in which it may appear in a text."""

    form: str
    secret: str

    @cached_property
    def _word(self) -> re.Pattern[str] | None:
        if len(self.form) >= _LONG and not self.form.isalpha():
            return None
        return re.compile(rf"(?<!\w){re.escape(self.form)}(?!\w)")

    def is_in(self, text: str) -> bool:
        return self.form in text and (self._word is None or self._word.search(text) is not None)

    def replaced(self, text: str, mask: Mask) -> str:
        if self.form not in text:
            return text
        shown = mask(self.secret)
        return text.replace(self.form, shown) if self._word is None else self._word.sub(lambda _: shown, text)


class _Known:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: OrderedDict[str, None] = OrderedDict()
        self._needles: list[Needle] | None = []
        self._environment: tuple[str, ...] = ()
        self._of_environment: list[Needle] = []

    def add(self, secrets: Iterable[str]) -> None:
        with self._lock:
            for secret in secrets:
                if secret not in self._secrets:
                    self._needles = None
                self._secrets[secret] = None
                self._secrets.move_to_end(secret)
            while len(self._secrets) > MOST:
                self._secrets.popitem(last=False)
                self._needles = None

    def needles(self) -> list[Needle]:
        found = self._needles
        if found is None:
            with self._lock:
                found = self._needles = needles_of(self._secrets)
        variables = tuple(value for value in map(os.environ.get, _VARIABLES) if value)
        if variables != self._environment:
            self._environment, self._of_environment = variables, needles_of(variables)
        return found + self._of_environment if variables else found


_known = _Known()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_known, "_lock", threading.Lock()))


def hide(value: str) -> None:
    """Never record this value from now on, for example a token that a client was given.

    A value with fewer than 4 characters is ignored, since it cannot be told from other text.
    """
    if len(value) >= _SHORTEST and not value.startswith(HIDDEN):
        _known.add([value])


def hide_within(value: Any) -> None:
    """Never record from now on the texts in a value of a secret type, or in the fields of a model, such as a block."""
    for secret in secrets_of(value):
        hide(secret)


def learn(found: Iterable[str]) -> list[str]:
    """Remember values that were found under a secret name or by their shape. Return those that are remembered.

    Ordinary text is not remembered, since other text would be hidden with it.
    """
    secrets = [
        value for value in found if len(value) >= _SHORTEST and HIDDEN not in value and not _ORDINARY.fullmatch(value)
    ]
    if secrets:
        _known.add(secrets)
    return secrets


def known() -> Sequence[Needle]:
    """Return the known secrets, longest first. Ask once for many texts: this takes longer than most searches."""
    return _known.needles()


def needles_of(secrets: Iterable[str]) -> list[Needle]:
    """Return the forms in which secrets may appear in a text: as they are, in a URL, in JSON, in Python's `repr`."""
    found = [Needle(form, secret) for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)]
    return sorted(found, key=lambda needle: -len(needle.form))


def _forms(secret: str) -> set[str]:
    forms = {secret, secret.strip() or secret}
    if not secret.isalnum():
        forms |= {quote(secret, safe="", errors="replace"), quote(secret, errors="replace"), unquote(secret)}
        forms |= {quote_plus(secret, errors="replace")}
        forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    # If a key has several lines, each line alone is a part that matters.
    forms |= {line for line in _LINES.split(secret) if len(line) >= _LINE and not line.startswith("-----")}
    return {form for form in forms if len(form) >= _SHORTEST}


def replaced(text: str, needles: Sequence[Needle], mask: Mask) -> str:
    """Return a text without these secrets."""
    for needle in needles:
        text = needle.replaced(text, mask)
    return text
