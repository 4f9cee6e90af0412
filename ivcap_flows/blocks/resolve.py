"""From what a task was given (a block, a block's name, or nothing) to a client that this process and loop share."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from pydantic import SecretStr, ValidationError

from ivcap_flows import identity
from ivcap_flows.blocks.credentials import IvcapCredentials, ProvenaCredentials
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ivcap_client", "ivcap_credentials", "provena_client", "provena_credentials"]

_CLOSING: Final = 2.0
"""Seconds that closing the clients of one loop may take at the end of the process."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


Cr = TypeVar("Cr", IvcapCredentials, ProvenaCredentials)
Cl = TypeVar("Cl", bound=_Closable)

_lock = threading.Lock()
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Any]] = WeakKeyDictionary()
_asked: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, asyncio.Task[Any]]] = WeakKeyDictionary()


def _forget_parent() -> None:
    """In a forked child: the parent's clients are not its own to close."""
    global _lock
    _lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


async def ivcap_client(credentials: IvcapCredentials | str | None, *, deployed: bool) -> IvcapClient:
    """The client for these credentials, the same for equal ones on this loop. Do not close it.

    `deployed`: the run belongs to a deployment. Raises ConfigurationError and PlatformOffError.
    """
    found = await ivcap_credentials(credentials, deployed=deployed)
    return _shared(found, found.get_client)


async def provena_client(credentials: ProvenaCredentials | str | None, *, deployed: bool) -> ProvenaClient:
    """The client for these credentials, the same for equal ones on this loop. Do not close it.

    `deployed`: the run belongs to a deployment. Raises ConfigurationError and PlatformOffError.
    """
    found = await provena_credentials(credentials, deployed=deployed)
    return _shared(found, found.get_client)


async def ivcap_credentials(credentials: IvcapCredentials | str | None, *, deployed: bool) -> IvcapCredentials:
    """The block itself, the stored block of that name, or what the environment means."""
    return await _resolved(IvcapCredentials, credentials, deployed)


async def provena_credentials(credentials: ProvenaCredentials | str | None, *, deployed: bool) -> ProvenaCredentials:
    """The block itself, the stored block of that name, or what the environment means."""
    return await _resolved(ProvenaCredentials, credentials, deployed)


async def _resolved(cls: type[Cr], given: Cr | str | None, deployed: bool) -> Cr:
    if isinstance(given, cls):
        return given
    if given is None:
        return await _of_environment(cls, deployed)
    if not isinstance(given, str):
        raise ConfigurationError(f"Credentials are a {cls.__name__} or its name, not {type(given).__name__}.")
    try:
        return await cls.aload(given)
    except RuntimeError as error:
        # So Prefect tells of a stored block that its class refuses.
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = "; ".join(fault["msg"] for fault in error.__cause__.errors())
        raise ConfigurationError(f"The block {cls.__name__} named {given!r} cannot be used. {wrong}") from None
    except ValueError as error:
        raise ConfigurationError(
            f"There is no block {cls.__name__} named {given!r}. Save one by `{cls.__name__}(...).save({given!r})`."
        ) from error


async def _of_environment(cls: type[Cr], deployed: bool) -> Cr:
    """What the environment means now; who asks while the same is being found out gets the same answer."""
    settings = Settings.current()
    if settings.ivcap_configured or settings.provena_configured:
        named: Cr = _named(cls, settings)
        return named
    loop = asyncio.get_running_loop()
    asked = _asked.setdefault(loop, {})
    question = (cls, deployed, settings)
    answer = asked.get(question)
    if answer is None:
        # The embedded platform may have to be started, which takes seconds.
        starting = asyncio.to_thread(cls.from_environment, settings, deployed=deployed)
        answer = asked[question] = loop.create_task(starting)
        answer.add_done_callback(lambda _: asked.pop(question))
    found: Cr = await asyncio.shield(answer)
    return found


@lru_cache(maxsize=4)
def _named(cls: type[Cr], settings: Settings) -> Cr:
    """The credentials that the settings hold themselves; making a block takes as long as a small request."""
    return cls.from_environment(settings)


def _shared(credentials: IvcapCredentials | ProvenaCredentials, make: Callable[[], Cl]) -> Cl:
    loop = asyncio.get_running_loop()
    key = _key(credentials)
    with _lock:
        clients = _clients.setdefault(loop, {})
        if key not in clients:
            clients[key] = make()
        client: Cl = clients[key]
    return client


def _key(credentials: IvcapCredentials | ProvenaCredentials) -> str:
    """A digest of platform, account and token: what makes two clients the same. It does not show the token."""
    # Each task asks for this, and a block's own dump takes tens of milliseconds.
    fields = {name: getattr(credentials, name) for name in type(credentials).model_fields}
    plain = {name: one.get_secret_value() if isinstance(one, SecretStr) else one for name, one in fields.items()}
    return identity.digest(repr((type(credentials).__name__, plain)).encode())


def _close_all() -> None:
    with _lock:
        loops = {loop: list(clients.values()) for loop, clients in _clients.items() if loop.is_running()}
        _clients.clear()
    for loop, clients in loops.items():
        closing = asyncio.run_coroutine_threadsafe(_close(clients), loop)
        try:
            closing.result(_CLOSING)
        except (concurrent.futures.TimeoutError, RuntimeError):
            continue


async def _close(clients: list[_Closable]) -> None:
    await asyncio.gather(*(client.aclose() for client in clients), return_exceptions=True)


atexit.register(_close_all)
