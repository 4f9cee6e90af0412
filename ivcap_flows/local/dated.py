"""What a gateway adds to each reply: a number, and the Date from the clock of both platforms, which can be set."""

from __future__ import annotations

import uuid
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local import clock

__all__ = ["Dated"]


class Dated:
    """Wraps the whole server. The server's own Date header, with the machine's time, is switched off.

    By the number, a reply differs from every other one, as it does behind most gateways: two requests of one second get
    the same otherwise.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(clock.now() // 1000, usegmt=True).encode()
                own = [(b"date", date), (b"x-request-id", uuid.uuid4().hex.encode())]
                message = {**message, "headers": [*own, *message.get("headers", ())]}
            await send(message)

        await self._app(scope, receive, dated)
