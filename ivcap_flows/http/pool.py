"""The client of httpx that the sessions of one platform share, and how much of it is under way at once."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

import anyio
import httpx

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.secrets import scrub_text

__all__ = ["Pool"]

_AT_ONCE: Final = 16
_STREAMS_AT_ONCE: Final = 128
# Idle connections are dropped before common servers drop them (uvicorn after 5 s), so that no write meets a dead one.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=_AT_ONCE, keepalive_expiry=4.0)
# A proxy of the environment is not asked for this machine itself, where the embedded platforms listen.
_DIRECT: Final = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


class Pool:
    """Proxies and CA certificates are those of the environment; cookies are kept, redirects are not followed.

    At most 16 requests whose replies are read whole are under way at once, and 128 streams: these are held for as long
    as their reader likes, and leave the others alone. The bound is here and not in httpx, whose own queue of requests
    takes the longer the more wait in it.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._places: dict[bool, anyio.Semaphore] = {}

    @asynccontextmanager
    async def turn(self, timeout: float, *, streaming: bool = False) -> AsyncIterator[None]:
        """Wait until one more request may be under way. Raises httpx.PoolTimeout after `timeout` seconds."""
        self._of_this_loop()
        places = self._places[streaming]
        try:
            with anyio.fail_after(timeout):
                await places.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("No connection is free.") from error
        try:
            yield
        finally:
            places.release()

    def client(self) -> httpx.AsyncClient:
        """The client of the running loop. Raises ConfigurationError for a proxy or certificates that cannot be used."""
        self._of_this_loop()
        if self._client is None:
            self._client = _client()
        return self._client

    async def aclose(self) -> None:
        """Close all connections; a later request opens them anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _of_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to their loop; those of another one, a forked parent's for instance, are left alone.
            self._loop, self._client = loop, None
            self._places = {False: anyio.Semaphore(_AT_ONCE), True: anyio.Semaphore(_STREAMS_AT_ONCE)}


def _client() -> httpx.AsyncClient:
    trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        return httpx.AsyncClient(verify=trust, limits=_LIMITS, mounts=_DIRECT)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"A proxy of the environment cannot be used: {scrub_text(str(error))} Set HTTP_PROXY, HTTPS_PROXY and "
            "ALL_PROXY to proxies of HTTP, or name the host in NO_PROXY."
        ) from error


@lru_cache(maxsize=4)
def _trust(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that httpx trusts in this environment; reading them takes a tenth of a second."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        given = (("SSL_CERT_FILE", cert_file), ("SSL_CERT_DIR", cert_dir))
        named = " and ".join(f"{name}={value}" for name, value in given if value)
        raise ConfigurationError(
            f"The certificates to trust cannot be read ({named}): {error}. Correct the variable, or unset it."
        ) from error
