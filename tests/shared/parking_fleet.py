"""A worker, the flows that park, and what came of them, for tests with a real Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from eventually import until
from other_processes import end_at_once
from prefect_api import ask_prefect

__all__ = ["FOR_AT_LEAST", "POOL", "PREFECT", "WAITED_FOR", "Fleet"]

PREFECT = [sys.executable, "-m", "prefect"]
FOR_AT_LEAST = 8.0
WAITED_FOR = 10.0
"""Seconds that an order takes. Where it ends before its run waits for it, nothing parks."""
POOL = f"parking-{os.getpid()}"


class Fleet:
    """A worker, what it is to run, and how that stands."""

    def __init__(self, folder: Path, prefect: dict[str, str], ours: dict[str, str]) -> None:
        self.folder = folder
        self.counted = folder / "counted"
        self.counted.touch()
        self.environment = {
            **prefect,
            **ours,
            "COUNTED": str(self.counted),
            "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}",
            "IVCAP_FLOWS_PARK_AFTER": "0",
            "PARK_FOR_AT_LEAST": str(FOR_AT_LEAST),
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command, env={**self.environment, **variables}, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def watcher(self, name: str) -> subprocess.Popen[bytes]:
        return self.start(name, sys.executable, "-m", "ivcap_flows.cli", "watch")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def asked(self, path: str, body: object, *, method: str = "POST") -> Any:
        return ask_prefect(self.environment, path, body, method=method)

    def deployment(self, function: str, name: str, **options: Any) -> str:
        flow = self.asked("/flows/", {"name": function.replace("_", "-")})
        made = self.asked(
            "/deployments/",
            {
                "name": name,
                "flow_id": flow["id"],
                "work_pool_name": POOL,
                "path": str(Path(__file__).parents[1] / "e2e"),
                "entrypoint": f"parking_flows.py:{function}",
                "pull_steps": [],
                **options,
            },
        )
        return str(made["id"])

    def run(self, deployment: str, mark: str, seconds: float, **environment: str) -> str:
        body = {
            "parameters": {"mark": mark, "seconds": seconds},
            "state": {"type": "SCHEDULED"},
            "job_variables": {"env": environment},
        }
        return str(self.asked(f"/deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.asked(f"/flow_runs/{run}", None, method="GET")["state"]
        return found

    def until(self, run: str, names: set[str], seconds: float = 200) -> dict[str, Any]:
        ends = names | {"Failed", "Crashed", "Cancelled"}
        state = until(
            lambda: self.state(run), lambda s: s["name"] in ends, seconds, pause=0.2, said=lambda: self.log("worker")
        )
        assert state["name"] in names, f"{state}\n{self.log('worker')[-6000:]}"
        return state

    def told(self, mark: str) -> list[str]:
        """What the bodies of a run's attempts did, in order."""
        lines = self.counted.read_text(encoding="utf-8").splitlines()
        return [line.removeprefix(f"{mark} ") for line in lines if line.startswith(f"{mark} ")]

    def end(self) -> None:
        for process in self.processes:
            end_at_once(process)
