"""Refuse requests with foreign host names, from pages of other sites, or with an oversized head or body.

The server is for this machine only (loopback.py), including its public routes.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local.faults import reply
from ivcap_flows.local.loopback import refused_page
from ivcap_flows.local.refusals import refusal

__all__ = ["MOST_HEAD", "Gate"]

MOST_HEAD: Final = 64 * 1024
"""Maximum bytes of a request's target and headers together."""
_MOST_TARGET: Final = 16 * 1024
_MOST_BODY: Final = {"/provena": 10 * 1024 * 1024, "/_embedded": 1024 * 1024}
"""Maximum bytes of a body, by the start of its path. IVCAP's routes have their own limits; Provena's gateway takes 10
MB.
"""


class Gate:
    """The outermost layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
            return 414, f"The path and query of a request may have at most {_MOST_TARGET} bytes."
        if target + sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD:
            return 431, f"The headers of a request may have at most {MOST_HEAD} bytes."
        named = (_headers(scope, name) for name in (b"host", b"origin", b"sec-fetch-site"))
        return refused_page(*named)

    async def _bounded(self, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass at most this many bytes of body.

        Beyond that the application sees a disconnect, and the caller gets a 413.
        """
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
            status, headers, body = refusal(scope["path"], 413, f"A body may have at most {most} bytes.")
            await reply(send, (status, {**headers, "Connection": "close"}, body))


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]
