"""The httpx client that the sessions of one platform share, with a limit of concurrent requests."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.request import getproxies
from weakref import WeakKeyDictionary

import anyio
import httpx

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.secrets import logger_of, scrub_text

__all__ = ["Pool", "Reuse", "UnansweredError", "abandon"]

AT_ONCE: Final = 16
STREAMS_AT_ONCE: Final = 128
KEPT_FOR: Final = 3.0
"""Seconds for which a connection is kept between two requests; uvicorn, which closes early, does so after five."""
_NEW: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_KEPT: Final = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEPT_FOR)
# Requests to this machine, where the embedded platforms listen, do not use the environment's proxy.
_DIRECT: Final = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}

for _logs in ("httpx", "httpcore.http11"):
    # Whole addresses, whose queries may be signed or have a key, and the headers of replies.
    logger_of(_logs)


class UnansweredError(Exception):
    """What came on a kept connection is no answer to the request, which may be sent again at once on a new one."""


class Reuse:
    """Notes whether a request goes on a connection that was there before. A trace function of httpcore."""

    _opened = False

    async def __call__(self, event: str, _: Any) -> None:
        if event.endswith("connect_tcp.started"):
            self._opened = True

    def broke(self, error: Exception) -> bool:
        """Return whether the failure of a request is that its connection had ended since the request before."""
        return not self._opened and isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)


async def abandon(response: httpx.Response) -> None:
    """Close the connection of a reply, so that no request gets what follows on it."""
    await response.extensions["network_stream"].aclose()


class Pool:
    """Shared clients. Proxies and CA certificates come from the environment; cookies are kept, redirects not followed.

    At most 16 requests whose replies are read whole run at once, and 128 streams. Streams have their own limit because
    their readers may hold them as long as they like. The limits are here and not in httpx, whose queue gets slower the
    more requests wait in it.

    One client has a new connection for each request. Each of the others has one request at a time, and keeps a
    connection to each host: a client that keeps many looks at all of them before and after each request.

    An intermediary may send a reply twice, and httpx takes what is left on a kept connection for the reply to the next
    request. So what must not be sent twice, or cannot be judged by `refuse_copy`, needs a new connection.
    """

    def __init__(self) -> None:
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._idle: list[httpx.AsyncClient] = []
        """Clients that keep connections; the one that was used last is used next."""
        self._cookies = CookieJar()
        self._replies: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()
        """What came on each connection."""

    @asynccontextmanager
    async def turn(self, *, kept: bool = False) -> AsyncIterator[httpx.AsyncClient]:
        """Wait until one more request may run, and yield the client to send it with, on a kept connection or a new one.

        The wait has no timeout: the requests before have, so each gets its turn. Raises ConfigurationError for an
        unusable proxy or certificates.
        """
        self._of_this_loop()
        idle = self._idle
        async with self._requests:
            if not kept:
                yield self._new
                return
            client = idle.pop() if idle else _client(_KEPT, self._cookies)
            try:
                yield client
            finally:
                idle.append(client)

    def refuse_copy(self, response: httpx.Response, body: bytes) -> None:
        """Raise UnansweredError for a reply that has come on its connection before, head and body alike.

        The first reply that is taken for that to another request is such a copy, also if it comes late. A reply that is
        equal by chance is requested once more.
        """
        came = self._replies.setdefault(response.extensions["network_stream"], set())
        reply = hash((response.status_code, tuple(response.headers.raw), body))
        if reply in came:
            raise UnansweredError("the same reply has come on its connection before")
        came.add(reply)

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
            yield self._new
        finally:
            streams.release()

    async def aclose(self) -> None:
        """Close all idle connections; a later request opens new ones."""
        while self._idle:
            await self._idle.pop().aclose()

    def _of_this_loop(self) -> None:
        owner = os.getpid(), asyncio.get_running_loop()
        if self._owner != owner:
            # Connections belong to their loop and process. Do not touch those of another, such as a forked parent.
            self._new, self._idle = _client(_NEW, self._cookies), []
            self._owner = owner
            self._requests = anyio.Semaphore(AT_ONCE, fast_acquire=True)
            self._streams = anyio.Semaphore(STREAMS_AT_ONCE)


def _client(limits: httpx.Limits, cookies: CookieJar) -> httpx.AsyncClient:
    trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        return httpx.AsyncClient(verify=trust, limits=limits, mounts=_DIRECT, cookies=cookies)
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
