"""How commands ask IVCAP: with patience of their own, and what they say where it cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ivcap_flows import loop
from ivcap_flows.errors import IvcapFlowsError, UnreachableError
from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["ask_ivcap", "ask_ivcap_if_there"]

T = TypeVar("T")

_PATIENCE: Final = 60.0
"""Seconds that a command waits for the platform."""


def ask_ivcap(ask: Callable[[IvcapClient], Awaitable[T]], *, patience: float = _PATIENCE) -> T:
    """What `ask` gives, with a client of what the environment means. UnreachableError for a platform that is slow."""

    async def asked() -> T:
        from ivcap_flows.blocks.resolve import ivcap_client

        return await ask(await ivcap_client(None, deployed=False))

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
