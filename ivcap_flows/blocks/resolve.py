"""Find a task's client from its credentials: a block, a block's name, or None. This process and loop share clients."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from ivcap_flows import identity
from ivcap_flows.blocks.credentials import PlatformCredentials, block_named
from ivcap_flows.blocks.ivcap_credentials import IvcapCredentials
from ivcap_flows.blocks.load import load_block
from ivcap_flows.blocks.provena_credentials import ProvenaCredentials
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.forked import PerProcess
from ivcap_flows.loop import asked_once
from ivcap_flows.settings import Settings
from ivcap_flows.threads import alone

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ivcap_client", "provena_client", "resolve"]

MOST: Final = 100
"""Maximum number of clients to keep for one loop. A login that is renewed elsewhere makes another client each time."""
_CLOSING: Final = 2.0
"""Maximum seconds to close the clients of one loop at the end of the process."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


Cr = TypeVar("Cr", bound=PlatformCredentials)
Cl = TypeVar("Cl", bound=_Closable)


@dataclass
class _Clients:
    """The clients of each loop by digest of the credentials, the one that was used last at the end."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Any]] = field(default_factory=WeakKeyDictionary)


_clients: Final = PerProcess(_Clients)
"""Only the parent of a forked child may close its own."""


async def ivcap_client(credentials: IvcapCredentials | str | None, *, deployed: bool) -> IvcapClient:
    """Return the client for these credentials; equal credentials on this loop share one. Do not close it.

    Set `deployed` if the run belongs to a deployment. Raises ConfigurationError and PlatformOffError.
    """
    found = await resolve(IvcapCredentials, credentials, deployed=deployed)
    return _shared(found, found.get_client)


async def provena_client(credentials: ProvenaCredentials | str | None, *, deployed: bool) -> ProvenaClient:
    """Return the client for these credentials; equal credentials on this loop share one. Do not close it.

    Set `deployed` if the run belongs to a deployment. Raises ConfigurationError and PlatformOffError.
    """
    found = await resolve(ProvenaCredentials, credentials, deployed=deployed)
    return _shared(found, found.get_client)


async def resolve(cls: type[Cr], given: Cr | str | None, *, deployed: bool) -> Cr:
    """Return the given block, the stored block of that name, or the credentials that the environment gives."""
    if isinstance(given, cls):
        return given
    if given is None:
        given = block_named(cls._platform, Settings.current())
    if given is None:
        return await _of_environment(cls, deployed)
    if not isinstance(given, str):
        raise ConfigurationError(f"Credentials are a {cls.__name__} or its name, not {type(given).__name__}.")
    return await load_block(cls, given)


async def _of_environment(cls: type[Cr], deployed: bool) -> Cr:
    """Return the credentials that the environment gives. Concurrent calls with equal settings share one look-up."""
    settings = Settings.current()
    if settings.ivcap_configured or settings.provena_configured:
        named: Cr = _named(cls, settings)
        return named
    # The embedded platform may have to be started, which takes seconds.
    found: Cr = await asked_once(
        (cls, deployed, settings), lambda: alone(cls.from_environment, settings, deployed=deployed)
    )
    return found


@lru_cache(maxsize=4)
def _named(cls: type[Cr], settings: Settings) -> Cr:
    """Return the credentials in the settings themselves.

    Cached, since a block takes as long to make as a small request.
    """
    return cls.from_environment(settings)


def _shared(credentials: PlatformCredentials, make: Callable[[], Cl]) -> Cl:
    loop = asyncio.get_running_loop()
    key = _key(credentials)
    with _clients().lock:
        clients = _clients().of_loops.setdefault(loop, {})
        client: Cl = clients.pop(key, None) or make()
        clients[key] = client
        if len(clients) > MOST:
            # A call may be using it, so it is not closed here: its connections close when they have been idle.
            del clients[next(iter(clients))]
    return client


def _key(credentials: PlatformCredentials) -> str:
    """Return a digest of platform, account and token; clients with equal digests are shared.

    It does not show the token.
    """
    # Every task needs this, and a block's own dump takes tens of milliseconds.
    fields = {name: getattr(credentials, name) for name in type(credentials).model_fields} | credentials._when_renewed()
    plain = {name: one.get_secret_value() if isinstance(one, SecretStr) else one for name, one in fields.items()}
    return identity.digest(repr((type(credentials).__name__, plain)).encode())


def _close_all() -> None:
    with _clients().lock:
        loops = {loop: list(clients.values()) for loop, clients in _clients().of_loops.items() if loop.is_running()}
        _clients().of_loops.clear()
    for loop, clients in loops.items():
        closing = asyncio.run_coroutine_threadsafe(_close(clients), loop)
        try:
            closing.result(_CLOSING)
        except (concurrent.futures.TimeoutError, RuntimeError):
            continue


async def _close(clients: list[_Closable]) -> None:
    await asyncio.gather(*(client.aclose() for client in clients), return_exceptions=True)


atexit.register(_close_all)
