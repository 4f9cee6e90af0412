"""What no request gets past: foreign names of this host, pages of other sites, and bodies or heads without bound.

The server is for this machine alone. A browser on it also runs pages of others: one whose name was made to point to
127.0.0.1 asks with its own name as `Host`, and any page asks with its `Origin` or is marked `cross-site`. Neither is
answered, so that no page can read or drive the platforms, their public routes included.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local.faults import reply
from ivcap_flows.local.refusals import refusal

__all__ = ["MOST_HEAD", "Gate", "is_loopback"]

MOST_HEAD: Final = 64 * 1024
"""Bytes of a request's target and headers together."""
_MOST_TARGET: Final = 16 * 1024
_MOST_BODY: Final = {"/provena": 10 * 1024 * 1024, "/_twin": 1024 * 1024}
"""Bytes of a body by the start of its path. IVCAP's routes know their own; Provena's gateway takes 10 MB."""


def is_loopback(name: str) -> bool:
    """Whether a host's name or address means the machine that asks."""
    bare = name.lower().strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def _name(authority: str) -> str:
    """The host of `host:port`."""
    end = authority.find("]")
    return authority[: end + 1] if authority.startswith("[") and end > 0 else authority.partition(":")[0]


class Gate:
    """The outermost layer. A server that listens beyond this machine, which was asked for, has no names to check."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._guarded = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if refused is not None:
            await reply(send, refusal(scope["path"], *refused))
            return
        most = next((most for start, most in _MOST_BODY.items() if scope["path"].startswith(start)), None)
        if most is None:
            await self._app(scope, receive, send)
        else:
            await self._bounded(most, scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if target > _MOST_TARGET:
            return 414, f"The path and query of a request may have {_MOST_TARGET} bytes."
        if target + sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD:
            return 431, f"The headers of a request may have {MOST_HEAD} bytes."
        if not self._guarded:
            return None
        if not all(is_loopback(_name(host)) for host in _headers(scope, b"host")):
            return 421, "This server answers to the names of this machine alone, such as 127.0.0.1."
        foreign = any(not is_loopback(urlsplit(origin).hostname or "") for origin in _headers(scope, b"origin"))
        if foreign or "cross-site" in _headers(scope, b"sec-fetch-site"):
            return 403, "This server does not answer pages of other sites."
        return None

    async def _bounded(self, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application have so many bytes of body; of more it sees the caller gone, who is told 413."""
        announced = next(iter(_headers(scope, b"content-length")), "0")
        came, begun = 0, False
        over = announced.isdigit() and int(announced) > most

        async def counted() -> Message:
            nonlocal came, over
            if over:
                return {"type": "http.disconnect"}
            message = await receive()
            came += len(message.get("body", b""))
            over = came > most
            return {"type": "http.disconnect"} if over else message

        async def guarded(message: Message) -> None:
            nonlocal begun
            if begun or not over:
                begun = True
                await send(message)

        try:
            if not over:
                await self._app(scope, counted, guarded)
        except Exception:
            if not over:
                raise
        if over and not begun:
            status, headers, body = refusal(scope["path"], 413, f"A body may have {most} bytes.")
            await reply(send, (status, {**headers, "Connection": "close"}, body))


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]
