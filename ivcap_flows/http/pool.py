"""Connections, kept open between requests and shared by the sessions of one client."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import lru_cache
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.http.connection import Connection
from ivcap_flows.http.lanes import Lanes
from ivcap_flows.secrets import scrub_text

__all__ = ["Pool"]

_AT_ONCE: Final = 32
_STREAMS_AT_ONCE: Final = 128
# Idle connections are dropped before common servers drop them (uvicorn after 5 s), so that no write meets a dead one.
_KEPT: Final = 4.0
# A proxy of the environment is not asked for this machine itself, where the embedded platforms listen.
_DIRECT: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Pool:
    """The open connections to all hosts that are asked; proxies and CA certificates are those of the environment.

    To one host at most 32 at once for replies that are read whole, and 128 for streams: these are held for as long as
    their reader likes, and leave the others alone.
    """

    def __init__(self) -> None:
        # The transports of httpx without a client above them: its redirects, flows of authentication, hooks and merging
        # of defaults are not used here, and take as much time as a fifth of a small request.
        self._hosts: dict[tuple[str, str, int | None, bool], Lanes] = {}
        self._cookies = httpx.Cookies()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: httpx.Request, *, streaming: bool = False) -> httpx.Response:
        """The reply, its body still to be read and then closed; `streaming` for one that is read at leisure."""
        lanes = self._lanes(request.url, streaming)
        if self._cookies:
            self._cookies.set_cookie_header(request)
        response = await lanes.handle_async_request(request)
        response.request = request
        if "set-cookie" in response.headers:
            self._cookies.extract_cookies(response)
        return response

    async def aclose(self) -> None:
        """Close all connections; a later request opens them anew."""
        hosts, self._hosts = self._hosts, {}
        for lanes in hosts.values():
            await lanes.aclose()

    def _lanes(self, url: httpx.URL, streaming: bool) -> Lanes:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to their loop; those of another one, a forked parent's for instance, are left alone.
            self._loop, self._hosts = loop, {}
        host = (url.scheme, url.host, url.port, streaming)
        if host not in self._hosts:
            proxy = _proxy(url)
            secure = url.scheme == "https" or (proxy or "").startswith("https:")
            trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")) if secure else None
            self._hosts[host] = Lanes(
                _STREAMS_AT_ONCE if streaming else _AT_ONCE,
                lambda: Connection(trust, _KEPT) if proxy is None else _proxied(trust or _nobody(), proxy),
            )
        return self._hosts[host]


class _Proxied(httpx.AsyncHTTPTransport):
    """One connection through a proxy, opened when it is needed."""

    def __init__(self, trust: ssl.SSLContext, proxy: str) -> None:
        super().__init__(verify=trust, proxy=proxy, limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEPT))


def _proxied(trust: ssl.SSLContext, proxy: str) -> _Proxied:
    try:
        return _Proxied(trust, proxy)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"The proxy {scrub_text(proxy)} of the environment cannot be used: {error} Set HTTP_PROXY, HTTPS_PROXY or "
            "ALL_PROXY to a proxy of HTTP, or name this host in NO_PROXY."
        ) from error


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
    try:
        trust = httpx.create_ssl_context()
        trust.set_alpn_protocols(["http/1.1"])
        return trust
    except OSError as error:  # ssl.SSLError is one
        given = (("SSL_CERT_FILE", cert_file), ("SSL_CERT_DIR", cert_dir))
        named = " and ".join(f"{name}={value}" for name, value in given if value)
        raise ConfigurationError(
            f"The certificates to trust cannot be read ({named}): {error}. Correct the variable, or unset it."
        ) from error


@lru_cache(maxsize=1)
def _nobody() -> ssl.SSLContext:
    """Trust in no certificate at all, for what is not encrypted: it needs none, and reading them takes long."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
