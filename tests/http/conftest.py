"""Two real servers on loopback sockets: one of scripted replies, one of scripted bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scripted_server import ScriptedServer
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ivcap_flows.http.session import Session


@dataclass
class Upload:
    """A tus endpoint: keeps the bytes, and does what `faults` says, one a request."""

    data: bytearray = field(default_factory=bytearray)
    faults: list[str] = field(default_factory=list)
    patches: list[tuple[int, int]] = field(default_factory=list)

    async def __call__(self, request: Request) -> Response:
        if request.headers.get("tus-resumable") != "1.0.0":
            return Response(status_code=412)
        if request.method == "HEAD":
            return Response(status_code=200, headers={"Upload-Offset": str(len(self.data))})
        fault = self.faults.pop(0) if self.faults else ""
        offset = int(request.headers["upload-offset"])
        announced = int(request.headers["content-length"])
        if request.headers.get("content-type") != "application/offset+octet-stream":
            return Response(status_code=415)
        if fault == "busy":
            return Response(status_code=503, headers={"Retry-After": "0"})
        if offset != len(self.data):
            return Response(status_code=409)
        received = bytearray()
        try:
            async for block in request.stream():
                received += block
                if fault == "half" and len(received) >= announced // 2:
                    self.data += received
                    return Response(status_code=500, headers={"Connection": "close"})
        except ClientDisconnect:
            self.data += received
            return Response(status_code=400)
        self.patches.append((offset, len(received)))
        self.data += received
        if fault == "lost":  # stored, but the reply says otherwise
            return Response(status_code=502)
        headers = {} if fault == "silent" else {"Upload-Offset": str(len(self.data))}
        return Response(status_code=204, headers=headers)


class Scripted(ScriptedServer):
    """Takes uploads, too, which are not in `calls`."""

    def upload(self, path: str) -> Upload:
        endpoint = Upload()
        self.on(f"* {path}", endpoint)
        return endpoint

    def session(self, **options: Any) -> Session:
        return Session(self.url, platform="IVCAP", **options)

    async def answer(self, request: Request) -> Response:
        for answer in self._answers.get(f"* {request.url.path}", ()):
            if isinstance(answer, Upload):
                return await answer(request)
        return await super().answer(request)


@pytest.fixture(scope="session")
def http_listener() -> Iterator[Scripted]:
    scripted = Scripted()
    with scripted.running():
        yield scripted


@pytest.fixture
def web(http_listener: Scripted) -> Scripted:
    """The server of scripted replies, with nothing scripted."""
    http_listener.forget()
    return http_listener


class Wire:
    """A server that writes given bytes: one answer a request, the last for ever; None resets, "silence" says nothing.

    Each connection carries one exchange.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[bytes | str | None] = []
        self.requests: list[bytes] = []
        self.connections = 0

    def session(self, **options: Any) -> Session:
        return Session(self.url, platform="IVCAP", **options)

    @staticmethod
    def reply(status: str = "200 OK", body: bytes = b"", **headers: object) -> bytes:
        """The bytes of a reply; an underscore in a header's name is a hyphen."""
        fields = {"Content_Length": len(body), "Connection": "close"} | headers
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is None:
                writer.transport.abort()
            elif answer == "silence":
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    scripted = Wire()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield scripted
    server.close()
