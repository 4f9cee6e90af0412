"""Show a batch of registrations in Prefect: a progress artifact while it runs, and tables of faults and outcomes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, Literal
from uuid import UUID

from ivcap_flows.capture.prefect_context import task_context
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, ashow
from ivcap_flows.registration.outcome import BatchReport
from ivcap_flows.registration.rows import Fault
from ivcap_flows.registration.spool import Outcome
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.progress import runs_here

__all__ = ["ProgressArtifact", "show_faults", "show_outcomes"]

logger = logger_of("ivcap_flows.tasks")

_EVERY: Final = 2.0
"""Seconds between two updates."""
_ROWS: Final = 1000
"""Maximum number of rows in a table. The outcome file (`out`) has all rows."""


class ProgressArtifact:
    """The progress artifact of the running task. Outside a task it shows nothing.

    Use it as an asynchronous context manager.
    """

    def __init__(self) -> None:
        self._done = 0
        self._total = 0
        self._task: asyncio.Task[None] | None = None
        self._id: UUID | None = None
        self._percent = -1.0

    def update(self, what: str, done: int, total: int | None) -> None:
        """Set how many of the rows are done; Prefect shows it within seconds. May be called from any thread."""
        if total is not None:
            self._done, self._total = done, total

    async def __aenter__(self) -> ProgressArtifact:
        if task_context() is not None:
            self._task = asyncio.create_task(self._keep_showing())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._show()

    async def _keep_showing(self) -> None:
        while True:
            await self._show()
            await asyncio.sleep(_EVERY)

    async def _show(self) -> None:
        percent = 100.0 * self._done / self._total if self._total else 0.0
        if percent == self._percent:
            return
        self._percent = percent
        words = f"{self._done} of {self._total} rows have ended"
        self._id = await _shown("progress", percent, words, self._id)


async def show_faults(faults: Iterator[Fault], report: BatchReport) -> None:
    """Show a table of the faults in the rows."""
    some = [
        {"row": each.row, "column": each.column, "kind": each.kind, "what": each.words}
        for each in islice(faults, _ROWS)
    ]
    await _table(some, report.faults, f"{report.source}: {report.faults} faults in {report.wrong} rows")


async def show_outcomes(outcomes: Iterator[Outcome], report: BatchReport) -> None:
    """Show a table of the rows' outcomes."""
    some = [
        {
            "row": each.number,
            "outcome": each.standing,
            "model run": each.handle or "",
            "job": each.job or "",
            "since": each.since or "",
            "reason": each.words or "",
        }
        for each in islice(outcomes, _ROWS)
    ]
    await _table(some, report.rows, f"{report.source}: {report}")


async def _table(rows: Sequence[dict[str, Any]], count: int, title: str) -> None:
    if task_context() is None or not rows:
        return
    more = f" (the first {len(rows)} of {count})" if count > len(rows) else ""
    await _shown("table", rows, title + more)


async def _shown(
    kind: Literal["table", "progress"], content: Any, words: str, known: UUID | None = None
) -> UUID | None:
    """Show an artifact and return its id. A failure is logged and not raised: the registration must continue."""
    if Settings.current().artifacts != "all":
        return None
    try:
        return await ashow(PrefectArtifact(kind, content, words, *runs_here()), known)
    except Exception as error:  # noqa: BLE001 - Prefect's API may be away; the outcome is in the journal and the file
        logger.warning("Could not show the batch of model runs in Prefect; the registration continues: %s", error)
        return known
