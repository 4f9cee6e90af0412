"""A Prefect server for benchmarks, on a port of its own, with process workers and a watcher of parked runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measure import QUIET

__all__ = ["Prefect", "end", "on_postgresql", "prefect"]

PREFECT = [sys.executable, "-m", "prefect"]
FOREIGN = ("IVCAP", "PROVENA", "PREFECT")
"""How the names of variables begin that are the user's own, and not the benchmark's."""


class Prefect:
    """A server with a pool for process workers. `environment` is that of its clients, and of what it starts."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
            **QUIET,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}",
            **environment,
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self.start(*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui")
        self._until(lambda: httpx.get(f"{self.api}/health", timeout=2).is_success)
        self.post("/work_pools/", {"name": "measured", "type": "process"})

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        return self.start(*PREFECT, "worker", "start", "--pool", "measured", *options)

    def watcher(self) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-m", "ivcap_flows.cli", "watch")

    def deploy(self, file: Path, flow: str, folder: Path) -> str:
        """A deployment of the flow of this name in a file; the worker copies the whole folder for each run."""
        shutil.copy(file, folder)
        deployment = {
            "name": "measured",
            "flow_id": self.post("/flows/", {"name": flow.replace("_", "-")})["id"],
            "work_pool_name": "measured",
            "path": str(folder),
            "entrypoint": f"{file.name}:{flow}",
            "pull_steps": [],
        }
        return str(self.post("/deployments/", deployment)["id"])

    def run(self, deployment: str, parameters: dict[str, Any], **state: Any) -> str:
        """Schedule a run of the deployment, as soon as there is a worker."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED", **state}}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", body)["id"])

    def post(self, path: str, body: Any) -> Any:
        end = time.monotonic() + 60
        while (reply := httpx.post(f"{self.api}{path}", json=body, timeout=60)).status_code == 503:
            # SQLite is now and then too busy.
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        return reply.raise_for_status().json()

    def state(self, run: str) -> str:
        return str(httpx.get(f"{self.api}/flow_runs/{run}", timeout=60).raise_for_status().json()["state"]["name"])

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        nowhere = subprocess.DEVNULL
        self._started.append(subprocess.Popen(command, env=self.environment, stdout=nowhere, stderr=nowhere))
        return self._started[-1]

    def end(self) -> None:
        for process in self._started:
            end(process)

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise RuntimeError("The Prefect server did not start.")


def on_postgresql(url: str) -> dict[str, str]:
    """The setting by which a server keeps its data in a database."""
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url.replace("postgresql://", "postgresql+asyncpg://")}


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started; nothing if it has ended."""
    if process.poll() is None:
        for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
            one.kill()
    process.wait(10)


@contextmanager
def prefect(environment: dict[str, str], folder: Path) -> Iterator[Prefect]:
    started = Prefect(environment, folder)
    try:
        yield started
    finally:
        started.end()
