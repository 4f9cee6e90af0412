"""Tasks for IVCAP artifacts: upload once, download verified, attach by URN."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from ivcap_flows.capture import found
from ivcap_flows.capture.files import sha256_of
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Collection, LocalFile
from ivcap_flows.journal import Journal
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, media_type_of, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.sources import SourceLike, name_of, opened
from ivcap_flows.tasks.uploads import content_of, upload

__all__ = [
    "aattach_artifact",
    "adownload_artifact",
    "attach_artifact",
    "aupload_artifact",
    "download_artifact",
    "upload_artifact",
]

logger = logging.getLogger("ivcap_flows.tasks")


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
            name=named,
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
    known = artifact.sha256 if isinstance(artifact, Artifact) else None
    sha256 = known or await content_of(call, urn)
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


upload_artifact, aupload_artifact = task_pair(
    _upload_artifact,
    name="Upload artifact",
    run_name=lambda given: f"upload {given['name'] or name_of(given['source']) or 'content'}",
)
download_artifact, adownload_artifact = task_pair(
    _download_artifact, name="Download artifact", run_name="download {artifact} to {path}", writes=("path",)
)
attach_artifact, aattach_artifact = task_pair(_attach_artifact, name="Attach artifact", run_name="attach {urn}")
