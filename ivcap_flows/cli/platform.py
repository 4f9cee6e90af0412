"""How commands ask the platforms that the environment means: with patience of their own, and what they say where one
cannot be asked. Prefect, which has the blocks, is imported by what asks alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ivcap_flows import loop
from ivcap_flows.errors import IvcapFlowsError, UnreachableError
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.reading import Elsewhere

__all__ = ["ask_ivcap", "ask_ivcap_if_there", "elsewhere", "ivcap", "provena"]

T = TypeVar("T")

_PATIENCE: Final = 60.0
"""Seconds that a command waits for the platform."""


async def ivcap() -> IvcapClient:
    """The client of the IVCAP that the environment means. Raises ConfigurationError and PlatformOffError."""
    from ivcap_flows.blocks.resolve import ivcap_client

    return await ivcap_client(None, deployed=False)


async def provena() -> ProvenaClient:
    """The client of the Provena that the environment means. Raises ConfigurationError and PlatformOffError."""
    from ivcap_flows.blocks.resolve import provena_client

    return await provena_client(None, deployed=False)


def ask_ivcap(ask: Callable[[IvcapClient], Awaitable[T]], *, patience: float = _PATIENCE) -> T:
    """What `ask` gives, with a client of what the environment means. UnreachableError for a platform that is slow."""

    async def asked() -> T:
        return await ask(await ivcap())

    try:
        return loop.run(asyncio.wait_for(asked(), patience))
    except asyncio.TimeoutError as error:
        raise UnreachableError(
            f"IVCAP did not answer within {patience:g} s. Check its URL, the network and the proxy.", sent=True
        ) from error


def ask_ivcap_if_there(ask: Callable[[IvcapClient], Awaitable[T]]) -> tuple[T | None, str | None]:
    """What `ask` gives, or None and why the platform says nothing."""
    try:
        return ask_ivcap(ask), None
    except IvcapFlowsError as error:
        return None, str(error)


def elsewhere() -> Elsewhere:
    """The platforms that the environment names, to be asked what no run of the journal knows; with none named, the
    embedded ones if they have been used from here."""
    from ivcap_flows.reading import Elsewhere

    settings = Settings.current()
    named = settings.ivcap_configured or settings.provena_configured
    here = not named and settings.ivcap_local_dir.expanduser().is_dir()
    return Elsewhere(
        ivcap if settings.ivcap_configured or here else None, provena if settings.provena_configured or here else None
    )
