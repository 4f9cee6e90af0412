"""Cursors of lists: signed, so that the server can refuse those it did not make, and in URL-safe characters."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ivcap_flows.local.ivcap.errors import bad_request

__all__ = ["Cursors"]


@dataclass(frozen=True)
class Cursors:
    secret: bytes = field(repr=False)

    def _mac(self, data: bytes) -> bytes:
        return hmac.new(self.secret, data, hashlib.sha256).digest()[:16]

    def write(self, value: Mapping[str, Any]) -> str:
        # Compressed, since a URL must be short.
        data = zlib.compress(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
        return base64.urlsafe_b64encode(self._mac(data) + data).decode().rstrip("=")

    def read(self, text: str) -> dict[str, Any]:
        """Read a cursor. Raises Problem 400."""
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            raw = b""
        if not hmac.compare_digest(self._mac(raw[16:]), raw[:16]):
            raise bad_request("page is not a cursor that this server gave out.")
        value: dict[str, Any] = json.loads(zlib.decompress(raw[16:]))
        return value
