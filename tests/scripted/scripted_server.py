"""A server of scripted replies on a loopback socket, for the clients of the platforms."""

from __future__ import annotations

import inspect
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Call", "ScriptedServer", "serving"]


@dataclass
class Call:
    """A request that arrived whole. `route` is as in `GET /1/orders`."""

    route: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes
    peer: str

    @property
    def body(self) -> Any:
        """The content as a text, or what it holds as JSON."""
        if self.content and "json" in self.headers.get("content-type", "json"):
            return json.loads(self.content)
        return self.content.decode() or None


class ScriptedServer:
    """Answers by route: JSON, a response, or what a function makes of the call, or a coroutine of the request. Several
    are used up to the last. `* /1/orders` is for methods without answers of their own; an unknown route is 404. Every
    request is in `calls`."""

    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.calls: list[Call] = []
        self._answers: dict[str, list[Any]] = {}

    def on(self, route: str, *answers: Any) -> None:
        self._answers[route] = list(answers)

    def to(self, route: str) -> list[Call]:
        return [call for call in self.calls if call.route == route]

    @contextmanager
    def running(self) -> Iterator[None]:
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self.answer, methods=methods)])
        with serving(lambda url: app) as self.url:
            yield

    async def answer(self, request: Request) -> Response:
        route, path = f"{request.method} {request.url.path}", request.url.path
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(route, dict(request.query_params), headers, await request.body(), str(request.client))
        self.calls.append(call)
        answers = self._answers.get(route) or self._answers.get(f"* {path}")
        if not answers:
            return JSONResponse({"message": f"nothing at {route}"}, 404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if inspect.iscoroutinefunction(answer):
            answer = await answer(request)
        elif callable(answer) and not isinstance(answer, Response):
            answer = answer(call)
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def numbered(app: ASGIApp) -> ASGIApp:
    """The app with a number on each reply, as most gateways give it, so that none is a copy of another."""
    numbers = itertools.count()

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                number = (b"x-request-id", str(next(numbers)).encode())
                message = {**message, "headers": [*message.get("headers", ()), number]}
            await send(message)

        await app(scope, receive, sent)

    return served


@contextmanager
def serving(make: Callable[[str], Any], *, lifespan: Literal["on", "off"] = "off", date: bool = True) -> Iterator[str]:
    """The URL, on a random port, of the app that `make` gives for it; a thread serves it. Without `date`, replies have
    only the Date that the app gives them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            numbered(make(url)), log_level="critical", log_config=None, lifespan=lifespan, date_header=date
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield url
        server.should_exit = True
        thread.join(5)
