"""Names of things: URNs, digests, canonical JSON and idempotency keys. No I/O.

Sources: IVCAP URNs as in the IVCAP OpenAPI description (`urn:ivcap:<noun>:<uuid>`); canonical JSON is RFC 8785.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import rfc8785

__all__ = [
    "CONTENT_SCHEMA",
    "EMBEDDED",
    "INTENT_SCHEMA",
    "KEY_FIELD",
    "KEY_TAG",
    "KEY_VERSION",
    "RECORD_VERSION",
    "How",
    "OncePer",
    "api_address",
    "artifact_urns",
    "canonical",
    "data_urns",
    "digest",
    "file_urn",
    "fingerprint",
    "fingerprint_for_reuse",
    "flows_urn",
    "foremost",
    "is_utf8",
    "ivcap_urn",
    "key_entity",
    "key_in",
    "key_of",
    "key_of_generation",
    "last_part",
    "made_for_trial",
    "path_of",
    "path_parts",
    "path_text",
    "platform_id",
    "same_claim",
    "same_intent",
    "short_id",
    "unsuperseded",
    "urn_id",
    "utf8_safe",
    "with_key",
    "without_key",
]

KEY_VERSION: Final = "k1"
_KEY_IN_NAME: Final = re.compile(r" ?\[([0-9a-f]{16}(?:\.\d+)?)\]")
KEY_FIELD: Final = "ivcap-flows-key"
"""The user metadata, or annotation, of an item of Provena that holds its key."""
KEY_TAG: Final = "ivcap-flows:"
"""What precedes the short id of the key in the tag of an order."""
RECORD_VERSION: Final = 1
"""The version of what is written on platforms, a field of each content. The names of the schemas stay as they are."""
INTENT_SCHEMA: Final = "urn:ivcap-flows:schema:intent.1"
CONTENT_SCHEMA: Final = "urn:ivcap-flows:schema:content.1"
"""The aspect on an artifact with the `sha256` and `size` of its bytes, since IVCAP keeps no digest."""

How = Literal["sent", "kept", "adopted", "reused", "planned"]
"""How a run came by an effect."""
OncePer = Literal["run", "flow", "account", "call"]
"""Where equal requests count as one effect: in the logical run, in all runs of the flow, in the account, or never."""

_ESCAPED: Final = re.compile(r"\\u(005c|d[89a-f][0-9a-f]{2})")
_SEPARATOR: Final = re.compile(r"/|\\(?!u(?:005c|d[89a-f][0-9a-f]{2}))")

_DATA = re.compile(r"urn:ivcap:(?:artifact|collection):[0-9A-Za-z._-]+")


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value. Equal values have equal bytes, whatever the order of their keys."""
    return rfc8785.dumps(value)


EMBEDDED: Final = "urn:ivcap-flows:embedded:"
"""The id of each embedded platform begins so."""


def made_for_trial(platform: str, target: str) -> bool:
    """Return whether what this platform made is a trial, of which the target, another one, must get nothing."""
    return platform.startswith(EMBEDDED) and platform != target


def api_address(platform: str, urn: str, service: str | None = None) -> str | None:
    """Return the URL under which IVCAP's API shows an order, or a job of a service; None if there is none.

    Whoever opens it needs a login there. Source: paths of the IVCAP OpenAPI description.
    """
    if platform.startswith(EMBEDDED):
        return None
    if urn.startswith("urn:ivcap:order:"):
        return f"{platform}/1/orders/{urn}"
    return f"{platform}/1/services2/{service}/jobs/{urn}" if service else None


def digest(data: bytes) -> str:
    """Return the sha256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """Return the sha256 of a JSON value. It also works for NaN and integers above 2**53, which RFC 8785 excludes."""
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
) -> str:
    """Return the key of an effect, in its first generation: `k1:<64 hex>`.

    `scope` is the expanded scope, for example `run:<logical run id>`; `request` holds the encoded values to be sent.
    """
    parts = [KEY_VERSION, platform, account, scope, noun, request, discriminator]
    return f"{KEY_VERSION}:{digest(canonical(parts))}"


def key_of_generation(base_key: str, generation: int) -> str:
    """Return the key of a generation. Generation 0 has the base key."""
    return f"{base_key}.{generation}" if generation else base_key


def fingerprint_for_reuse(*, platform: str, account: str, noun: str, definition: str, request: Any) -> str:
    """Return the 64 hex digits that equal requests of one service definition share within an account."""
    return digest(canonical(["m1", platform, account, noun, definition, request]))


def key_entity(key: str) -> str:
    """Return the URN of the entity that carries an idempotency record: `urn:ivcap-flows:key:<hash>`."""
    return "urn:ivcap-flows:key:" + key.removeprefix(KEY_VERSION + ":")


def same_intent(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two idempotency records were written for one intent of one journal, by whichever claim."""
    return all(one.get(name) == other.get(name) for name in ("journal", "created-at"))


