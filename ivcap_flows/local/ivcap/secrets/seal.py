"""Encrypt values at rest (AES-GCM), with a key stored outside of the embedded platform's folder.

A copy of the folder alone reveals no value. If the key cannot be stored, it lives in memory, and the values encrypted
with it are lost when the process ends.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from platformdirs import user_data_path

from ivcap_flows.local.keys import kept_file

__all__ = ["Seal", "SealKey"]

_log: Final = logging.getLogger(__name__)
_BYTES: Final = 32
_NONCE: Final = 12


class Seal:
    """One key in use. `id` distinguishes the values of different keys, and reveals nothing about the key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.id = hashlib.sha256(b"id" + key).hexdigest()[:16]

    def close(self, value: str, place: str) -> bytes:
        """Encrypt a value for a place. It can only be decrypted for the same place."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value.encode(), place.encode())

    def open(self, sealed: bytes, place: str) -> str:
        """Decrypt a value. Raises cryptography's InvalidTag if it was not encrypted with this key for this place."""
        return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode()).decode()


class SealKey:
    """The key of one embedded platform, in its own file in the user's data directory (0600)."""

    def __init__(self, embedded: Path, instance: str) -> None:
        self._embedded = embedded.resolve()
        self._name = instance.rsplit(":", 1)[-1]
        self._seal: Seal | None = None

    def find(self) -> Seal | None:
        """Return the seal if it exists, else None."""
        if self._seal is None and self._path.exists():
            self._seal = self._kept()
        return self._seal

    def need(self) -> Seal:
        """Return the seal; create it if it does not exist."""
        if self._seal is None:
            self._seal = self._kept() or self._in_memory()
        return self._seal

    @property
    def _path(self) -> Path:
        return user_data_path("ivcap-flows").absolute() / "embedded-keys" / self._name

    def _kept(self) -> Seal | None:
        path = self._path
        if path.parent.resolve().is_relative_to(self._embedded):
            return None
        try:
            key = kept_file(path, lambda: os.urandom(_BYTES))
        except OSError:
            return None
        return Seal(key) if len(key) == _BYTES else None

    def _in_memory(self) -> Seal:
        _log.warning(
            "Secrets of the embedded platform are lost when it ends, since no key for them can be stored in %s.",
            self._path,
        )
        return Seal(os.urandom(_BYTES))
