"""The files of a dataset in Provena's S3 bucket: list, upload and download them with temporary keys from Provena."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from ivcap_flows.arguments import texts
from ivcap_flows.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    PlatformError,
    ProtocolError,
)
from ivcap_flows.file_state import reading
from ivcap_flows.handles import LocalFile
from ivcap_flows.http import download
from ivcap_flows.http.download import explained as writing
from ivcap_flows.loop import all_of
from ivcap_flows.provena import file_names, s3
from ivcap_flows.provena.datastore import DataStoreApi
from ivcap_flows.provena.infos import DatasetInfo, S3Location
from ivcap_flows.provena.items import Item
from ivcap_flows.provena.s3_upload import PART, SHA256, MemoryLimit, send, sha256_of

__all__ = ["DatasetFiles", "StoredFile", "UploadedFile", "opened"]

_HEX: Final = re.compile("[0-9a-f]{64}")
_MD5: Final = re.compile('"[0-9a-f]{32}"')
_SHOWN: Final = 5
_LONGEST_KEY: Final = 1024
_BREAKS: Final = 5
"""How often a download resumes without having received more bytes."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset: its relative `path`, its `size` in bytes, and its `uri` on S3."""

    path: str
    size: int
    modified_at: datetime
    uri: str
    etag: str


class UploadedFile(NamedTuple):
    """A file that the dataset contains after an upload; `sent` is False if it contained the file before."""

    path: str
    uri: str
    content: LocalFile
    sent: bool


@asynccontextmanager
async def opened(
    datastore: DataStoreApi,
    id: str,  # noqa: A002 - the platform's own word
    *,
    write: bool,
    endpoint: Callable[[], Awaitable[str | None]],
) -> AsyncIterator[DatasetFiles]:
    """Implement `ProvenaClient.files`. `endpoint` returns the address of the S3 server, None for Amazon's."""
    s3.need_library()
    item = await datastore.fetch_dataset(id)
    place = _place_of(item)
    access = item.info.collection_format.dataset_info.access_info
    if write and not access.reposited:
        raise InputError(f"The files of {id} lie at {access.uri}, not in the data store; none can be uploaded there.")
    ask = datastore.write_credentials if write else datastore.read_credentials
    async with s3.Bucket(place.bucket_name, lambda: ask(id), await endpoint()) as bucket:
        yield DatasetFiles(item, bucket, place.path)


