"""A collection of IVCAP as Prefect's object storage. IVCAP deletes nothing, so there is no delete."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from prefect.blocks.abstract import ObjectStorageBlock
from pydantic import Field

from ivcap_flows.blocks.appearance import IVCAP_LOGO, documentation, form
from ivcap_flows.blocks.ivcap_credentials import IvcapCredentials
from ivcap_flows.handles import Artifact
from ivcap_flows.tasks.collection_objects import (
    aget_folder,
    aget_object,
    alist_objects,
    aput_folder,
    aput_objects,
    get_folder,
    get_object,
    list_objects,
    put_folder,
    put_objects,
)

__all__ = ["IvcapCollection"]


class IvcapCollection(ObjectStorageBlock):
    """A collection of IVCAP, whose artifacts are objects with names. Nothing can be deleted: IVCAP keeps artifacts.

    Under one name, each content is an artifact. Downloads by name give the one that was uploaded last, and downloads by
    URN the one with that URN.

    Example:
        Load a stored collection, and upload and download a file:
        ```python
        from ivcap_flows.blocks import IvcapCollection

        collection = IvcapCollection.load("BLOCK_NAME")
        urn = collection.upload_from_path("series.csv", "2026/series.csv")
        collection.download_object_to_path("2026/series.csv", "copy.csv")
        ```
    """

    _block_type_name: ClassVar[Any] = "IVCAP Collection"
    _block_type_slug: ClassVar[Any] = "ivcap-collection"
    _logo_url: ClassVar[Any] = IVCAP_LOGO
    _documentation_url: ClassVar[Any] = documentation("use-blocks")

    collection: str = Field(
        title="Collection",
        description="URN of a collection, or the name of one of this account that the first upload defines.",
        min_length=1,
        examples=["sea-surface"],
    )
    credentials: IvcapCredentials | None = Field(
        default=None,
        title="Credentials",
        description="Where IVCAP is and how to log in; by default, the environment of the flow decides.",
    )
    policy: str | None = Field(
        default=None,
        title="Policy",
        description="URN of the policy of new artifacts; the default is the platform's.",
        examples=["urn:ivcap:policy:ivcap.open.artifact"],
    )

    __get_pydantic_json_schema__ = form("collection")

    def list_objects(self, folder: str = "") -> list[Artifact]:
        """Return the objects, or those below a folder, by name. What was uploaded last under a name counts."""
        return list_objects(self.collection, folder, credentials=self.credentials)

    async def alist_objects(self, folder: str = "") -> list[Artifact]:
        """Return what `list_objects` returns, in an asynchronous flow."""
        return await alist_objects(self.collection, folder, credentials=self.credentials)

    def upload_from_path(  # type: ignore[override]  # the synchronous form; `aupload_from_path` is the other
        self, from_path: str | Path, to_path: str
    ) -> str:
        """Upload a file as an object of a name, once per content. Return the artifact's URN."""
        [put] = put_objects(self.collection, {to_path: from_path}, policy=self.policy, credentials=self.credentials)
        return put.urn

    async def aupload_from_path(self, from_path: str | Path, to_path: str) -> str:
        """Do what `upload_from_path` does, in an asynchronous flow."""
        [put] = await aput_objects(
            self.collection, {to_path: from_path}, policy=self.policy, credentials=self.credentials
        )
        return put.urn

    def upload_from_file_object(  # type: ignore[override]
        self, from_file_object: BinaryIO, to_path: str
    ) -> str:
        """Upload a binary stream as an object of a name, once per content. Return the artifact's URN."""
        [put] = put_objects(
            self.collection, {to_path: from_file_object}, policy=self.policy, credentials=self.credentials
        )
        return put.urn

    async def aupload_from_file_object(self, from_file_object: BinaryIO, to_path: str) -> str:
        """Do what `upload_from_file_object` does, in an asynchronous flow."""
        [put] = await aput_objects(
            self.collection, {to_path: from_file_object}, policy=self.policy, credentials=self.credentials
        )
        return put.urn

    def upload_from_folder(  # type: ignore[override]
        self, from_folder: str | Path, to_folder: str = ""
    ) -> str:
        """Upload each file below a folder as an object below `to_folder`. Return `to_folder`."""
        put_folder(self.collection, to_folder, from_folder, policy=self.policy, credentials=self.credentials)
        return to_folder

    async def aupload_from_folder(self, from_folder: str | Path, to_folder: str = "") -> str:
        """Do what `upload_from_folder` does, in an asynchronous flow."""
        await aput_folder(self.collection, to_folder, from_folder, policy=self.policy, credentials=self.credentials)
        return to_folder

    def download_object_to_path(  # type: ignore[override]
        self, from_path: str, to_path: str | Path
    ) -> Path:
        """Download an object, by its name or its artifact's URN, into a file, and verify it. Return the file."""
        return Path(get_object(self.collection, from_path, to_path, credentials=self.credentials))

    async def adownload_object_to_path(self, from_path: str, to_path: str | Path) -> Path:
        """Do what `download_object_to_path` does, in an asynchronous flow."""
        return Path(await aget_object(self.collection, from_path, to_path, credentials=self.credentials))

    def download_object_to_file_object(  # type: ignore[override]
        self, from_path: str, to_file_object: BinaryIO
    ) -> BinaryIO:
        """Download an object into a binary stream, after it was verified. Return the stream."""
        with tempfile.TemporaryDirectory(prefix="ivcap-flows-") as folder:
            return _copied(self.download_object_to_path(from_path, Path(folder, "object")), to_file_object)

    async def adownload_object_to_file_object(self, from_path: str, to_file_object: BinaryIO) -> BinaryIO:
        """Do what `download_object_to_file_object` does, in an asynchronous flow."""
        with tempfile.TemporaryDirectory(prefix="ivcap-flows-") as folder:
            return _copied(await self.adownload_object_to_path(from_path, Path(folder, "object")), to_file_object)

    def download_folder_to_path(  # type: ignore[override]
        self, from_folder: str, to_folder: str | Path
    ) -> Path:
        """Download the objects below a folder into files below `to_folder`. Return `to_folder`."""
        get_folder(self.collection, from_folder, to_folder, credentials=self.credentials)
        return Path(to_folder)

    async def adownload_folder_to_path(self, from_folder: str, to_folder: str | Path) -> Path:
        """Do what `download_folder_to_path` does, in an asynchronous flow."""
        await aget_folder(self.collection, from_folder, to_folder, credentials=self.credentials)
        return Path(to_folder)


def _copied(path: Path, stream: BinaryIO) -> BinaryIO:
    with path.open("rb") as file:
        shutil.copyfileobj(file, stream)
    return stream
