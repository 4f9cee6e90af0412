"""Requests of commands to the platforms that the environment names, with a time limit and a message if they fail.

Prefect, which provides the credentials blocks, is imported only by functions that make a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ivcap_flows import loop
from ivcap_flows.errors import IvcapFlowsError, UnreachableError
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ask_ivcap", "ask_ivcap_if_there", "in_time", "ivcap", "place_of", "provena"]

T = TypeVar("T")

_TIMEOUT: Final = 60.0
"""Seconds that a command waits for the platform."""


async def ivcap() -> IvcapClient:
    """Return the client of the IVCAP that the environment names. Raise ConfigurationError or PlatformOffError."""
    from ivcap_flows.blocks.resolve import ivcap_client

    return await ivcap_client(None, deployed=False)


async def provena() -> ProvenaClient:
    """Return the client of the Provena that the environment names. Raise ConfigurationError or PlatformOffError."""
    from ivcap_flows.blocks.resolve import provena_client

    return await provena_client(None, deployed=False)


def place_of(name: Literal["IVCAP", "Provena"]) -> str:
    """Describe a platform and its address, for messages."""
    settings = Settings.current()
    folder = settings.embedded_in
    if folder is not None:
        return f"The embedded {name} in {folder}"
    block = settings.ivcap_block if name == "IVCAP" else settings.provena_block
    if block:
        return f"{name} of the block {block}"
    if name == "Provena":
        return f"Provena at {settings.provena_domain or settings.provena_prov_api or settings.provena_keycloak}"
    if settings.ivcap_context:
        return f"IVCAP of the context {settings.ivcap_context}"
    return f"IVCAP at {settings.ivcap_url or settings.ivcap_base_url}"


def in_time(name: Literal["IVCAP", "Provena"], request: Coroutine[Any, Any, T], timeout: float = _TIMEOUT) -> T:
    """Return the result of requests to a platform. Raise UnreachableError after `timeout` seconds."""
    try:
        return loop.run(asyncio.wait_for(request, timeout))
    except asyncio.TimeoutError as error:
        raise UnreachableError(
            f"{place_of(name)} did not answer within {timeout:g} s. Check its URL, the network and the proxy.",
            sent=True,
        ) from error


def ask_ivcap(ask: Callable[[IvcapClient], Awaitable[T]], *, timeout: float = _TIMEOUT) -> T:
    """Call `ask` with the client of the environment's IVCAP, and return its result.

    Raise UnreachableError after `timeout` seconds.
    """

    async def asked() -> T:
        return await ask(await ivcap())

    return in_time("IVCAP", asked(), timeout)


def ask_ivcap_if_there(ask: Callable[[IvcapClient], Awaitable[T]]) -> tuple[T | None, str | None]:
    """Call `ask` as `ask_ivcap` does; return its result and None, or None and the reason why it failed."""
    try:
        return ask_ivcap(ask), None
    except IvcapFlowsError as error:
        return None, str(error)
