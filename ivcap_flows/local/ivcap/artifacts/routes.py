"""`/1/artifacts` (IVCAP OpenAPI 0.48) and the data path, which uses TUS 1.0.0."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.access import checked_policy, readable
from ivcap_flows.local.ivcap.artifacts import shapes
from ivcap_flows.local.ivcap.artifacts.blobs import BlobResponse, BodyTooLongError, receive
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import link, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import BYTES, CONTENT, Body

__all__ = ["OPERATIONS", "data_href", "product"]

_TUS: Final = {"Tus-Resumable": "1.0.0"}
_CHUNK_TYPE: Final = "application/offset+octet-stream"
_PATIENCE: Final = 10.0
"""Seconds that a chunk waits for an earlier request on the same upload to end."""

LISTING: Final = Listing(
    "artifacts",
    "artifacts",
    {
        "id": Column("id", never_null=True),
        "name": Column("name"),
        "status": Column("status", never_null=True),
        "mime-type": Column("mime"),
        "size": Column("size", "number"),
        "policy": Column("policy", never_null=True),
        "account": Column("account", never_null=True),
        "collection": Column("collection"),
        "created-at": Column("created_at", "time", never_null=True),
        "last-modified-at": Column("modified_at", "time", never_null=True),
    },
    "created-at",
    since="created_at",
)


def _bare(row: sqlite3.Row) -> str:
    return str(row["id"]).rsplit(":", 1)[-1]


def data_href(base: str, urn: str) -> str:
    return f"{base}/1/artifacts/{urn.rsplit(':', 1)[-1]}/blob"


def product(base: str, row: sqlite3.Row) -> dict[str, Any]:
    """Return what an order or a job shows of an artifact that it made."""
    return without_none(
        {
            "id": row["id"],
            "name": row["name"],
            "status": row["status"],
            "mime-type": row["mime"],
            "size": row["size"],
            "href": _href(base, row),
            "data-href": data_href(base, row["id"]),
        }
    )


def _href(base: str, row: sqlite3.Row) -> str:
    return f"{base}/1/artifacts/{_bare(row)}"


def _record(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    return without_none(
        {
            "id": row["id"],
            "status": row["status"],
            "name": row["name"],
            "mime-type": row["mime"],
            "size": row["size"],
            "created-at": clock.stamp(row["created_at"]),
            "last-modified-at": clock.stamp(row["modified_at"]),
            "policy": row["policy"],
            "account": row["account"],
            "data-href": data_href(call.base, row["id"]),
            "links": [link("self", _href(call.base, row))],
        }
    )


def _label(text: str | None) -> str | None:
    """Decode `X-Name` as clients send it: base64 of UTF-8 from the public clients, plain from older ones."""
    if not text:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
        if raw and base64.b64encode(raw).decode() == text:
            return raw.decode("utf-8")
    except (ValueError, binascii.Error):
        pass
    return text.encode("latin-1").decode("utf-8", "replace")


def _number(call: Call, name: str) -> int | None:
    """Return the number in a length or offset header; None if absent. Raises Problem 400."""
    text = call.header(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,18}|-1", text.strip()):
        raise errors.bad_request(f"{name} must be a number of bytes.")
    return int(text)


def _check_version(call: Call) -> None:
    if call.header("Tus-Resumable") not in (None, "1.0.0"):
        problem = errors.bad_request("Only version 1.0.0 of TUS is supported.")
        raise errors.Problem(412, problem.kind, problem.body, {"Tus-Version": "1.0.0"})


async def create(call: Call) -> Response:
    """Create an empty record to be filled by TUS, or a record with the body as its (first) bytes."""
    _check_version(call)
    announced = _number(call, "X-Content-Length")
    announced = _number(call, "Upload-Length") if announced is None else announced
    length = _number(call, "Content-Length")
    has_body = bool(length) or (length is None and call.header("Transfer-Encoding") is not None)
    if announced is None and has_body:
        announced = length
    mime = call.header("X-Content-Type") or call.header("Content-Type")
    collection = call.header("X-Collection") or None
    if collection is not None and not collection.startswith("urn:"):
        raise errors.parameter("X-Collection", "X-Collection must be a URN.", collection)
    row = await call.state(
        call.platform.artifacts.create,
        call.who,
        name=_label(call.header("X-Name")),
        mime=mime,
        size=None if announced in (None, -1) else announced,
        policy=checked_policy(call.header("X-Policy"), "artifact", "X-Policy"),
        collection=collection,
        job=call.job,
    )
    if has_body:
        row = await _append(call, row, 0)
        if row["size"] is None:
            row = await call.state(
                call.platform.artifacts.advance, call.who, row["id"], row["received"], row["received"]
            )
    headers = {"Location": _href(call.base, row), "Upload-Offset": str(row["received"]), **_TUS}
    return reply(_record(call, row), 201, headers)


def read(call: Call) -> Response:
    return reply(_record(call, call.platform.artifacts.read(call.who, call.id("artifact"))))


def list_all(call: Call) -> Response:
    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen], values

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        return without_none(
            {
                "id": row["id"],
                "status": row["status"],
                "name": row["name"],
                "mime-type": row["mime"],
                "size": row["size"],
                "created-at": clock.stamp(row["created_at"]),
                "href": _href(call.base, row),
            }
        )

    return reply(page_of(call, LISTING, conditions, item))


def head(call: Call) -> Response:
    """Reply with the upload's offset."""
    _check_version(call)
    row = call.platform.artifacts.read(call.who, call.id("artifact"))
    headers = {"Upload-Offset": str(row["received"]), "Cache-Control": "no-store", **_TUS}
    headers |= {"Upload-Defer-Length": "1"} if row["size"] is None else {"Upload-Length": str(row["size"])}
    return Response(status_code=200, headers=headers)


