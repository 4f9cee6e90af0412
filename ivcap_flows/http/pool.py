"""Connections, kept open between requests and shared by the sessions of one client."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import lru_cache
from typing import Final

import httpx

__all__ = ["Pool"]

# Idle connections are dropped before common servers drop them (uvicorn after 5 s), so that no write meets a dead one.
# All that were needed at once are kept: with fewer, each of many requests at once would open and close one.
_LIMITS: Final = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=4.0)
_STREAM_LIMITS: Final = httpx.Limits(max_connections=128, max_keepalive_connections=32, keepalive_expiry=4.0)
# A proxy of the environment is not asked for this machine itself, where the embedded platforms listen.
_DIRECT: Final = ("all://127.0.0.1", "all://localhost", "all://[::1]")


class Pool:
    """The open connections to all hosts that are asked; proxies and CA certificates are those of the environment.

    At most 32 at once for replies that are read whole, and 128 for streams: these are held for as long as their reader
    likes, and leave the others alone.
    """

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def opened(self, *, streaming: bool = False) -> httpx.AsyncClient:
        """The client of httpx for the running loop, and for streams or all else."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to their loop; those of another one, a forked parent's for instance, are left alone.
            self._loop, self._clients = loop, {}
        if streaming not in self._clients:
            self._clients[streaming] = httpx.AsyncClient(
                verify=_trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
                limits=_STREAM_LIMITS if streaming else _LIMITS,
                follow_redirects=False,
                mounts=dict.fromkeys(_DIRECT),
            )
        return self._clients[streaming]

    async def aclose(self) -> None:
        """Close all connections; a later request opens them anew."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


@lru_cache(maxsize=4)
def _trust(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that httpx trusts in this environment; reading them takes a tenth of a second."""
    return httpx.create_ssl_context()
