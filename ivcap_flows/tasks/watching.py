"""The watcher: wakes parked runs as soon as all that they wait for has ended.

It is an improvement and no condition: a parked run wakes by itself, later. One process watches for all that share a
journal; others stand by.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import journal as own_journal
from ivcap_flows.durable.beating import start_beating, stop_beating
from ivcap_flows.durable.parking import WATCHER
from ivcap_flows.errors import ConfigurationError, IvcapFlowsError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.parks import ParkRow
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.flow_run import PARKED, end_cancelling, standing, wake
from ivcap_flows.tasks.parking import pending_of

__all__ = ["Watcher", "watch_parked_runs"]

logger = logging.getLogger("ivcap_flows.waiting")

EVERY: Final = 2.0
"""Seconds between two looks at which runs are parked, and at how Prefect has them."""
_LEAVING: Final = 0.2
"""Seconds between two looks at whether the process that a run left is gone."""
_AFTER_TROUBLE: Final = 60.0
"""Seconds for which a run is left alone whose orders cannot be asked after."""
_ONCE: Final = 20.0
"""Seconds that one look at the platforms may take."""


class Watcher:
    """Watches the parked runs of one journal."""

    def __init__(self, journal: Journal, *, deployed: bool = False, tell: Callable[[str], None] = logger.info) -> None:
        if not get_current_settings().api.url:
            raise ConfigurationError("Only runs of a Prefect server park. Name its API in PREFECT_API_URL.")
        self._journal = journal
        self._deployed = deployed
        self._tell = tell
        self._tending: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._troubled: set[str] = set()

    async def watch(self, *, seconds: float | None = None) -> None:
        """Watch, or stand by while another process does, for so long; None: for ever."""
        end = None if seconds is None else time.monotonic() + seconds
        stands_by = False
        start_beating(self._journal)
        try:
            while end is None or time.monotonic() < end:
                with self._journal.leases.hold(WATCHER) as mine:
                    if mine:
                        self._tell("Watching the parked runs.")
                        await self._lead(end)
                    elif not stands_by:
                        self._tell("Another process watches; standing by.")
                stands_by = not mine
                await asyncio.sleep(EVERY)
        finally:
            stop_beating(self._journal)

    async def once(self) -> int:
        """Wake what can be woken now; how many runs were."""
        parks = await self._parked()
        before = {(park.run_id, park.round) for park in parks}
        results = await asyncio.gather(*(self._tend(park, timeout=_ONCE) for park in parks), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                self._trouble("look", str(result))
        left = {(park.run_id, park.round) for park in await asyncio.to_thread(self._journal.parks.open)}
        return len(before - left)

    async def _lead(self, end: float | None) -> None:
        try:
            while end is None or time.monotonic() < end:
                try:
                    self._begin(await self._parked())
                    self._troubled.discard("prefect")
                except Exception as error:  # noqa: BLE001 - a server that restarts, a journal that is busy
                    self._trouble("prefect", f"The parked runs cannot be looked at: {type(error).__name__}: {error}")
                await asyncio.sleep(EVERY)
        finally:
            for task in self._tending.values():
                task.cancel()
            await asyncio.gather(*self._tending.values(), return_exceptions=True)
            self._tending.clear()

    def _begin(self, parks: list[ParkRow]) -> None:
        """Tend what is newly parked, and no longer what is not."""
        now = {(park.run_id, park.round): park for park in parks}
        for key, task in list(self._tending.items()):
            if key not in now or task.done():
                # One that failed, or cannot be woken yet, is begun anew.
                if not task.cancel() and not task.cancelled() and (error := task.exception()) is not None:
                    self._trouble(key[0], f"Run {key[0][:8]} could not be woken yet: {error}")
                del self._tending[key]
        for key, park in now.items():
            if key not in self._tending:
                self._tending[key] = asyncio.ensure_future(self._tend(park))

    async def _parked(self) -> list[ParkRow]:
        """What is parked, once those that Prefect knows not to come back are noted as over."""
        parks = await asyncio.to_thread(self._journal.parks.open)
        if not parks:
            return []
        states = await asyncio.to_thread(standing, [park.flow_run_id for park in parks])
        return [park for park in parks if await asyncio.to_thread(self._is_parked, park, states)]

    def _is_parked(self, park: ParkRow, states: Mapping[str, State[Any] | None]) -> bool:
        state = states.get(park.flow_run_id)
        if state is not None and state.name == PARKED:
            return True
        if not self._journal.parks.left(park):
            # It is about to leave, or it stays and says so itself.
            return False
        if state is None:
            self._journal.parks.end(park, "over", "the flow run was deleted")
        elif state.is_cancelling() or state.is_cancelled():
            if state.is_cancelling():
                end_cancelling(park.flow_run_id)
            self._journal.parks.end(park, "over", "the flow run was cancelled")
        elif state.is_final():
            self._journal.parks.end(park, "over", f"the flow run ended as {state.name}")
        elif state.is_running():
            self._journal.parks.end(park, "woken", "by itself")
        return False

    async def _tend(self, park: ParkRow, *, timeout: float | None = None) -> None:
        """Wake a run once all that it waits for has ended and its process has gone."""
        try:
            call = await self._call(park)
            if call is None or await pending_of(call, park.waits, timeout=timeout):
                return
        except IvcapFlowsError as error:
            # Woken, a run that these credentials cannot help would park again, and be woken again.
            self._trouble(park.run_id, f"Run {park.run_id[:8]} is left to wake by itself: {error}")
            if timeout is None:
                await asyncio.sleep(_AFTER_TROUBLE)
            return
        await asyncio.to_thread(self._wait_until_left, park)
        how = await asyncio.to_thread(wake, park.flow_run_id)
        if how == "woken" and await asyncio.to_thread(self._journal.parks.end, park, "woken", "by the watcher"):
            self._tell(f"Woke run {park.run_id[:8]} (flow run {park.flow_run_id}).")

    def _wait_until_left(self, park: ParkRow) -> None:
        # Never two processes on one run.
        while not self._journal.parks.left(park):
            time.sleep(_LEAVING)

    async def _call(self, park: ParkRow) -> IvcapCall | None:
        """How this process asks the run's platform; None where its credentials are for another."""
        client = await ivcap_client(park.credentials, deployed=self._deployed)
        platform, account = await client.platform(), await client.account()
        if platform != park.platform:
            self._trouble(
                park.platform,
                f"Run {park.run_id[:8]} is left to wake by itself: it waits on {park.platform}, and the watcher's "
                f"credentials are for {platform}.",
            )
            return None
        return IvcapCall(self._journal, None, platform, account, Settings.current(), client)

    def _trouble(self, about: str, text: str) -> None:
        if about not in self._troubled:
            self._troubled.add(about)
            logger.warning(text)


@flow(name="watch-parked-runs")
def watch_parked_runs(minutes: float = 15.0) -> None:
    """Watch the parked runs of this worker's journal for so many minutes; its schedule starts it anew."""
    watcher = Watcher(own_journal(), deployed=True)
    loop.run(watcher.watch(seconds=60 * minutes))