def same_claim(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two idempotency records announce the same send of one claim.

    The journal's id does not say so: a journal that was restored from a copy has the id of the one that wrote a record.
    """
    return one.get("claim") is not None and all(one.get(name) == other.get(name) for name in ("claim", "send"))


def foremost(records: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the idempotency record that counts, of all under one key, oldest first; None if there is none.

    That is the oldest that names an effect, else the oldest of all.
    """
    known = unsuperseded(records)
    return next((record for record in known if record.get("urn") is not None), next(iter(known), None))


def unsuperseded(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the idempotency records of one key without those whose effect the platform has lost, as another says."""
    known = list(records)
    lost = {urn for record in known for urn in record.get("supersedes", ())}
    return [record for record in known if record.get("urn") not in lost]


def short_id(key: str) -> str:
    """Return the first 16 hex digits of a key, with its generation: short enough for a name or a tag."""
    body, _, generation = key.removeprefix(KEY_VERSION + ":").partition(".")
    return body[:16] + (f".{generation}" if generation else "")


def short_run(id: str) -> str:  # noqa: A002
    """Return the last 8 characters of a run's id. It begins with a time, which runs of the same minute share."""
    return id[-8:]


def with_key(name: str, key: str) -> str:
    """Return the name under which an order is placed. It contains the key, so that a look-up can find the order."""
    return f"{name} [{short_id(key)}]"


def key_in(name: str | None) -> str | None:
    """Return the short id of the key in an order's name on the platform; None if there is none."""
    found = _KEY_IN_NAME.search(name or "")
    return found and found[1]


def without_key(name: str | None) -> str | None:
    """Return the name that the user gave an order, from its name on the platform."""
    return None if name is None else _KEY_IN_NAME.sub("", name)


def ivcap_urn(noun: str, id: str) -> str:  # noqa: A002 - the platform's own word
    """Return `urn:ivcap:<noun>:<id>` for a bare id or for the URN itself."""
    return id if id.startswith("urn:") else f"urn:ivcap:{noun}:{id}"


def urn_id(urn: str) -> str:
    """Return the last part of a URN: the bare id that IVCAP uses in its links."""
    return urn.rsplit(":", 1)[-1]


def flows_urn(kind: str, id: str | uuid.UUID) -> str:  # noqa: A002
    """Return `urn:ivcap-flows:<kind>:<id>`, a name for a thing that no platform has named."""
    return f"urn:ivcap-flows:{kind}:{id}"


def file_urn(sha256: str) -> str:
    """Return the URN of a file's content. Equal files share it, wherever they are."""
    return flows_urn("file", f"sha256:{sha256}")


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 can hold a text, so that it can be sent and stored: it has no half of a surrogate pair."""
    return text.encode(errors="ignore").decode() == text


def path_text(path: str) -> str:
    """Return a path as a text that UTF-8 can hold, of which `path_of` makes the same path again.

    Python decodes a byte that is no UTF-8 as half a surrogate pair, which is written as an escape: `Mu\\udcf1oz.csv`.
    """
    return _ESCAPED.sub(r"\\u005cu\1", path).encode("utf-8", "backslashreplace").decode()


def utf8_safe(value: Any) -> Any:
    """Return a JSON value whose texts UTF-8 can encode. Half surrogate pairs, which file names may hold, are escaped.

    So two names that differ only in these stay different.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {utf8_safe(name): utf8_safe(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [utf8_safe(inner) for inner in value]
    return value


def path_of(text: str) -> str:
    """Return the path of a text that `path_text` made. No recorded path is opened without it."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def path_parts(text: str) -> list[str]:
    """Return the parts of the text of a path, of whichever system."""
    return _SEPARATOR.split(text.rstrip("/\\"))


def last_part(text: str) -> str:
    """Return the last part of the text of a path, of whichever system."""
    return path_parts(text)[-1]


def platform_id(url: str) -> str:
    """Return the normalised URL of a platform: lower-case scheme and host, no default port, no trailing slash."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme.lower())
    netloc = host if parts.port in (None, default) else f"{host}:{parts.port}"
    return urlunsplit((parts.scheme.lower(), netloc, parts.path.rstrip("/"), "", ""))


def artifact_urns(value: Any) -> list[str]:
    """Return each artifact URN in a JSON value once, in order of appearance."""
    return [urn for urn in data_urns(value) if urn.startswith("urn:ivcap:artifact:")]


def data_urns(value: Any) -> list[str]:
    """Return each artifact or collection URN in a JSON value once, in order of appearance."""
    found: dict[str, None] = {}

    def walk(part: Any) -> None:
        if isinstance(part, str):
            found.update(dict.fromkeys(_DATA.findall(part)))
        elif isinstance(part, dict):
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list | tuple):
            for inner in part:
                walk(inner)

    walk(value)
    return list(found)
