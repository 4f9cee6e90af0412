"""Tasks for IVCAP artifacts: upload once, download verified, attach by URN."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ivcap_flows.capture import found
from ivcap_flows.capture.files import sha256_of
from ivcap_flows.durable import Effect, Found, Progress
from ivcap_flows.errors import ForbiddenError, IntegrityError, NotFoundError, PlatformError
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.http.tus import FileState
from ivcap_flows.identity import CONTENT_SCHEMA
from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, media_type_of, urn_of
from ivcap_flows.tasks.pair import task_pair

__all__ = [
    "aattach_artifact",
    "adownload_artifact",
    "attach_artifact",
    "aupload_artifact",
    "download_artifact",
    "upload_artifact",
]

_READY_WAIT: Final = 30.0
"""Seconds within which an artifact whose bytes are all there becomes `ready`."""


async def _upload_artifact(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    media_type: str | None = None,
    policy: str | None = None,
    collection: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Artifact:
    """Upload a file as an artifact, once per content.

    A file of the same sha256, size, media type, policy and collection that this account has uploaded before is not
    sent again: its artifact is the result, under the name that it was given first. An upload that was cut off goes on
    where the platform stands, in this process or another. Memory use does not grow with the file.

    `name` defaults to the file's name and `media_type` to what that tells; `policy` and `collection` are URNs, and
    without a policy the platform's own default holds. Raises InputError for what is no readable file, and
    SourceChangedError when the file changes while it is sent.
    """
    source = Path(path)
    state = await asyncio.to_thread(FileState.of, source)
    call = await IvcapCall.of(credentials)
    sha256 = await asyncio.to_thread(sha256_of, source, call.journal.files)
    kind = media_type or media_type_of(source)
    request = {
        "sha256": sha256,
        "size": state.size,
        "media-type": kind,
        "policy": policy,
        "collection": collection,
    }

    async def send(intent: IntentRow, progress: Progress) -> Artifact:
        record = await _begun(call, progress)
        offset = None
        if record is None:
            record = await call.client.artifacts.create(
                name=name or source.name, media_type=kind, size=state.size, policy=policy, collection=collection
            )
            offset = 0
            await progress.save({"urn": record.urn})
        if not record.ready:
            await call.client.artifacts.send(record, source, offset=offset, state=state)
        ready = await _until_ready(call, record.urn)
        await _say_content(call, ready.urn, sha256, state.size)
        return ready.handle(call.platform, sha256=sha256)

    async def find(intent: IntentRow) -> Sequence[Found[Artifact]]:
        # A record without bytes bears no key; `doctor` names those that a lost reply left behind.
        return []

    done = await call.perform(
        Effect(
            noun="upload",
            request=request,
            send=send,
            find=find,
            decode=Artifact.model_validate,
            placeholder=lambda key: Artifact(
                urn=f"urn:ivcap-flows:planned:{key}", platform=call.platform, name=name or source.name, sha256=sha256
            ),
            settle=0.0,
            scope="account",
            subject=source.name,
            resumable=True,
        ),
        key_aspects=call.keys,
    )
    return done.value


async def _begun(call: IvcapCall, progress: Progress) -> ArtifactRecord | None:
    """The record that an earlier try created, if the platform still has it."""
    stored: Any = progress.stored
    if not isinstance(stored, dict) or "urn" not in stored:
        return None
    try:
        record = await call.client.artifacts.read(stored["urn"])
    except NotFoundError:
        return None
    return None if record.status == "error" else record


async def _until_ready(call: IvcapCall, urn: str) -> ArtifactRecord:
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + _READY_WAIT, 0.05
    while True:
        record = await call.client.artifacts.read(urn)
        # A platform may leave an artifact of no bytes as pending: there is nothing to wait for.
        if record.ready or record.size == 0:
            return record
        if record.status == "error" or loop.time() > end:
            raise IntegrityError(
                f"All bytes of {urn} were sent, and its status is {record.status!r} after {_READY_WAIT:g} s. "
                "Run the task again: it looks where the platform stands.",
                urn=urn,
                expected="ready",
                found=record.status,
            )
        await asyncio.sleep(pause)
        pause = min(2.0, 2 * pause)


async def _say_content(call: IvcapCall, urn: str, sha256: str, size: int) -> None:
    """State the digest on the platform; a policy that forbids it costs other machines the check, nothing else."""
    content = {"$schema": CONTENT_SCHEMA, "$entity": urn, "sha256": sha256, "size": size}
    if await _content_of(call, urn) is None:
        try:
            await call.client.aspects.add(urn, CONTENT_SCHEMA, content)
        except ForbiddenError:
            return


async def _content_of(call: IvcapCall, urn: str) -> str | None:
    try:
        async for record in call.client.aspects.list(entity=urn, schema=CONTENT_SCHEMA, order_direction="ASC", limit=1):
            said = record.content.get("sha256") if isinstance(record.content, dict) else None
            return said if isinstance(said, str) else None
    except PlatformError as error:
        if error.retryable:
            raise
    return None


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
    sha256 = known or await _content_of(call, urn)
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
    return record.handle(call.platform, sha256=await _content_of(call, record.urn))


upload_artifact, aupload_artifact = task_pair(_upload_artifact, name="Upload artifact", run_name="upload {path}")
download_artifact, adownload_artifact = task_pair(
    _download_artifact, name="Download artifact", run_name="download {artifact} to {path}", writes=("path",)
)
attach_artifact, aattach_artifact = task_pair(_attach_artifact, name="Attach artifact", run_name="attach {urn}")
