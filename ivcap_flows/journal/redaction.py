"""Redaction of stored requests: a keyed digest replaces each secret, so that equal requests stay equal.

A plain digest of a short password can be found by trying all short passwords. A keyed one (HMAC, RFC 2104) is useless
without the key. The key of an SQLite journal is a file beside it that only its owner may read. The key of a journal on
PostgreSQL is in a separate table, since all workers need the same key.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ivcap_flows.errors import JournalKeyError
from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import NewIntent
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import HIDDEN, scrub, scrub_alone, scrub_text

__all__ = ["Redaction", "key_file_of"]

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
        info = schema.journal_info
        with self._store.write() as connection:
            # In a write transaction, so that other processes wait and then find the file.
            known: str | None = connection.execute(sa.select(info.c.key_check)).scalar_one()
            key = _read(path) or (b"" if known else _made(path))
            check = hmac.digest(key, _CHECKED, "sha256").hex()
            if known is None:
                connection.execute(sa.update(info).values(key_check=check))
            elif known != check:
                raise JournalKeyError(
                    f"The key file {path} of the journal {self._store.url} is missing or has another key. Without the "
                    "right key, a request that contains a secret is not recognised and would be sent twice. Restore "
                    "the file from a backup or from where the journal was copied; or name a new journal in "
                    "IVCAP_FLOWS_JOURNAL, which looks on the platforms for what was requested before.",
                    url=self._store.url,
                    key_file=str(path),
                )
            return key


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text("ascii").strip())
    return None


def _made(path: Path) -> bytes:
    """Make a new key, and return it once it is on disk. A full disk or a kill leaves no part of a file."""
    key = secrets.token_bytes(_KEY_BYTES)
    file, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        os.write(file, key.hex().encode("ascii"))
        os.fsync(file)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return key
