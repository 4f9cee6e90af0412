"""Task that downloads a file from the web, and records from where."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urldefrag

from ivcap_flows.capture import journal, note
from ivcap_flows.capture.context import current_activity
from ivcap_flows.capture.files import file_at
from ivcap_flows.durable import planning
from ivcap_flows.errors import InputError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.web import Validators, check_address, fetch_if_changed
from ivcap_flows.journal import Journal
from ivcap_flows.provenance.records import entity, relation
from ivcap_flows.secrets import scrub_text
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.there import state_there
from ivcap_flows.threads import FILES, WHOLE_FILES

__all__ = ["afetch_url", "fetch_url"]

_MEDIA_TYPE: Final = re.compile(r"\s*[\w.+-]+/[\w.+-]+\s*(;|\Z)")


async def _fetch_url(url: str, target: str | os.PathLike[str], *, media_type: str | None = None) -> LocalFile:
    """Download a file from an address of the web, http or https. It appears only once it is whole. Folders are made.

    Some services answer with an error as if it were the file. So the content is looked at. A web page, XML or JSON is
    refused where something else is expected, and nothing where the address gave something before; the old file stays.
    `media_type` says what is expected; by default, the ending of the target's name or else of the address does. If that
    may be any text, it is what the address gave before, and anything but a web page the first time. A file that is
    stored compressed, such as `.csv.gz`, stays compressed, and any other encoding by the server is undone.

    If the target is what was fetched from the address before, by any run in the journal, the server is asked only for
    another version (ETag, Last-Modified). What can pass is repeated for a minute; redirects are followed. The address
    is recorded as an input of the task. So upload the file and order from it: what did not change is known by its
    content, and `order.how` is then not `sent`.

    Raises InputError if there is no such file at the address, or an error in its place; UnavailableError and
    UnreachableError, which may pass (`retryable`), if the server cannot give it now.
    """
    if not isinstance(url, str):
        raise InputError(f"`url` must be a text, not {type(url).__name__}.")
    if media_type is not None and not (isinstance(media_type, str) and _MEDIA_TYPE.match(media_type)):
        raise InputError(f"`media_type` must be a media type such as text/csv, not {media_type!r}.")
    check_address(url)
    path, known = Path(os.path.abspath(target)), journal()  # noqa: ASYNC240 - reads the working directory only
    address = scrub_text(urldefrag(url).url)
    there, validators = await WHOLE_FILES.run(_there, path, address, known)
    try:
        await FILES.run(path.parent.mkdir, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder of {path} cannot be made: {error}", path=str(path)) from error
    fetched = await fetch_if_changed(url, path, validators, before=there, media_type=media_type)
    if fetched is None:
        await WHOLE_FILES.run(state_there, path, known)
    file, version = fetched or (there, validators)
    assert file is not None
    assert version is not None
    _state(address, file, version)
    return file


def _there(path: Path, address: str, journal: Journal) -> tuple[LocalFile | None, Validators | None]:
    """Return the file, if it was fetched from the address, and how the server named its version, if it did."""
    if not path.is_file():
        return None, None
    file, found, after = file_at(path, journal.files), None, 0
    while page := journal.facts.about(address, after=after):
        for fact in page:
            said = fact.record.attributes
            if fact.record.type == "used" and said.get("sha256") == file.sha256:
                found = Validators(said.get("etag"), said.get("last_modified"))
        after = page[-1].seq
    return (file, found if found.conditions else None) if found is not None else (None, None)


def _state(address: str, file: LocalFile, version: Validators) -> None:
    """Record that the running task used what the address has, and which version."""
    here = current_activity()
    if here is None or planning() is not None:
        return
    seen = relation(
        "used",
        here,
        address,
        role="url",
        sha256=file.sha256,
        etag=version.etag,
        last_modified=version.last_modified,
    )
    note(entity(address, "url"), seen)


fetch_url, afetch_url = task_pair(_fetch_url, "fetch {url}", writes=("target",))
