"""Where a monthly table comes from: an address, which is asked only for what is new, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from pydantic import BaseModel

from flows.monthly_table import read_table
from ivcap_flows import task
from ivcap_flows.errors import InputError, IvcapFlowsError

__all__ = ["BUNDLED", "DATA", "Extract", "SourceUnavailableError", "Validators", "data_file", "extract"]

DATA: Final = Path(__file__).parent / "data"
BUNDLED: Final = "ersst_nino12_monthly.csv"
"""The series that comes with the examples, in `flows/data`."""

_TRANSIENT: Final = (408, 425, 429)
"""Answers below 500 that may be different another time."""


class SourceUnavailableError(IvcapFlowsError):
    """The source of a table did not answer, or answered that it cannot now. Data: `source`."""

    retryable = True


class Validators(BaseModel):
    """How a server named the version of a table that it sent: the headers ETag and Last-Modified."""

    etag: str | None = None
    last_modified: str | None = None


class Extract(NamedTuple):
    """A table as its source has it, checked: the file, and how the server named this version."""

    file: Path
    validators: Validators


def data_file(name: str | Path) -> Path:
    """The file of a path, or of the name of a file in `flows/data`, which is the same on every machine."""
    path = Path(name).expanduser()
    return DATA / name if not path.exists() and (DATA / name).exists() else path


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another try can succeed; Prefect asks this before it retries."""
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - any other is no reason to try again
        return isinstance(error, IvcapFlowsError) and error.retryable
    return False


# A run that parks and wakes goes on with the table that it had, so Prefect keeps the result.
@task(
    name="Extract the table",
    task_run_name="extract {source}",
    retries=3,
    retry_delay_seconds=[2, 15, 60],
    retry_condition_fn=is_transient,
    persist_result=True,
)
def extract(source: str, folder: Path, known: Validators | None = None) -> Extract | None:
    """Get the table of an address or a path, and check each of its rows. None if it is still the `known` version.

    The table of an address is written into the folder. Raises InputError for what is no monthly table, and
    SourceUnavailableError, after retries, if the server cannot give it.
    """
    if urlsplit(source).scheme not in ("http", "https"):
        path = data_file(source)
        try:
            read_table(path.read_bytes(), path.name)
        except OSError as fault:
            raise InputError(f"The table {source} cannot be read: {fault}") from fault
        return Extract(path, Validators())
    reply = _get(source, known)
    if reply.status_code == httpx.codes.NOT_MODIFIED:
        return None
    path = folder / (Path(urlsplit(source).path).name or "table")
    read_table(reply.content, source)
    path.write_bytes(reply.content)
    return Extract(path, Validators(etag=reply.headers.get("etag"), last_modified=reply.headers.get("last-modified")))


def _get(source: str, known: Validators | None) -> httpx.Response:
    """The reply with a table, or 304 for the known version of it."""
    conditions = {"If-None-Match": known and known.etag, "If-Modified-Since": known and known.last_modified}
    headers = {name: value for name, value in conditions.items() if value}
    try:
        with httpx.Client(follow_redirects=True, timeout=30) as client:
            reply = client.get(source, headers=headers)
            if reply.status_code == httpx.codes.NOT_MODIFIED and not headers:
                # Some cache between here and the server answers for another client's copy.
                reply = client.get(source, headers={"Cache-Control": "no-cache", "Pragma": "no-cache"})
    except httpx.TransportError as fault:
        raise SourceUnavailableError(f"{source} did not send its table: {fault}", source=source) from fault
    except (httpx.InvalidURL, httpx.TooManyRedirects) as fault:
        raise InputError(f"{source} does not lead to a table: {fault}") from fault
    if reply.is_server_error or reply.status_code in _TRANSIENT or (reply.status_code == 304 and not headers):
        raise SourceUnavailableError(
            f"{source} answered {reply.status_code} {reply.reason_phrase} instead of its table.", source=source
        )
    if reply.status_code not in (httpx.codes.OK, httpx.codes.NOT_MODIFIED):
        raise InputError(
            f"{source} answered {reply.status_code} {reply.reason_phrase} instead of its table. Is the address right?"
        )
    return reply
