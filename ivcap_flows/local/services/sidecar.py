"""The sidecar that IVCAP runs beside a container: to a service, it is the platform.

It is a server on the loopback interface. It accepts the results and events that the service SDKs post (`POST
/results/<job>`, `POST /events/<job>`), hands out jobs in the batch protocol of ivcap-service (`GET /next_job`), and
reads secrets (`GET /1/secret`). It streams everything else under `/1/` to the platform, with the job's token and
`Ivcap-Job-Id`, so that artifacts which a service creates are products of its job. Since every caller acts with that
token, it only answers processes of its own user.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ivcap_flows.identity import urn_id
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.loopback import refused_page
from ivcap_flows.local.peer import is_own
from ivcap_flows.local.proof import connected
from ivcap_flows.local.services.job import ServiceJob
from ivcap_flows.local.services.posted import Posted

__all__ = ["Seat", "Sidecar"]

_BLOCK: Final = 1024 * 1024
_PATIENCE: Final = 30.0
"""Seconds that a call waits while the platform restarts."""
_LONGEST: Final = 600.0
"""Seconds to wait for the platform's next byte."""
_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "authorization", "ivcap-job-id"}
)
_DONE: Final = {"$schema": "urn:ivcap:schema.service.batch.done.1"}


@dataclass
class Seat:
    """One job that a sidecar acts for. The first result counts; `answered` is set when there is one."""

    ticket: dict[str, Any]
    job: ServiceJob
    fetched: bool = False
    result: Posted | None = None
    answered: threading.Event = field(default_factory=threading.Event)

    def take(self, posted: Posted) -> None:
        if self.result is None:
            self.result = posted
        self.answered.set()


class Sidecar(ThreadingHTTPServer):
    """Serves from its creation until the process ends. `url` is the `IVCAP_BASE_URL` of the service."""

    daemon_threads = True
    # Many jobs of a long-running service may call at the same time.
    request_queue_size = 128

    def __init__(self, directory: Directory) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory
        self._seats: dict[str, Seat] = {}
        self._left: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def seat(self, ticket: dict[str, Any], job: ServiceJob) -> Seat:
        """Act for a job from now on."""
        seat = self._seats[urn_id(job.id)] = Seat(ticket, job)
        return seat

    def leave(self, job: str) -> None:
        """Stop acting for a job. Later messages of its service are accepted and dropped."""
        self._left.add(urn_id(job))
        self._seats.pop(urn_id(job), None)

    def has_left(self, job: str) -> bool:
        return urn_id(job) in self._left

    def of(self, job: str | None) -> Seat | None:
        """Return the seat of a job, given as a URN or a bare id.

        Without a name, return the only seat, if there is just one.
        """
        if job is not None:
            return self._seats.get(urn_id(job))
        seats = list(self._seats.values())
        return seats[0] if len(seats) == 1 else None

    def next_seat(self) -> Seat | None:
        """Return a job that has not been fetched yet, or None."""
        seat = next((seat for seat in list(self._seats.values()) if not seat.fetched), None)
        if seat is not None:
            seat.fetched = True
        return seat


