"""Scrub values: hide what the rules find, then hide that, and the known secrets, wherever else they appear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ivcap_flows.secrets.known import Needle, known, learn, needles_of, replaced
from ivcap_flows.secrets.mask import HIDDEN, Mask, hidden
from ivcap_flows.secrets.names import is_secret_name, names_blocks
from ivcap_flows.secrets.shapes import HINTS, Hints, hints_in, holds_token, without_shapes

__all__ = ["holds_secret", "scrub", "scrub_alone", "scrub_arguments", "scrub_text"]

_SHORTEST: Final = 4


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
    """Whether a text to be passed on unchanged holds a known secret, or a token that is known by its shape."""
    return any(needle.is_in(text) for needle in known()) or holds_token(text)


def _scrubbed(value: Any, mask: Mask, needles: Sequence[Needle]) -> Any:
    # Nearly all values hold no secret. One search in all their texts together is faster than one in each.
    texts: list[str] = []
    hints = HINTS
    if not _gather(value, texts):
        together = "\0".join(texts)
        hints = hints_in(together)
        suspected = hints and any(hints_in(text, hints) for text in texts)
        if not suspected and not any(needle.is_in(together) for needle in needles):
            return value
    rules = _Rules(mask, needles, hints)
    shown = rules.of(value)
    # They may appear as ordinary text in what came before.
    new = [each for each in needles_of(learn(rules.found)) if each not in needles]
    return _Replacing(mask, new).of(shown) if new else shown


def _gather(value: Any, texts: list[str]) -> bool:
    """Add the texts of a value. Return True if it has a secret name; then the remaining texts do not matter."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if is_secret_name(name) and _hideable(inner):
                return True
            texts.append(name)
            if _gather(inner, texts):
                return True
    elif isinstance(value, list | tuple):
        return any(_gather(inner, texts) for inner in value)
    return False


class _Replacing:
    """Copies a value without the given secrets."""

    def __init__(self, mask: Mask, needles: Sequence[Needle]) -> None:
        self._mask, self._needles = mask, needles

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.named(name, inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return self.items(value)
        return value

    def text(self, text: str) -> str:
        return replaced(text, self._needles, self._mask)

    def named(self, name: str, value: Any) -> Any:
        return self.of(value)

    def items(self, values: Sequence[Any]) -> list[Any]:
        return [self.of(value) for value in values]


class _Rules(_Replacing):
    """Copies a value without known secrets and what the rules find, which is collected in `found`."""

    def __init__(self, mask: Mask, needles: Sequence[Needle], hints: Hints) -> None:
        super().__init__(mask, needles)
        self._hints = hints
        self.found: list[str] = []

    def text(self, text: str) -> str:
        text = super().text(text)
        return without_shapes(text, self._hide) if len(text) >= _SHORTEST and hints_in(text, self._hints) else text

    def named(self, name: str, value: Any) -> Any:
        if not is_secret_name(name) or not _hideable(value):
            return self.of(value)
        if names_blocks(name):
            return self._mask(value if isinstance(value, str) else repr(value))
        return self._whole(value)

    def items(self, values: Sequence[Any]) -> list[Any]:
        """Treat the items as arguments of a command: the one after an option with a secret name is a secret."""
        shown: list[Any] = []
        follows = False
        for value in values:
            option = isinstance(value, str) and value.startswith("-")
            shown.append(self._hide(value) if follows and isinstance(value, str) and not option else self.of(value))
            follows = option and "=" not in value and is_secret_name(value)
        return shown

    def _hide(self, secret: str) -> str:
        if secret.startswith(HIDDEN):
            return secret
        self.found.append(secret)
        return self._mask(secret)

    def _whole(self, value: Any) -> str:
        """Return the replacement for a value under a secret name. The texts in it are secrets, too."""
        if isinstance(value, str):
            return self._hide(value)
        texts: list[str] = []
        _all_texts(value, texts)
        self.found += texts
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