class DatasetFiles:
    """The files of one dataset, named relative to its folder. `item` is the dataset as it was read."""

    def __init__(self, item: Item[DatasetInfo], bucket: s3.Bucket, prefix: str) -> None:
        self.item = item
        self._bucket, self._prefix = bucket, prefix

    def uri(self, path: str) -> str:
        """Return the URI of a file on S3: `s3://<bucket>/<key>`, with the key quoted as in a URL."""
        return self._bucket.uri(self._prefix + path)

    async def list(self, paths: Collection[str] = ()) -> Sequence[StoredFile]:
        """Return all files, or the files and folders in `paths`, sorted by path. Names are returned unchanged.

        Raises NotFoundError for a path that is neither a file nor a folder.
        """
        paths = texts(paths, "paths", "files.list")
        found = await self._listed(_common(paths))
        for path in paths:
            if not any(file_names.matches(each.path, path) for each in found):
                raise NotFoundError(
                    f"The dataset {self.item.id} has neither a file nor a folder {path!r}.",
                    platform="Provena",
                    method=None,
                    path=None,
                    status=None,
                    detail=None,
                )
        return [each for each in found if not paths or any(file_names.matches(each.path, path) for path in paths)]

    async def upload(self, files: Mapping[str, LocalFile]) -> Sequence[UploadedFile]:
        """Upload files under relative paths. A file that is there with equal content is not sent again.

        A file with other content under the same path is replaced. Parts of a large file that an earlier call sent are
        reused. Each object has the sha256 of its content as metadata. Raises InputError, before anything is sent, for a
        name that could not be downloaded everywhere, and SourceChangedError for a file that differs from its handle.
        """
        self._check(files)
        there = {each.path: each for each in await self._listed(_common(files))} if files else {}

        async def equal(path: str) -> bool:
            stored, content = there.get(path), files[path]
            return stored is not None and stored.size == content.size and await self._same(stored, content)

        same = dict(zip(files, await all_of(equal, files, s3.AT_ONCE), strict=True))
        if same.get(file_names.PLATFORM_FILE) is False:
            raise InputError(
                f"{file_names.PLATFORM_FILE} is Provena's own file in the dataset {self.item.id}. Give yours another "
                "name, or another folder in the dataset."
            )
        memory = MemoryLimit()

        async def put(path: str) -> None:
            await send(self._bucket, self._prefix + path, files[path], memory)

        await all_of(put, [path for path in files if not same[path]], s3.AT_ONCE)
        return [UploadedFile(path, self.uri(path), files[path], not same[path]) for path in files]

    async def download(self, folder: str | os.PathLike[str], paths: Collection[str] = ()) -> dict[str, LocalFile]:
        """Download all files, or the files and folders in `paths`, into a folder; return them by their paths.

        Each file appears under its whole path once its size and its sha256 are verified (its MD5 if another client
        uploaded it). A file that is there with equal content is not downloaded again. Raises InputError, before
        anything is downloaded, for names that would leave the folder or that are the same file on some machine;
        NotFoundError for a path that is neither a file nor a folder; IntegrityError for wrong content, which is
        deleted.
        """
        wanted = await self.list(paths)
        names = [each.path for each in wanted]
        faults = [f"{name[:200]!r} {why}" for name in names if (why := file_names.fault(name))]
        if faults:
            raise InputError(
                f"The dataset {self.item.id} has names that may not be written to a folder, and nothing was fetched: "
                f"{'; '.join(faults[:_SHOWN])}. Name the files that you need.",
                faults=faults,
            )
        if clash := file_names.rivals(names):
            raise InputError(
                f"The dataset {self.item.id} has {clash[0]!r} and {clash[1]!r}, which are not two files on every "
                "machine, and nothing was fetched. Name the one that you need."
            )
        root = Path(os.path.abspath(folder))  # noqa: ASYNC240 - reads the working directory only
        with writing(root):
            await self._bucket.run(lambda: root.mkdir(parents=True, exist_ok=True))
        done = await all_of(lambda each: self._get(root, each), wanted, s3.AT_ONCE)
        return dict(zip(names, done, strict=True))

    async def _listed(self, begin: str) -> Sequence[StoredFile]:
        """Return the files whose paths begin with `begin`, without the empty objects that stand for folders."""
        start = len(self._prefix)
        return [
            StoredFile(each.key[start:], each.size, each.modified_at, self._bucket.uri(each.key), each.etag)
            async for each in self._bucket.list(self._prefix + begin)
            if not (each.key.endswith("/") and each.size == 0)
        ]

    def _check(self, files: Iterable[str]) -> None:
        names = list(files)
        for name in names:
            why = file_names.fault(name)
            if why is None and len((self._prefix + name).encode()) > _LONGEST_KEY:
                why = f"is longer than S3 allows ({_LONGEST_KEY} bytes with the dataset's own folder)"
            if why is not None:
                raise InputError(f"The name {name[:200]!r} {why}. Give the file another one; nothing was sent.")
        if clash := file_names.rivals(names):
            raise InputError(
                f"{clash[0]!r} and {clash[1]!r} are not two files on every machine. Rename one; nothing was sent."
            )

    async def _same(self, stored: StoredFile, content: LocalFile) -> bool:
        """Return whether a file of equal size has equal content: compare the MD5 of small files, else the sha256."""
        if content.size <= PART and await self._same_md5(stored, content):
            return True
        stated = await sha256_of(self._bucket, self._prefix + stored.path)
        if stated is None:
            return content.size > PART and await self._same_md5(stored, content)
        return stated == content.sha256

    async def _same_md5(self, stored: StoredFile, content: LocalFile) -> bool:
        if not _MD5.fullmatch(stored.etag):
            return False
        _, md5 = await self._bucket.run(_digests, content.path)
        return stored.etag == f'"{md5}"'

    async def _get(self, root: Path, stored: StoredFile) -> LocalFile:
        target = await self._bucket.run(_target, root, stored.path)
        there = await self._bucket.run(_file_of_size, target, stored.size)
        if there is not None and await self._same(stored, there):
            return there
        asked = {"Key": self._prefix + stored.path, "IfMatch": stored.etag}
        first = await self._asked(stored, asked)
        stated = str(first.get("Metadata", {}).get(SHA256, "")).lower()
        sha256 = stated if _HEX.fullmatch(stated) else None
        md5 = hashlib.md5(usedforsecurity=False) if sha256 is None and _has_md5(stored, first) else None
        with contextlib.closing(first["Body"]):
            pieces = self._pieces(stored, asked, first, md5)
            return await download.store(pieces, target, size=stored.size, sha256=sha256, urn=stored.uri)

    async def _asked(self, stored: StoredFile, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._bucket.ask("get_object", **asked)
        except PlatformError as error:
            if error.status == 412 or isinstance(error, NotFoundError):
                raise IntegrityError(
                    f"{stored.uri} was replaced or removed while the dataset was downloaded. Run it again.",
                    urn=stored.uri,
                    expected=stored.etag,
                    found=None,
                ) from None
            raise

    async def _pieces(
        self, stored: StoredFile, asked: Mapping[str, Any], first: dict[str, Any], md5: Any
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield the content as it arrives, each block with its position.

        After a break, request the rest of the same object.
        """
        position, breaks, reply = 0, 0, first
        while True:
            try:
                with contextlib.closing(reply["Body"]) as body:
                    while block := await self._bucket.run(_block, body, md5):
                        yield position, block
                        position += len(block)
                        breaks = 0
                break
            except Exception as error:  # noqa: BLE001 - as in Bucket.ask
                told = self._bucket.explained(error, "GetObject", stored.uri)
                breaks += 1
                if not told.retryable or breaks > _BREAKS:
                    raise told from None
            reply = await self._asked(stored, {**asked, "Range": f"bytes={position}-"})
        if md5 is not None and stored.etag != f'"{md5.hexdigest()}"':
            raise IntegrityError(
                f"{stored.uri} gave bytes with the MD5 {md5.hexdigest()}, not {stored.etag}; nothing was written.",
                urn=stored.uri,
                expected=stored.etag.strip('"'),
                found=md5.hexdigest(),
            )


def _place_of(item: Item[DatasetInfo]) -> S3Location:
    place = item.info.s3
    if place is None or not place.path.strip("/") or not place.path.endswith("/"):
        raise ProtocolError(
            f"Provena tells no folder of the dataset {item.id} on S3.",
            platform="Provena",
            method="GET",
            path="/registry/items/fetch-dataset",
            status=None,
            detail=None,
        )
    return place


def _common(paths: Iterable[str]) -> str:
    """Return the characters that all paths begin with."""
    return os.path.commonprefix([*paths])  # noqa: RUF071 - S3 keys have no parts


def _has_md5(stored: StoredFile, reply: Mapping[str, Any]) -> bool:
    """Return whether the ETag is the content's MD5.

    That holds for objects that were sent in one part and are not encrypted with KMS keys.
    """
    encrypted = reply.get("ServerSideEncryption") not in (None, "AES256") or reply.get("SSECustomerAlgorithm")
    return not encrypted and _MD5.fullmatch(stored.etag) is not None


def _block(body: Any, md5: Any) -> bytes:
    block: bytes = body.read(download.BLOCK)
    if md5 is not None:
        md5.update(block)
    return block


def _digests(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the sha256 and the MD5 of a file."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with reading(path), open(path, "rb", buffering=0) as file:
        while block := file.read(download.BLOCK):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


def _target(root: Path, name: str) -> Path:
    """Create a file's folders and return its path.

    Raises InputError if one of them is a link, which could lead outside.
    """
    *parts, last = name.split("/")
    folder = root
    for part in parts:
        folder /= part
        with writing(folder):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise InputError(f"{folder} is no folder of its own, so {name} cannot be written.", path=str(folder))
    return folder / last


def _file_of_size(path: Path, size: int) -> LocalFile | None:
    """Return the file if it has this size and is not a link."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        return None
    return LocalFile(path=str(path), sha256=_digests(path)[0], size=size)
