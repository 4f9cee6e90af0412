"""A proxy in front of the embedded platforms that changes replies, as deployments may that differ from them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from scripted_server import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["ChangingProxy", "Given"]

_OWN = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding", "upgrade"}
"""Headers of one connection."""


@dataclass
class Given:
    """A reply on its way to the client, after `slow` seconds, and the body of its request."""

    asked: bytes
    status: int
    headers: dict[str, str]
    body: bytes
    slow: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @json.setter
    def json(self, value: Any) -> None:
        self.body = json.dumps(value).encode()


Change = Callable[[Given], None]


class ChangingProxy:
    """Hands on each request without what `ignored` matches, and its reply as `on` says.

    `seen` has all requests, such as `GET /1/orders?limit=1`.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.seen: list[str] = []
        self.forget()

    def forget(self) -> None:
        self.seen.clear()
        self.ignored = "$^"
        self._changes: list[tuple[re.Pattern[str], Change]] = []

    def on(self, request: str, change: Change) -> None:
        """Change the replies to requests that this pattern matches from their beginning to their end."""
        self._changes.append((re.compile(request), change))

    @contextmanager
    def running(self) -> Iterator[None]:
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])
        with serving(lambda url: app, date=False) as self.url:
            yield

    async def _answer(self, request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = f"{request.method} {target}"
        self.seen.append(asked)
        body = await request.body()
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=60) as client:
            reply = await client.request(
                request.method,
                self.upstream + re.sub(self.ignored, "", target),
                headers=headers | {"accept-encoding": "identity"},
                content=body,
            )
        kept = {name: value for name, value in reply.headers.items() if name not in _OWN}
        given = Given(body, reply.status_code, kept, reply.content)
        for pattern, change in self._changes:
            if pattern.fullmatch(asked):
                change(given)
        await asyncio.sleep(given.slow)
        return Response(given.body, given.status, given.headers)
