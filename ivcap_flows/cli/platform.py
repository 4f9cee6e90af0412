"""Requests of commands to the platforms that the environment names, with a time limit and a message if they fail.

Prefect, which provides the credentials blocks, is imported only by functions that make a request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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
_TICK: Final = 0.1
"""Seconds between two looks how late the loop is."""
_SHOWN: Final = 0.05
"""Parts that took fewer seconds are not named."""


@dataclass
class _Spent:
    """How the seconds of a request were spent, as far as they were not spent in waiting for the platform."""

    busy: float = 0.0
    """In which this process did something else, or got no time on this machine."""
    ready: float = 0.0
    """Until there was a client: to find the credentials, or to start the embedded platform."""


_spent: ContextVar[_Spent] = ContextVar("ivcap_flows_spent")


@contextmanager
def _getting_ready() -> Iterator[None]:
    spent, began = _spent.get(None) or _Spent(), time.monotonic()
    busy = spent.busy
    try:
        yield
    finally:
        spent.ready += max(0.0, time.monotonic() - began - (spent.busy - busy))


async def _measure_busy(spent: _Spent) -> None:
    """Add the seconds by which this loop is late, until cancelled."""
    due = time.monotonic()
    try:
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            spent.busy += max(0.0, time.monotonic() - due)
    finally:
        spent.busy += max(0.0, time.monotonic() - due)


async def ivcap() -> IvcapClient:
    """Return the client of the IVCAP that the environment names. Raise ConfigurationError or PlatformOffError."""
    from ivcap_flows.blocks.resolve import ivcap_client

    with _getting_ready():
        return await ivcap_client(None, deployed=False)


async def provena() -> ProvenaClient:
    """Return the client of the Provena that the environment names. Raise ConfigurationError or PlatformOffError."""
    from ivcap_flows.blocks.resolve import provena_client

    with _getting_ready():
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
    """Return the result of requests to a platform. Raise UnreachableError after `timeout` seconds, which says on what
    they were spent."""
    spent, began = _Spent(), time.monotonic()

    async def measured() -> T:
        _spent.set(spent)
        measuring = asyncio.ensure_future(_measure_busy(spent))
        try:
            # So that it measures from the beginning: from Python 3.12 on, `wait_for` goes on with the request at once.
            await asyncio.sleep(0)
            return await asyncio.wait_for(request, timeout)
        finally:
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)

    try:
        return loop.run(measured())
    except asyncio.TimeoutError as error:
        raise UnreachableError(_late(name, spent, time.monotonic() - began, timeout), sent=True) from error


def _late(name: Literal["IVCAP", "Provena"], spent: _Spent, total: float, timeout: float) -> str:
    """Say that a request took too long, what took how long, and what to look at: that which took longest."""
    embedded = Settings.current().embedded_in is not None
    waited = max(0.0, total - spent.busy - spent.ready)
    parts = {
        "this machine was busy": (spent.busy, "Try again when this machine has time."),
        "to start it" if embedded else "to find the credentials": (
            spent.ready,
            "Try again." if embedded else "Check the login, and Prefect's server if a block has it.",
        ),
        "waiting for its reply": (waited, "Check its URL, the network and the proxy."),
    }
    shown = ", ".join(f"{seconds:.1f} s {part}" for part, (seconds, _) in parts.items() if seconds >= _SHOWN)
    longest = max(parts.values())
    verb = "did not answer" if longest[0] == waited else "could not be asked"
    return f"{place_of(name)} {verb} within {timeout:g} s ({shown}). {longest[1]}"


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
