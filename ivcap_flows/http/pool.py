"""Connections, kept open between requests and shared by the sessions of one client."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import lru_cache
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx

from ivcap_flows.http.lanes import Lanes

__all__ = ["Pool"]

_AT_ONCE: Final = 32
_STREAMS_AT_ONCE: Final = 128
# Idle connections are dropped before common servers drop them (uvicorn after 5 s), so that no write meets a dead one.
_KEPT: Final = 4.0
# A proxy of the environment is not asked for this machine itself, where the embedded platforms listen.
_DIRECT: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Pool:
    """The open connections to all hosts that are asked; proxies and CA certificates are those of the environment.

    At most 32 at once for replies that are read whole, and 128 for streams: these are held for as long as their reader
    likes, and leave the others alone.
    """

    def __init__(self) -> None:
        # The transports of httpx without a client above them: its redirects, flows of authentication, hooks and merging
        # of defaults are not used here, and take as much time as a fifth of a small request.
        self._transports: dict[tuple[str | None, bool, bool], Lanes] = {}
        self._routes: dict[tuple[str, str, int | None, bool], Lanes] = {}
        self._cookies = httpx.Cookies()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: httpx.Request, *, streaming: bool = False) -> httpx.Response:
        """The reply, its body still to be read and then closed; `streaming` for one that is read at leisure."""
        transport = self._transport(request.url, streaming)
        if self._cookies:
            self._cookies.set_cookie_header(request)
        response = await transport.handle_async_request(request)
        response.request = request
        if "set-cookie" in response.headers:
            self._cookies.extract_cookies(response)
        return response

    async def aclose(self) -> None:
        """Close all connections; a later request opens them anew."""
        transports = [*self._transports.values()]
        self._transports, self._routes = {}, {}
        for transport in transports:
            await transport.aclose()

    def _transport(self, url: httpx.URL, streaming: bool) -> Lanes:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to their loop; those of another one, a forked parent's for instance, are left alone.
            self._loop, self._transports, self._routes = loop, {}, {}
        route = (url.scheme, url.host, url.port, streaming)
        if route not in self._routes:
            proxy = _proxy(url)
            secure = url.scheme == "https" or (proxy or "").startswith("https:")
            if (proxy, secure, streaming) not in self._transports:
                trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")) if secure else _nobody()
                self._transports[proxy, secure, streaming] = Lanes(
                    _STREAMS_AT_ONCE if streaming else _AT_ONCE,
                    _KEPT,
                    lambda limits: httpx.AsyncHTTPTransport(verify=trust, limits=limits, proxy=proxy),
                )
            self._routes[route] = self._transports[proxy, secure, streaming]
        return self._routes[route]


def _proxy(url: httpx.URL) -> str | None:
    """The proxy of the environment for a URL, as urllib (and requests with it) reads it; None for none."""
    if url.host in _DIRECT or proxy_bypass(url.netloc.decode("ascii")):
        return None
    known = getproxies()
    proxy = known.get(url.scheme) or known.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


@lru_cache(maxsize=4)
def _trust(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that httpx trusts in this environment; reading them takes a tenth of a second."""
    return httpx.create_ssl_context()


@lru_cache(maxsize=1)
def _nobody() -> ssl.SSLContext:
    """Trust in no certificate at all, for what is not encrypted: it needs none, and reading them takes long."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
