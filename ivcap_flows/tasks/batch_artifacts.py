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
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.progress import Updates, runs_here

__all__ = ["BatchArtifacts"]

_EVERY: Final = 2.0
"""Seconds between two updates."""
_ROWS: Final = 1000
"""Maximum number of rows in a table. The outcome file (`out`) has all rows."""


class BatchArtifacts:
    """What Prefect shows of a batch in the running task. Outside a task it shows nothing.

    As an asynchronous context manager, it shows the progress while the block runs.
    """

    def __init__(self) -> None:
        self._done = 0
        self._total = 0
        self._task: asyncio.Task[None] | None = None
        self._id: UUID | None = None
        self._percent = -1.0
        self._updates = Updates()

    def update(self, what: str, done: int, total: int | None) -> None:
        """Set how many of the rows are done; Prefect shows it within seconds. May be called from any thread."""
        if total is not None:
            self._done, self._total = done, total

    async def __aenter__(self) -> BatchArtifacts:
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
            await self._show_progress()

    async def _keep_showing(self) -> None:
        while True:
            await self._show_progress()
            await asyncio.sleep(_EVERY)

    async def _show_progress(self) -> None:
        percent = 100.0 * self._done / self._total if self._total else 0.0
        if percent == self._percent:
            return
        self._percent = percent
        await self._show("progress", percent, f"{self._done} of {self._total} rows have ended")

    async def show_faults(self, faults: Iterator[Fault], report: BatchReport) -> None:
        """Show a table of the faults in the rows."""
        some = [
            {"row": each.row, "column": each.column, "kind": each.kind, "what": each.words}
            for each in islice(faults, _ROWS)
        ]
        await self._table(some, report.faults, f"{report.source}: {report.faults} faults in {report.wrong} rows")

    async def show_outcomes(self, outcomes: Iterator[Outcome], report: BatchReport) -> None:
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
        await self._table(some, report.rows, f"{report.source}: {report}")

    async def _table(self, rows: Sequence[dict[str, Any]], count: int, title: str) -> None:
        if task_context() is None or not rows:
            return
        more = f" (the first {len(rows)} of {count})" if count > len(rows) else ""
        await self._show("table", rows, title + more)

    async def _show(self, kind: Literal["table", "progress"], content: Any, words: str) -> None:
        if Settings.current().artifacts != "all":
            return

        async def show() -> None:
            artifact = PrefectArtifact(kind, content, words, *runs_here())
            if kind == "progress":
                self._id = await ashow(artifact, self._id)
            else:
                await ashow(artifact)

        await self._updates.tell(show)
