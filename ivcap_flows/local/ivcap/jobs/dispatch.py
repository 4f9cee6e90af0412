"""Start a detached runner for each job, or pass it to the host of its service, and collect their results.

A runner holds a lock on its folder for its life. The server takes the lock and the runner inherits it, so a living
runner never looks dead. Its result appears in the outbox in one step. After a crash, the server finds everything again:
results in the outbox, runners by their locks, and jobs that never started by a missing mark.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from ivcap_flows.local import clock
from ivcap_flows.local.directory import is_held, sync_folder, write_atomically
from ivcap_flows.local.ivcap.jobs.logs import LogTimes
from ivcap_flows.local.ivcap.jobs.state import Outcome
from ivcap_flows.local.ivcap.platform import Platform
from ivcap_flows.local.ivcap.replies import compact
from ivcap_flows.local.services.hosting import spawn_locked
from ivcap_flows.local.services.hosts import Hosts
from ivcap_flows.local.services.plans import NoPlan, Plan, plan_of
from ivcap_flows.local.services.processes import end_process, noted_process

__all__ = ["Dispatcher"]

_log: Final = logging.getLogger(__name__)
_TICK: Final = 0.05
_REST: Final = 5.0
_SHARE: Final = 0.1
"""Maximum share of the state thread's time for the dispatcher: with thousands of jobs, one round takes longer than a
tick.
"""
_PAUSE_AFTER_FAULT: Final = 1.0
_MOST_RUNNERS: Final = 32
"""Maximum number of jobs that run at once."""
_EVENTS_AT_ONCE: Final = 1024 * 1024
"""Bytes of events that one transaction records, plus the rest of the last line."""


class Dispatcher:
    """Looks after the jobs. `run` is a task for the server's life; everything else runs in the state thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._hosts = Hosts(platform.directory)
        self._log_times = LogTimes()
        self._seen: dict[str, float] = {}
        """When each waiting job was first seen."""
        self._swept = False
        self._took = 0.0
        self._has_failed = False
        self.active = 0

    async def run(self) -> None:
        while True:
            try:
                self.active = await self._platform.thread.run(self.step)
                pause = max(_TICK, self._took * (1 - _SHARE) / _SHARE, _PAUSE_AFTER_FAULT if self._has_failed else 0.0)
            except Exception:  # noqa: BLE001 - no error may end the care of all jobs
                # The work is still recorded, so the next round tries again.
                _log.exception("A round over the jobs failed; it is tried again.")
                self.active, pause = max(self.active, 1), _PAUSE_AFTER_FAULT
            await (asyncio.sleep(pause) if self.active else self._platform.changes.anything(_REST))

    def step(self) -> int:
        """Look at every job that has not ended, and start waiting ones in order of arrival. Return their number."""
        begun = time.monotonic()
        self._has_failed = False
        rows = self._platform.jobs.active()
        if not self._swept:
            self._sweep({row["id"].rsplit(":", 1)[-1] for row in rows})
            self._swept = True
        self._reap({row["id"] for row in rows})
        running: Counter[str] = Counter()
        waiting = []
        for row in rows:
            if not self._is_with_runner(row):
                waiting.append(row)
                continue
            running[row["service"]] += 1
            with self._alone(row):
                if self._care(row):
                    running[row["service"]] -= 1
        plans: dict[str, Plan | NoPlan] = {}
        # A delay is paced by the machine's time, whatever the platforms' clock is set to.
        self._seen = {row["id"]: self._seen.get(row["id"], begun) for row in waiting}
        for row in waiting:
            if running.total() >= _MOST_RUNNERS:
                break
            if begun - self._seen[row["id"]] < self._platform.likeness.start:
                continue
            service = row["service"]
            if service not in plans:
                plans[service] = self._plan(service)
            plan = plans[service]
            with self._alone(row):
                if isinstance(plan, NoPlan):
                    self._platform.jobs.finish(row["id"], Outcome("error", error_message=plan.reason))
                elif plan.concurrency is None or running[service] < plan.concurrency:
                    running[service] += 1
                    self._start(row["id"], plan)
        self._took = time.monotonic() - begun
        return len(rows)

    @contextmanager
    def _alone(self, row: sqlite3.Row) -> Iterator[None]:
        """Log an error in the care of one job, which affects no other. The next round tries again."""
        try:
            yield
        except Exception:  # noqa: BLE001 - no error may end the care of all jobs
            self._has_failed = True
            _log.exception("Job %s could not be looked after; it is tried again.", row["id"])

    def _plan(self, service: str) -> Plan | NoPlan:
        row = self._platform.store.one("SELECT * FROM services WHERE id = ?", (service,))
        assert row is not None
        plan = plan_of(self._platform.directory, row)
        if isinstance(plan, Plan) and plan.host is not None and not self._hosts.admits(plan.host):
            # Its jobs wait until the previous host has ended.
            return replace(plan, concurrency=0)
        return plan

    def _sweep(self, active: set[str]) -> None:
        """After a crash: end stray processes, and delete results that the server had already recorded."""
        self._hosts.sweep()
        for left in self._platform.directory.outbox.glob("*.json"):
            if left.stem not in active:
                left.unlink(missing_ok=True)

    def _reap(self, active: set[str]) -> None:
        for job, child in list(self._children.items()):
            if child.poll() is not None and job not in active:
                del self._children[job]
        self._hosts.reap()

    def _is_with_runner(self, row: sqlite3.Row) -> bool:
        # A job gets the status scheduled before its runner or host knows of it.
        return row["status"] != "pending" and (
            row["id"] in self._children or row["id"] in self._hosts.waiting or self._has_begun(row["id"])
        )

    def _has_begun(self, job: str) -> bool:
        return (self._platform.directory.run(job) / "started").exists()

    def _start(self, job: str, plan: Plan) -> None:
        platform = self._platform
        folder = platform.directory.run(job)
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_held(folder / "lock"):
            return
        whole = platform.jobs.get(job)
        ticket = {
            "job": job,
            "order": whole["order_id"],
            "service": whole["service"],
            "service_name": plan.name,
            "account": whole["account"],
            "controller": plan.controller,
            "request": json.loads(whole["request"]),
            "token": platform.tokens.issue(platform.jobs.owner(whole), job=job),
        }
        write_atomically(folder / "job.json", json.dumps(ticket).encode())
        platform.jobs.advance(job, "scheduled")
        if plan.host is not None:
            self._hosts.hand_over(job, plan.host)
        else:
            arguments = ["ivcap_flows.local.services.runner", str(platform.directory.root), job]
            self._children[job] = spawn_locked(folder / "lock", folder / "log", arguments)

    def _care(self, row: sqlite3.Row) -> bool:
        """Look after one job; return whether it has ended. Invalid data of one service must not affect others."""
        folder = self._platform.directory.run(row["id"])
        try:
            over = self._look(row, folder)
        except (ValueError, RecursionError) as error:
            # For instance half of a surrogate pair, from a file name in another encoding, or too deep nesting.
            _log.warning("The events or the result of job %s cannot be stored: %s", row["id"], error)
            message = f"The events or the result of this job cannot be stored ({type(error).__name__})."
            self._platform.jobs.finish(row["id"], Outcome("error", error_message=message))
            (self._platform.directory.outbox / f"{folder.name}.json").unlink(missing_ok=True)
            over = True
        if over:
            for name in ("job.json", "events", "command.json"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "work", ignore_errors=True)
            self._log_times.forget(folder)
        return over

    def _look(self, row: sqlite3.Row, folder: Path) -> bool:
        job = row["id"]
        started = self._has_begun(job)
        if started:
            self._hosts.begun(job)
            self._platform.jobs.advance(job, "executing")
        self._take_events(row, folder)
        self._log_times.note(folder, clock.now())
        alive = is_held(folder / "lock")
        # Check after the lock: a runner writes its result before it releases the lock.
        left = self._platform.directory.outbox / f"{folder.name}.json"
        if left.exists():
            self._take_events(self._platform.jobs.get(job), folder)
            self._log_times.note(folder, clock.now())
            self._collect(row, left)
        elif started and not alive:
            message = "The process of this job ended without leaving a result; it was killed or the machine went down."
            self._platform.jobs.finish(job, Outcome("error", error_message=message))
            self._end_strays(row, folder)
        elif not started and (reason := self._cannot_begin(row, folder, alive=alive)) is not None:
            self._platform.jobs.finish(job, Outcome("error", error_message=reason))
            self._hosts.begun(job)
        else:
            return False
        return True

    def _cannot_begin(self, row: sqlite3.Row, folder: Path, *, alive: bool) -> str | None:
        """Return why a job that has a runner or host cannot start; None if it can."""
        job = row["id"]
        if job not in self._hosts.waiting:
            return _last_words(folder) if not alive and self._children[job].poll() is not None else None
        plan = self._plan(row["service"])
        if isinstance(plan, NoPlan):
            return plan.reason
        if plan.host is None:
            return "The service was registered as one that runs a process for each job, while this one waited."
        return self._hosts.look(job, plan.host)

    def _end_strays(self, row: sqlite3.Row, folder: Path) -> None:
        """End processes of a runner or host that no longer exists."""
        stray = noted_process(folder / "command.json")
        if stray is not None:
            end_process(stray, patience=0)
        self._hosts.sweep()

    def _take_events(self, row: sqlite3.Row, folder: Path) -> None:
        read = row["events_read"]
        try:
            with (folder / "events").open("rb") as file:
                file.seek(read)
                while lines := _whole_lines(file):
                    read += sum(map(len, lines))
                    self._platform.jobs.take_events(row["id"], [json.loads(line) for line in lines], read)
                    file.seek(read)
        except FileNotFoundError:
            return

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
        """Move a product to its place. Idempotent."""
        source, target = self._platform.directory.run(job) / "products" / bare, self._platform.directory.blob(bare)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if source.exists():
            os.replace(source, target)
            sync_folder(target.parent)
            sync_folder(target.parent.parent)


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


def _whole_lines(file: BinaryIO) -> list[bytes]:
    """Return the next complete lines.

    The last line of the file may still be incomplete. It is left to be read again later.
    """
    lines: list[bytes] = []
    size = 0
    while size < _EVENTS_AT_ONCE and (line := file.readline()).endswith(b"\n"):
        lines.append(line)
        size += len(line)
    return lines


def _last_words(folder: Path) -> str:
    try:
        text = (folder / "log").read_bytes()[-400:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        text = ""
    return "The process of this job ended before it began." + (f" Its last output: {text}" if text else "")
