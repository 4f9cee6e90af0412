"""Tasks for IVCAP artifacts: upload once, download verified, attach by URN."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from ivcap_flows.capture import found
from ivcap_flows.capture.files import sha256_of
from ivcap_flows.errors import ForbiddenError, InputError, IntegrityError, NotFoundError
from ivcap_flows.handles import Artifact, Collection, LocalFile
from ivcap_flows.identity import digest
from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.journal import Journal
from ivcap_flows.media_types import media_type_of
from ivcap_flows.secrets import logger_of, scrub_text
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.folders import upload_as_collection, upload_as_tar
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.sources import Source, SourceLike, name_of, opened
from ivcap_flows.tasks.uploads import content_of, upload, uploaded

__all__ = [
    "aartifact_for_file",
    "aattach_artifact",
    "adownload_artifact",
    "alist_artifacts",
    "aread_artifact",
    "artifact_for_file",
    "attach_artifact",
    "auntar_artifact",
    "aupload_artifact",
    "aupload_directory",
    "download_artifact",
    "list_artifacts",
    "read_artifact",
    "untar_artifact",
    "upload_artifact",
    "upload_directory",
]

logger = logger_of("ivcap_flows.tasks")


async def _upload_artifact(
    source: SourceLike,
    *,
    name: str | None = None,
    media_type: str | None = None,
    policy: str | None = None,
    collection: Collection | str | None = None,
    side_car: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Artifact:
    """Upload a file, bytes or a binary stream as an artifact, once per content.

    Content of the same sha256, size, media type, policy and collection that this account has uploaded before is not
    sent again: its artifact is the result, under the name that it was given first. An upload that was cut off goes on
    where the platform stands, in this process or another. Memory use does not grow with the content: a stream, or an
    iterator over blocks of bytes, is first written to a temporary file (in `TMPDIR`), whether its size is known or not.

    `name` defaults to the file's name and `media_type` to what the name tells; `policy` and `collection` are URNs, and
    without a policy the platform's own default holds. `side_car` leaves a note beside the file by which the official
    clients know the artifact again. Raises InputError for what cannot be read, and SourceChangedError when a file
    changes while it is sent.
    """
    call = await IvcapCall.of(credentials)
    call.check(collection)
    named = name or name_of(source)
    if side_car and not isinstance(source, str | os.PathLike):
        raise InputError("A side-car lies beside a file: it needs a path, not bytes or a stream.")
    async with opened(source, call.journal.files) as content:
        done = await upload(
            call,
            content,
            name=scrub_text(named) if named else named,
            media_type=media_type or media_type_of(named),
            policy=policy,
            collection=None if collection is None else urn_of(collection),
        )
        if (
            side_car
            and done.how != "planned"
            and not await call.client.artifacts.write_side_car(content.path, done.value.urn, state=content.state)
        ):
            logger.warning("No side-car could be written beside %s.", content.path)
    return done.value


async def _download_artifact(
    artifact: Artifact | str,
    path: str | os.PathLike[str],
    *,
    credentials: IvcapCredentialsLike = None,
) -> LocalFile:
    """Download an artifact into a file, which appears only when its bytes are right.

    The size is always checked; the sha256 where the handle knows it or an aspect on the artifact states it, which is
    so for every artifact that this package uploaded. A file that has that content already is not fetched again. A
    download that breaks off goes on. Raises IntegrityError, and InputError for a path that cannot be written.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    urn, target = urn_of(artifact), Path(path)
    sha256 = await _digest(call, artifact)
    if sha256 is not None:
        there = await asyncio.to_thread(_there, target, sha256, call.journal)
        if there is not None:
            return there
    return await call.client.artifacts.download(urn, target, sha256=sha256)


def _there(path: Path, sha256: str, journal: Journal) -> LocalFile | None:
    """The file, if it has that content already."""
    if not path.is_file() or sha256_of(path, journal.files) != sha256:
        return None
    return LocalFile(path=str(path.absolute()), sha256=sha256, size=path.stat().st_size)


async def _attach_artifact(urn: str, *, credentials: IvcapCredentialsLike = None) -> Artifact:
    """The handle of an artifact that exists, by its URN. Raises NotFoundError for one that the account cannot see."""
    call = await IvcapCall.of(credentials)
    record = await call.client.artifacts.read(urn_of(urn))
    found(record.urn)
    return record.handle(call.platform, sha256=await content_of(call, record.urn))


