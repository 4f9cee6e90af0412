"""The server: both platforms on one port, from the first line of its environment to the end of its last job's runner.

The socket is bound before anything is assembled, so that every part knows its URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ivcap_flows import __version__
from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local import clock, control, provena
from ivcap_flows.local.dated import Dated
from ivcap_flows.local.directory import Directory, write_atomically
from ivcap_flows.local.faults import TRANSPORT, FaultLayer, parse_rule
from ivcap_flows.local.gate import MOST_HEAD, Gate
from ivcap_flows.local.ivcap.app import create_app
from ivcap_flows.local.ivcap.jobs.dispatch import Dispatcher
from ivcap_flows.local.ivcap.platform import Platform
from ivcap_flows.local.ivcap.routing import on_http_error
from ivcap_flows.local.likeness import Likeness
from ivcap_flows.local.refusals import caller_gone
from ivcap_flows.local.settings import VISIBILITY_DELAY
from ivcap_flows.local.tokens import LIFETIME

__all__ = ["Options", "run"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_GRACE: Final = 2
"""Seconds that open requests get when the server ends."""
_ENDLESS_HEAD: Final = 4 * MOST_HEAD
"""Maximum bytes to read while waiting for a head's end. A shorter head is refused with the platform's message."""


@dataclass(frozen=True)
class Options:
    """How to serve, as `ivcap_flows.local.serve` explains it."""

    env_file: Path | None
    idle: float | None
    announce: bool
    seed: int | None
    s3: str | None
    likeness: Likeness


class _Connection(HttpToolsProtocol):
    """Puts its transport into the scope, for faults that end a connection, and limits the size of a head."""

    _head: int | None = None
    """Bytes read of the current head; None between heads."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]
        self._head = 0

    def on_headers_complete(self) -> None:
        self._head = None
        # An absolute target names a host, too (RFC 9112, section 3.2.2). The gate checks each that is named.
        named = re.match(rb"\w+://([^/?]*)", self.url)
        if named:
            self.headers.append((b"host", named[1]))
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > _ENDLESS_HEAD:
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
                self.transport.close()


class _Server(uvicorn.Server):
    """Runs until a signal, or until it has been idle for `idle` seconds."""

    def __init__(self, config: uvicorn.Config, layer: FaultLayer, dispatcher: Dispatcher, idle: float | None) -> None:
        super().__init__(config)
        self._layer, self._dispatcher, self._idle = layer, dispatcher, idle
        self._last = time.monotonic()
        self._seen = -1

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a signal end the server in order.

        Uvicorn would raise it again, which would skip the rest of the shutdown.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def on_tick(self, counter: int) -> bool:
        if self._idle is not None:
            seen = self.server_state.total_requests
            if seen != self._seen or self._layer.in_flight or self._dispatcher.active:
                self._seen, self._last = seen, time.monotonic()
            elif time.monotonic() - self._last > self._idle:
                return True
        return await super().on_tick(counter)


def _environment(url: str, platform: Platform) -> dict[str, str]:
    tokens = platform.tokens
    # If the clock is set in the past, it may be reset to the machine's time.
    lifetime = LIFETIME + max(0.0, clock.machine() - clock.seconds())
    return {
        "IVCAP_URL": url,
        "IVCAP_JWT": tokens.issue(platform.first, lifetime=lifetime),
        "IVCAP_JWT_2": tokens.issue(platform.second, lifetime=lifetime),
        "IVCAP_JWT_EXPIRED": tokens.issue(platform.first, lifetime=-3600),
    }


def _bind(host: str, port: int) -> socket.socket:
    # asyncio disables Nagle's algorithm only for sockets that name their protocol; otherwise replies wait some 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        step = "Choose another port, or 0 for any that is free."
        raise EmbeddedPlatformError(
            f"The embedded platform cannot listen on {host}:{port} ({error.strerror}). {step}"
        ) from error
    return listener


