"""Asynchronous jobs: fetch, list and await them (job-api)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from ivcap_flows.errors import InputError, NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.models import JobRow
from ivcap_flows.provena.wire import Wire
from ivcap_flows.secrets import logger_of

__all__ = ["JobsAdminApi", "JobsApi", "Launched"]

logger = logger_of(__name__)

FIRST_INTERVAL: Final = 0.25
LONGEST_INTERVAL: Final = 10.0
SHORTEST_LOOK: Final = 2.0
"""All in seconds. The interval between two reads grows from the first to the longest; a read may take at least
`SHORTEST_LOOK`, even close to the deadline.
"""


class Launched(Wire):
    """A launched job, and the batch that it belongs to."""

    session_id: str
    batch_id: str | None = None


class _Rows(Api):
    async def _row(self, path: str, session_id: str) -> JobRow | None:
        try:
            # On these routes 400 always means that the row does not exist, or not yet, whatever its message says.
            body = await self.call("GET", path, repeat="idempotent", params={"session_id": session_id}, absent=(400,))
        except NotFoundError as error:
            if error.status == 400:
                return None
            raise
        return parse(JobRow, body.get("job"), f"job {session_id}")

    async def _rows(self, path: str, request: dict[str, Any], limit: int | None) -> AsyncIterator[JobRow]:
        async for row in self.listed(path, request, "jobs", limit):
            yield parse(JobRow, row, "listed job")


class JobsAdminApi(_Rows):
    """Jobs of all users, for callers with the roles of the job service."""

    async def launch(
        self,
        job_type: str,
        job_sub_type: str,
        payload: dict[str, Any],
        *,
        username: str | None = None,
        batch: str | None = None,
        new_batch: bool = False,
    ) -> Launched:
        """Launch a job, for another user if given, in an existing batch (`batch`) or in a new one.

        Raises BadRequestError for a payload that does not match the sub type. A repeated launch cannot be recognised.
        """
        if batch is not None and new_batch:
            raise InputError("A job is launched in a batch that there is or in a new one, not in both.")
        wanted = {
            "job_type": job_type,
            "job_sub_type": job_sub_type,
            "job_payload": payload,
            "username": username,
            "add_to_batch": batch,
            "request_batch_id": new_batch,
        }
        return parse(Launched, await self.call("POST", "/jobs/admin/launch", repeat="unsafe", json=wanted), "launch")

    async def fetch(self, session_id: str) -> JobRow | None:
        """Read the row of any user's job; None while it does not exist."""
        return await self._row("/jobs/admin/fetch", session_id)

    def list(
        self, *, username: str | None = None, page_size: int = 20, limit: int | None = None
    ) -> AsyncIterator[JobRow]:
        """Yield the jobs of a user, or of all users, newest first; `limit` is their total."""
        return self._rows("/jobs/admin/list", {"limit": page_size, "username_filter": username}, limit)

    def list_batch(
        self, batch_id: str, *, username: str | None = None, page_size: int = 20, limit: int | None = None
    ) -> AsyncIterator[JobRow]:
        """Yield the jobs of a batch, in no useful order; `limit` is their total."""
        request = {"batch_id": batch_id, "limit": page_size, "username_filter": username}
        return self._rows("/jobs/admin/list_batch", request, limit)


class JobsApi(_Rows):
    """Jobs of the caller. They cannot be cancelled, and a job whose worker died stays IN_PROGRESS for ever.

    `admin` has the jobs of all users.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.admin = JobsAdminApi(session)

    async def fetch(self, session_id: str) -> JobRow | None:
        """Read the job's row; None while it does not exist. An unknown id gives None, too.

        Raises NotAuthorizedError for another user's job.
        """
        return await self._row("/jobs/user/fetch", session_id)

    def list(self, *, page_size: int = 20, limit: int | None = None) -> AsyncIterator[JobRow]:
        """Yield the caller's jobs, newest first (to the second), page by page; `limit` is their total."""
        return self._rows("/jobs/user/list", {"limit": page_size}, limit)

    def list_batch(self, batch_id: str, *, page_size: int = 20, limit: int | None = None) -> AsyncIterator[JobRow]:
        """Yield the jobs of a batch, in no useful order.

        They appear late, so an empty list does not mean an empty batch.
        """
        return self._rows("/jobs/user/list_batch", {"batch_id": batch_id, "limit": page_size}, limit)

    async def wait(self, session_id: str, timeout: float) -> JobRow:
        """Wait at most `timeout` seconds for the job to end, successfully or not, and return its row.

        The interval between reads grows from a quarter of a second to ten seconds. While the platform is unreachable,
        the wait continues. Raises WaitTimeoutError with `pending` and the last `status` (None if no row ever appeared).
        """
        deadline = time.monotonic() + timeout
        pauses = Pauses(FIRST_INTERVAL, LONGEST_INTERVAL)
        status: str | None = None
        unreachable = False
        while True:
            row, trouble = await self._look(session_id, deadline)
            if trouble is not None and not unreachable:
                logger.warning("Provena cannot be asked about job %s and is waited for: %s", session_id, trouble)
            unreachable = trouble is not None
            if row is not None and row.done:
                return await self._settled(row, deadline)
            status = row.status if row is not None else status
            left = deadline - time.monotonic()
            if left <= 0:
                seen = f"it was last seen {status}" if status else trouble or "it never appeared"
                raise WaitTimeoutError(
                    f"The Provena job {session_id} has not ended within {timeout:g} s: {seen.rstrip('.')}. Wait again.",
                    pending=[session_id],
                    status=status,
                )
            await pauses.sleep(left)

    async def _look(self, session_id: str, deadline: float) -> tuple[JobRow | None, str | None]:
        """Read the row before the deadline, even if the request retries; return it, and why it could not be read."""
        try:
            limit = max(SHORTEST_LOOK, deadline - time.monotonic())
            return await asyncio.wait_for(self.fetch(session_id), limit), None
        except asyncio.TimeoutError:
            return None, "no reply before the deadline"
        except PlatformError as error:
            if not error.retryable:
                raise
            return None, str(error)

    async def _settled(self, row: JobRow, deadline: float) -> JobRow:
        """Read an ended job once more, since the platform overwrites its row without conditions.

        If a slow writer has put back an earlier state, the ended row that was seen first is returned.
        """
        again, _ = await self._look(row.session_id, deadline)
        return again if again is not None and again.done else row
