"""Names of things: URNs, digests, canonical JSON and the keys that make an effect findable. No I/O.

Sources: IVCAP URNs as in the IVCAP OpenAPI description (`urn:ivcap:<noun>:<uuid>`); canonical JSON is RFC 8785.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import rfc8785

__all__ = [
    "CONTENT_SCHEMA",
    "INTENT_SCHEMA",
    "KEY_VERSION",
    "Scope",
    "artifact_urns",
    "canonical",
    "digest",
    "file_urn",
    "fingerprint",
    "fingerprint_for_reuse",
    "flows_urn",
    "ivcap_urn",
    "key_entity",
    "key_in",
    "key_of",
    "key_of_generation",
    "platform_id",
    "short_id",
    "urn_id",
    "with_key",
    "without_key",
]

KEY_VERSION: Final = "k1"
_KEY_IN_NAME: Final = re.compile(r" ?\[([0-9a-f]{16}(?:\.\d+)?)\]")
INTENT_SCHEMA: Final = "urn:ivcap-flows:schema:intent.1"
CONTENT_SCHEMA: Final = "urn:ivcap-flows:schema:content.1"
"""An aspect on an artifact with the `sha256` and `size` of its bytes, since IVCAP itself keeps no digest."""

Scope = Literal["run", "flow", "account", "call"]
"""Within what two equal requests are one effect: the logical run, the flow in any run, the account, or never."""

_ARTIFACT = re.compile(r"urn:ivcap:artifact:[0-9A-Za-z._-]+")


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value: equal values have equal bytes whatever their key order."""
    return rfc8785.dumps(value)


def digest(data: bytes) -> str:
    """The sha256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """The sha256 that equal JSON values share, also those that RFC 8785 has no form for: NaN, integers above 2**53."""
    try:
        return digest(canonical(value))
    except rfc8785.CanonicalizationError:
        return digest(json.dumps(value, sort_keys=True).encode())


def key_of(
    *,
    platform: str,
    account: str,
    scope: str,
    noun: str,
    request: Any,
    discriminator: str | None = None,
    generation: int = 0,
) -> str:
    """The key of an effect: `k1:<64 hex>`, with `.<generation>` from the first resubmission on.

    `scope` is the expanded scope, for instance `run:<logical run id>`; `request` the encoded wire values.
    """
    parts = [KEY_VERSION, platform, account, scope, noun, request, discriminator]
    return key_of_generation(f"{KEY_VERSION}:{digest(canonical(parts))}", generation)


def key_of_generation(base_key: str, generation: int) -> str:
    """The key of a generation, of which the first, 0, has the base key itself."""
    return f"{base_key}.{generation}" if generation else base_key


def fingerprint_for_reuse(*, platform: str, account: str, noun: str, definition: str, request: Any) -> str:
    """What equal requests of one service definition share in an account, whoever asks: 64 hex digits."""
    return digest(canonical(["m1", platform, account, noun, definition, request]))


def key_entity(key: str) -> str:
    """The URN under which an idempotency record is asserted: `urn:ivcap-flows:key:<hash>`."""
    return "urn:ivcap-flows:key:" + key.removeprefix(KEY_VERSION + ":")


def short_id(key: str) -> str:
    """The 16 hex digits of a key (with its generation) that fit into a name or tag."""
    body, _, generation = key.removeprefix(KEY_VERSION + ":").partition(".")
    return body[:16] + (f".{generation}" if generation else "")


def with_key(name: str, key: str) -> str:
    """The name under which an order is placed: by the key in it, the order is found again."""
    return f"{name} [{short_id(key)}]"


def key_in(name: str | None) -> str | None:
    """The short id of the key that an order's name on the platform tells."""
    found = _KEY_IN_NAME.search(name or "")
    return found and found[1]


def without_key(name: str | None) -> str | None:
    """The name that the user gave an order, from the one that the platform has."""
    return None if name is None else _KEY_IN_NAME.sub("", name)


def ivcap_urn(noun: str, id: str) -> str:  # noqa: A002 - the platform's own word
    """`urn:ivcap:<noun>:<id>` from a bare id or from the URN itself."""
    return id if id.startswith("urn:") else f"urn:ivcap:{noun}:{id}"


def urn_id(urn: str) -> str:
    """The last part of a URN: the bare id that IVCAP uses in its own links."""
    return urn.rsplit(":", 1)[-1]


def flows_urn(kind: str, id: str | uuid.UUID) -> str:  # noqa: A002
    """`urn:ivcap-flows:<kind>:<id>`, for what no platform has named."""
    return f"urn:ivcap-flows:{kind}:{id}"


def file_urn(sha256: str) -> str:
    """The identity of a file's content wherever it lies: two equal files are one."""
    return flows_urn("file", f"sha256:{sha256}")


def platform_id(url: str) -> str:
    """The normalised external URL of a platform: lower-case scheme and host, no default port, no trailing slash."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme.lower())
    netloc = host if parts.port in (None, default) else f"{host}:{parts.port}"
    return urlunsplit((parts.scheme.lower(), netloc, parts.path.rstrip("/"), "", ""))


def artifact_urns(value: Any) -> list[str]:
    """Every artifact URN in a JSON value, in order of appearance, each once."""
    found: dict[str, None] = {}

    def walk(part: Any) -> None:
        if isinstance(part, str):
            found.update(dict.fromkeys(_ARTIFACT.findall(part)))
        elif isinstance(part, dict):
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list | tuple):
            for inner in part:
                walk(inner)

    walk(value)
    return list(found)
