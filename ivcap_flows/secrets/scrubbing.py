"""Scrub values and log records: hide what the rules find, and then that and the known secrets wherever they appear."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from ivcap_flows.secrets.known import Forms, Mask, forms_of, hidden, known, learn, replaced
from ivcap_flows.secrets.rules import (
    HIDDEN,
    ORDINARY,
    SHORTEST,
    Hints,
    hints_in,
    is_secret_name,
    names_blocks,
    signs,
    without_shapes,
)

__all__ = ["holds_secret", "logger_of", "scrub", "scrub_alone", "scrub_arguments", "scrub_text"]

_FORMATTER: Final = logging.Formatter()


def scrub(value: Any, mask: Mask = hidden) -> Any:
    """Return a JSON value without secrets. A value under a secret name is hidden whole. `mask` replaces a secret."""
    return _scrubbed(value, mask, known())


def scrub_alone(value: Any, mask: Mask = hidden) -> Any:
    """Scrub without the secrets that this process has seen before, so that equal values stay equal in every process."""
    return _scrubbed(value, mask, ())


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
    said = record.getMessage()
    shown = scrub_text(said)
    if shown != said:
        record.msg, record.args = shown, ()
    if record.exc_info:
        # Formatters show this text if there is one.
        record.exc_text = scrub_text(_FORMATTER.formatException(record.exc_info))
    return True


def logger_of(name: str) -> logging.Logger:
    """Return the logger with this name. Its records are scrubbed before any handler gets them."""
    logger = logging.getLogger(name)
    if _without_secrets not in logger.filters:
        logger.addFilter(_without_secrets)
    return logger


def _scrubbed(value: Any, mask: Mask, forms: Forms) -> Any:
    # Nearly all values hold no secret. One search in all their texts together is faster than one in each.
    texts: list[str] = []
    named = _gather(value, texts)
    together = "\0".join(texts)
    there = [pair for pair in forms if pair[0] in together]
    hints = hints_in(together)
    if not named and not there and not (hints and any(hints_in(text, hints) for text in texts)):
        return value
    rules = _Rules(mask, there, hints)
    shown = rules.of(value)
    # They may appear as ordinary text in what came before.
    new = forms_of(learn(rules.found))
    return _Replacing(mask, new).of(shown) if new else shown


def _gather(value: Any, texts: list[str]) -> bool:
    """Add the texts of a value. Return whether something in it has a secret name."""
    named = False
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            texts.append(name)
            named = _gather(inner, texts) or named or (is_secret_name(_called(value, name)) and _hideable(inner))
    elif isinstance(value, list | tuple):
        named = _is_named(value)
        for inner in value:
            named = _gather(inner, texts) or named
    return named


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
        and is_secret_name(values[0])
        and not values[0].startswith("-")
    )


class _Replacing:
    """Copies a value without the given secrets."""

    def __init__(self, mask: Mask, forms: Forms) -> None:
        self._mask, self._forms = mask, forms

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.named(_called(value, name), inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return self.items(value)
        return value

    def text(self, text: str) -> str:
        return replaced(text, self._forms, self._mask)

    def named(self, name: str, value: Any) -> Any:
        return self.of(value)

    def items(self, values: Sequence[Any]) -> list[Any]:
        return [self.of(value) for value in values]


class _Rules(_Replacing):
    """Copies a value without known secrets and what the rules find, which is collected in `found`."""

    def __init__(self, mask: Mask, forms: Forms, hints: Hints) -> None:
        super().__init__(mask, forms)
        self._hints = hints
        self.found: list[tuple[str, str]] = []

    def text(self, text: str) -> str:
        text = super().text(text)
        return without_shapes(text, self._hide) if len(text) >= SHORTEST and hints_in(text, self._hints) else text

    def named(self, name: str, value: Any) -> Any:
        if not is_secret_name(name) or not _hideable(value):
            return self.of(value)
        if names_blocks(name):
            return self._mask(value if isinstance(value, str) else repr(value))
        return self._whole(value, name)

    def items(self, values: Sequence[Any]) -> list[Any]:
        """Treat the items as arguments of a command: the one after an option with a secret name is a secret."""
        if _is_named(values):
            return [values[0], self._hide(values[1], values[0])]
        shown: list[Any] = []
        option = ""
        for value in values:
            follows = option and isinstance(value, str) and not value.startswith("-")
            shown.append(self._hide(value, option) if follows else self.of(value))
            names = isinstance(value, str) and value.startswith("-") and "=" not in value and is_secret_name(value)
            option = value if names else ""
        return shown

    def _hide(self, secret: str, name: str) -> str:
        if secret.startswith(HIDDEN):
            return secret
        if not signs(name):
            self.found.append((secret, name))
        return self._mask(secret)

    def _whole(self, value: Any, name: str) -> str:
        """Return the replacement for a value under a secret name. The texts in it are secrets, too."""
        if isinstance(value, str):
            return self._hide(value, name)
        texts: list[str] = []
        _all_texts(value, texts)
        self.found += [(text, name) for text in texts]
        return self._mask(repr(value))


def _all_texts(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _all_texts(inner, texts)


def _hideable(value: Any) -> bool:
    # A flag or None under a secret name reveals nothing.
    return value is not None and not isinstance(value, bool)
