"""Asynchronous jobs: fetch, list and await them (job-api)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from ivcap_flows.errors import NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.models import JobRow
from ivcap_flows.secrets import logger_of

__all__ = ["JobsApi"]

logger = logger_of(__name__)

FIRST_INTERVAL: Final = 0.25
LONGEST_INTERVAL: Final = 10.0
SHORTEST_LOOK: Final = 2.0
"""All in seconds. The interval between two reads grows from the first to the longest; a read may take at least
`SHORTEST_LOOK`, even close to the deadline.
"""


class JobsApi(Api):
    """Jobs of the caller. They cannot be cancelled, and a job whose worker died stays IN_PROGRESS for ever."""

    async def fetch(self, session_id: str) -> JobRow | None:
        """Read the job's row; None while it does not exist. An unknown id gives None, too.

        Raises NotAuthorizedError for another user's job.
        """
        asked = {"session_id": session_id}
        try:
            # On this route 400 always means that the row does not exist, or not yet, whatever its message says.
            body = await self.call("GET", "/jobs/user/fetch", repeat="idempotent", params=asked, absent=(400,))
        except NotFoundError as error:
            if error.status == 400:
                return None
            raise
        return parse(JobRow, body.get("job"), f"job {session_id}")

    async def list(self, *, page_size: int = 20, limit: int | None = None) -> AsyncIterator[JobRow]:
        """Yield the caller's jobs, newest first (to the second), page by page; `limit` is their total."""
        async for row in self.listed("/jobs/user/list", {"limit": page_size}, "jobs", limit):
            yield parse(JobRow, row, "listed job")

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
                return row
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
