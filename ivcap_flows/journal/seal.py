"""The seal of an SQLite journal: a file beside it that says how many transactions the journal has had.

SQLite takes a write-ahead log that is damaged or gone for a shorter one, and a file that is gone for a new database:
rows are missing then, and nothing says so. The seal does. It is written after each commit, so it may lag behind the
database but is never ahead of it. It is not synced: after a power cut it lags.
"""

from __future__ import annotations

import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ivcap_flows.errors import JournalLossError

__all__ = ["Seal", "Sealed"]

_TRIES: Final = 5
_PAUSE: Final = 0.002


@dataclass(frozen=True)
class Sealed:
    """Which journal it is, and the number of its last transaction."""

    journal_id: str
    generation: int

    def ahead_of(self, database: Sealed) -> bool:
        """Whether the database has lost what is sealed."""
        return self.journal_id != database.journal_id or self.generation > database.generation

    def text(self) -> bytes:
        """As it stands in the file: of one length, so that one write replaces it, with a check sum."""
        body = f"{self.journal_id} {self.generation:020d}"
        return f"{body} {zlib.crc32(body.encode()):08x}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Sealed | None:
        """What a file says; None where its check sum is wrong."""
        parts = text.decode("ascii", "replace").split()
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        found = cls(parts[0], int(parts[1]))
        return found if found.text() == text else None


class Seal:
    """The seal of the journal in a file. Only `read` and `place` raise OSError."""

    def __init__(self, journal: Path) -> None:
        # SQLite follows links to its file, too, so one journal has one seal.
        real = Path(os.path.realpath(journal))
        self.path = real.with_name(f"{real.name}.seal")

    def read(self) -> Sealed | None:
        """What is sealed; None without a file, or where it cannot be understood."""
        for _ in range(_TRIES):
            try:
                text = self.path.read_bytes()
            except FileNotFoundError:
                return None
            found = Sealed.parse(text)
            if found is not None:
                return found
            # Another process may be writing it.
            time.sleep(_PAUSE)
        return None

    def place(self, sealed: Sealed) -> None:
        """Make the file, or replace what it says."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, os.write(file, sealed.text()))
        finally:
            os.close(file)

    def advance(self, sealed: Sealed) -> None:
        """Say that the journal has come so far. A seal that is gone, or another journal's by now, stays as it is."""
        with suppress(OSError):
            file = os.open(self.path, os.O_RDWR)
            try:
                there = Sealed.parse(os.read(file, 4096))
                # Of two processes the one that committed first may come here last.
                if there is None or (there.journal_id == sealed.journal_id and there.generation < sealed.generation):
                    os.lseek(file, 0, os.SEEK_SET)
                    os.write(file, sealed.text())
            finally:
                os.close(file)

    def loss(self, url: str, sealed: Sealed, found: Sealed | None) -> JournalLossError:
        """What to tell of a database that is behind what is sealed; `found` None for one that is gone or empty."""
        same = found is not None and found.journal_id == sealed.journal_id
        if found is None:
            database = "is gone or empty"
        elif same:
            database = f"has {found.generation} of them"
        else:
            database = "is another journal"
        return JournalLossError(
            f"The journal {url} has lost rows: its seal {self.path} knows of {sealed.generation} transactions, and the "
            f"database {database}. What they asked for may be sent again. Restore a complete backup of the file with "
            "its `-wal`; or go on without them by `ivcap-flows journal rebuild --accept-loss`, which restores the "
            "orders and jobs that the platform's records tell of. If you deleted or replaced the journal on purpose, "
            "delete its seal, too.",
            url=url,
            seal=str(self.path),
            known=sealed.generation,
            found=found.generation if found is not None and same else None,
        )
