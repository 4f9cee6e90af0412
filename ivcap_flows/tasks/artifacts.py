"""Tasks for IVCAP artifacts: upload once, download and verify, list, get by URN."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ivcap_flows.capture import mark_existing
from ivcap_flows.capture.files import file_at
from ivcap_flows.errors import ForbiddenError, InputError, IntegrityError, NotFoundError
from ivcap_flows.file_state import reading
from ivcap_flows.handles import Artifact, Collection, LocalFile
from ivcap_flows.identity import digest
from ivcap_flows.media_types import media_type_of
from ivcap_flows.provenance.records import entity
from ivcap_flows.secrets import logger_of, scrub_text
from ivcap_flows.tasks.assets import Version, note_assets, place_of
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.collection_definitions import holding
from ivcap_flows.tasks.folders import upload_as_collection, upload_as_tar
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import planned, planned_members
from ivcap_flows.tasks.sources import SourceLike, UploadSource, name_of, opened
from ivcap_flows.tasks.there import state_there
from ivcap_flows.tasks.uploads import content_of, upload, uploaded
from ivcap_flows.tasks.waiting import PlannedError
from ivcap_flows.threads import FILES, WHOLE_FILES

if TYPE_CHECKING:
    from ivcap_flows.ivcap.artifacts import ArtifactRecord
    from ivcap_flows.journal import Journal

__all__ = [
    "aartifact_for_file",
    "adownload_artifact",
    "aget_artifact",
    "alist_artifacts",
    "aread_artifact",
    "artifact_for_file",
    "auntar_artifact",
    "aupload_artifact",
    "aupload_directory",
    "download_artifact",
    "get_artifact",
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

    If this account has already uploaded content with the same sha256, size, media type, policy and collection, nothing
    is sent: the result is that artifact, with its first name. An interrupted upload continues from the bytes that the
    platform has, in this process or another. Memory use does not grow with the content: a stream, or an iterator over
    blocks of bytes, is first written to a temporary file (in `TMPDIR`).

    `name` defaults to the file's name, and `media_type` to the type that the name implies. `policy` and `collection`
    are URNs; without a policy, the platform's default applies. With `side_car`, the task writes a small file beside the
    source, by which the official clients recognise the artifact. Raises InputError if the source cannot be read, and
    SourceChangedError if a file changes while it is sent.
    """
    call = await IvcapCall.of(credentials)
    call.check(collection)
    named = name or name_of(source)
    place = Path(source) if isinstance(source, str | os.PathLike) else None
    if side_car and place is None:
        raise InputError("side_car=True writes a file beside the source: pass a path, not bytes or a stream.")
    async with opened(source, call.journal.files) as content:
        done = await upload(
            call,
            content,
            name=scrub_text(named) if named else named,
            media_type=media_type or media_type_of(named),
            policy=policy,
            collection=None if collection is None else urn_of(collection),
        )
        if done.how in ("kept", "adopted"):
            known = f"{done.value.name!r} ({done.value.urn})" if done.value.name else done.value.urn
            logger.info("The content of %s is known: it is the artifact %s.", named or "this", known)
        if (
            side_car
            and place is not None
            and done.how != "planned"
            and not await call.client.artifacts.write_side_car(
                place, done.value.urn, state=content.state if content.path == place else None
            )
        ):
            logger.warning("Could not write a side-car file beside %s: is its folder writable?", place)
    if collection is not None:
        planned_members(urn_of(collection), done.value)
        holding(call, collection, [done.value])
    note_assets([Version(done.value, place_of(collection), new=done.how == "sent")])
    return done.value


