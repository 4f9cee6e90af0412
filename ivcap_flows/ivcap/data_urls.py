"""Artifacts whose id contains their content: `data:` URLs (RFC 2397), also as `urn:data:` (ivcap-client 0.47.21).

The functions are pure.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from ivcap_flows.errors import InputError

__all__ = ["decode_data_url", "is_data_url"]


def is_data_url(urn: str) -> bool:
    """Return whether an artifact's id contains its content."""
    return urn.startswith(("data:", "urn:data:"))


def decode_data_url(url: str) -> tuple[str, bytes]:
    """Return the media type (with parameters, default `text/plain`) and the content. Raises InputError if malformed."""
    header, comma, payload = url.removeprefix("urn:").removeprefix("data:").partition(",")
    if not is_data_url(url) or not comma:
        raise InputError(f"{url[:40]!r} is no data URL: it has no comma before its content.")
    kept = [part.strip() for part in header.split(";")]
    media_type = ";".join(part for part in kept if part != "base64")
    if media_type.startswith(";") or not media_type:  # only parameters, or nothing
        media_type = f"text/plain{media_type}"
    content = unquote_to_bytes(payload)
    if "base64" not in kept[1:]:
        return media_type, content
    packed = b"".join(content.split())
    try:
        return media_type, b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{url[:40]!r} is no data URL: its content is no base64.") from error
