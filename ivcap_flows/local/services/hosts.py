"""Long-running services for the dispatcher: one host each (lambdas.py), started for its first job."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from typing import Final

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.hosting import HostFiles, HostPlan

__all__ = ["Hosts"]


_MOST_STARTS: Final = 3
"""How often a host is started before one of its jobs has started."""


class Hosts:
    """The hosts. `waiting` maps jobs that were passed to a host and have not started yet to their services."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: Counter[str] = Counter()
        self.waiting: dict[str, str] = {}

    def sweep(self) -> None:
        """End the processes that killed hosts left behind."""
        for noted in (self._directory.root / "services").glob("*/server.json"):
            files = HostFiles(self._directory, noted.parent)
            if not files.runs():
                files.end_stray()

    def admits(self, plan: HostPlan) -> bool:
        """Return whether a job can be passed to a host now. A host with another plan is asked to finish and end."""
        files = HostFiles.of(self._directory, plan.service)
        if not files.runs() or files.serves(plan):
            return True
        files.retire.touch(mode=0o600)
        return False

    def hand_over(self, job: str, plan: HostPlan) -> None:
        """Pass a job, whose ticket is already written, to the host of its service."""
        HostFiles.of(self._directory, plan.service).hand_over(job)
        self.waiting[job] = plan.service

    def look(self, job: str, plan: HostPlan) -> str | None:
        """Make sure that a waiting job has a host, as its service is registered now; return the reason if it cannot
        have one. Never blocks.
        """
        service = self.waiting[job]
        files = HostFiles.of(self._directory, service)
        if files.runs():
            return None
        child = self._children.get(service)
        if child is not None:
            code = child.poll()
            if code is None:
                return None  # it has released its lock and is about to end
            del self._children[service]
            if code > 0 or self._starts[service] >= _MOST_STARTS:
                how = f"with exit status {code}" if code >= 0 else f"by {_signal(-code)}"
                times = f", {self._starts[service]} times before a job began" if code <= 0 else ""
                return f"The host of the service ended {how}{times}. Its last output: {files.last_words()}"
        self._children[service] = files.start(plan)
        self._starts[service] += 1
        return None

    def begun(self, job: str) -> None:
        """Forget a job that has started or ended."""
        service = self.waiting.pop(job, None)
        if service is not None:
            del self._starts[service]

    def reap(self) -> None:
        for service, child in list(self._children.items()):
            if child.poll() is not None and service not in self.waiting.values():
                del self._children[service]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
