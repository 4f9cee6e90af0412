"""Objects in a collection, by name: the artifacts of an IVCAP collection seen as a folder of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ivcap_flows.durable import Performed
from ivcap_flows.durable.wording import listed
from ivcap_flows.errors import ForbiddenError, InputError, NotFoundError
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.identity import is_utf8
from ivcap_flows.loop import all_of
from ivcap_flows.media_types import media_type_of
from ivcap_flows.provenance import reference
from ivcap_flows.secrets import logger_of
from ivcap_flows.tasks.artifacts import adownload_artifact
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.collection_definitions import collection_urn, defined, holding
from ivcap_flows.tasks.folders import files_in
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.sources import SourceLike, opened
from ivcap_flows.tasks.uploads import SMALL_AT_ONCE, upload
from ivcap_flows.threads import FILES, WHOLE_FILES

if TYPE_CHECKING:
    from ivcap_flows.ivcap.artifacts import ArtifactRecord

__all__: list[str] = []

logger = logger_of("ivcap_flows.tasks")


async def _put_objects(
    collection: str,
    objects: dict[str, SourceLike],
    *,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Artifact]:
    """Upload objects into a collection, each as an artifact of its name, once per content and name.

    A collection that is named, and not a URN, is defined if it does not exist.
    """
    call = await IvcapCall.of(credentials)
    urn = _urn(call, collection)
    names = {name: _checked(name) for name in objects}

    async def put(name: str) -> Performed[Artifact]:
        async with opened(objects[name], call.journal.files) as source:
            # The name is part of the key: equal contents under two names are two objects.
            return await upload(
                call,
                source,
                name=names[name],
                media_type=media_type_of(name),
                policy=policy,
                discriminator=f"{urn} {names[name]}",
            )

    done = await all_of(put, names, SMALL_AT_ONCE)
    put_all = [each.value for each in done]
    if not only_planned("collection items", urn):
        known = await defined(call, urn, collection, policy=policy) if urn != collection else urn
        if known_before := [each.value for each in done if each.how != "sent"]:
            await _make_room(call, urn, known_before)
        await call.client.collections.add(urn, [artifact.urn for artifact in put_all], policy=policy)
        holding(call, known, put_all)
    return put_all


async def _list_objects(
    collection: str, folder: str = "", *, credentials: IvcapCredentialsLike = None
) -> list[Artifact]:
    """Return the objects of a collection, or those below a folder, by name. What was put last under a name counts.

    What the account cannot read is left out, and a warning names it.
    """
    call = await IvcapCall.of(credentials)
    return list((await _objects(call, collection, folder)).values())


async def _get_object(
    collection: str, name: str, path: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> LocalFile:
    """Download the object that was put last under a name, or the one with a URN, into a file. Raises NotFoundError."""
    call = await IvcapCall.of(credentials)
    artifact = await _object(call, collection, name)
    return await adownload_artifact.fn(artifact, path, credentials=credentials)


async def _get_folder(
    collection: str, folder: str, path: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> list[LocalFile]:
    """Download the objects below a folder, each into a file of its name below `path`.

    Raises NotFoundError if there are none, and InputError for a name that leads out of the folder.
    """
    call = await IvcapCall.of(credentials)
    objects = await _objects(call, collection, folder)
    if not objects:
        raise _missing(call, collection, folder)
    prefix = _prefix(folder)
    places = {name: Path(path, _checked(name.removeprefix(prefix))) for name in objects}

    async def get(name: str) -> LocalFile:
        return await adownload_artifact.fn(objects[name], places[name], credentials=credentials)

    return await all_of(get, objects)


async def _put_folder(
    collection: str,
    folder: str,
    path: str | os.PathLike[str],
    *,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Artifact]:
    """Upload each file below `path` as an object of its relative name below a folder. See `_put_objects`."""
    root = Path(path)
    if not await FILES.run(os.path.isdir, root):
        raise InputError(f"{root} is not a folder.", path=str(root))
    files = await WHOLE_FILES.run(lambda: dict(files_in(root, root)))
    prefix = _prefix(folder)
    objects: dict[str, SourceLike] = {prefix + name: file for name, file in files.items()}
    return await _put_objects(collection, objects, policy=policy, credentials=credentials)


async def _objects(call: IvcapCall, collection: str, folder: str) -> dict[str, Artifact]:
    """Return the object of each name below a folder that was put last, sorted by name."""
    urn, prefix = _urn(call, collection), _prefix(folder)
    found = await _by_name(call, await _members(call, urn))
    return {name: found[name] for name in sorted(found) if name.startswith(prefix)}


async def _members(call: IvcapCall, urn: str) -> list[str]:
    """Return the artifacts of a collection in the order in which they were put into it."""
    items = [each async for each in call.client.collections.items(urn) if reference(each.urn).type == "artifact"]
    # What was added at one moment stays in the order in which the platform lists it.
    items.sort(key=lambda each: (each.valid_from is not None, each.valid_from))
    return [each.urn for each in items]


async def _by_name(call: IvcapCall, members: Sequence[str]) -> dict[str, Artifact]:
    """Return the last artifact of each name. What others put there, and this account may not read, has no name here."""

    async def read(urn: str) -> ArtifactRecord | None:
        try:
            return await call.client.artifacts.read(urn)
        except (ForbiddenError, NotFoundError):
            return None

    records = await all_of(read, members)
    if unread := [urn for urn, record in zip(members, records, strict=True) if record is None]:
        logger.warning("Left out of a collection, since this account cannot read it: %s", listed(unread))
    return {record.name: record.handle(call.platform) for record in records if record is not None and record.name}


async def _make_room(call: IvcapCall, urn: str, put: Sequence[Artifact]) -> None:
    """Take those out of a collection that another object of their name has followed: they are put last once more."""
    members, known = await _members(call, urn), {artifact.urn for artifact in put}
    # Each member is read for its name, and only later ones can have followed.
    first = next((place for place, member in enumerate(members) if member in known), len(members))
    last = await _by_name(call, members[first:])
    followed = [artifact.urn for artifact in put if artifact.name in last and last[artifact.name].urn != artifact.urn]
    await call.client.collections.remove(urn, followed)


async def _object(call: IvcapCall, collection: str, name: str) -> Artifact:
    if name.startswith("urn:"):
        return (await call.client.artifacts.read(name)).handle(call.platform)
    found = (await _objects(call, collection, "")).get(name)
    if found is None:
        raise _missing(call, collection, name)
    return found


def _missing(call: IvcapCall, collection: str, name: str) -> NotFoundError:
    return NotFoundError(
        f"The collection {collection} has no object {name!r}. `list_objects` names those that it has.",
        platform=call.platform,
        method="GET",
        path="",
        status=None,
        detail=name,
    )


def _urn(call: IvcapCall, collection: str) -> str:
    return collection if collection.startswith("urn:") else collection_urn(call, "name", collection)


def _prefix(folder: str) -> str:
    plain = folder.strip("/")
    return f"{plain}/" if plain and plain != "." else ""


def _checked(name: str) -> str:
    """Return the name of an object. Raises InputError for one that would lead out of a folder that it is written to."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not is_utf8(name):
        raise InputError(f"{name!r} cannot be the name of an object: it leads out of its folder, or is no UTF-8.")
    return path.as_posix()


def _named(verb: str) -> str:
    return f"{verb} {{collection}}"


put_objects, aput_objects = task_pair(_put_objects, _named("put into"))
put_folder, aput_folder = task_pair(_put_folder, _named("put into"))
list_objects, alist_objects = task_pair(_list_objects, _named("list"))
get_object, aget_object = task_pair(_get_object, "get {name}", writes=("path",))
get_folder, aget_folder = task_pair(_get_folder, "get {folder}", writes=("path",))
