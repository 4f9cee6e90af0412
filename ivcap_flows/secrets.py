"""Keep secrets out of what is recorded: by type, by name, by known value, and by the shape of a token."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from pydantic import Secret, SecretBytes, SecretStr

__all__ = [
    "HIDDEN",
    "hide",
    "holds_secret",
    "is_secret_name",
    "is_secret_type",
    "scrub",
    "scrub_arguments",
    "scrub_text",
]

HIDDEN: Final = "**********"
"""What stands in a record instead of a secret; the same that pydantic prints."""

_WORDS: Final = frozenset(
    {
        "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "jwt", "passphrase",
        "passwd", "password", "pwd", "secret", "secrets", "token",
    }
)  # fmt: skip
_PAIRS: Final = frozenset({("access", "key"), ("api", "key"), ("private", "key"), ("signing", "key")})
_HARMLESS_LAST: Final = frozenset({"count", "counts", "limit", "length", "size", "type", "url", "uri", "endpoint"})
_SPLIT: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*")
_USERINFO: Final = re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]*@")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s'\"<>]+)")
_SIGNATURES: Final = frozenset({"sig", "signature"})
_VARIABLES: Final = (
    "IVCAP_ACCESS_TOKEN",
    "IVCAP_JWT",
    "OPENLINEAGE_API_KEY",
    "PROVENA_OFFLINE_TOKEN",
    "PROVENA_CLIENT_SECRET",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
)
_SHORTEST: Final = 8
_known: set[str] = set()


def hide(value: str) -> None:
    """Never record this value from now on, for instance a token that a client was given."""
    if len(value) >= _SHORTEST:
        _known.add(value)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a parameter or key of this name is to be hidden: `api_key`, `userPassword`, but not `token_count`."""
    words = [word.lower() for word in _SPLIT.split(name) if word]
    if not words or words[-1] in _HARMLESS_LAST:
        return False
    return any(word in _WORDS for word in words) or any(pair in _PAIRS for pair in pairwise(words))


@lru_cache(maxsize=4096)
def is_secret_type(kind: type) -> bool:
    """Pydantic's secrets, and Prefect's `Secret` and `SecretDict` by name, since Prefect is not imported here."""
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return issubclass(kind, Secret | SecretStr | SecretBytes) or bool(
        names & {("prefect", "Secret"), ("prefect", "SecretDict")}
    )


def scrub_text(text: str) -> str:
    """A text without tokens, passwords in URLs, and known secrets."""
    return _scrubbed(text, _secrets())


def _secrets() -> list[str]:
    """What is known to be secret now; finding it takes longer than looking for it in most texts."""
    named = filter(None, map(os.environ.get, _VARIABLES))
    return [*_known, *(value for value in named if len(value) >= _SHORTEST)]


def _scrubbed(text: str, secrets: list[str]) -> str:
    if len(text) < _SHORTEST:
        return text
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)
    if "@" in text:
        text = _USERINFO.sub(f"{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(_without_value, text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text) if " " in text else text


def _without_value(pair: re.Match[str]) -> str:
    """A pair of a URL's query; a signed URL is as good as a token for as long as it holds."""
    name = pair[1]
    signs = _SPLIT.split(name)[-1].lower() in _SIGNATURES
    return f"{name}={HIDDEN}" if signs or is_secret_name(name) else pair[0]


def scrub_arguments(arguments: Sequence[str]) -> list[str]:
    """The words of a command line without secrets: nor what follows an option of a secret name."""
    shown: list[str] = []
    follows = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and is_secret_name(name)
        if follows and not argument.startswith("-"):
            shown.append(HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(scrub_text(argument))
        follows = secret and not equals
    return shown


def holds_secret(text: str) -> bool:
    """Whether a text that is handed on as it is holds a known secret, or what has the shape of a token."""
    return any(secret in text for secret in _secrets()) or bool(_JWT.search(text))


def scrub(value: Any) -> Any:
    """A JSON value without secrets; values under secret names are hidden whole."""
    return _scrubbed_value(value, _secrets())


def _scrubbed_value(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _scrubbed(value, secrets)
    if isinstance(value, dict):
        return {
            _scrubbed(name, secrets): HIDDEN
            if is_secret_name(name) and _hideable(inner)
            else _scrubbed_value(inner, secrets)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_scrubbed_value(inner, secrets) for inner in value]
    return value


def _hideable(value: Any) -> bool:
    # A flag or an absent value under such a name tells nothing.
    return value is not None and not isinstance(value, bool)
