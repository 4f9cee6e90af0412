"""Redaction of stored requests: a keyed digest replaces each secret, so that equal requests stay equal.

A plain digest of a short password can be found by trying all short passwords. A keyed one (HMAC, RFC 2104) is useless
without the key. The key of an SQLite journal is a file beside it that only its owner may read. The key of a journal on
PostgreSQL is in a separate table, since all workers need the same key.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import InputError, JournalKeyError
from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import NewIntent
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import HIDDEN, scrub, scrub_alone, scrub_text
from ivcap_flows.whole_file import write_private

__all__ = ["Redaction", "check_key_file", "keep_key", "kept_key", "key_file_of"]

_KEY_BYTES: Final = 32
_SHOWN: Final = 32
"""Hex digits of a digest to keep, enough that two secrets never share them by chance."""
_CHECKED: Final = b"ivcap-flows redaction key"


def key_file_of(journal: Path) -> Path:
    """Return the path of the key file of an SQLite journal."""
    real = Path(os.path.realpath(journal))
    return real.with_name(f"{real.name}.key")


class Redaction:
    """Replaces secrets in the requests that one journal stores. The key is made when the first secret is found."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key: bytes | None = None

    def of(self, value: Any) -> Any:
        """Return a JSON value with each secret replaced by its keyed digest. A redacted value stays the same."""
        return scrub(value, self._mask)

    def by_rules(self, value: Any) -> Any:
        """Redact as `of` does, but not the secrets that only this process knows.

        Idempotency keys are made from the result, which must be the same in every process that shares the journal.
        """
        return scrub_alone(value, self._mask)

    def of_intent(self, wanted: NewIntent) -> NewIntent:
        """Return an intent as it is stored."""
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
        # Without a lock: a thread in a write transaction would wait for one that waits for its own turn to write. Two
        # threads that look at once find the same key.
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
        """Return the key in the file, and make it if the journal never had one.

        Raise JournalKeyError if the file is missing or has another key than before.
        """
        path = key_file_of(journal)
        with self._store.write() as connection:
            # In a write transaction, so that other processes wait and then find the file.
            key = kept_key(self._store, connection)
            if key is None:
                key = _read(path) or _written(path, secrets.token_bytes(_KEY_BYTES))
                _note(connection, key)
            return key


def kept_key(store: Store, connection: Connection) -> bytes | None:
    """Return the key of a journal, or None if it never needed one.

    Raise JournalKeyError if its file is missing or has another key than before.
    """
    if store.path is None:
        stored: str | None = connection.execute(sa.select(schema.redaction_keys.c.key)).scalar()
        return None if stored is None else bytes.fromhex(stored)
    path = key_file_of(store.path)
    known: str | None = connection.execute(sa.select(schema.journal_info.c.key_check)).scalar_one()
    if known is None:
        return None
    key = _read(path) or b""
    if known != _check(key):
        raise JournalKeyError(
            f"The key file {path} of the journal {store.url} is missing or has another key. Without the right key, a "
            "request that contains a secret is not recognised and would be sent twice. Restore the file from a backup "
            "or from where the journal was copied; or name a new journal in IVCAP_FLOWS_JOURNAL, which looks on the "
            "platforms for what was requested before.",
            url=store.url,
            key_file=str(path),
        )
    return key


def keep_key(store: Store, connection: Connection, journal_id: str, key: bytes) -> None:
    """Give a new journal the key of the one whose rows it gets. Raise InputError if its file has another key."""
    if store.path is None:
        row = {"journal_id": journal_id, "key": key.hex()}
        connection.execute(sa.insert(schema.redaction_keys), row)
        return
    check_key_file(store, key)
    _written(key_file_of(store.path), key)
    _note(connection, key)


def check_key_file(store: Store, key: bytes) -> None:
    """Raise InputError if the place of a journal's key has the file of another key."""
    if store.path is not None and (_read(path := key_file_of(store.path)) or key) != key:
        raise InputError(f"{path} is the key file of another journal. Move it away, or name another file.")


def _check(key: bytes) -> str:
    return hmac.digest(key, _CHECKED, "sha256").hex()


def _note(connection: Connection, key: bytes) -> None:
    connection.execute(sa.update(schema.journal_info).values(key_check=_check(key)))


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text("ascii").strip())
    return None


def _written(path: Path, key: bytes) -> bytes:
    """Return the key once it is on disk."""
    write_private(path, key.hex())
    return key
