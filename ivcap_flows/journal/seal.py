"""The seal of an SQLite journal: a file beside it with the number of the journal's transactions.

If the write-ahead log is damaged or missing, SQLite opens the database without an error, and if the file is missing, it
makes a new one. Rows are missing then, and only the seal shows it. It is written after each commit, so it may lag
behind the database but is never ahead of it. It is not synced, so it lags after a power cut.
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
    """The content of a seal: the journal's id, and the number of its last transaction."""

    journal_id: str
    generation: int

    def ahead_of(self, database: Sealed) -> bool:
        """Return whether the database has lost transactions that the seal counts, or is another journal."""
        return self.journal_id != database.journal_id or self.generation > database.generation

    def text(self) -> bytes:
        """Return the file's bytes: with a checksum, and of constant length, so that one write replaces them."""
        body = f"{self.journal_id} {self.generation:020d}"
        return f"{body} {zlib.crc32(body.encode()):08x}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Sealed | None:
        """Read a file's bytes; return None if the checksum is wrong."""
        parts = text.decode("ascii", "replace").split()
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        found = cls(parts[0], int(parts[1]))
        return found if found.text() == text else None


class Seal:
    """The seal file of an SQLite journal. Only `read` and `place` raise OSError."""

    def __init__(self, journal: Path) -> None:
        # SQLite follows symbolic links to its file. So does this, and one journal has one seal.
        real = Path(os.path.realpath(journal))
        self.path = real.with_name(f"{real.name}.seal")

    def read(self) -> Sealed | None:
        """Return the seal's content; None if there is no file or it is damaged."""
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
        """Create the file, or replace its content."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, os.write(file, sealed.text()))
        finally:
            os.close(file)

    def advance(self, sealed: Sealed) -> None:
        """Store a newer number of transactions. Leave a missing seal, and one of another journal, as it is."""
        with suppress(OSError):
            file = os.open(self.path, os.O_RDWR)
            try:
                there = Sealed.parse(os.read(file, 4096))
                # Of two processes, the one that committed first may get here last.
                if there is None or (there.journal_id == sealed.journal_id and there.generation < sealed.generation):
                    os.lseek(file, 0, os.SEEK_SET)
                    os.write(file, sealed.text())
            finally:
                os.close(file)

    def loss(self, url: str, sealed: Sealed, found: Sealed | None) -> JournalLossError:
        """Return the error for a database that is behind its seal; `found` is None if it is missing or empty."""
        same = found is not None and found.journal_id == sealed.journal_id
        if found is None:
            database = "is missing or empty"
        elif same:
            database = f"has {found.generation} of them"
        else:
            database = "is another journal"
        return JournalLossError(
            f"The journal {url} has lost rows: its seal {self.path} counts {sealed.generation} transactions, and the "
            f"database {database}. Requests in the lost rows may be sent again. Restore a complete backup of the file "
            "with its `-wal`; or continue without them: `ivcap-flows journal rebuild --accept-loss` restores the "
            "orders and jobs that have idempotency records on the platform. If you deleted or replaced the journal on "
            "purpose, delete its seal, too.",
            url=url,
            seal=str(self.path),
            known=sealed.generation,
            found=found.generation if found is not None and same else None,
        )
