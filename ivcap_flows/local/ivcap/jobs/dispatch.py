"""Starts a detached runner for each job and takes in what runners leave behind.

A runner holds a lock on its folder for its life. The server takes the lock and hands it over at birth, so there is no
moment at which a living runner looks dead. Its result appears in the outbox in one step. A server that was killed
finds everything again: results in the outbox, runners by their locks, jobs that were never begun by the lack of a
mark.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from ivcap_flows.local.directory import is_held, write_atomically
from ivcap_flows.local.ivcap import schemas
from ivcap_flows.local.ivcap.jobs.state import Outcome
from ivcap_flows.local.ivcap.platform import Platform
from ivcap_flows.local.ivcap.replies import compact

__all__ = ["Dispatcher"]

_log: Final = logging.getLogger(__name__)
_TICK: Final = 0.05
_REST: Final = 5.0
_PAUSE_AFTER_FAULT: Final = 1.0
_MOST_RUNNERS: Final = 32


class Dispatcher:
    """`run` is the task of the server's life; the rest runs in the state thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.active = 0

    async def run(self) -> None:
        while True:
            try:
                self.active = await self._platform.thread.run(self.step)
                pause = _TICK
            except Exception:  # noqa: BLE001 - whatever it is must not end the care for all jobs
                # What is to be done stays written down, so it is tried again.
                _log.exception("The jobs could not be looked after.")
                self.active, pause = max(self.active, 1), _PAUSE_AFTER_FAULT
            await (asyncio.sleep(pause) if self.active else self._platform.changes.anything(_REST))

    def step(self) -> int:
        """Look at every job that is not over; returns how many are left."""
        rows = self._platform.jobs.active()
        self._reap({row["id"] for row in rows})
        running = 0
        for row in rows:
            started = (self._platform.directory.run(row["id"]) / "started").exists()
            if started or row["id"] in self._children:
                running += 1
                self._look(row, started)
            elif running < _MOST_RUNNERS:
                running += 1
                self._start(row)
        return len(rows)

    def _reap(self, active: set[str]) -> None:
        for job, child in list(self._children.items()):
            if child.poll() is not None and job not in active:
                del self._children[job]

    def _start(self, row: sqlite3.Row) -> None:
        platform, job = self._platform, row["id"]
        service = platform.store.one("SELECT * FROM services WHERE id = ?", (row["service"],))
        if service is None or service["controller_schema"] != schemas.SERVICE_LOCAL:
            text = "The embedded platform runs services whose controller is of schema " + schemas.SERVICE_LOCAL
            platform.jobs.finish(job, Outcome("error", error_message=f"{text}; this one is another kind."))
            return
        folder = platform.directory.run(job)
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_held(folder / "lock"):
            return
        ticket = {
            "job": job,
            "order": row["order_id"],
            "service": service["id"],
            "service_name": service["name"],
            "account": row["account"],
            "controller": json.loads(service["controller"]),
            "request": json.loads(row["request"]),
            "token": platform.tokens.issue(platform.jobs.owner(row), job=job),
        }
        write_atomically(folder / "job.json", json.dumps(ticket).encode())
        platform.jobs.advance(job, "scheduled")
        self._children[job] = _spawn(platform.directory.root, folder, job)

    def _look(self, row: sqlite3.Row, started: bool) -> None:
        folder, job = self._platform.directory.run(row["id"]), row["id"]
        if started:
            self._platform.jobs.advance(job, "executing")
        self._take_events(row, folder)
        alive = is_held(folder / "lock")
        # After the lock: a runner puts its result down before it lets go.
        left = self._platform.directory.outbox / f"{folder.name}.json"
        if left.exists():
            self._take_events(self._platform.jobs.get(job), folder)
            self._collect(row, left)
        elif not alive and started:
            message = "The process of this job ended without leaving a result; it was killed or the machine went down."
            self._platform.jobs.finish(job, Outcome("error", error_message=message))
        elif not alive and self._children[job].poll() is not None:
            self._platform.jobs.finish(job, Outcome("error", error_message=_last_words(folder)))
        else:
            return
        for name in ("job.json", "events"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "work", ignore_errors=True)

    def _take_events(self, row: sqlite3.Row, folder: Path) -> None:
        try:
            with (folder / "events").open("rb") as file:
                file.seek(row["events_read"])
                data = file.read(1 << 20)
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            events = [json.loads(line) for line in whole.splitlines()]
            self._platform.jobs.take_events(row["id"], events, row["events_read"] + len(whole))

    def _collect(self, row: sqlite3.Row, left: Path) -> None:
        platform, job = self._platform, row["id"]
        found: dict[str, Any] = json.loads(left.read_bytes())
        products = found["products"]
        for product in products:
            self._settle_bytes(job, product["id"])
        with platform.store.transaction():
            for product in products:
                platform.jobs.adopt_product(row, product, listed=not product.get("is_result"))
            platform.jobs.finish(job, _outcome(found))
        left.unlink(missing_ok=True)

    def _settle_bytes(self, job: str, bare: str) -> None:
        """Move a product to its place; a second time there is nothing left to move."""
        source, target = self._platform.directory.run(job) / "products" / bare, self._platform.directory.blob(bare)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if source.exists():
            os.replace(source, target)


def _outcome(found: dict[str, Any]) -> Outcome:
    if found["status"] != "succeeded":
        return Outcome(found["status"], error_message=found["message"] or "The service failed without a message.")
    result = next((product for product in found["products"] if product.get("is_result")), None)
    if result is not None:
        return Outcome("succeeded", result_type=result["media_type"], urn=f"urn:ivcap:artifact:{result['id']}")
    value = found["result"]
    schema = value.get("$schema") if isinstance(value, dict) else None
    kind = f"application/vnd.ivcap.{schema}" if isinstance(schema, str) else "application/json"
    return Outcome("succeeded", result=compact(value), result_type=kind)


def _last_words(folder: Path) -> str:
    try:
        text = (folder / "log").read_bytes()[-400:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        text = ""
    return "The process of this job ended before it began." + (f" It said: {text}" if text else "")


def _spawn(root: Path, folder: Path, job: str) -> subprocess.Popen[bytes]:
    """A runner in a session of its own, which lives on when the server ends, holding the lock of its folder."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IVCAP_", "PROVENA_"))}
    try:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - the interpreter and this package
                [sys.executable, "-m", "ivcap_flows.local.runner", str(root), job],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
                env=environment,
            )
    finally:
        os.close(lock)
