"""Run one job of a service that is a command, by the batch protocol of ivcap-service."""

from __future__ import annotations

import subprocess
from typing import Any, Final

import psutil

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.job import ServiceJob
from ivcap_flows.local.services.posted import ended, gone, outbox_record
from ivcap_flows.local.services.processes import end_process, note_process, service_environment
from ivcap_flows.local.services.sidecar import Seat, Sidecar

__all__ = ["run_command"]

_PATIENCE: Final = 30.0
"""Seconds that a command gets to end after its result."""


def run_command(ticket: dict[str, Any], directory: Directory, job: ServiceJob) -> dict[str, Any]:
    """Run the command until it has posted a result and ended. Return the record for the outbox."""
    controller = ticket["controller"]
    sidecar = Sidecar(directory)
    seat = sidecar.seat(ticket, job)
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is what the owner of the service registered
            controller["command"],
            cwd=controller.get("cwd"),
            env=service_environment(ticket, sidecar.url),
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return ended("failed", f"The command of the service cannot be started ({error}).")
    # The platform reads this to end the command if this runner is killed.
    note_process(directory.run(job.id) / "command.json", process.pid)
    status = _wait(process, seat)
    if seat.result is None:
        return gone("The command of the service", status)
    return outbox_record(seat.result, job)


def _wait(process: subprocess.Popen[bytes], seat: Seat) -> int:
    """Return the exit status. Ends a command that runs long after its result."""
    while process.poll() is None and not seat.answered.wait(0.05):
        pass
    try:
        return process.wait(_PATIENCE if seat.answered.is_set() else None)
    except subprocess.TimeoutExpired:
        end_process(psutil.Process(process.pid))
        return process.wait()
