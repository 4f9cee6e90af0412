"""Take a slot of a global concurrency limit of Prefect for each submission, if the settings name such a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.secrets import logger_of

__all__ = ["SubmissionLimit"]

logger = logger_of("ivcap_flows.tasks")

_LEASE: Final = 60.0
"""Seconds after which Prefect takes back the slot of a process that was killed: the fewest that it accepts."""
_SAID_AFTER: Final = 10.0
"""Seconds of waiting for a slot after which the log says so."""
LOST_AFTER: Final = 150.0
"""Seconds after which a slot may be lost. That of a killed process is free after some 75 s."""


class SubmissionLimit:
    """The global concurrency limit of this name, which all processes that use one Prefect server share."""

    def __init__(self, name: str) -> None:
        self._name = name

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it in the block. If Prefect cannot be asked, warn and go on without a slot.

        Raises ConfigurationError if there is no such limit, or if it has no slots.
        """
        from prefect.concurrency.asyncio import concurrency

        # Without a lease, a submission that has begun still comes to its end: interrupted, it would be a doubt.
        slot = concurrency(self._name, strict=True, lease_duration=_LEASE, raise_on_lease_renewal_failure=False)
        taken = await self._take(slot)
        try:
            yield
        finally:
            if taken:
                await self._give_back(slot)

    async def _take(self, slot: AbstractAsyncContextManager[None]) -> bool:
        from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
        from prefect.exceptions import PrefectHTTPStatusError
        from prefect.settings import get_current_settings

        later = asyncio.get_running_loop().call_later
        sayings = [
            later(_SAID_AFTER, logger.info, "Waiting for a slot of Prefect's concurrency limit %r.", self._name),
            later(
                LOST_AFTER,
                logger.warning,
                "Still no slot of Prefect's concurrency limit %r after %.0f s. A slot that was held while Prefect's "
                "server restarted is never free again. If no process submits, free all slots: `prefect gcl update %s "
                "--active-slots 0`.",
                self._name,
                LOST_AFTER,
                self._name,
            ),
        ]
        try:
            await slot.__aenter__()
        except ConcurrencySlotAcquisitionError as error:
            cause = error.__cause__
            if cause is None:
                server = get_current_settings().api.url or "a temporary server, since PREFECT_API_URL is not set"
                raise ConfigurationError(
                    f"IVCAP_FLOWS_CONCURRENCY_LIMIT names the global concurrency limit {self._name!r}, which Prefect "
                    f"({server}) does not have. Create it: `prefect gcl create {self._name} --limit 4`."
                ) from None
            if isinstance(cause, PrefectHTTPStatusError) and cause.response.is_client_error:
                raise ConfigurationError(
                    f"IVCAP_FLOWS_CONCURRENCY_LIMIT names the global concurrency limit {self._name!r}, of which "
                    f"Prefect gives no slot: {error}"
                ) from error
            logger.warning("The limit %r is not kept, since Prefect cannot be asked for a slot: %s", self._name, cause)
            return False
        finally:
            for saying in sayings:
                saying.cancel()
        return True

    async def _give_back(self, slot: AbstractAsyncContextManager[None]) -> None:
        try:
            await slot.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - what was submitted counts
            logger.warning("A slot of %r was not given back; Prefect takes it in a minute: %s", self._name, error)
