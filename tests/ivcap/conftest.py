"""The client of the embedded platform in a process of its own, and of a server of scripted replies."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcap_flows.http.auth import StaticToken
from ivcap_flows.http.retry import Backoff
from ivcap_flows.ivcap.client import IvcapClient


@pytest.fixture(scope="session")
def embedded_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an embedded platform that serves while the tests run."""
    folder = tmp_path_factory.mktemp("embedded")
    written = folder / "environment"
    command = [sys.executable, "-m", "ivcap_flows.local", "serve", "--port", "0", "--dir", str(folder / "state")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--env-file", str(written)], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not (written.exists() and "IVCAP_JWT=" in written.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield dict(line.split("=", 1) for line in written.read_text().splitlines() if "=" in line)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
async def embedded(embedded_environment: dict[str, str]) -> AsyncIterator[IvcapClient]:
    """The client of the embedded platform."""
    token = StaticToken(embedded_environment["IVCAP_JWT"])
    async with IvcapClient(embedded_environment["IVCAP_URL"], token, budget=20) as client:
        yield client


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask again at once."""
    monkeypatch.setattr(Backoff, "ceiling", lambda self, attempt: 0.01)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Read until the record is done."""

    async def wait(read: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (record := await read()).done:
            assert time.monotonic() < deadline, record
            await asyncio.sleep(0.1)
        return record

    return wait


@dataclass
class Call:
    """A request that arrived."""

    route: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Platform:
    """Answers by route; a list is used up to its last, an unknown route is 404. Every request is in `calls`."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self._answers: dict[str, list[Any]] = {}

    def on(self, route: str, *answers: Any) -> None:
        self._answers[route] = list(answers)

    def to(self, route: str) -> list[Call]:
        return [call for call in self.calls if call.route == route]

    async def __call__(self, request: Request) -> Response:
        route = f"{request.method} {request.url.path}"
        body = await request.body()
        headers = {name.lower(): value for name, value in request.headers.items()}
        value = json.loads(body) if body and "json" in headers.get("content-type", "json") else body.decode() or None
        self.calls.append(Call(route, dict(request.query_params), headers, value))
        answers = self._answers.get(route)
        if not answers:
            return JSONResponse({"message": "not found", "id": route}, 404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(self.calls[-1])
        return answer if isinstance(answer, Response) else JSONResponse(answer)


@pytest.fixture(scope="session")
def platform_listener() -> Iterator[Platform]:
    platform = Platform()

    async def hand_over(request: Request) -> Response:
        return await platform(request)

    app = Starlette(
        routes=[Route("/{path:path}", hand_over, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])]
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    platform.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield platform
    server.should_exit = True
    thread.join(5)


@pytest.fixture
def scripted(platform_listener: Platform) -> Platform:
    """The server of scripted replies, with nothing scripted."""
    platform_listener.calls.clear()
    platform_listener._answers.clear()
    return platform_listener


@pytest.fixture
async def client(scripted: Platform) -> AsyncIterator[IvcapClient]:
    """The client of the scripted server."""
    async with IvcapClient(scripted.url, StaticToken("t0ken"), budget=2) as made:
        yield made


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob.bin"
    path.write_bytes(os.urandom(200_000))
    return path
