"""Set the Date header of each reply from the clock of both platforms, which can be set."""

from __future__ import annotations

from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local import clock

__all__ = ["Dated"]


class Dated:
    """Wraps the whole server. The server's own Date header, with the machine's time, is switched off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(clock.now() // 1000, usegmt=True).encode()
                message = {**message, "headers": [(b"date", date), *message.get("headers", ())]}
            await send(message)

        await self._app(scope, receive, dated)
