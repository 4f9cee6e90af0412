"""Show waits in Prefect: a progress artifact for each long wait, and one table of all work of a flow run.

The artifacts are updated rarely and in the background. If Prefect cannot be reached, the wait continues without them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ivcap_flows.capture.prefect_context import flow_context, task_context
from ivcap_flows.durable.wording import listed
from ivcap_flows.handles import TERMINAL, Job, Order
from ivcap_flows.identity import api_address
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, ashow, key_for, moment
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.ivcap.orders import OrderRecord

__all__ = ["TABLE", "Updates", "progress_of", "runs_here"]

TABLE: Final = "orders"
"""The key of the table artifact begins so and ends with the flow's name; each flow run makes one version of it."""

FIRST: Final = 3.0
"""Seconds before the first update, unless the wait ends earlier."""
EVERY: Final = 20.0
"""Minimum number of seconds between two updates, except at the end."""
_PATIENCE: Final = 10.0
"""Maximum number of seconds for one update."""
_AWAY: Final = 60.0
"""Seconds without updates after Prefect did not answer."""
_ROWS: Final = 1000
_RUNS: Final = 20
"""Number of flow runs of a process whose tables are remembered. An older run would get a new table."""

logger = logger_of("ivcap_flows.waiting")


class Updates:
    """Updates of what Prefect shows of some work. Whatever is wrong with Prefect, the work continues.

    An update ends after ten seconds. After one that failed, there are none for a minute.
    """

    def __init__(self) -> None:
        self._away_until = 0.0

    @property
    def paused(self) -> bool:
        """Whether Prefect is not told, since it did not answer."""
        return time.monotonic() < self._away_until

    async def tell(self, update: Callable[[], Awaitable[None]]) -> None:
        """Await an update, unless they are paused. A failure is logged and not raised."""
        if self.paused:
            return
        try:
            await asyncio.wait_for(update(), _PATIENCE)
        except Exception as error:  # noqa: BLE001 - see above
            self._away_until = time.monotonic() + _AWAY
            logger.debug("Could not show the progress of the work in Prefect: %s", error)


@dataclass
class _Table:
    """The table of one flow run."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifact: UUID | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    updates: Updates = field(default_factory=Updates)


_tables: OrderedDict[str, _Table] = OrderedDict()


@asynccontextmanager
async def progress_of(
    what: str, asked: Mapping[str, Order | Job | str]
) -> AsyncIterator[Callable[[Mapping[str, OrderRecord | JobRecord | str]], None]]:
    """Show a wait in the flow run that waits, if there is one, while the block runs.

    Call the yielded function with the status of each running order or job, or its record if it has ended, by URN.
    """
    flow_run, task_run = runs_here()
    if flow_run is None or not asked or Settings.current().artifacts != "all":
        yield lambda seen: None
        return
    flow = getattr(getattr(flow_context(), "flow", None), "name", "")
    shown = _Shown(what, asked, flow_run, task_run, key_for(TABLE, flow))
    try:
        yield shown.hear
    except Exception:
        await shown.end()
        raise
    await shown.end()


def runs_here() -> tuple[str | None, str | None]:
    """Return the ids of the flow run and the task run in which the code runs, or None."""
    flow, task = flow_context(), task_context()
    of_task = getattr(getattr(task, "task_run", None), "flow_run_id", None)
    of_flow = getattr(getattr(flow, "flow_run", None), "id", None)
    found = of_task or of_flow
    return None if found is None else str(found), None if task is None else str(task.task_run.id)


class _Shown:
    """One wait, as it is shown in Prefect."""

    def __init__(
        self, what: str, asked: Mapping[str, Order | Job | str], flow_run: str, task_run: str | None, key: str
    ) -> None:
        self._what, self._flow_run, self._task_run, self._key = what, flow_run, task_run, key
        self._statuses = dict.fromkeys(asked, "unknown")
        self._told_at = time.monotonic() - EVERY + FIRST
        self._bar: UUID | None = None
        self._telling: asyncio.Task[None] | None = None
        self._changed = True
        if flow_run not in _tables:
            _tables[flow_run] = _Table()
            while len(_tables) > _RUNS:
                _tables.popitem(last=False)
        self._table = _tables[flow_run]
        for urn, work in asked.items():
            known = None if isinstance(work, str) else work
            self._table.rows[urn] = {
                "name": known.name if known else None,
                "service": known.service_name or known.service if known else None,
                "status": "unknown",
                "requested (UTC)": moment(known.requested_at) if known else None,
                "ended (UTC)": None,
                "place": _place(urn, known),
            }

    def hear(self, seen: Mapping[str, OrderRecord | JobRecord | str]) -> None:
        """Store the statuses, and update Prefect in the background if it is time. Times are the platform's."""
        for urn, each in seen.items():
            row = self._table.rows[urn]
            if isinstance(each, str):
                now = {"status": each, "ended (UTC)": None}
            else:
                at = each.requested_at if isinstance(each, JobRecord) else each.ordered_at
                times = {"requested (UTC)": moment(at), "ended (UTC)": moment(each.finished_at)}
                now = {"status": each.status, **times}
            self._statuses[urn] = str(now["status"])
            if row != row | now:
                self._changed = True
                row |= now
        if time.monotonic() - self._told_at >= EVERY and (self._telling is None or self._telling.done()):
            self._told_at = time.monotonic()
            self._telling = asyncio.get_running_loop().create_task(self._tell(bar=True))

    async def end(self) -> None:
        """Show the final statuses."""
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._tell(bar=self._bar is not None)

    async def _tell(self, *, bar: bool) -> None:
        if self._table.updates.paused or not self._changed:
            return
        self._changed = False
        await self._table.updates.tell(partial(self._tell_prefect, bar=bar))

    async def _tell_prefect(self, *, bar: bool) -> None:
        async with self._table.turn:
            if bar:
                share = PrefectArtifact("progress", self._share(), self._said(), self._flow_run, self._task_run)
                self._bar = await ashow(share, self._bar)
            table = PrefectArtifact(
                "table", self._rows(), "Orders and jobs of this run.", self._flow_run, key=self._key
            )
            self._table.artifact = await ashow(table, self._table.artifact)

    def _share(self) -> float:
        ended = sum(status in TERMINAL for status in self._statuses.values())
        return round(100 * ended / len(self._statuses), 1)

    def _said(self) -> str:
        left = [self._table.rows[urn] for urn, status in self._statuses.items() if status not in TERMINAL]
        ended = len(self._statuses) - len(left)
        said = f"{ended} of {len(self._statuses)} {self._what} have ended"
        names = listed(str(row["name"] or row["service"] or row["place"]) for row in left)
        return f"{said}; waiting for {names}." if left else f"{said}."

    def _rows(self) -> list[dict[str, Any]]:
        """Return the newest rows; if some are left out, the last row says how many."""
        rows = list(self._table.rows.values())
        if len(rows) <= _ROWS:
            return rows
        return [*rows[-_ROWS:], {"status": f"and {len(rows) - _ROWS} earlier ones"}]


def _place(urn: str, known: Order | Job | None) -> str:
    """Return the address at which IVCAP's API shows the work, which Prefect shows as a link; else the URN."""
    return (api_address(known.platform, urn, known.service) if known else None) or urn
