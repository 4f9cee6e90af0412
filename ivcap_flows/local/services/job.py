"""The job object that a service of the form `package.module:function` gets beside its request.

    def run(request: dict, job: ServiceJob) -> dict:
        series = job.read_artifact(request["series"])
        urn = job.add_product("index.csv", compute(series), "text/csv")
        return {"index": urn}

A returned dict or list is the JSON result; a `str` is a result of type `text/plain`, `bytes` one of
`application/octet-stream`. If the service raises an exception, the job fails with its message.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ivcap_flows.identity import digest, ivcap_urn, urn_id
from ivcap_flows.local.database import open_reader
from ivcap_flows.local.directory import Directory, sync_folder

__all__ = ["Product", "ServiceError", "ServiceJob"]


class ServiceError(Exception):
    """A failure that the service expects: the job's error message is its text alone."""


@dataclass(frozen=True)
class Product:
    """An artifact whose bytes wait in the job's folder; `id` is bare, `size` in bytes, `sha256` in hex."""

    id: str
    name: str | None
    media_type: str
    size: int
    sha256: str
    is_result: bool = False


class ServiceJob:
    """One job, inside its runner. `id`, `order`, `service` and `account` are URNs."""

    def __init__(self, directory: Directory, *, job: str, order: str, service: str, account: str) -> None:
        self.id, self.order, self.service, self.account = job, order, service, account
        self.products: list[Product] = []
        self._directory = directory
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def open_artifact(self, urn: str) -> BinaryIO:
        """Open an artifact that the job's account may read, as a file. Raises ServiceError."""
        if not urn.startswith("urn:ivcap:artifact:"):
            raise ServiceError(f"{urn!r} is not the URN of an artifact.")
        for product in self.products:
            if ivcap_urn("artifact", product.id) == urn:
                return (self._folder / product.id).open("rb")
        with closing(open_reader(self._directory.database)) as connection:
            row: sqlite3.Row | None = connection.execute(
                "SELECT status, size FROM artifacts WHERE id = ?"
                " AND (account = ? OR policy GLOB 'urn:ivcap:policy:ivcap.open.*')",
                (urn, self.account),
            ).fetchone()
        if row is None:
            raise ServiceError(f"There is no artifact {urn}, or this account may not read it.")
        if row["status"] != "ready":
            raise ServiceError(f"The upload of artifact {urn} is not complete.")
        return Path(os.devnull).open("rb") if row["size"] == 0 else self._directory.blob(urn).open("rb")

    def read_artifact(self, urn: str) -> bytes:
        """Return all bytes of an artifact. Raises ServiceError."""
        with self.open_artifact(urn) as file:
            return file.read()

    def add_product(self, name: str, data: bytes, media_type: str = "application/octet-stream") -> str:
        """Store bytes as a product of the job and return the artifact's URN. It becomes visible when the job ends."""
        return ivcap_urn("artifact", self.keep(name, data, media_type).id)

    def keep(self, name: str | None, data: bytes, media_type: str, *, is_result: bool = False) -> Product:
        """Write bytes for the platform to collect; they are on disk when this returns."""
        with self._lock:
            number = next(self._numbers)
        # Derived from the job's id, so that a seed determines the ids of products too.
        bare = str(uuid.uuid5(uuid.UUID(urn_id(self.id)), f"product {number}"))
        product = Product(bare, name, media_type, len(data), digest(data), is_result)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with (self._folder / product.id).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder)
        with self._lock:
            self.products.append(product)
        return product

    @property
    def _folder(self) -> Path:
        return self._directory.run(self.id) / "products"

    def log(self, text: str) -> None:
        """Add a line to the log of the order."""
        os.write(1, text.encode("utf-8", "replace").rstrip(b"\n") + b"\n")

    def event(self, name: str, **options: Any) -> None:
        """Send an event to those who follow the job's events; `options` are JSON values."""
        self.send_event({"$schema": "urn:ivcap:schema:service.event.generic.1", "name": name, "options": options})

    def send_event(self, event: Any) -> None:
        """As `event`, for a whole event document."""
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        with self._lock, (self._directory.run(self.id) / "events").open("ab", buffering=0) as file:
            file.write(line)

    def __repr__(self) -> str:
        return f"ServiceJob({urn_id(self.id)})"
