"""Remember the secrets that this process has seen, and hide them and what the rules find in values and log records."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from ivcap_flows.secrets.forms import Mask, SecretForms, replaced
from ivcap_flows.secrets.rules import (
    HIDDEN,
    ORDINARY,
    SHORTEST,
    Hints,
    hints_in,
    is_secret_name,
    is_token,
    line_of,
    names_blocks,
    signs,
    without_arguments,
    without_shapes,
)

__all__ = [
    "hidden",
    "hide",
    "hide_within",
    "holds_secret",
    "is_secret_type",
    "known",
    "logger_of",
    "scrub",
    "scrub_alone",
    "scrub_arguments",
    "scrub_text",
]

OF_A_NAME: Final = 1_000
"""The number of values of one name that are remembered, the first. A `next_token` may have a new value each time."""
_HEADER: Final = re.compile(r"\w[\w. -]*")
"""A name by itself, and no text that holds a name and a secret."""
_DEEPEST: Final = 1_000
"""The levels of a JSON value to look through. It has no cycles, so it ends before."""
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
        self.forms = SecretForms()
        self._secrets: set[str] = set()
        self._of_name: Counter[str] = Counter()
        self._environment: tuple[str | None, ...] = ()

    def add(self, secret: str, name: str = "") -> None:
        """Remember a secret, or, if it was given to a `name`, one of the first of this name."""
        if secret in self._secrets or is_token(secret) or (name and self._of_name[name] >= OF_A_NAME):
            return
        self._of_name[name] += 1
        self.forms.add(secret)
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


def known() -> SecretForms:
    """Return the forms of all secrets that this process has seen."""
    _known.read_environment()
    return _known.forms


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


def scrub(value: Any, mask: Mask = hidden) -> Any:
    """Return a JSON value without secrets. A value under a secret name is hidden whole. `mask` replaces a secret."""
    return _scrubbed(value, mask, known())


def scrub_alone(value: Any, mask: Mask = hidden) -> Any:
    """Scrub without the secrets that this process has seen before, so that equal values stay equal in every process."""
    return _scrubbed(value, mask, SecretForms())


def scrub_text(text: str) -> str:
    """Return a text without secrets, which any database can store: NULs and halves of surrogate pairs are escaped."""
    shown: str = scrub(text)
    return shown.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def scrub_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line without secrets, also without what follows an option with a secret name."""
    shown: list[str] = scrub(list(arguments))
    return shown


def holds_secret(text: str) -> bool:
    """Whether a text holds a known secret, or anything that a rule finds."""
    return bool(scrub(text) != text)


def _without_secrets(record: logging.LogRecord) -> bool:
    """Replace the message and its arguments by the scrubbed message. Let every record pass."""
    message = record.getMessage()
    shown = scrub_text(message)
    if shown != message:
        record.msg, record.args = shown, ()
    if record.exc_info:
        # Formatters show this text if there is one.
        record.exc_text = scrub_text(logging.Formatter().formatException(record.exc_info))
    return True


def logger_of(name: str) -> logging.Logger:
    """Return the logger with this name. Its records are scrubbed before any handler gets them."""
    logger = logging.getLogger(name)
    if _without_secrets not in logger.filters:
        logger.addFilter(_without_secrets)
    return logger


def _scrubbed(value: Any, mask: Mask, forms: SecretForms) -> Any:
    # Nearly all values hold no secret. One search in all their texts together is faster than one in each.
    texts: list[str] = []
    named = _gather(value, texts)
    together = "\0".join(texts)
    present = forms.found_in(together)
    hints = hints_in(together)
    if not named and not present and not (hints and any(hints_in(text, hints) for text in texts)):
        return value
    scrubber = _Scrubber(mask, present, hints)
    shown = scrubber.of(value)
    learned = learn(scrubber.found)
    if not learned:
        return shown
    # What was found may appear as ordinary text in what came before.
    texts.clear()
    _gather(shown, texts)
    new = SecretForms(learned).found_in("\0".join(texts))
    return _Scrubber(mask, new, Hints((), ())).of(shown) if new else shown


def _gather(value: Any, texts: list[str]) -> bool:
    """Add the texts of a value. Return whether something in it has a secret name."""
    named = False
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            texts.append(name)
            named = _gather(inner, texts) or named or _names_secret(_called(value, name), inner)
    elif isinstance(value, list | tuple):
        texts.append(line_of([inner for inner in value if isinstance(inner, str)]))
        named = _is_named(value)
        for inner in value:
            if not isinstance(inner, str):
                named = _gather(inner, texts) or named
    return named


def _names_secret(name: str, value: Any) -> bool:
    """Whether to hide the value of a field. A flag or None under a secret name reveals nothing."""
    return is_secret_name(name) and value is not None and not isinstance(value, bool)


def _called(entry: dict[str, Any], field: str) -> str:
    """Return the name of a field. A text in the field `value` is called by the `name` or `key` beside it."""
    if field == "value" and isinstance(entry[field], str):
        name = entry.get("name") or entry.get("key")
        return name if isinstance(name, str) else field
    return field


def _is_named(values: Sequence[Any]) -> bool:
    """Whether these are a secret name and its value, such as a header. Two words are rather two values."""
    return (
        len(values) == 2
        and all(isinstance(each, str) and not ORDINARY.fullmatch(each) for each in values)
        and _HEADER.fullmatch(values[0]) is not None
        and is_secret_name(values[0])
    )


class _Scrubber:
    """Copies a value without these known secrets and without what the rules find, which is collected in `found`.

    A copy of the copy is the same: a mask is no secret.
    """

    def __init__(self, mask: Mask, forms: Mapping[str, str], hints: Hints) -> None:
        self._mask, self._forms, self._hints = mask, forms, hints
        self.found: list[tuple[str, str]] = []

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(name): self._field(_called(value, name), inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return self._items(value)
        return value

    def _text(self, text: str) -> str:
        text = replaced(text, self._forms, self._mask)
        hinted = self._hints and len(text) >= SHORTEST and hints_in(text, self._hints)
        return without_shapes(text, self._hide) if hinted else text

    def _field(self, name: str, value: Any) -> Any:
        """Hide a value under a secret name whole. The texts in it are secrets, too, unless it may be a block."""
        if not _names_secret(name, value):
            return self.of(value)
        if names_blocks(name):
            return value if _is_mask(value) else self._mask(value if isinstance(value, str) else repr(value))
        if isinstance(value, str):
            return self._hide(value, name)
        self.found += [(text, name) for text in secrets_of(value, _DEEPEST, secret=True)]
        return self._mask(repr(value))

    def _items(self, values: Sequence[Any]) -> list[Any]:
        """Treat the items as the arguments of a command."""
        if _is_named(values):
            return [self._text(values[0]), self._hide(values[1], values[0])]
        given = [self._word(value) for value in values]
        if not (self._hints and hints_in(line_of(given), self._hints)):
            return [self.of(value) for value in values]
        shown = without_arguments(given, self._hide)
        return [
            self.of(value) if after == before else after
            for value, before, after in zip(values, given, shown, strict=True)
        ]

    def _word(self, value: Any) -> str:
        """Return an item of a list as a word of a command line, an empty one if it is neither a text nor a number."""
        if isinstance(value, str):
            return replaced(value, self._forms, self._mask).replace("\0", " ")
        return str(value) if type(value) in (int, float) else ""

    def _hide(self, secret: str, name: str) -> str:
        if _is_mask(secret):
            return secret
        if not signs(name):
            self.found.append((secret, name))
        return self._mask(secret)


def _is_mask(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(HIDDEN)
