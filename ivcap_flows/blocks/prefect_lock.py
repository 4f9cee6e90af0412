"""A lock that one process of all machines holds at a time. Prefect's API, which all of them use, keeps it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from ivcap_flows.errors import UnreachableError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

__all__ = ["HELD", "prefect_lock", "prefect_unreachable"]

HELD: Final = 60.0
"""Seconds for which a holder may do what the lock is for."""
_GONE: Final = 90.0
"""Seconds after which a holder is gone, as the one who waits counts them: no two clocks are compared."""
_PAUSE: Final = 0.2


@asynccontextmanager
async def prefect_lock(name: str, *, gone: float = _GONE) -> AsyncIterator[None]:
    """Hold the lock of this name, which is a Prefect variable that exists as long as the lock is held.

    A variable's name is unique, so its creation succeeds for one process. Prefect's concurrency limits are not used,
    since their leases are in the server's memory: a slot that is held when the server stops stays taken for ever. A
    process that has waited `gone` seconds for the same holder takes the lock from it. Raises UnreachableError.
    """
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        try:
            mine = await _take(client, name, gone)
        except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base
            raise prefect_unreachable(error) from None
        try:
            yield
        finally:
            # What cannot be removed now is taken over later. Delete by id: another process may hold the lock by now.
            with suppress(Exception):
                await _delete(client, mine)


async def _take(client: PrefectClient, name: str, gone: float) -> UUID:
    from prefect.client.schemas.actions import VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    seen: tuple[UUID, float] | None = None
    wanted = VariableCreate(name=name, value=str(uuid4()))
    while True:
        with suppress(ObjectAlreadyExists):
            return (await client.create_variable(wanted)).id
        holder = await client.read_variable_by_name(name)
        if holder is None:
            continue
        if holder.value == wanted.value:
            # The reply to its creation was lost, and Prefect's client sent the request again.
            return holder.id
        if seen is None or seen[0] != holder.id:
            seen = holder.id, time.monotonic()
        elif time.monotonic() - seen[1] > gone:
            # If several find the holder gone, only this one variable is deleted, and one of them makes the next.
            await _delete(client, holder.id)
            continue
        await asyncio.sleep(_PAUSE)


async def _delete(client: PrefectClient, variable: UUID) -> None:
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        await client.request("DELETE", "/variables/{id}", path_params={"id": variable})
    except PrefectHTTPStatusError as error:
        if error.response.status_code != 404:
            raise


def prefect_unreachable(error: Exception) -> UnreachableError:
    """Return the error for a request to Prefect's API that failed. It leaves out the text, which may show a token."""
    from prefect.settings import get_current_settings

    where = get_current_settings().api.url or "the temporary server of this machine"
    status = getattr(getattr(error, "response", None), "status_code", None)
    what, check = f"did not answer ({type(error).__name__})", "Check PREFECT_API_URL and the server."
    if status is not None:
        what = f"refused the request ({status})"
    if status in (401, 403):
        check = "Set PREFECT_API_AUTH_STRING as the server has it, or PREFECT_API_KEY for Prefect Cloud."
    return UnreachableError(
        f"Prefect at {where} {what}, and it has the block with the login. {check}",
        platform="Prefect",
        method="",
        path="",
        status=status,
        detail=type(error).__name__,
    )
