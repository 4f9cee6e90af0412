"""The watcher: wakes parked runs as soon as enough of the orders and jobs that they wait for have ended.

It is optional: without it, a parked run wakes at its wake time, which is later. If several watch, they share what they
poll, and one of them wakes each run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import journal as own_journal
from ivcap_flows.durable.heartbeat import listen, start_heartbeat, stop_heartbeat
from ivcap_flows.durable.parking import watcher_of
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.identity import short_run
from ivcap_flows.in_prefect.flow_run_states import PARKED, prefect_state
from ivcap_flows.in_prefect.reconcile import end_parked
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import COMES_BACK, AttemptRow, Park
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.plain_text import described
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.flow_run import end_cancelling, standing, wake
from ivcap_flows.tasks.parking import pending_of
from ivcap_flows.threads import JOURNAL, alone

__all__ = ["Watcher", "watch_parked_runs"]

logger = logger_of("ivcap_flows.waiting")

_WAKING: Final = "waking"
"""The lease of the process that wakes runs now: a watcher, or a command that looks once."""
EVERY: Final = 2.0
"""Seconds between two reads of the parked runs and of their states in Prefect."""
_AFTER_TROUBLE: Final = 60.0
"""Seconds until the next try after the work of a run could not be polled."""
_ONCE: Final = 20.0
"""Seconds that `once` waits for the platforms, and again for the processes that the runs leave to end."""
_SURE: Final = 2.0
"""Seconds for which the work of a run is polled without an error before this process promises to wake it."""
_LIVES_ON: Final = 10.0
"""Seconds after which a run has left its process though that lives, as with a thread or a `finally` of the flow's. At
its wake time Prefect starts it anyway."""
_LEAVING: Final = 0.2
"""Seconds between two checks whether these processes have ended."""


class Watcher:
    """Watches the parked runs of one journal. `tell` gets a sentence about each change.

    It asks with the credentials block of each run; `credentials` names the block for runs that named none.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        credentials: str | None = None,
        deployed: bool = False,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        if not get_current_settings().api.url:
            raise ConfigurationError("Only runs on a Prefect server can park. Set PREFECT_API_URL to its API.")
        self._journal = journal
        self._credentials = credentials
        self._deployed = deployed
        self._tell = tell
        self._tending: dict[str, asyncio.Task[None]] = {}
        """By the attempt that each parked run left."""
        self._troubled: LruCache[str, None] = LruCache(1_000)
        self._polled: set[str] = set()
        """The leases of those whose work this process polls without an error."""
        self._promised: dict[str, ExitStack] = {}
        """Those of them that it has."""

    async def watch(self, *, seconds: float | None = None) -> None:
        """Watch for `seconds`, but no longer than runs are parked; None means for ever.

        Raises ConfigurationError if Prefect refuses to say which are: runs must not count on this watcher any more.
        """
        end = None if seconds is None else time.monotonic() + seconds
        start_heartbeat(self._journal)
        try:
            # It may hold nothing for days, and the journal must not be moved away from it meanwhile.
            await JOURNAL.run(self._journal.processes.announce)
            self._tell("Watching the parked runs.")
            while end is None or time.monotonic() < end:
                try:
                    await self._look()
                    self._troubled.pop("parked")
                    if end is not None and not self._tending:
                        break
                except ConfigurationError:
                    raise
                except Exception as error:  # noqa: BLE001 - a server that restarts, a journal that is busy
                    self._trouble("parked", f"Cannot read parked runs; trying again: {described(error)}")
                await self._pause()
        finally:
            for task in self._tending.values():
                task.cancel()
            await asyncio.gather(*self._tending.values(), return_exceptions=True)
            self._tending.clear()
            for name in list(self._promised):
                self._promised.pop(name).close()
            stop_heartbeat(self._journal)

    async def once(self) -> tuple[int, int]:
        """Wake the runs whose work has ended. Return how many were woken, and how many stay parked."""
        looks = {asyncio.ensure_future(self._has_ended(*each)): each[0] for each in await self._parked()}
        if not looks:
            return 0, 0
        _, late = await asyncio.wait(looks, timeout=_ONCE)
        for look in late:
            look.cancel()
        # One that was killed on another machine while it woke runs must not keep each later command from it.
        await alone(listen, self._journal)
        ended = {attempt.id for look, attempt in looks.items() if look not in late and look.result()}
        until = time.monotonic() + _ONCE
        while True:
            attempts = [attempt for attempt, _ in await self._journal.ask(self._journal.parks.open)]
            wanted = [attempt for attempt in attempts if attempt.id in ended]
            left = await self._journal.ask(self._left, wanted)
            if len(left) == len(wanted) or time.monotonic() > until:
                woken = await self._wake([attempt for attempt in wanted if attempt.id in left])
                return woken, len(looks) - woken
            await asyncio.sleep(_LEAVING)

    async def _look(self) -> None:
        """Tend newly parked runs, and wake those whose work has ended."""
        parked = await self._parked()
        self._begin(parked)
        await alone(self._promise)
        ended = [attempt for attempt, _ in parked if self._tending[attempt.id].done()]
        # Two processes must not work on one run.
        left = await self._journal.ask(self._left, ended)
        await self._wake([attempt for attempt in ended if attempt.id in left])

    def _left(self, attempts: list[AttemptRow]) -> set[str]:
        """Return the ids of the attempts that work no more: of their process, or of them alone, nothing lives."""
        before = self._journal.now() - timedelta(seconds=_LIVES_ON)
        closed = {each.id for each in attempts if each.ended_at is not None and each.ended_at <= before}
        return closed | self._journal.parks.left(attempts)

    def _promise(self) -> None:
        """Hold the leases of the watchers that this process is. Runs that park sleep longer while somebody has theirs.

        Of several processes that can poll the same work one has the lease; another takes it when that ends.
        """
        leases, polled = self._journal.leases, list(self._polled)
        for name in [name for name in self._promised if name not in polled or not leases.mine(name)]:
            self._promised.pop(name).close()
        for name in polled:
            if name not in self._promised:
                lease = ExitStack()
                if lease.enter_context(leases.hold(name)):
                    self._promised[name] = lease

    async def _pause(self) -> None:
        """Sleep until the next look, or until the work of another run has ended."""
        waiting = [task for task in self._tending.values() if not task.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=EVERY, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(EVERY)

    def _begin(self, parked: list[tuple[AttemptRow, Park]]) -> None:
        """Start to tend newly parked runs, and stop for those that are no longer parked."""
        now = {attempt.id: (attempt, park) for attempt, park in parked}
        for id_ in self._tending.keys() - now.keys():
            self._tending.pop(id_).cancel()
        for id_ in now.keys() - self._tending.keys():
            self._tending[id_] = asyncio.ensure_future(self._tend(*now[id_]))

    async def _parked(self) -> list[tuple[AttemptRow, Park]]:
        """Return the parked runs. It is recorded how those ended of which Prefect says that they did."""
        noted = await self._journal.ask(self._journal.parks.open)
        return await alone(self._still_parked, noted) if noted else []

    def _still_parked(self, noted: list[tuple[AttemptRow, Park]]) -> list[tuple[AttemptRow, Park]]:
        # Read the journal first: after a process has left, Prefect's state of its run is final.
        left = self._journal.parks.left([attempt for attempt, _ in noted])
        states = standing([attempt.flow_run_id for attempt, _ in noted])
        parked = []
        for attempt, park in noted:
            state = states.get(attempt.flow_run_id)
            if state is not None and state.name == PARKED:
                parked.append((attempt, park))
            elif state is not None and attempt.id in left:
                self._end(attempt, state)
        return parked

    def _end(self, attempt: AttemptRow, state: State[Any]) -> None:
        """Record how a run ended that left its process and was not woken: it was cancelled, or its state was set."""
        if state.is_cancelling():
            end_cancelling(attempt.flow_run_id)
        word = prefect_state(attempt.flow_run_id)
        if word is not None and word.outcome not in COMES_BACK:
            end_parked(self._journal, attempt, word)

    async def _tend(self, attempt: AttemptRow, park: Park) -> None:
        """Return when enough work that a run waits for has ended. Uses no thread, however many runs are parked."""
        while True:
            if await self._has_ended(attempt, park):
                return
            await asyncio.sleep(_AFTER_TROUBLE)

    async def _has_ended(self, attempt: AttemptRow, park: Park) -> bool:
        """Wait until enough work of a run has ended. Return False if its platform cannot be asked."""
        run, watcher = short_run(attempt.run_id), watcher_of(park.platform, park.account, park.credentials)
        try:
            call = await self._call(run, park)
            if call is None:
                return False
            enough = park.enough or len(park.waits)
            pending = await pending_of(call, park.waits, timeout=_SURE, enough=enough)
            self._polled.add(watcher)
            if len(park.waits) - len(pending) < enough:
                await pending_of(call, park.waits, timeout=None, enough=enough)
        except Exception as error:  # noqa: BLE001 - trouble with one run must not keep the others asleep
            self._polled.discard(watcher)
            # Do not wake the run: it would park again, and the watcher would wake it again.
            text = f"The watcher cannot poll the work of run {run}, which wakes at its wake time: {error}"
            self._trouble(attempt.run_id, text)
            return False
        self._troubled.pop(attempt.run_id)
        return True

    async def _wake(self, attempts: list[AttemptRow]) -> int:
        """Wake these runs and return how many were woken; none while another process wakes runs."""
        if not attempts:
            return 0
        with self._journal.leases.hold(_WAKING) as mine:
            if not mine:
                return 0
            return sum(await loop.all_of(lambda attempt: alone(self._wake_one, attempt), attempts))

    def _wake_one(self, attempt: AttemptRow) -> bool:
        about, run = f"wake {attempt.run_id}", short_run(attempt.run_id)
        try:
            if wake(attempt.flow_run_id) != "woken":
                return False
        except Exception as error:  # noqa: BLE001 - the next look tries again, and the other runs are woken anyway
            self._trouble(about, f"Cannot wake run {run}; trying again: {described(error)}")
            return False
        self._troubled.pop(about)
        self._tell(f"Woke run {run} (flow run {attempt.flow_run_id}).")
        return True

    async def _call(self, run: str, park: Park) -> IvcapCall | None:
        """Return the context for asking the run's platform; None if the credentials are of another account."""
        client = await ivcap_client(park.credentials or self._credentials, deployed=self._deployed)
        platform, account = await client.platform(), await client.account()
        if (platform, account) != (park.platform, park.account):
            self._trouble(
                f"{park.platform} {park.account}",
                f"The watcher cannot wake run {run}, which wakes at its wake time: it waits for work on "
                f"{park.platform} as {park.account}, but the watcher's credentials are for {platform} as {account}.",
            )
            return None
        return IvcapCall(self._journal, None, platform, account, Settings.current(), client)

    def _trouble(self, about: str, text: str) -> None:
        if about not in self._troubled:
            self._troubled.put(about, None)
            logger.warning(text)


@flow(name="watch-parked-runs")
def watch_parked_runs(minutes: float = 5.0, ivcap: str | None = None) -> None:
    """Watch the parked runs of this worker's journal, and end if none is parked. The schedule starts it again.

    Args:
        minutes: How long to watch at most: the interval of the schedule.
        ivcap: Name of the block `IvcapCredentials` for runs that named none; by default, the worker's
            environment decides.
    """
    watcher = Watcher(own_journal(deployed=True), credentials=ivcap, deployed=True)
    loop.run(watcher.watch(seconds=60 * minutes))