def download(call: Call) -> Response:
    row = call.platform.artifacts.read(call.who, call.id("artifact"))
    if row["status"] != "ready":
        raise errors.not_found("content, as the upload is not complete,", row["id"])
    path = call.platform.directory.blob(row["id"])
    return BlobResponse(path, row["size"], row["mime"], _bare(row), call.request.headers)


def defer(call: Call) -> Response:
    """Handle the deferred creation that the tar upload of ivcap-client 0.47.21 sends to the data path."""
    _check_version(call)
    row = call.platform.artifacts.to_write(call.who, call.id("artifact"))
    return Response(status_code=201, headers={"Location": data_href(call.base, row["id"]), **_TUS})


_writers: dict[str, tuple[asyncio.Lock, int]] = {}


@asynccontextmanager
async def _only_writer(urn: str) -> AsyncIterator[None]:
    """Let one request at a time append to an artifact. Raises Problem 423 if an earlier one does not end."""
    lock, users = _writers.get(urn, (asyncio.Lock(), 0))
    _writers[urn] = (lock, users + 1)
    try:
        try:
            await asyncio.wait_for(lock.acquire(), _PATIENCE)
        except (asyncio.TimeoutError, TimeoutError):
            raise errors.Problem(423, "conflict", {"message": "Another request is writing to this upload."}) from None
        try:
            yield
        finally:
            lock.release()
    finally:
        lock, users = _writers.pop(urn)
        if users > 1:
            _writers[urn] = (lock, users - 1)


async def _append(call: Call, row: sqlite3.Row, offset: int) -> sqlite3.Row:
    """Append the body to an artifact; return its record afterwards."""
    artifacts, urn = call.platform.artifacts, row["id"]

    async def commit(received: int) -> None:
        # The caller may have disconnected; the received bytes are kept anyway.
        await asyncio.shield(call.state(artifacts.advance, call.who, urn, received))

    path = call.platform.directory.blob(urn)
    try:
        await receive(call.request.stream(), path, offset, row["size"], commit)
    except BodyTooLongError:
        raise errors.too_large(f"The artifact was declared with {row['size']} bytes; the body exceeds them.") from None
    return await call.state(artifacts.read, call.who, urn)


