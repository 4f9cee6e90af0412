"""Tasks for the files of Provena datasets: upload what is missing, list, download and verify."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from ivcap_flows.capture import mark_existing, note
from ivcap_flows.capture.context import current_activity
from ivcap_flows.capture.files import file_at, forget
from ivcap_flows.durable import planning
from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.handles import Dataset, DatasetFile, LocalFile
from ivcap_flows.provena.files import DatasetFiles
from ivcap_flows.provenance import describe, relation
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.folders import files_in
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.waiting import PlannedError
from ivcap_flows.threads import WHOLE_FILES

__all__ = [
    "adownload_dataset_files",
    "alist_dataset_files",
    "aupload_dataset_files",
    "download_dataset_files",
    "list_dataset_files",
    "upload_dataset_files",
]


async def _upload_dataset_files(
    dataset: Dataset | str,
    source: str | os.PathLike[str],
    *,
    to: str = "",
    credentials: ProvenaCredentialsLike = None,
) -> list[DatasetFile]:
    """Upload a file, or all files of a folder with their relative paths, into a dataset; `to` is a folder there.

    Idempotent: the dataset's files are read first. A file with equal content is not sent again; of a large file whose
    upload was interrupted, only the missing parts are sent; different content at the same path is replaced. S3 checks
    each part by its sha256, and each object stores the sha256 of its content. Requires the extra `s3`.

    Raises InputError before anything is sent, for names that cannot be downloaded on every operating system, for links
    that lead out of the folder, and for a dataset whose files are stored elsewhere. Raises SourceChangedError if a file
    changes while it is sent, ForbiddenError for a dataset that is released or waits for its release, and
    NotAuthorizedError (about "item") for a locked one.
    """
    call = await ProvenaCall.of(credentials)
    call.check(dataset)
    urn = urn_of(dataset)
    below = f"{to.rstrip('/')}/" if to else ""
    files = await WHOLE_FILES.run(_contents, call, Path(source), below)
    if only_planned("dataset files", f"{urn} {os.fspath(source)}"):
        place = f"urn:ivcap-flows:planned:{urn}"
        return [_handle(call, urn, path, f"{place}/{quote(path)}", content) for path, content in files.items()]
    async with call.client.files(urn, write=True) as there:
        try:
            done = await there.upload(files)
        except SourceChangedError as error:
            await call.journal.ask(forget, error.path, call.journal.files)
            raise
    handles = [_handle(call, urn, each.path, each.uri, each.content) for each in done]
    for handle, each in zip(handles, done, strict=True):
        if not each.sent:
            mark_existing(handle.urn)
    note(*describe(_dataset(call, there)))
    return handles


async def _download_dataset_files(
    dataset: Dataset | str,
    folder: str | os.PathLike[str],
    *,
    paths: str | Sequence[str | DatasetFile] = (),
    credentials: ProvenaCredentialsLike = None,
) -> list[LocalFile]:
    """Download all files of a dataset, or the files and folders in `paths`, into a folder.

    Each file keeps its path within the dataset. It appears only after its size and sha256 are verified (its MD5 if
    another client uploaded it in one piece). A local file with equal content is not downloaded again; other files are
    replaced. An interrupted download continues. Requires the extra `s3`.

    Raises InputError before anything is downloaded, for names that would lie outside the folder and for different names
    that are the same on some operating system. Raises NotFoundError for a path that is neither a file nor a folder, and
    IntegrityError for wrong content, which is deleted.
    """
    call = await ProvenaCall.of(credentials)
    call.check(dataset)
    PlannedError.refuse([dataset])
    urn = urn_of(dataset)
    async with call.client.files(urn) as there:
        got = await there.download(folder, _paths(paths))
    members = [_handle(call, urn, path, there.uri(path), content) for path, content in got.items()]
    _state(call, there, members)
    return list(got.values())


async def _list_dataset_files(
    dataset: Dataset | str,
    *,
    paths: str | Sequence[str | DatasetFile] = (),
    credentials: ProvenaCredentialsLike = None,
) -> list[DatasetFile]:
    """List all files of a dataset, or the files and folders in `paths`, by path, including Provena's `metadata.json`.

    Requires the extra `s3`. Raises NotFoundError for an unknown dataset, and for a path that is neither a file nor a
    folder.
    """
    call = await ProvenaCall.of(credentials)
    call.check(dataset)
    PlannedError.refuse([dataset])
    urn = urn_of(dataset)
    async with call.client.files(urn) as there:
        listed = await there.list(_paths(paths))
    handles = [
        DatasetFile(
            urn=each.uri,
            platform=call.platform,
            dataset=urn,
            path=each.path,
            size=each.size,
            modified_at=each.modified_at,
        )
        for each in listed
    ]
    for handle in handles:
        mark_existing(handle.urn)
    _state(call, there, [])
    return handles


def _contents(call: ProvenaCall, source: Path, below: str) -> Mapping[str, LocalFile]:
    """Return the local files by their paths in the dataset."""
    if os.path.isdir(source):
        root = source.resolve()
        named: Iterable[tuple[str, Path]] = files_in(root, root)
    else:
        named = [(source.name, source)]
    files = {below + name: file_at(path, call.journal.files) for name, path in named}
    if not files:
        raise InputError(f"{source} is a folder without files: there is nothing to upload.", path=str(source))
    return files


def _paths(paths: str | Sequence[str | DatasetFile]) -> list[str]:
    given = [paths] if isinstance(paths, str) else paths
    return [each.path if isinstance(each, DatasetFile) else each for each in given]


def _handle(call: ProvenaCall, dataset: str, path: str, uri: str, content: LocalFile) -> DatasetFile:
    return DatasetFile(
        urn=uri, platform=call.platform, dataset=dataset, path=path, size=content.size, sha256=content.sha256
    )


def _state(call: ProvenaCall, there: DatasetFiles, taken: Iterable[DatasetFile]) -> None:
    """Record that the running task used the dataset, by its handle whatever id was given, and these files."""
    if planning() is not None:
        return
    here = current_activity()
    for handle in (_dataset(call, there), *taken):
        used = [relation("used", here, handle.urn)] if here is not None else []
        note(*describe(handle), *used)


def _dataset(call: ProvenaCall, there: DatasetFiles) -> Dataset:
    stated = there.item.info.collection_format.dataset_info
    return Dataset(
        urn=there.item.id, platform=call.platform, display_name=stated.name, access_uri=stated.access_info.uri
    )


upload_dataset_files, aupload_dataset_files = task_pair(
    _upload_dataset_files,
    "upload {source} to {dataset}",
    writes=("dataset", "to"),
)
download_dataset_files, adownload_dataset_files = task_pair(
    _download_dataset_files,
    "download {dataset} to {folder}",
    writes=("folder", "paths"),
)
list_dataset_files, alist_dataset_files = task_pair(_list_dataset_files, "list files of {dataset}", writes=("paths",))
