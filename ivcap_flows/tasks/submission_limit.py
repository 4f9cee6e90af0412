"""Take a slot of a global concurrency limit of Prefect for each submission, if the settings name such a limit."""

from __future__ import annotations

import asyncio
import atexit
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ivcap_flows import loop
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.forked import PerProcess
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.in_prefect.flow_run_states import refusal_of
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

__all__ = ["SubmissionLimit"]

logger = logger_of("ivcap_flows.tasks")

_LEASE: Final = 60.0
"""Seconds after which Prefect takes back the slot of a process that was killed: the fewest that it accepts."""
_RENEWED_AFTER: Final = 45.0
_SAID_AFTER: Final = 10.0
"""Seconds of waiting for a slot after which the log says so."""
LOST_AFTER: Final = 150.0
"""Seconds after which a slot may be lost. That of a killed process is free after some 75 s."""
PROMPTLY: Final = 2.0
"""Seconds for which a submission waits until its slot is given back. After that it is given back in the background."""
AT_EXIT: Final = 5.0
"""Seconds for which a process that ends waits until its slots are given back."""
_AWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_FREE: Final = "If no process submits, free all slots: `prefect gcl update %s --active-slots 0`."
_STILL_NONE: Final = (
    "Still no slot of Prefect's concurrency limit %r after %.0f s. If a process ended while Prefect's server was away, "
    f"its slot is never free again. {_FREE}"
)
_NOT_GIVEN_BACK: Final = f"A slot of Prefect's concurrency limit %r was not given back, since Prefect is away. {_FREE}"
_REFUSED: Final = (
    "Prefect refuses to take back a slot of its concurrency limit %r (%s). It takes it back itself within %.0f s, "
    f"unless it has restarted. {_FREE}"
)

_queues: Final = PerProcess(dict[str, asyncio.Lock])
"""For each limit, who of this process asks for a slot next."""
_owed: Final = PerProcess(dict["asyncio.Task[None]", str])
"""The slots that are being given back, with the name of their limit."""


class SubmissionLimit:
    """The global concurrency limit of this name, which all processes that use one Prefect server share."""

    def __init__(self, name: str) -> None:
        self._name = name

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it in the block. If Prefect cannot be asked, warn and go on without a slot.

        A slot that cannot be given back, since Prefect is away, is given back when it answers again. Raises
        ConfigurationError if there is no such limit, or if it has no slots.
        """
        async with _queues().setdefault(self._name, asyncio.Lock()):
            slot = await self._take()
        if slot is None:
            yield
            return
        renewing = asyncio.create_task(slot.keep())
        try:
            yield
        finally:
            renewing.cancel()
            await _give_back(slot)

    async def _take(self) -> _Slot | None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
        from prefect.exceptions import PrefectHTTPStatusError
        from prefect.settings import get_current_settings

        later = asyncio.get_running_loop().call_later
        sayings = [
            later(_SAID_AFTER, logger.info, "Waiting for a slot of Prefect's concurrency limit %r.", self._name),
            later(LOST_AFTER, logger.warning, _STILL_NONE, self._name, LOST_AFTER, self._name),
        ]
        try:
            async with get_client() as client:
                reply = await _asked(client, self._name)
            taken_at = time.monotonic()
        except Exception as error:  # the limit spares a platform, and keeps no run from completing
            if isinstance(error, PrefectHTTPStatusError) and error.response.is_client_error:
                raise ConfigurationError(
                    f"IVCAP_FLOWS_CONCURRENCY_LIMIT names the global concurrency limit {self._name!r}, of which "
                    f"Prefect gives no slot: {error.response.text[:200]} `prefect gcl update "
                    f"{shlex.quote(self._name)} --limit N` changes how many it has."
                ) from error
            logger.warning("The limit %r is not kept, since Prefect cannot be asked for a slot: %s", self._name, error)
            return None
        finally:
            for saying in sayings:
                saying.cancel()
        granted = ConcurrencyLimitWithLeaseResponse.model_validate(reply)
        if not granted.limits:
            server = get_current_settings().api.url or "a temporary server, since PREFECT_API_URL is not set"
            raise ConfigurationError(
                f"IVCAP_FLOWS_CONCURRENCY_LIMIT names the global concurrency limit {self._name!r}, which Prefect "
                f"({server}) does not have. Create it: `prefect gcl create {self._name} --limit 4`."
            )
        return _Slot(self._name, granted.lease_id, taken_at, taken_at + _LEASE)


async def _asked(client: PrefectClient, name: str) -> Any:
    """Return the content of Prefect's reply to a request for a slot, once one is free."""
    from prefect.exceptions import PrefectHTTPStatusError

    while True:
        try:
            return (await client.increment_concurrency_slots_with_lease([name], 1, "concurrency", _LEASE)).json()
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.LOCKED:
                raise
            await asyncio.sleep(float(error.response.headers["Retry-After"]))


