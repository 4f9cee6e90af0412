"""Requests as they are kept: a keyed digest in the place of each secret, by which an equal request is known again.

A plain digest of a short password is undone by trying all short passwords. Keyed (HMAC, RFC 2104), it tells nothing to
who has the journal without its key. The key of an SQLite journal is a file beside it, which only its owner may read; of
one on PostgreSQL a row of a table of its own, since all its workers need the same one.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ivcap_flows.errors import JournalLossError
from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import NewIntent
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import HIDDEN, scrub, scrub_alone, scrub_text

__all__ = ["Redaction", "key_file_of"]

_KEY_BYTES: Final = 32
_SHOWN: Final = 32
"""Hex digits of a digest that are kept: two secrets never share so many by chance."""
_CHECKED: Final = b"ivcap-flows redaction key"


def key_file_of(journal: Path) -> Path:
    """Where the key of the journal in a file lies."""
    real = Path(os.path.realpath(journal))
    return real.with_name(f"{real.name}.key")


class Redaction:
    """Takes the secrets out of what one journal keeps of requests. The key is made when the first is met."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def of(self, value: Any) -> Any:
        """A JSON value with a keyed digest in the place of each secret; what has been through this stays as it is."""
        return scrub(value, self._mask)

    def by_rules(self, value: Any) -> Any:
        """As `of`, but without those secrets that only this process knows as such: what keys are made of must be the
        same in every process that shares the journal."""
        return scrub_alone(value, self._mask)

    def of_intent(self, wanted: NewIntent) -> NewIntent:
        """An intent as it is written down."""
        return replace(
            wanted,
            request=self.of(wanted.request),
            discriminator=self.of(wanted.discriminator),
            subject=None if wanted.subject is None else scrub_text(wanted.subject),
            name=None if wanted.name is None else scrub_text(wanted.name),
            reuse=None if wanted.reuse is None else scrub_text(wanted.reuse),
        )

    def _mask(self, secret: str) -> str:
        told = hmac.digest(self._known_key(), secret.encode("utf-8", "surrogatepass"), "sha256").hex()
        return f"{HIDDEN}:{told[:_SHOWN]}"

    def _known_key(self) -> bytes:
        with self._lock:
            if self._key is None:
                self._key = self._from_file(self._store.path) if self._store.path else self._from_server()
            return self._key

    def _from_server(self) -> bytes:
        table = schema.redaction_keys
        with self._store.write() as connection:
            made = {"journal_id": self._store.journal_id, "key": secrets.token_hex(_KEY_BYTES)}
            self._store.insert_new(connection, table, made)
            return bytes.fromhex(connection.execute(sa.select(table.c.key)).scalar_one())

    def _from_file(self, journal: Path) -> bytes:
        """The key in the file, made if the journal never had one; JournalLossError where it had another."""
        path = key_file_of(journal)
        info = schema.journal_info
        with self._store.write() as connection:
            # Other processes wait, and find the file.
            known: str | None = connection.execute(sa.select(info.c.key_check)).scalar_one()
            key = _read(path) or (b"" if known else _made(path))
            check = hmac.digest(key, _CHECKED, "sha256").hex()
            if known is None:
                connection.execute(sa.update(info).values(key_check=check))
            elif known != check:
                raise JournalLossError(
                    f"The key of the journal {self._store.url} is gone or another: {path}. Without it a request that "
                    "holds a secret is not known again, and would be sent twice. Restore the file from where the "
                    "journal was copied from; or go on without it by `ivcap-flows journal rebuild --accept-loss`.",
                    url=self._store.url,
                    key_file=str(path),
                )
            return key


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text("ascii").strip())
    return None


def _made(path: Path) -> bytes:
    """A new key, on disk before anything is made with it."""
    key = secrets.token_bytes(_KEY_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, key.hex().encode("ascii"))
        os.fsync(file)
    finally:
        os.close(file)
    return key
