"""Verify an exported RO-Crate, a folder or a zip: whether each file has the sha256 that the metadata state."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.parse import unquote

from ivcap_flows.errors import InputError
from ivcap_flows.reading.findings import Finding

__all__ = ["is_crate", "verify_crate"]

_METADATA: Final = "ro-crate-metadata.json"
_BLOCK: Final = 2**20
_MOST_METADATA: Final = 64 * 2**20
"""Maximum bytes of metadata to read. A zip file of some KiB can claim any number of them."""
_DAMAGE: Final = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors from reading a damaged archive. Its bytes may also claim an unknown method or a password."""


def is_crate(path: Path) -> bool:
    """Whether a folder or a zip file holds the metadata of an RO-Crate. Raises InputError for a damaged zip file."""
    if path.is_dir():
        return (path / _METADATA).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with _opened(path) as archive:
        return _metadata_in(archive) is not None


def verify_crate(path: Path) -> list[Finding]:
    """Return a finding for each file that the crate's metadata name.

    These are the data entities with a relative `@id` (RO-Crate 1.1). Raises InputError for metadata that cannot be
    read.
    """
    if path.is_dir():
        return _verified(_Folder(path))
    with _opened(path) as archive:
        return _verified(_Archive(archive))


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (*_DAMAGE, ValueError) as error:
        raise InputError(f"The archive {path} is damaged: {error}.") from error


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return (self._root / name).open("rb")

    def names(self) -> set[str]:
        root = self._root.resolve()
        files = (file for file in self._root.rglob("*") if file.is_file())
        # A link may lead out of the crate.
        return {file.relative_to(self._root).as_posix() for file in files if file.resolve().is_relative_to(root)}


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        metadata = _metadata_in(archive) or _METADATA
        self._begin = metadata.removesuffix(_METADATA)

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return self._archive.open(self._begin + name)

    def names(self) -> set[str]:
        names = (name for name in self._archive.namelist() if not name.endswith("/"))
        return {name.removeprefix(self._begin) for name in names if name.startswith(self._begin)}


def _metadata_in(archive: zipfile.ZipFile) -> str | None:
    """Return the name of the metadata file at the top, or in the only folder at the top."""
    found = [name for name in archive.namelist() if PurePosixPath(name).name == _METADATA and name.count("/") <= 1]
    return min(found, key=len) if found else None


def _verified(crate: _Folder | _Archive) -> list[Finding]:
    there = crate.names()
    return [_finding(crate, entity, there) for entity in _files(crate, there)]


def _files(crate: _Folder | _Archive, there: set[str]) -> Iterator[Mapping[str, Any]]:
    if _METADATA not in there:
        raise InputError(f"The crate's {_METADATA} is a link to a file outside of the crate.")
    try:
        with crate.open(_METADATA) as file:
            text = file.read(_MOST_METADATA + 1)
        if len(text) > _MOST_METADATA:
            raise InputError(f"The crate's {_METADATA} has more than {_MOST_METADATA} bytes.")
        entities = json.loads(text)["@graph"]
        for entity in entities:
            types = entity.get("@type", ())
            name = str(entity["@id"])
            if "File" in ([types] if isinstance(types, str) else types) and not _is_no_file_of_the_crate(name):
                yield entity
    except (*_DAMAGE, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"The crate's {_METADATA} cannot be read: {error!r}.") from error


def _is_no_file_of_the_crate(name: str) -> bool:
    """Whether an `@id` is an absolute URI, or that of something within the metadata."""
    return name.startswith("#") or ":" in name.partition("/")[0]


def _finding(crate: _Folder | _Archive, entity: Mapping[str, Any], there: set[str]) -> Finding:
    name = unquote(str(entity["@id"])).removeprefix("./")
    expected = entity.get("sha256")
    finding = {"type": "file in the crate", "id": str(entity.get("identifier") or entity["@id"]), "name": name}
    # A path must not lead out of the crate, whatever its metadata say.
    if name not in there:
        return Finding(**finding, state="missing", note="the metadata name it, and it is not in the crate")
    hasher = hashlib.sha256()
    try:
        with crate.open(name) as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
    except (*_DAMAGE, ValueError) as error:
        return Finding(**finding, state="altered", note=f"it cannot be read: {error}")
    now = hasher.hexdigest()
    if not isinstance(expected, str):
        return Finding(**finding, state="unchecked", note=f"the metadata name no sha256; it is {now}")
    if now != expected:
        return Finding(**finding, state="altered", note=f"its sha256 was {expected} and is now {now}")
    return Finding(**finding, state="ok", sha256=now)