def _body(headers: Any, source: BufferedIOBase) -> Iterator[bytes]:
    """Yield the blocks of a request body, with or without a length."""
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
    server: Sidecar

    def setup(self) -> None:
        super().setup()
        self._from_own = is_own(self.client_address, ("127.0.0.1", self.server.server_address[1]))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: requests do not belong in a job's log."""

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
        told = (self.headers.get_all(name, []) for name in ("Host", "Origin", "Sec-Fetch-Site"))
        if not self._from_own:
            self._refuse(403, "The sidecar serves only processes of its own user.")
        elif (refused := refused_page(*told)) is not None:
            self._refuse(*refused)
        elif self.headers.get("Ivcap-Forward-Url"):
            self._refuse(501, "The sidecar forwards no calls to other hosts; unset IVCAP_PROXY_URL.")
        elif self.command == "GET" and path.startswith("/1/secret?"):
            self._secret(path)
        elif path.startswith("/1/"):
            self._pass_on(path)
        else:
            self._own(path, b"".join(_body(self.headers, self.rfile)))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815 - the base class's names

    def _refuse(self, status: int, message: str) -> None:
        # The rest of the body is not read, so the connection cannot be used again.
        self._answer(status, json.dumps({"message": message}).encode(), Connection="close")

    def _own(self, path: str, body: bytes) -> None:
        """Handle the batch protocol, and results and events of both protocols."""
        kind, _, name = path.removeprefix("/").partition("/")
        if self.command == "GET" and path == "/next_job":
            self._next_job()
        elif self.command != "POST" or kind not in ("results", "events"):
            self._answer(404, b'{"message":"The sidecar has no such path."}')
        elif (seat := self.server.of(unquote(name))) is None:
            known = self.server.has_left(unquote(name))
            self._answer(*((200, b"{}") if known else (404, b'{"message":"There is no such job here."}')))
        elif kind == "results":
            failed = (self.headers.get("Is-Error") or "").lower() == "true"
            seat.take(Posted(self.headers.get("Content-Type") or "application/json", failed, body))
            self._answer(200, b"{}")
        else:
            try:
                seat.job.send_event(json.loads(body))
            except ValueError:
                self._answer(400, b'{"message":"An event is JSON."}')
            else:
                self._answer(200, b"{}")

    def _next_job(self) -> None:
        seat = self.server.next_seat()
        if seat is None:
            self._answer(200, json.dumps(_DONE).encode())
            return
        content = {"in-content-type": "application/json", "in-content": seat.ticket["request"]}
        document = json.dumps({"id": seat.ticket["job"], **content}).encode()
        self._answer(200, document, authorization=f"Bearer {seat.ticket['token']}")

    def _caller(self) -> Seat | None:
        """Return the job that a call is made for; None after refusing the call."""
        job = self.headers.get("Ivcap-Job-Id")
        seat = self.server.of(job)
        if seat is None:
            why = (
                "names no job, and there is not exactly one" if job is None else "is made for a job that is not running"
            )
            self._refuse(403, f"The call {why}. The SDKs name it in the header Ivcap-Job-Id.")
        return seat

    def _secret(self, path: str) -> None:
        """Return a secret of the job's account in the form that the SDKs' get_secret reads."""
        seat = self._caller()
        if seat is None:
            return
        asked = dict(parse_qsl(urlsplit(path).query))
        query = urlencode([(name, asked[name]) for name in ("secret-name", "secret-type") if name in asked])
        connection = self._connect()
        if connection is None:
            return
        try:
            token = {"Authorization": f"Bearer {seat.ticket['token']}"}
            connection.request("GET", f"/1/secrets?{query}", headers=token)
            reply = connection.getresponse()
            body = reply.read()
        finally:
            connection.close()
        if reply.status == 200:
            body = json.dumps({"secret-value": json.loads(body)["secret-value"]}).encode()
        self._answer(reply.status, body)

    def _pass_on(self, path: str) -> None:
        seat = self._caller()
        connection = self._connect() if seat is not None else None
        if seat is None or connection is None:
            return
        chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "").lower()
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        sent["Authorization"] = f"Bearer {seat.ticket['token']}"
        sent["Ivcap-Job-Id"] = seat.ticket["job"]
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
            # Without a length, the end of the connection marks the end of the body.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        while not bodiless and (block := reply.read1(_BLOCK)):
            self.wfile.write(block)

    def _connect(self) -> http.client.HTTPConnection | None:
        """Return a connection to the platform at its current address; None after a 503 if it does not come back."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            server = self.server.directory.server()
            # The request has the token of the job, so it goes to this server only.
            connection = None if server is None else connected(server)
            if connection is not None:
                connection.sock.settimeout(_LONGEST)
                return connection
            time.sleep(0.2)
        self._refuse(503, "The platform does not answer.")
        return None