def run(host: str, port: int, directory: Path, options: Options) -> None:
    """Serve until a signal or until idle. Raises EmbeddedPlatformError, NewerSchemaError."""
    place = Directory(directory.expanduser().absolute())
    place.prepare()
    lock = place.claim()
    if lock is None:
        server = place.server() or {}
        raise EmbeddedPlatformError(
            f"Another server already serves {place.root} (process {server.get('pid')}, {server.get('url')})."
            " Use that one, stop it, or choose another folder.",
            directory=str(place.root),
        )
    try:
        with _bind(host, port) as listener:
            asyncio.run(_serve(listener, host, place, options))
    finally:
        os.close(lock)


class _Platforms:
    """Both platforms behind one socket, with what `/_embedded` shows and changes."""

    def __init__(self, place: Directory, url: str, seed: int | None, s3: str | None) -> None:
        self.token = secrets.token_urlsafe(24)
        self.ivcap = Platform(place, seed)
        try:
            self.ivcap.changes.bind()
            self.provena = provena.EmbeddedProvena(
                place.root, url, VISIBILITY_DELAY, self.ivcap.seed, self._job_fault, s3
            )
            self.environment = _environment(url, self.ivcap) | provena.environment(place.root, url, s3)
        except BaseException:
            self.ivcap.close()
            raise
        controls: list[Any] = control.routes(
            self.about, lambda: self.layer, self.token, self.ivcap.keep_clock, self._decide_login, self.be_like
        )
        routes = [*controls, Mount("/provena", self.provena.app), Mount("/", create_app(self.ivcap))]
        # A path with a line feed matches no mount.
        handlers = {HTTPException: on_http_error, ClientDisconnect: caller_gone}
        self.layer = FaultLayer(Starlette(routes=routes, exception_handlers=handlers))

    def about(self) -> dict[str, Any]:
        return {
            "instance": self.ivcap.instance,
            "visibility_delay": self.ivcap.likeness.visibility_delay,
            "version": __version__,
            "provena": True,
            "s3": self.environment.get("AWS_ENDPOINT_URL_S3"),
            "like": self.ivcap.likeness.name,
            "speed": self.ivcap.likeness.speed,
        }

    def be_like(self, wanted: Likeness) -> None:
        self.ivcap.likeness, self.provena.jobs.workers = wanted, wanted.workers
        self.layer.manners = [parse_rule(dict(rule)) for rule in wanted.rules]

    def _job_fault(self, sub_type: str) -> str | None:
        return self.layer.job_fault(sub_type)

    async def _decide_login(self, *, lifetime: float | None = None, **decision: Any) -> bool:
        held = {} if lifetime is None else {"lifetime": lifetime}
        return await self.ivcap.decide_login(**decision, **held) or await self.provena.decide_login(**decision)

    async def close(self) -> None:
        await self.provena.stop()
        self.ivcap.close()


async def _serve(listener: socket.socket, host: str, place: Directory, options: Options) -> None:
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    platforms = _Platforms(place, url, options.seed, options.s3)
    try:
        platforms.be_like(options.likeness)
        await platforms.provena.start()
        dispatcher = Dispatcher(platforms.ivcap)
        config = uvicorn.Config(
            Dated(Gate(platforms.layer)),
            http=_Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE,
        )
        server = _Server(config, platforms.layer, dispatcher, options.idle)
        process = {"url": url, "pid": os.getpid(), "control": platforms.token, "environment": platforms.environment}
        jobs = asyncio.create_task(dispatcher.run())
        try:
            write_atomically(place.server_file, json.dumps(platforms.about() | process, indent=1).encode())
            _publish(platforms.environment, options.env_file, announce=options.announce)
            await server.serve(sockets=[listener])
        finally:
            place.server_file.unlink(missing_ok=True)
            jobs.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await jobs
    finally:
        await platforms.close()


def _publish(environment: dict[str, str], env_file: Path | None, *, announce: bool) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in environment.items())
    if env_file is not None:
        write_atomically(env_file.expanduser().absolute(), lines.encode())
    if announce:
        print(lines, end="", flush=True)  # noqa: T201 - this output is the command's purpose
