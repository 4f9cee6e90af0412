"""Names that stand for secrets: parameters, keys of mappings, options, headers, fields of connection strings.

The words are those of detect-secrets' keyword detector (Yelp), and of HTTP's headers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

__all__ = ["NAME_HINTS", "is_secret_name", "names_blocks", "signs"]

_WORDS: Final = frozenset(
    {
        "apikey", "auth", "authorization", "bearer", "contrasena", "contraseña", "cookie", "credential", "credentials",
        "jwt", "passcode", "pwd", "secret", "secrets", "sessionid", "token",
    }
)  # fmt: skip
_PAIRS: Final = frozenset(
    {
        *((of, "key") for of in ("access", "account", "api", "auth", "client", "database", "db", "encryption")),
        *((of, "key") for of in ("master", "priv", "private", "secret", "service", "shared", "signing", "storage")),
        *((of, "pass") for of in ("database", "db", "key", "user")),
    }
)
_JOINED: Final = frozenset("".join(pair) for pair in _PAIRS)
_WITHIN: Final = ("password", "passwd", "passphrase")
_ENDINGS: Final = ("secret", "token")
_OF_BLOCKS: Final = frozenset({"credential", "credentials"})
_HARMLESS_LAST: Final = frozenset(
    {
        "algorithm", "count", "counts", "digest", "dir", "endpoint", "expires", "expiry", "file", "folder", "format",
        "hash", "length", "limit", "method", "name", "names", "path", "policy", "provider", "scheme", "sha256", "size",
        "ttl", "type", "uri", "url", "version",
    }
)  # fmt: skip
_SPLIT: Final = re.compile(r"[\W_]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SIGNATURES: Final = frozenset({"sig", "signature"})

NAME_HINTS: Final = ("pass", "pwd", "secret", "token", "key", "auth", "cookie", "cred", "jwt", "bearer", "contrase")
"""Every secret name contains one of these, in lower case."""


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether to hide the value of this name: `api_key`, `userPassword`, but not `token_count`, `secret_name`."""
    words = [word.lower() for word in _SPLIT.split(name) if word]
    if not words or words[-1] in _HARMLESS_LAST:
        return False
    return any(_is_secret_word(word) for word in words) or any(pair in _PAIRS for pair in pairwise(words))


def _is_secret_word(word: str) -> bool:
    return word in _WORDS or word in _JOINED or word.endswith(_ENDINGS) or any(each in word for each in _WITHIN)


def names_blocks(name: str) -> bool:
    """Whether the value of this secret name may be a block, or a block's name. That is hidden there, and only there."""
    return _SPLIT.split(name)[-1].lower() in _OF_BLOCKS


def signs(name: str) -> bool:
    """Whether a field of a URL's query is a signature. A signed URL is as good as a token, as long as it is valid."""
    return _SPLIT.split(name)[-1].lower() in _SIGNATURES
