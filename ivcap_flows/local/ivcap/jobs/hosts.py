"""Long-running services as the dispatcher sees them: a host for each (local/lambdas.py), started for the first job."""

from __future__ import annotations

import subprocess

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.hosting import HostFiles, HostPlan

__all__ = ["Hosts"]


class Hosts:
    """`waiting` holds the jobs that were handed to a host and are not known to be begun, with their services."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._plans: dict[str, HostPlan] = {}
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
        """See that a job which waits has a host. Returns why there can be none."""
        service = self.waiting[job]
        files = HostFiles.of(self._directory, service)
        if files.runs():
            return None
        child = self._children.pop(service, None)
        if child is not None and child.wait() > 0:
            return f"The host of the service ended with exit status {child.returncode}. It said: {files.last_words()}"
        self._children[service] = files.start(self._plans[service])
        return None

    def begun(self, job: str) -> None:
        """The job is with its host, or over."""
        self.waiting.pop(job, None)

    def reap(self) -> None:
        for service, child in list(self._children.items()):
            if child.poll() is not None and service not in self.waiting.values():
                del self._children[service]
