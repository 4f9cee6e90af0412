"""What Prefect is given before it is imported, so that each of hundreds of processes starts quickly."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import certifi

MIGRATED = Path(sys.prefix) / "prefect.db"
"""A database as Prefect's server makes it. It takes the server longer than anything else at its start."""


def frugal(folder: Path) -> dict[str, str]:
    """Settings of Prefect's clients. Each, and there are several a flow, reads all certificates that it trusts, which
    takes as long as a short flow, although no server here has TLS; and asks for a token that no server here asks for.
    """
    one = folder / "certificate.pem"
    if not one.exists():
        text, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
        one.write_text(text + end, encoding="utf-8")
    return {"PREFECT_API_SSL_CERT_FILE": str(one), "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}


def keep_migrated(database: Path) -> None:
    made = MIGRATED.with_name(f"prefect-{os.getpid()}.db")
    with contextlib.closing(sqlite3.connect(database)) as one, contextlib.closing(sqlite3.connect(made)) as other:
        one.backup(other)
    made.replace(MIGRATED)