async def _download_artifact(
    artifact: Artifact | str,
    path: str | os.PathLike[str],
    *,
    credentials: IvcapCredentialsLike = None,
) -> LocalFile:
    """Download an artifact into a file. The file appears only after its content is verified. Missing folders are made.

    The size is always checked. The sha256 is checked if the handle has it or an aspect on the artifact states it, as
    for every artifact that this package uploaded. If the file already has that content, nothing is downloaded. An
    interrupted download continues. Raises IntegrityError for wrong content, and InputError for a path that cannot be
    written.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    urn, target = urn_of(artifact), Path(path)
    sha256 = await _digest(call, artifact)
    if sha256 is not None:
        there = await WHOLE_FILES.run(_there, target, sha256, call.journal)
        if there is not None:
            await WHOLE_FILES.run(state_there, target, call.journal, entity(urn, "artifact", sha256=sha256))
            return there
    try:
        await FILES.run(target.parent.mkdir, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder of {target} cannot be made: {error}", path=str(target)) from error
    return await call.client.artifacts.download(urn, target, sha256=sha256)


def _there(path: Path, sha256: str, journal: Journal) -> LocalFile | None:
    """Return the file if it already has that content, else None."""
    there = file_at(path, journal.files) if os.path.isfile(path) else None
    return there if there is not None and there.sha256 == sha256 else None


async def _get_artifact(urn: str, *, credentials: IvcapCredentialsLike = None) -> Artifact:
    """Return the handle of an existing artifact. Raises NotFoundError if the account cannot see it."""
    call = await IvcapCall.of(credentials)
    if (artifact := planned(urn_of(urn), Artifact)) is not None:
        return artifact
    record = await call.client.artifacts.read(urn_of(urn))
    mark_existing(record.urn)
    return record.handle(call.platform, sha256=await content_of(call, record.urn))


async def _upload_directory(
    path: str | os.PathLike[str],
    *,
    pack: Literal["collection", "tar"],
    name: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection | Artifact:
    """Upload a folder, once per content: as a collection of its files, or as one tar archive.

    `pack="collection"`: each file becomes an artifact, named by its path within the folder, in a collection called
    `name` (default: the folder's name). An equal folder gives the same collection; after a failure, the next call
    uploads the missing files. Empty folders are left out.

    `pack="tar"`: one artifact called `name` (default: the folder's name and `.tar`), first written to a temporary file.
    It contains no times and owners, so equal folders have equal bytes.

    Raises InputError for links that lead out of the folder, and for anything that a collection or an archive cannot
    contain.
    """
    call = await IvcapCall.of(credentials)
    if pack == "tar":
        return await upload_as_tar(call, Path(path), name=name, policy=policy)
    if pack != "collection":
        raise InputError(f'The argument pack must be "collection" or "tar", not {pack!r}.')
    return await upload_as_collection(call, Path(path), name=name, policy=policy)


async def _read_artifact(
    artifact: Artifact | str, *, limit: int = 64 * 1024 * 1024, credentials: IvcapCredentialsLike = None
) -> bytes:
    """Return the content of an artifact, verified as in `download_artifact`.

    Raises InputError if it has more than `limit` bytes, and IntegrityError if it is not the expected content.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    sha256 = await _digest(call, artifact)
    content = await call.client.artifacts.read_bytes(urn_of(artifact), limit=limit)
    if sha256 not in (None, digest(content)):
        raise IntegrityError(
            f"The content of {urn_of(artifact)} has the sha256 {digest(content)}, but {sha256} is expected.",
            urn=urn_of(artifact),
            expected=sha256,
            found=digest(content),
        )
    return content


async def _untar_artifact(
    artifact: Artifact | str, folder: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> Path:
    """Unpack an artifact that is a tar archive, plain or compressed, into a new or empty folder. Return its path.

    The folder appears when it is complete and the archive is verified as in `download_artifact`. One that has the same
    content already stays as it is. Raises InputError for a folder with another content, for an archive with a member
    outside the folder, and for one that unpacks to more than 16 GiB or 100,000 members.
    """
    call = await IvcapCall.of(credentials)
    call.check(artifact)
    sha256 = await _digest(call, artifact)
    was_there = await FILES.run(_is_filled, folder)
    path = await call.client.artifacts.untar(urn_of(artifact), folder, sha256=sha256)
    if was_there:
        await WHOLE_FILES.run(state_there, path, call.journal)
    return path


def _is_filled(folder: str | os.PathLike[str]) -> bool:
    """Return whether there is a folder with something in it."""
    with reading(folder):
        return os.path.isdir(folder) and bool(os.listdir(folder))


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
    """List the artifacts that the account can see, or those with exactly this name, newest first; at most `limit`.

    `filter` is an expression in the platform's grammar, such as `mime-type ~= 'text/%'`. `order_by` is a column.
    """
    call = await IvcapCall.of(credentials)
    records = call.client.artifacts.list(
        name=name, filter=filter, order_by=order_by, order_desc=order_desc, at_time=at_time, limit=limit
    )
    artifacts = [record.handle(call.platform) async for record in records]
    for artifact in artifacts:
        mark_existing(artifact.urn)
    return artifacts


async def _artifact_for_file(
    path: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> Artifact | None:
    """Return the artifact that already has a file's content, or None if none is known and ready. Uploads nothing.

    It looks in the journal and in the idempotency record on the platform for uploads of this account, and in the
    side-car file beside the file for an upload by an official client.
    """
    call = await IvcapCall.of(credentials)
    async with opened(path, call.journal.files) as source:
        async for urn in uploaded(call, source, media_type_of(name_of(path))):
            with contextlib.suppress(NotFoundError, ForbiddenError):
                record = await call.client.artifacts.read(urn)
                if record.complete:
                    return _known(call, record, source)
        told = await call.client.artifacts.for_file(path)
        return None if told is None else _known(call, told, source)


def _known(call: IvcapCall, record: ArtifactRecord, source: UploadSource) -> Artifact:
    mark_existing(record.urn)
    return record.handle(call.platform, sha256=source.sha256)


async def _digest(call: IvcapCall, artifact: Artifact | str) -> str | None:
    """Return the sha256 that the artifact's content must have, or None if it is unknown. Of a plan, there is none."""
    PlannedError.refuse([artifact])
    known = artifact.sha256 if isinstance(artifact, Artifact) else None
    return known or await content_of(call, urn_of(artifact))


upload_artifact, aupload_artifact = task_pair(
    _upload_artifact,
    lambda given: f"upload {given['name'] or name_of(given['source']) or 'content'}",
    writes=("collection",),
)
download_artifact, adownload_artifact = task_pair(_download_artifact, "download {artifact} to {path}", writes=("path",))
get_artifact, aget_artifact = task_pair(_get_artifact, "get {urn}")
upload_directory, aupload_directory = task_pair(_upload_directory, "upload {path} as {pack}")
read_artifact, aread_artifact = task_pair(_read_artifact, "read {artifact}")
untar_artifact, auntar_artifact = task_pair(_untar_artifact, "untar {artifact} to {folder}", writes=("folder",))
list_artifacts, alist_artifacts = task_pair(_list_artifacts)
artifact_for_file, aartifact_for_file = task_pair(_artifact_for_file, "artifact for {path}")