async def append(call: Call) -> Response:
    """Append a chunk (TUS PATCH)."""
    _check_version(call)
    urn = call.id("artifact")
    offset, total = _number(call, "Upload-Offset"), _number(call, "Upload-Length")
    length = _number(call, "Content-Length")
    row = await call.state(call.platform.artifacts.to_write, call.who, urn)
    if length is None and call.header("Transfer-Encoding") is None:
        length = 0  # a request with neither has no body
    kind = (call.header("Content-Type") or "").split(";")[0].strip().lower()
    # For an unknown size, ivcap-cli sends a closing chunk that is empty and has no type.
    if kind != _CHUNK_TYPE and (kind or length != 0):
        problem = errors.bad_request(f"A chunk must be of type {_CHUNK_TYPE}.")
        raise errors.Problem(415, "unsupported-content-type", problem.body)
    if offset is None or offset < 0:
        raise errors.bad_request("Upload-Offset is required for every chunk.")
    async with _only_writer(urn):
        row = await call.state(call.platform.artifacts.to_write, call.who, urn)
        if offset != row["received"]:
            raise errors.conflict(
                f"The upload stands at {row['received']} bytes, not at {offset}.",
                Upload_Offset=str(row["received"]),
                Tus_Resumable="1.0.0",
            )
        size = row["size"]
        if total is not None:
            if (size is not None and total != size) or total < row["received"] + (length or 0):
                raise errors.bad_request(f"Upload-Length {total} contradicts the size or the bytes sent before.")
            size = total
        if size is not None and length is not None and offset + length > size:
            raise errors.too_large(f"The artifact was declared with {size} bytes; this chunk exceeds them.")
        if total is not None and row["size"] is None:
            row = await call.state(call.platform.artifacts.advance, call.who, urn, offset, total)
        if length != 0:
            row = await _append(call, row, offset)
    return Response(status_code=204, headers={"Upload-Offset": str(row["received"]), **_TUS})


_PRESENT: Final = "`at-time` selects the records that existed then; their content is the present one."
_VERSION: Final = Param("Tus-Resumable", pattern=r"^1\.0\.0$")
_CREATE: Final = (
    Param("X-Name", description="A label, as base64 of UTF-8 or plain."),
    Param("X-Collection", description="URN of a collection."),
    Param("X-Policy", description="URN of a policy."),
    Param("X-Content-Type", description="Media type of the content."),
    Param("X-Content-Length", description="Size in bytes; -1 when it is not known yet."),
    Param("Upload-Length", description="As X-Content-Length."),
    _VERSION,
)
_CHUNK: Final = (
    Param("Upload-Offset", required=True, pattern=r"^\d{1,18}$", description="Where the chunk begins."),
    Param("Upload-Length", description="The size, if it was not known before."),
    Param("Upload-Defer-Length", description="1 while the size is not known."),
    _VERSION,
)
_BLOB: Final = "/1/artifacts/{id}/blob"

OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/artifacts",
        list_all,
        "List artifacts",
        LIST,
        answers=(200, 400, 422),
        missing=_PRESENT,
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        "/1/artifacts",
        create,
        "Create an artifact",
        answers=(201, 400, 412, 413, 422, 507),
        headers=_CREATE,
        takes=BYTES,
        gives=shapes.RECORD,
        tells=("Location", "Upload-Offset"),
    ),
    Operation("GET", "/1/artifacts/{id}", read, "Read an artifact", answers=(200, 404), gives=shapes.RECORD),
    Operation(
        "HEAD",
        _BLOB,
        head,
        "Read the offset of an upload (TUS)",
        answers=(200, 404, 412),
        headers=(_VERSION,),
        tells=("Upload-Offset",),
    ),
    Operation(
        "PATCH",
        _BLOB,
        append,
        "Upload a chunk (TUS)",
        answers=(204, 400, 403, 404, 409, 412, 413, 415, 423, 507),
        headers=_CHUNK,
        takes=Body(BYTES.schema, (_CHUNK_TYPE,)),
        tells=("Upload-Offset",),
    ),
    Operation(
        "POST",
        _BLOB,
        defer,
        "Begin an upload of unknown size",
        answers=(201, 403, 404, 412),
        headers=(Param("Upload-Defer-Length"), _VERSION),
        tells=("Location",),
    ),
    Operation(
        "GET",
        _BLOB,
        download,
        "Download the bytes or a range",
        answers=(200, 206, 404, 416),
        headers=(Param("Range", description="For instance bytes=0-99."),),
        gives=CONTENT,
    ),
)
