"""The host of a long-running service: `python -m ivcap_flows.local.services.lambdas <directory> <service>`.

It starts the service's HTTP server on a free port and waits until it is ready. Then it sends it the jobs that the
platform puts into the inbox, as IVCAP's REST controller does for services written with ivcap-ai-tool: a `POST` with
`job-id`, `timeout` and `authorization`. A 200 has the result; a 204 names where to ask later. The service also posts
its result to the sidecar. The first result counts. The host outlives the platform's server: it finishes its jobs, and
ends if there is no server to give it more.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import psutil

from ivcap_flows.identity import urn_id
from ivcap_flows.local.directory import Directory, sync_folder, write_atomically
from ivcap_flows.local.services.hosting import HostFiles
from ivcap_flows.local.services.job import ServiceJob
from ivcap_flows.local.services.mapping import read_mapping
from ivcap_flows.local.services.posted import Posted, ended, outbox_record, with_products
from ivcap_flows.local.services.processes import end_process, note_process, noted_process, service_environment
from ivcap_flows.local.services.sidecar import Seat, Sidecar

__all__ = ["main"]

_TICK: Final = 0.05
_IDLE: Final = 300.0
"""Seconds without a job after which a service is stopped."""
_ALONE: Final = 3.0
"""Seconds without a server of the platform after which a service is stopped that has no job, nor one that waits."""
_READY: Final = 300.0
"""Seconds that a service gets to become ready."""
_READY_URL: Final = "/_healtz"
"""The path by which ivcap-ai-tool reports that it is ready."""
_LAST_LINES: Final = 2.0
"""Seconds to wait for the last output of a service that has ended."""
_HOLD: Final = 60
"""Seconds that the service may hold a request before it replies 204."""
_RETRY: Final = 3.0
"""Seconds between requests for a result if the service names no time."""


@dataclass
class _Flight:
    """A job that the service works on. Holding `lock` shows the platform that a process takes care of it."""

    seat: Seat
    lock: int
    log: BinaryIO
    ripe: bool = False
    """Whether the result was there in the previous round already, so that all output before it is in the log."""


class Host:
    def __init__(self, directory: Directory, service: str) -> None:
        self.directory = directory
        self.files = HostFiles.of(directory, service)
        self.plan = self.files.plan()
        self.sidecar = Sidecar(directory)
        self.port = _free_port()
        self.flights: dict[str, _Flight] = {}
        self.ready = threading.Event()
        self.lock = threading.Lock()

    def run(self) -> None:
        """Serve until there is no reason to; leave no process behind."""
        try:
            process = self._start()
        except OSError as error:
            self._refuse_all(f"The server of the service cannot be started ({error}).")
            return
        try:
            note_process(self.files.server, process.pid)
            self._serve(process)
        finally:
            with contextlib.suppress(psutil.Error):
                end_process(psutil.Process(process.pid))
            self.files.server.unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[bytes]:
        ticket = {"service": self.plan.service, "service_name": self.plan.service_name}
        listen = {"HOST": "127.0.0.1", "PORT": str(self.port)}
        process = subprocess.Popen(  # noqa: S603 - the command is what the owner of the service registered
            list(self.plan.command),
            cwd=self.plan.cwd,
            env=service_environment(ticket, self.sidecar.url) | listen,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._copying = threading.Thread(target=self._copy_log, args=(process.stdout,), daemon=True)
        self._copying.start()
        threading.Thread(target=self._watch_ready, daemon=True).start()
        return process

    def _copy_log(self, said: BinaryIO) -> None:
        """Copy the output of the service to the log of every job that it works on."""
        for line in iter(said.readline, b""):
            with self.lock:
                for out in (sys.stdout.buffer, *(flight.log for flight in self.flights.values())):
                    with contextlib.suppress(OSError):
                        out.write(line)
                        out.flush()

    def _watch_ready(self) -> None:
        path = self.plan.ready_url or _READY_URL
        while not self.ready.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = self._call("GET", path, timeout=5)[0]
                # If the plan names no path, a server is ready as soon as it answers with less than 500.
                if status < 300 or (self.plan.ready_url is None and status < 500):
                    self.ready.set()
                    return
            time.sleep(_TICK)

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        begun = busy = with_platform = time.monotonic()
        while True:
            status, now = process.poll(), time.monotonic()
            self._land()
            if status is not None:
                self._copying.join(_LAST_LINES)
                self._end(status)
                return
            retiring = self._retiring()
            if not self.ready.is_set() and now - begun > _READY:
                self._refuse_all(f"The server of the service was not ready after {_READY:g} seconds.{self._said()}")
                return
            if self.ready.is_set() and not retiring:
                for job in self.files.waiting():
                    self._take_off(job)
            if self.flights or self.files.waiting():
                busy = now
            if _platform_lives(self.directory):
                with_platform = now
            alone = now - max(busy, with_platform) > _ALONE
            if not self.flights and (retiring or alone or now - busy > _IDLE):
                return
            time.sleep(_TICK)

    def _retiring(self) -> bool:
        """Return whether the service has to be started in another way by now."""
        if self.files.retire.exists():
            return True
        mapping = read_mapping(self.directory, self.plan.service)
        return mapping is None or (mapping.command, mapping.cwd) != (self.plan.command, self.plan.cwd)

    def _claim(self, bare: str) -> tuple[dict[str, Any], Path, int] | None:
        """Take a job out of the inbox for good; return its ticket, folder and lock, or None if it was started."""
        folder, entry = self.directory.runs / bare, self.files.inbox / bare
        if (folder / "started").exists():
            # A platform that starts passes on again what it sees waiting. Its lock is this process's own, and to wait
            # for that would be without end.
            entry.unlink(missing_ok=True)
            return None
        try:
            ticket = json.loads((folder / "job.json").read_bytes())
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            entry.unlink(missing_ok=True)
            return None
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            started = os.open(folder / "started", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            os.close(lock)
            return None
        finally:
            entry.unlink(missing_ok=True)
        server = noted_process(self.files.server)
        note_process(started, server.pid if server else os.getpid())
        sync_folder(folder)
        return ticket, folder, lock

    def _take_off(self, bare: str) -> None:
        claimed = self._claim(bare)
        if claimed is None:
            return
        ticket, folder, lock = claimed
        seat = self.sidecar.seat(ticket, _job_of(self.directory, ticket))
        with self.lock:
            self.flights[bare] = _Flight(seat, lock, (folder / "log").open("ab", buffering=0))
        threading.Thread(target=self._ask, args=(seat,), daemon=True).start()

    def _ask(self, seat: Seat) -> None:
        """Send the request and wait for its result, unless the result arrives at the sidecar."""
        headers = {
            "Content-Type": "application/json",
            "job-id": seat.ticket["job"],
            "timeout": str(_HOLD),
            "authorization": f"Bearer {seat.ticket['token']}",
        }
        try:
            body = json.dumps(seat.ticket["request"]).encode()
            status, told, answer = self._call("POST", self.plan.path, body, headers)
            later = f"{self.plan.path.rstrip('/')}/jobs/{urn_id(seat.job.id)}"
            while status == 204 and not seat.answered.wait(_seconds(told)):
                status, told, answer = self._call("GET", urlsplit(told.get("Location") or later).path)
                if status == 404:
                    self._land_with(seat, ended("error", "The server of the service no longer knows the job."))
                    return
        except (OSError, http.client.HTTPException) as error:
            if not seat.answered.wait(1):
                self._land_with(seat, ended("error", f"The server of the service broke the connection ({error!r})."))
            return
        if status != 204:
            seat.take(Posted(told.get("Content-Type") or "application/octet-stream", status >= 400, answer))

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def _land(self) -> None:
        """Write the results of jobs that are answered."""
        for flight in list(self.flights.values()):
            if flight.seat.result is None:
                continue
            if not flight.ripe:
                flight.ripe = True
            else:
                self._land_with(flight.seat, outbox_record(flight.seat.result, flight.seat.job))

    def _land_with(self, seat: Seat, record: dict[str, Any]) -> None:
        bare = urn_id(seat.job.id)
        with self.lock:
            flight = self.flights.pop(bare, None)
        if flight is None:
            return
        self.sidecar.leave(seat.job.id)
        flight.log.close()
        _put_down(self.directory, seat.job, record)
        os.close(flight.lock)

    def _end(self, status: int) -> None:
        """Handle the end of the service's server: its jobs fail as errors; waiting jobs get another server."""
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        if not self.ready.is_set():
            self._refuse_all(f"The server of the service {how} before it was ready.{self._said()}")
        for flight in list(self.flights.values()):
            self._land_with(flight.seat, ended("error", f"The server of the service {how} while it had this job."))

    def _refuse_all(self, message: str) -> None:
        """End the jobs in the inbox as errors."""
        for bare in self.files.waiting():
            claimed = self._claim(bare)
            if claimed is not None:
                _put_down(self.directory, _job_of(self.directory, claimed[0]), ended("error", message))
                os.close(claimed[2])

    def _said(self) -> str:
        words = self.files.last_words()
        return f" Its last output: {words}" if words else ""


def _job_of(directory: Directory, ticket: dict[str, Any]) -> ServiceJob:
    names = ("job", "order", "service", "account")
    return ServiceJob(directory, **{name: ticket[name] for name in names})


def _put_down(directory: Directory, job: ServiceJob, record: dict[str, Any]) -> None:
    name = f"{urn_id(job.id)}.json"
    write_atomically(directory.outbox / name, json.dumps(with_products(record, job)).encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _seconds(told: http.client.HTTPMessage) -> float:
    try:
        return max(0.1, float(told.get("Retry-Later") or _RETRY))
    except ValueError:
        return _RETRY


def _platform_lives(directory: Directory) -> bool:
    server = directory.server()
    return server is not None and psutil.pid_exists(server["pid"])


def main(root: str, service: str) -> None:
    Host(Directory(Path(root)), service).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Do not wait for requests that are still open.
    os._exit(0)
