"""Runs a service that is a command, with the sidecar that IVCAP puts beside a container.

`IVCAP_BASE_URL` is a loopback server for this job alone. It speaks the batch protocol of ivcap-service
(`GET /next_job`, `POST /results/<job>`, `POST /events/<job>`) and passes everything under `/1/` on to the platform,
streaming, with the job's token and `Ivcap-Job-Id`: the artifacts that a service creates are the products of its job.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Final
from urllib.parse import urlsplit

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.service import ServiceError, ServiceJob

__all__ = ["run_command"]

_BLOCK: Final = 1024 * 1024
_PATIENCE: Final = 30.0
"""Seconds that a call waits for a platform that is being started again, and that a command may take to leave."""
_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "authorization", "ivcap-job-id"}
)
_DONE: Final = {"$schema": "urn:ivcap:schema.service.batch.done.1"}


class _Sidecar(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, ticket: dict[str, Any], directory: Directory, job: ServiceJob) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ticket, self.directory, self.job = ticket, directory, job
        self.asked = False
        self.result: tuple[str, bool, bytes] | None = None
        self.answered = threading.Event()


def _body(headers: Any, source: BufferedIOBase) -> Iterator[bytes]:
    """The blocks of a request body, with or without a length."""
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        while True:
            size = int(source.readline(1024).split(b";")[0], 16)
            if size == 0:
                while source.readline(65536).strip():
                    pass
                return
            yield from _read(source, size)
            source.readline(8)
    else:
        yield from _read(source, int(headers.get("Content-Length") or 0))


def _read(source: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size:
        block = source.read(min(size, _BLOCK))
        if not block:
            raise ConnectionError("the service closed its connection in the middle of a body")
        size -= len(block)
        yield block


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Sidecar

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are no part of a job's log."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        path = "/" + self.path.lstrip("/")
        if path.startswith("/1/"):
            self._pass_on(path)
            return
        body = b"".join(_body(self.headers, self.rfile))
        if self.command == "GET" and path == "/next_job":
            self._next_job()
        elif self.command == "POST" and path.startswith("/results/"):
            kind = self.headers.get("Content-Type") or "application/json"
            failed = (self.headers.get("Is-Error") or "").lower() == "true"
            if self.server.result is None:
                self.server.result = (kind, failed, body)
            self.server.answered.set()
            self._answer(200, b"{}")
        elif self.command == "POST" and path.startswith("/events/"):
            try:
                self.server.job.send_event(json.loads(body))
            except ValueError:
                self._answer(400, b'{"message":"An event is JSON."}')
            else:
                self._answer(200, b"{}")
        else:
            self._answer(404, b'{"message":"The sidecar has no such path."}')

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815 - the base class's names

    def _next_job(self) -> None:
        ticket = self.server.ticket
        document: dict[str, Any] = _DONE
        if not self.server.asked:
            self.server.asked = True
            content = {"in-content-type": "application/json", "in-content": ticket["request"]}
            document = {"id": ticket["job"], **content}
        self._answer(200, json.dumps(document).encode(), authorization=f"Bearer {ticket['token']}")

    def _pass_on(self, path: str) -> None:
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "").lower()
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        sent["Authorization"] = f"Bearer {self.server.ticket['token']}"
        sent["Ivcap-Job-Id"] = self.server.ticket["job"]
        connection = self._connect()
        if connection is None:
            self.close_connection = True
            self._answer(503, b'{"message":"The platform does not answer."}')
            return
        try:
            connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in (sent | ({"Transfer-Encoding": "chunked"} if chunked else {})).items():
                connection.putheader(name, value)
            connection.endheaders()
            for block in _body(self.headers, self.rfile):
                connection.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                connection.send(b"0\r\n\r\n")
            self._pass_back(connection.getresponse())
        finally:
            connection.close()

    def _pass_back(self, reply: http.client.HTTPResponse) -> None:
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or reply.status in (204, 304)
        if reply.getheader("Content-Length") is None and not bodiless:
            # The end of the body is the end of the connection.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        while not bodiless and (block := reply.read1(_BLOCK)):
            self.wfile.write(block)

    def _connect(self) -> http.client.HTTPConnection | None:
        """A connection to the platform wherever it answers now; None when it does not come back."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            server = self.server.directory.server()
            if server is not None:
                parts = urlsplit(server["url"])
                connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=600)
                try:
                    connection.connect()
                except OSError:
                    connection.close()
                else:
                    return connection
            time.sleep(0.2)
        return None


def run_command(ticket: dict[str, Any], directory: Directory, job: ServiceJob) -> Any:
    """Run the command until it has posted a result and left. Returns the result. Raises ServiceError."""
    controller = ticket["controller"]
    sidecar = _Sidecar(ticket, directory, job)
    threading.Thread(target=sidecar.serve_forever, daemon=True).start()
    environment = os.environ | {
        "IVCAP_BASE_URL": f"http://127.0.0.1:{sidecar.server_address[1]}",
        "IVCAP_SERVICE_ID": ticket["service"],
        "IVCAP_SERVICE_NAME": ticket["service_name"] or "",
    }
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is what the owner of the service registered
            controller["command"], cwd=controller.get("cwd"), env=environment, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise ServiceError(f"The command of the service cannot be started ({error}).") from error
    status = _wait(process, sidecar)
    if sidecar.result is None:
        raise ServiceError(f"The command of the service ended with exit status {status} and posted no result.")
    kind, failed, body = sidecar.result
    media = kind.split(";")[0].strip().lower()
    is_json = media == "application/json" or media.startswith("application/vnd.ivcap.")
    try:
        value = json.loads(body) if is_json else body
    except ValueError as error:
        raise ServiceError("The service posted a JSON result that is no JSON.") from error
    if failed:
        raise ServiceError(_error_text(value))
    if not is_json:
        return job.keep(None, body, kind, is_result=True) and None
    return value


def _error_text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("error") or value.get("message") or json.dumps(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _wait(process: subprocess.Popen[bytes], sidecar: _Sidecar) -> int:
    """The exit status. A command that stays long after its result is ended."""
    while process.poll() is None and not sidecar.answered.wait(0.05):
        pass
    try:
        return process.wait(_PATIENCE if sidecar.answered.is_set() else None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
