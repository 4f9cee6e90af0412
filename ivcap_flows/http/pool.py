"""The httpx client that the sessions of one platform share, with a limit of concurrent requests."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from http.cookiejar import CookieJar
from typing import Final
from urllib.request import getproxies

import anyio
import httpx

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.secrets import scrub_text

__all__ = ["Pool"]

AT_ONCE: Final = 16
STREAMS_AT_ONCE: Final = 128
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
# Requests to this machine, where the embedded platforms listen, do not use the environment's proxy.
_DIRECT: Final = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


class Pool:
    """A shared client. Proxies and CA certificates come from the environment; cookies are kept, redirects not followed.

    At most 16 requests whose replies are read whole run at once, and 128 streams. Streams have their own limit because
    their readers may hold them as long as they like. The limits are here and not in httpx, whose queue gets slower the
    more requests wait in it.

    Each request has a connection of its own. An intermediary may send a reply twice, and httpx takes what is left on a
    kept connection for the reply to the next request.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._cookies = CookieJar()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[httpx.AsyncClient]:
        """Wait until one more request may run, and yield the client to send it with.

        The wait has no timeout: the requests before have, so each gets its turn. Raises ConfigurationError for an
        unusable proxy or certificates.
        """
        self._of_this_loop()
        async with self._requests:
            yield self._opened()

    @asynccontextmanager
    async def stream(self, timeout: float) -> AsyncIterator[httpx.AsyncClient]:
        """Wait until one more stream may be open, and yield the client to open it with.

        Raises httpx.PoolTimeout after `timeout` seconds, and ConfigurationError as `turn` does.
        """
        self._of_this_loop()
        streams = self._streams
        try:
            with anyio.fail_after(timeout):
                await streams.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("No connection is free.") from error
        try:
            yield self._opened()
        finally:
            streams.release()

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = _client(self._cookies)
        return self._client

    def _of_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to their loop. Do not touch those of another loop, for instance of a forked parent.
            self._loop, self._client = loop, None
            self._requests = anyio.Semaphore(AT_ONCE, fast_acquire=True)
            self._streams = anyio.Semaphore(STREAMS_AT_ONCE)


def _client(cookies: CookieJar) -> httpx.AsyncClient:
    trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        return httpx.AsyncClient(verify=trust, limits=_LIMITS, mounts=_DIRECT, cookies=cookies)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        proxies = getproxies()
        direct = proxies.pop("no", "")
        if direct and _usable(proxies, trust):
            raise ConfigurationError(
                f"NO_PROXY cannot be read: {error}. Name hosts in it, separated by commas; it is {scrub_text(direct)}"
            ) from error
        raise ConfigurationError(
            f"A proxy of the environment cannot be used: {scrub_text(str(error))} Set HTTP_PROXY, HTTPS_PROXY and "
            "ALL_PROXY to proxies of HTTP, or name the host in NO_PROXY."
        ) from error


def _usable(proxies: Mapping[str, str], trust: ssl.SSLContext) -> bool:
    """Return whether httpx can use each of these proxies."""
    try:
        for kind in proxies.keys() & {"http", "https", "all"}:
            url = proxies[kind]
            httpx.AsyncHTTPTransport(verify=trust, proxy=url if "://" in url else f"http://{url}")
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True


@lru_cache(maxsize=4)
def _trust(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """Return the certificates that httpx trusts in this environment; loading them takes a tenth of a second."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # includes ssl.SSLError
        given = (("SSL_CERT_FILE", cert_file), ("SSL_CERT_DIR", cert_dir))
        named = " and ".join(f"{name}={value}" for name, value in given if value)
        raise ConfigurationError(
            f"The certificates to trust cannot be read ({named}): {error}. Correct the variable, or unset it."
        ) from error
