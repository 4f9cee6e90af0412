"""Upload a folder: each file as an artifact in a collection, or everything as one tar archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path, PurePosixPath

from ivcap_flows.capture import note
from ivcap_flows.capture.context import current_activity
from ivcap_flows.durable import Performed, planning
from ivcap_flows.errors import InputError
from ivcap_flows.file_state import reading
from ivcap_flows.handles import Artifact, Collection
from ivcap_flows.identity import is_utf8, path_text
from ivcap_flows.ivcap import archive
from ivcap_flows.loop import all_of
from ivcap_flows.media_types import media_type_of
from ivcap_flows.provenance import describe, relation
from ivcap_flows.tasks.assets import Version, note_assets, place_of
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.collection_definitions import collection_urn, defined, holding
from ivcap_flows.tasks.planned import planned_members
from ivcap_flows.tasks.sources import UploadSource, opened, spooled
from ivcap_flows.tasks.uploads import SMALL_AT_ONCE, upload
from ivcap_flows.threads import WHOLE_FILES

__all__ = ["files_in", "upload_as_collection", "upload_as_tar"]


async def upload_as_tar(call: IvcapCall, folder: Path, *, name: str | None, policy: str | None) -> Artifact:
    """Upload a folder as one tar archive. The same content gives the same bytes."""
    named = name or f"{_name(folder)}.tar"
    async with spooled(archive.pack(folder)) as content:
        done = await upload(call, content, name=named, media_type="application/x-tar", policy=policy)
    note_assets([Version(done.value, place_of(None), new=done.how == "sent")])
    return done.value


async def upload_as_collection(call: IvcapCall, folder: Path, *, name: str | None, policy: str | None) -> Collection:
    """Upload each file of a folder as an artifact, named by its relative path, all in one collection.

    The collection's URN is computed from the files and their names. So an equal folder gives the same collection, and a
    second try keeps what the first one uploaded.
    """
    named = name or _name(folder)

    async def hashed(path: Path) -> UploadSource:
        return await held.enter_async_context(opened(path, call.journal.files))

    async def sent(member: str) -> Performed[Artifact]:
        # The name is part of the key, so two equal files of a folder are two artifacts.
        return await upload(
            call, sources[member], name=member, media_type=media_type_of(member), policy=policy, discriminator=member
        )

    paths = await WHOLE_FILES.run(lambda: dict(files_in(folder, folder)))
    async with AsyncExitStack() as held:
        sources = dict(zip(paths, await all_of(hashed, paths.values(), SMALL_AT_ONCE), strict=True))
        contents = [[member, source.size, source.sha256] for member, source in sources.items()]
        urn = collection_urn(call, "folder", named, policy, contents)
        done = await all_of(sent, sources, SMALL_AT_ONCE)
    collection = await defined(call, urn, named, policy=policy)
    if planning() is not None:
        planned_members(urn, *(one.value for one in done))
        return collection
    await call.client.collections.add(urn, [one.value.urn for one in done], policy=policy)
    await _remove_lost(call, urn, done)
    _state(call, collection, done)
    # One asset, not one for each file.
    note_assets([Version(collection, "collections", new=any(one.how == "sent" for one in done))])
    return collection


async def _remove_lost(call: IvcapCall, collection: str, done: list[Performed[Artifact]]) -> None:
    """Remove the members that the platform had lost, and that were uploaded again."""
    rows = await call.journal.ask(call.journal.intents.find_many, [one.key for one in done])
    lost = [row.progress["lost"] for row in rows.values() if isinstance(row.progress, dict) and "lost" in row.progress]
    if lost:
        await call.client.collections.remove(collection, lost)


def _state(call: IvcapCall, collection: Collection, done: list[Performed[Artifact]]) -> None:
    """Record which members the running task made and which it found, and that the collection contains them."""
    here = current_activity()
    if here is not None and planning() is None:
        for one in done:
            way = ("wasGeneratedBy", one.value.urn, here) if one.how == "sent" else ("used", here, one.value.urn)
            note(*describe(one.value), relation(*way))
    holding(call, collection, [one.value for one in done])


def _name(folder: Path) -> str:
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder.", path=str(folder))
    return path_text(folder.resolve().name)


def files_in(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file below a folder with its path relative to `root`, sorted.

    A link to a file counts as the file. Raises InputError for a link that leads out of the folder, as for a tar
    archive, for anything that is neither a file nor a folder, and for a name that is no UTF-8.
    """
    for entry in archive.members(folder):
        path = Path(entry.path)
        with reading(path):
            is_file = entry.is_file()
        if not is_utf8(entry.name):
            raise InputError(
                f"The name of {path_text(entry.path)} is no UTF-8, so no platform can have it. Rename it, or upload "
                "the folder as a tar archive.",
                path=entry.path,
            )
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(path, root)
        elif is_file:
            name = path.relative_to(root)
            if entry.is_symlink():
                archive.linked_within(path, PurePosixPath(name))
            yield name.as_posix(), path
        else:
            raise InputError(
                f"{path} is neither a file nor a folder, so it cannot be uploaded. Leave it out.",
                path=str(path),
            )