async def _upload_directory(
    path: str | os.PathLike[str],
    *,
    pack: Literal["collection", "tar"],
    name: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection | Artifact:
    """Upload a folder, once per content: as a collection of its files, or as one tar.

    "collection": each file becomes an artifact, named by its path within the folder, and a member of a collection that
    is `name` (default: the folder's name). An equal folder is the same collection; after a failure the next call goes
    on with the files that are missing. Folders without files are not kept. "tar": one artifact `name` (default: the
    folder's name and `.tar`) without times and owners, so that an equal folder has equal bytes; it is spooled to a
    temporary file first. Raises InputError for links out of the folder, and for what a collection, or an
    archive, cannot hold.
    """
    call = await IvcapCall.of(credentials)
    if pack == "tar":
        return await upload_as_tar(call, Path(path), name=name, policy=policy)
    if pack != "collection":
        raise InputError(f'A folder is packed as "collection" or "tar", not {pack!r}.')
    return await upload_as_collection(call, Path(path), name=name, policy=policy)


async def _read_artifact(
    artifact: Artifact | str, *, limit: int = 64 * 1024 * 1024, credentials: IvcapCredentialsLike = None
) -> bytes:
    """The content of an artifact, verified as by `download_artifact`.

    Raises InputError when it has more than `limit` bytes, and IntegrityError when it is not what it should be.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    sha256 = await _digest(call, artifact)
    content = await call.client.artifacts.read_bytes(urn_of(artifact), limit=limit)
    if sha256 not in (None, digest(content)):
        raise IntegrityError(
            f"The content of {urn_of(artifact)} has the sha256 {digest(content)}, not {sha256}.",
            urn=urn_of(artifact),
            expected=sha256,
            found=digest(content),
        )
    return content


async def _untar_artifact(
    artifact: Artifact | str, folder: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> Path:
    """Unpack an artifact that is a tar archive, also a compressed one, into a folder that is new or empty; its path.

    The folder appears when everything is in it and verified as by `download_artifact`. Raises InputError for an archive
    with a member that would lie outside, and for one that unpacks to more than 16 GiB or 100,000 members.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    sha256 = await _digest(call, artifact)
    return await call.client.artifacts.untar(urn_of(artifact), folder, sha256=sha256)


async def _list_artifacts(
    name: str | None = None,
    *,
    filter: str | None = None,  # noqa: A002 - the API's word
    order_by: str | None = None,
    order_desc: bool | None = None,
    at_time: datetime | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Artifact]:
    """All artifacts that the account sees, or those of just this name, newest first; at most `limit` of them.

    `filter` is the platform's own grammar, such as `mime-type ~= 'text/%'`; `order_by` a column of it.
    """
    call = await IvcapCall.of(credentials)
    records = call.client.artifacts.list(
        name=name, filter=filter, order_by=order_by, order_desc=order_desc, at_time=at_time, limit=limit
    )
    artifacts = [record.handle(call.platform) async for record in records]
    for artifact in artifacts:
        found(artifact.urn)
    return artifacts


async def _artifact_for_file(
    path: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> Artifact | None:
    """The artifact that holds a file's content already, if one is known and ready; None otherwise. Nothing is sent.

    Known are those that this account uploaded, by the journal or by the idempotency record on the platform, and one
    that an official client uploaded, by the side-car beside the file.
    """
    call = await IvcapCall.of(credentials)
    async with opened(path, call.journal.files) as source:
        async for urn in uploaded(call, source, media_type_of(name_of(path))):
            with contextlib.suppress(NotFoundError, ForbiddenError):
                record = await call.client.artifacts.read(urn)
                if record.ready or record.size == 0:
                    return _known(call, record, source)
        told = await call.client.artifacts.for_file(path)
        return None if told is None else _known(call, told, source)


def _known(call: IvcapCall, record: ArtifactRecord, source: Source) -> Artifact:
    found(record.urn)
    return record.handle(call.platform, sha256=source.sha256)


async def _digest(call: IvcapCall, artifact: Artifact | str) -> str | None:
    """The sha256 that an artifact must have, if that is known."""
    known = artifact.sha256 if isinstance(artifact, Artifact) else None
    return known or await content_of(call, urn_of(artifact))


upload_artifact, aupload_artifact = task_pair(
    _upload_artifact,
    name="Upload artifact",
    run_name=lambda given: f"upload {given['name'] or name_of(given['source']) or 'content'}",
)
download_artifact, adownload_artifact = task_pair(
    _download_artifact, name="Download artifact", run_name="download {artifact} to {path}", writes=("path",)
)
attach_artifact, aattach_artifact = task_pair(_attach_artifact, name="Attach artifact", run_name="attach {urn}")
upload_directory, aupload_directory = task_pair(
    _upload_directory, name="Upload directory", run_name="upload {path} as {pack}"
)
read_artifact, aread_artifact = task_pair(_read_artifact, name="Read artifact", run_name="read {artifact}")
untar_artifact, auntar_artifact = task_pair(
    _untar_artifact, name="Untar artifact", run_name="untar {artifact} to {folder}", writes=("folder",)
)
list_artifacts, alist_artifacts = task_pair(_list_artifacts, name="List artifacts", run_name="list artifacts")
artifact_for_file, aartifact_for_file = task_pair(
    _artifact_for_file, name="Artifact for file", run_name="artifact for {path}"
)
