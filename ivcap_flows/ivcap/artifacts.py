"""Artifacts: records of bytes, upload by tus, verified download (IVCAP OpenAPI 0.48, `/1/artifacts`)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from pydantic import AliasChoices, Field

from ivcap_flows.errors import InputError, ProtocolError
from ivcap_flows.handles import Artifact, LocalFile, Products
from ivcap_flows.http import download, tus
from ivcap_flows.http.session import Session
from ivcap_flows.http.tus import FileState
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment, urn_argument

__all__ = ["ArtifactRecord", "Artifacts", "ProductsRecord"]

_UNFINISHED = frozenset({"pending", "partial", "error"})


class ArtifactRecord(Wire):
    """An artifact as read, created, listed or named as a product. Listings have no `data_href`."""

    id: str
    status: str = "unknown"
    """`pending`, `partial`, `ready`, `error`, `unknown`, or what a newer server says."""
    name: Text = None
    mime_type: Text = None
    size: int | None = None
    etag: Text = None
    created_at: Instant = None
    last_modified_at: Instant = None
    policy: Text = None
    account: Text = None
    cache_of: Text = None
    href: Text = None
    data_href: Text = Field(None, validation_alias=AliasChoices("data-href", "dataRef", "data_href"))

    @property
    def urn(self) -> str:
        return ivcap_urn("artifact", self.id)

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    def handle(self, platform: str, *, sha256: str | None = None) -> Artifact:
        """The handle of this artifact; `sha256` where the caller knows it."""
        return Artifact(
            urn=self.urn,
            platform=platform,
            name=self.name,
            media_type=self.mime_type,
            size=self.size if self.size is not None and self.size >= 0 else None,
            sha256=sha256,
            policy=self.policy,
            created_at=self.created_at,
        )


class ProductsRecord(Wire):
    """The first page of an order's or job's products; `links` may name a next one."""

    items: list[ArtifactRecord] | None = None
    links: Any = None

    def handles(self, platform: str) -> Products:
        return Products(item.handle(platform) for item in self.items or ())


class Artifacts:
    """`/1/artifacts`. Methods take URNs, or bare ids."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self,
        *,
        name: str | None,
        media_type: str,
        size: int,
        policy: str | None = None,
        collection: str | None = None,
    ) -> ArtifactRecord:
        """Create a record without bytes; `size` (bytes) is what `send` will bring.

        Keyed: sent once. A lost reply leaves a pending record that nothing names.
        """
        headers = {"X-Content-Type": media_type, "X-Content-Length": str(size), "Tus-Resumable": "1.0.0"}
        if name:
            headers["X-Name"] = b64encode(name.encode()).decode("ascii")
        if policy is not None:
            headers["X-Policy"] = urn_argument(policy, "policy", "urn:ivcap:policy:")
        if collection is not None:
            headers["X-Collection"] = urn_argument(collection, "collection", "urn:")
        reply = await self._session.request(
            "POST", "/1/artifacts", headers=headers, content=b"", repeat="keyed", expect=(200, 201)
        )
        return replied(ArtifactRecord, reply, self._session)

    async def send(
        self,
        record: ArtifactRecord | str,
        path: str | os.PathLike[str],
        *,
        offset: int | None = None,
        state: FileState | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Send a file's bytes; returns when the platform has all of them.

        Resumes where the platform stands unless `offset` says so (0 for a record just created). `state` is the file's
        state when it was hashed; SourceChangedError when it differs. `progress` is told the bytes that arrived.
        """
        target = await self._target(record)
        await tus.send(self._session, target, path, offset=offset, state=state, progress=progress)

    async def offset(self, record: ArtifactRecord | str) -> int:
        """The bytes that the platform has."""
        return await tus.server_offset(self._session, await self._target(record))

    async def read(self, urn: str) -> ArtifactRecord:
        """Read a record, `data_href` included."""
        reply = await self._session.request("GET", f"/1/artifacts/{segment(urn)}", repeat="idempotent")
        return replied(ArtifactRecord, reply, self._session)

    async def download(self, urn: str, path: str | os.PathLike[str], *, sha256: str | None = None) -> LocalFile:
        """Download an artifact into a file, which appears only when its size, and the `sha256` if given, are right."""
        record = await self.read(urn)
        if record.status in _UNFINISHED:
            raise InputError(f"{record.urn} cannot be downloaded: its status is {record.status}.", urn=record.urn)
        size = record.size if record.size is not None and record.size >= 0 else None
        target = await self._target(record)
        return await download.fetch(self._session, target, path, size=size, sha256=sha256, urn=record.urn)

    def list(
        self,
        *,
        limit: int | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> AsyncIterator[ArtifactRecord]:
        """The artifacts, newest first unless ordered otherwise; `limit` is the total."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return listed(ArtifactRecord, self._session, "/1/artifacts", params, limit)

    async def _target(self, record: ArtifactRecord | str) -> str:
        if isinstance(record, str):
            record = await self.read(record)
        elif record.data_href is None:  # an item of a listing
            record = await self.read(record.urn)
        if record.data_href is None:
            raise ProtocolError(
                f"{self._session.platform} names no data-href for {record.urn}.",
                platform=self._session.platform,
                method="GET",
                path=f"/1/artifacts/{record.id}",
                status=200,
                detail="no data-href",
                sent=True,
            )
        return self._session.own(record.data_href)
