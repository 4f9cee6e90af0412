"""Artifacts: records of bytes, upload by tus, verified download (IVCAP OpenAPI 0.48, `/1/artifacts`)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import AliasChoices, Field

from ivcap_flows.canonical import canonical_form
from ivcap_flows.errors import BadRequestError, ForbiddenError, InputError, NotFoundError, ProtocolError
from ivcap_flows.file_state import FileState
from ivcap_flows.handles import Artifact, LocalFile, Products
from ivcap_flows.http import download, tus
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap import archive
from ivcap_flows.ivcap.data_urls import decode_data_url, is_data_url
from ivcap_flows.ivcap.side_car import read_side_car, write_side_car
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment, urn_argument
from ivcap_flows.threads import WHOLE_FILES

__all__ = ["ArtifactRecord", "Artifacts", "ProductsRecord"]

_UNFINISHED: Final = frozenset({"pending", "partial", "error"})
_MIB: Final = 1024 * 1024


class ArtifactRecord(Wire):
    """An artifact as read, created, listed or named as a product. Listings have no `data_href`."""

    id: str
    status: str = "unknown"
    """`pending`, `partial`, `ready`, `error`, `unknown`, or another word of a newer server."""
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
        return self.id if is_data_url(self.id) else ivcap_urn("artifact", self.id)

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    @property
    def complete(self) -> bool:
        """Whether the platform has all bytes. It may leave an artifact without bytes pending for ever."""
        return self.status not in _UNFINISHED or (self.status == "pending" and self.size == 0)

    @property
    def known_size(self) -> int | None:
        """The size in bytes; None while the platform does not know it, in which case it sends -1 or no size."""
        return self.size if self.size is not None and self.size >= 0 else None

    def handle(self, platform: str, *, sha256: str | None = None) -> Artifact:
        """Return the handle of this artifact, with the `sha256` if the caller knows it."""
        return Artifact(
            urn=self.urn,
            platform=platform,
            name=self.name,
            media_type=self.mime_type,
            size=self.known_size,
            sha256=sha256,
            policy=self.policy,
            created_at=self.created_at,
        )


class ProductsRecord(Wire):
    """The first page of an order's or job's products; `links` may name the next page."""

    items: list[ArtifactRecord] | None = None
    links: Any = None

    def handles(self, platform: str) -> Products:
        return Products(item.handle(platform) for item in self.items or ())


class Artifacts:
    """`/1/artifacts`. Methods take URNs or bare ids.

    Methods that read content accept `data:` URLs too. They do not accept web addresses, which are never fetched.
    """

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
        """Create a record without content.

        `size` is the number of bytes that `send` will send. Keyed: the request is sent once. If the reply is lost, a
        pending record remains whose URN nobody knows.
        """
        headers = {"X-Content-Type": media_type, "X-Content-Length": str(size), "Tus-Resumable": "1.0.0"}
        if name:
            headers["X-Name"] = b64encode(canonical_form(name, "name").encode()).decode("ascii")
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
        sha256: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Send the content of an artifact; return its size when the platform has all of it.

        `path` is a file with the whole content, of as many bytes as the record was created for. Sending starts at the
        platform's offset, unless `offset` is given (0 for a new record). If a request breaks, the file is read again
        from there. `state` is the file's state when it was hashed; SourceChangedError is raised if it differs. If
        `sha256` is given and does not match, IntegrityError is raised before the last bytes are sent. `progress` is
        called with the number of bytes that arrived.
        """
        record = await self._writable(record)
        if record.ready and record.size == 0:
            return 0
        target = self._content_url(record)
        return await tus.send(self._session, target, path, offset=offset, state=state, sha256=sha256, progress=progress)

    async def offset(self, record: ArtifactRecord | str) -> int:
        """Return the number of bytes that the platform has."""
        return await tus.server_offset(self._session, self._content_url(await self._writable(record)))

    async def read(self, urn: str) -> ArtifactRecord:
        """Read a record, including `data_href`. The record of a `data:` URL is made from the URL."""
        if is_data_url(urn):
            media_type, content = decode_data_url(urn)
            return ArtifactRecord(id=urn, status="ready", mime_type=media_type, size=len(content))
        if urn.removeprefix("urn:").startswith(("http://", "https://")):
            raise InputError(
                f"{urn} is an address of the web, which is not fetched. Upload its content as an artifact."
            )
        reply = await self._session.request("GET", f"/1/artifacts/{segment(urn)}", repeat="idempotent")
        return replied(ArtifactRecord, reply, self._session)

    def list(
        self,
        *,
        limit: int | None = None,
        name: str | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> AsyncIterator[ArtifactRecord]:
        """Yield the artifacts, newest first by default; `limit` is the total.

        `name` is the whole name; `filter` is an expression of the platform, such as `name ~= 'Scott%'`.
        """
        narrowed = filter
        if name and not set(name) & set("'\"%\\"):  # the platform does not publish how to quote these
            narrowed = f"({filter}) && (name ~= '{name}')" if filter else f"name ~= '{name}'"
        params = {"filter": narrowed, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        if name is None:
            return listed(ArtifactRecord, self._session, "/1/artifacts", params, limit)
        return _named(name, listed(ArtifactRecord, self._session, "/1/artifacts", params, None), limit)

    async def download(self, urn: str, path: str | os.PathLike[str], *, sha256: str | None = None) -> LocalFile:
        """Download an artifact into a file, which appears only once its size, and `sha256` if given, are verified."""
        record = await self._readable(urn)
        if (content := _at_hand(record)) is not None:
            return await download.save(content, path, sha256=sha256, urn=_short(record))
        target = self._content_url(record)
        return await download.fetch(self._session, target, path, size=record.known_size, sha256=sha256, urn=record.urn)

    async def stream(self, urn: str, *, block: int = _MIB, sha256: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the content in blocks of `block` bytes; the last may be shorter. One block is held in memory at a time.

        Resumes if a connection breaks. Raises IntegrityError at the end if the size, or the `sha256` if given, differs.
        """
        async with aclosing(self._blocks(await self._readable(urn), block, sha256)) as blocks:
            async for part in blocks:
                yield part

    async def read_bytes(self, urn: str, *, limit: int) -> bytes:
        """Return the whole content. Raises InputError if it has more than `limit` bytes."""
        record = await self._readable(urn)
        content = bytearray()
        if record.known_size is None or record.known_size <= limit:
            async with aclosing(self._blocks(record, _MIB, None)) as blocks:
                async for part in blocks:
                    content += part
                    if len(content) > limit:
                        break
                else:
                    return bytes(content)
        raise InputError(
            f"{_short(record)} has more than {limit} bytes. Raise the limit, or stream or download it.", urn=record.urn
        )

    async def untar(
        self,
        urn: str,
        folder: str | os.PathLike[str],
        *,
        max_size: int = archive.MAX_SIZE,
        max_members: int = archive.MAX_MEMBERS,
        sha256: str | None = None,
    ) -> Path:
        """Unpack an archive (.tar, .tar.gz, .tar.bz2, .tar.xz) into a folder that does not exist yet or is empty.

        The folder appears once everything is in it and the archive's size, and its `sha256` if given, are verified. One
        that has the same content already stays. Nothing is ever written outside of the folder. Raises InputError for an
        archive with members that would be written there (absolute names, `..`, links that leave the folder) or with
        devices, for one of more than `max_size` bytes or `max_members` members, and for a folder with another content.
        """
        async with aclosing(self.stream(urn, sha256=sha256)) as blocks:
            return await archive.unpack_stream(blocks, folder, max_size=max_size, max_members=max_members)

    async def for_file(self, path: str | os.PathLike[str]) -> ArtifactRecord | None:
        """Return the artifact that an official tool uploaded from a file, as named by the side-car next to the file.

        None if the file has changed since, or if the artifact is not complete in this deployment.
        """
        urn = await WHOLE_FILES.run(read_side_car, path)
        if urn is None:
            return None
        try:
            record = await self.read(urn)
        except (NotFoundError, ForbiddenError, BadRequestError, InputError):
            return None
        return record if record.complete else None

    async def write_side_car(self, path: str | os.PathLike[str], urn: str, *, state: FileState | None = None) -> bool:
        """Write the side-car by which `for_file` and the official tools recognise a file; False if not possible.

        Raises SourceChangedError if the file differs from `state`.
        """
        return await WHOLE_FILES.run(write_side_car, path, urn, state=state)

    async def _writable(self, record: ArtifactRecord | str) -> ArtifactRecord:
        """Return the record with its data-href, which records from listings lack."""
        urn = record if isinstance(record, str) else record.urn
        if is_data_url(urn):
            raise InputError("A data URL holds its content, so none can be sent to it.")
        return await self.read(urn) if isinstance(record, str) or record.data_href is None else record

    async def _readable(self, urn: str) -> ArtifactRecord:
        """Read the record of an artifact. Raises InputError if its content is not complete."""
        record = await self.read(urn)
        if not record.complete:
            raise InputError(f"{record.urn} cannot be downloaded: its status is {record.status}.", urn=record.urn)
        return record

    async def _blocks(self, record: ArtifactRecord, block: int, sha256: str | None) -> AsyncGenerator[bytes, None]:
        content = _at_hand(record)
        if content is None:
            blocks = download.stream(
                self._session,
                self._content_url(record),
                size=record.known_size,
                sha256=sha256,
                urn=record.urn,
                block=block,
            )
            async with aclosing(blocks):
                async for part in blocks:
                    yield part
        else:
            download.verify(_short(record), content, sha256)
            for at in range(0, len(content), block):
                yield content[at : at + block]

    def _content_url(self, record: ArtifactRecord) -> str:
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


def _at_hand(record: ArtifactRecord) -> bytes | None:
    """Return content that needs no request: that of a data URL, and empty content."""
    if is_data_url(record.id):
        return decode_data_url(record.id)[1]
    return b"" if record.size == 0 else None


def _short(record: ArtifactRecord) -> str:
    """Return the URN, shortened for a message, since a data URL may be long."""
    return f"{record.urn[:60]}…" if len(record.urn) > 100 else record.urn


async def _named(name: str, records: AsyncIterator[ArtifactRecord], limit: int | None) -> AsyncIterator[ArtifactRecord]:
    """Yield the records with exactly this name."""
    left = checked_limit(limit)
    while left is None or left > 0:
        record = await anext(records, None)
        if record is None:
            return
        if record.name == name:
            left = None if left is None else left - 1
            yield record
