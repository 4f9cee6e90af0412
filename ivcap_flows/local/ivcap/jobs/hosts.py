"""Long-running services as the dispatcher sees them: a host for each (local/lambdas.py), started for the first job."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from typing import Final

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.hosting import HostFiles, HostPlan

__all__ = ["Hosts"]


_MOST_STARTS: Final = 3
"""So often a host is started until one of its jobs begins."""


class Hosts:
    """`waiting` holds the jobs that were handed to a host and are not known to be begun, with their services."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._plans: dict[str, HostPlan] = {}
        self._starts: Counter[str] = Counter()
        self.waiting: dict[str, str] = {}

    def sweep(self) -> None:
        """End what hosts that were killed left behind."""
        for noted in (self._directory.root / "services").glob("*/server.json"):
            files = HostFiles(self._directory, noted.parent)
            if not files.runs():
                files.end_stray()

    def admits(self, plan: HostPlan) -> bool:
        """Whether a job can be handed over now. A host that was started otherwise is told to finish and leave."""
        files = HostFiles.of(self._directory, plan.service)
        if not files.runs() or files.serves(plan):
            return True
        files.retire.touch(mode=0o600)
        return False

    def hand_over(self, job: str, plan: HostPlan) -> None:
        """Give a job, whose ticket lies ready, to the host of its service."""
        HostFiles.of(self._directory, plan.service).hand_over(job)
        self._plans[plan.service] = plan
        self.waiting[job] = plan.service

    def look(self, job: str) -> str | None:
        """See that a job which waits has a host. Returns why there can be none. Does not wait for anything."""
        service = self.waiting[job]
        files = HostFiles.of(self._directory, service)
        if files.runs():
            return None
        child = self._children.get(service)
        if child is not None:
            code = child.poll()
            if code is None:
                return None  # it has let go of its lock and is about to be gone
            del self._children[service]
            if code > 0 or self._starts[service] >= _MOST_STARTS:
                how = f"with exit status {code}" if code >= 0 else f"by {_signal(-code)}"
                times = f", {self._starts[service]} times before a job began" if code <= 0 else ""
                return f"The host of the service ended {how}{times}. It said: {files.last_words()}"
        self._children[service] = files.start(self._plans[service])
        self._starts[service] += 1
        return None

    def begun(self, job: str) -> None:
        """The job is with its host, or over."""
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