@dataclass
class _Slot:
    """A slot that this process holds.

    Prefect counts it in its database, and keeps the lease in the memory of its server: after a restart, it counts a
    slot that no lease gives back.
    """

    limit: str
    lease: UUID
    taken_at: float
    leased_until: float
    """When Prefect takes the slot back by itself, unless the lease is renewed or the server has forgotten it."""
    away: bool = False
    """Whether the server was not there at some time while the slot was held."""
    released: bool = False
    """Whether Prefect was asked to end the lease. Its reply may be lost."""

    async def keep(self) -> None:
        """Renew the lease until this is cancelled."""
        from prefect.client.orchestration import get_client

        while True:
            await asyncio.sleep(_RENEWED_AFTER)
            try:
                async with get_client() as client:
                    await self._renew(client)
            except Exception as error:  # noqa: BLE001 - the submission goes on
                self._note(error)

    async def give_back(self) -> None:
        """Give the slot back, however long Prefect is away. If it refuses, leave the slot to the end of its lease."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        pauses, said = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE), False
        was_leased = time.monotonic() < self.leased_until
        while True:
            try:
                # A client that repeats a request by itself hides that the server was away, and may have restarted.
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                    async with get_client() as client:
                        await self._release(client, was_leased=was_leased)
                return
            except Exception as error:  # noqa: BLE001 - what was submitted counts
                self._note(error)
                if (refused := refusal_of(error)) is not None:
                    logger.warning(_REFUSED, self.limit, refused, _LEASE, self.limit)
                    return
                if not said:
                    said = True
                    logger.warning(
                        "A slot of Prefect's concurrency limit %r is given back when Prefect answers again: %s",
                        self.limit,
                        error,
                    )
            await pauses.sleep()

    async def _release(self, client: PrefectClient, *, was_leased: bool) -> None:
        if await self._renew(client):
            self.released = True
            await client.release_concurrency_slots_with_lease(self.lease)
        elif self.away or (was_leased and not self.released):
            # The server has restarted. Where it only seemed away, and took the slot back itself, the limit is exceeded
            # by one until no slot is taken. That spares the platform less, but a slot that is never free stops all.
            await client.release_concurrency_slots([self.limit], 1, max(0.001, time.monotonic() - self.taken_at))

    async def _renew(self, client: PrefectClient) -> bool:
        """Renew the lease. Return False if Prefect does not know it."""
        from prefect.exceptions import PrefectHTTPStatusError

        began = time.monotonic()
        try:
            await client.renew_concurrency_lease(self.lease, _LEASE)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.GONE:
                raise
            return False
        self.leased_until = began + _LEASE
        return True

    def _note(self, error: Exception) -> None:
        """Note whether an error says that the server is not there. One that only takes long may be there."""
        from prefect.exceptions import PrefectHTTPStatusError

        if isinstance(error, PrefectHTTPStatusError):
            self.away |= error.response.status_code in _AWAY
        else:
            self.away |= "Timeout" not in type(error).__name__


async def _give_back(slot: _Slot) -> None:
    """Give a slot back, in the background if that takes long."""
    owed = _owed()
    if not owed:
        atexit.unregister(_finish)
        atexit.register(_finish)
    giving = asyncio.create_task(slot.give_back())
    owed[giving] = slot.limit
    giving.add_done_callback(lambda done: owed.pop(done, None))
    # If the submission is cancelled meanwhile, the slot is still given back.
    await asyncio.wait([giving], timeout=PROMPTLY)


def _finish() -> None:
    """Wait for a moment until all slots are given back. Say which are not."""

    async def rest() -> set[str]:
        owed = _owed()
        if owed:
            await asyncio.wait([*owed], timeout=AT_EXIT)
        return set(owed.values())

    if not _owed():
        return
    with suppress(RuntimeError):  # the interpreter may have ended what the loop needs
        for limit in sorted(loop.run(rest())):
            logger.warning(_NOT_GIVEN_BACK, limit, limit)
