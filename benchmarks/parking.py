"""Seconds for which a run that waits an hour holds its worker: parked, against waiting in its process.

Both are runs of a deployment, on a real Prefect server with a real process worker and a watcher, and wait for an order
of the embedded platform. Its clock is what counts: it is moved on by the hour once the run waits as it will, and each
second of it counts in which the run has a process. Parking is as shipped: after a minute in the process.

Without a watcher a run wakes by itself now and then; what an hour of that takes follows from when it would wake, and
what one waking took here.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measure import QUIET, report, steered_platform
from ivcap_flows.durable.parking import Pending, rest
from ivcap_flows.local.register import register
from ivcap_flows.local.remote import PlatformControl
from ivcap_flows.settings import Settings

HOUR = 3600.0
LIMIT = 0.05
FLOW = Path(__file__).with_name("parking_flow.py")
PREFECT = [sys.executable, "-m", "prefect"]
FOREIGN = ("IVCAP", "PROVENA", "PREFECT")
SERVICE = """
import time
from pathlib import Path

def until(request, job):
    while not Path(request["until"]).exists():
        time.sleep(0.2)
"""


class Prefect:
    """A server, a worker and a watcher."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("IVCAP", "PROVENA", "PREFECT"))
            },
            **QUIET,
            **environment,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}",
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self._start(*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui")
        self._until(lambda: httpx.get(f"{self.api}/health", timeout=2).is_success)
        self.post("/work_pools/", {"name": "measured", "type": "process"})
        self.worker = self._start(*PREFECT, "worker", "start", "--pool", "measured")
        self._start(sys.executable, "-m", "ivcap_flows.cli", "watch")

    def deploy(self, folder: Path) -> str:
        """A deployment of the flow; the worker copies the whole folder for each run."""
        shutil.copy(FLOW, folder)
        flow = self.post("/flows/", {"name": "waits"})
        deployment = {
            "name": "measured",
            "flow_id": flow["id"],
            "work_pool_name": "measured",
            "path": str(folder),
            "entrypoint": f"{FLOW.name}:waits",
            "pull_steps": [],
        }
        return str(self.post("/deployments/", deployment)["id"])

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

    def busy(self) -> bool:
        """Whether the worker has a process for a run."""
        return bool(psutil.Process(self.worker.pid).children())

    def end(self) -> None:
        for process in self._started:
            for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                one.kill()
            process.wait(10)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._started.append(subprocess.Popen(command, env=self.environment, **quiet))
        return self._started[-1]

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


@contextmanager
def prefect(environment: dict[str, str], folder: Path) -> Iterator[Prefect]:
    started = Prefect(environment, folder)
    try:
        yield started
    finally:
        started.end()


def held(server: Prefect, control: PlatformControl, deployment: str, until: Path, *, park: bool) -> list[float]:
    """Seconds on the platform's clock of each process that the run had."""
    body = {"parameters": {"until": str(until), "park": park}, "state": {"type": "SCHEDULED"}}
    run = str(server.post(f"/deployments/{deployment}/create_flow_run", body)["id"])
    seconds: list[float] = []
    before, was_busy, waits_since = platform_time(control), False, 0.0
    while (state := server.state(run)) != "Completed" or server.busy():
        if state in ("Failed", "Crashed", "Cancelled"):
            raise RuntimeError(f"The run is {state}.")
        busy = server.busy()
        now = platform_time(control)
        if busy and not was_busy:
            seconds.append(0.0)
        if busy:
            seconds[-1] += now - before
        before, was_busy = now, busy
        placed = bool([r for r in control.requests("POST", "/1/orders") if r["status"] == 200])
        waits = (state == "Parked" and not busy) if park else (state == "Running" and placed)
        if waits and not waits_since:
            waits_since = time.monotonic()
        if waits_since and not until.exists() and time.monotonic() - waits_since > 2:
            control.advance_clock(HOUR)
            until.touch()
        time.sleep(0.1)
    return seconds


def platform_time(control: PlatformControl) -> float:
    return datetime.fromisoformat(control.clock()["now"].replace("Z", "+00:00")).timestamp()


def wakings() -> int:
    """How often a run wakes by itself in an hour, with nothing known of its order."""
    age, count = Settings().park_after, 0
    while age < HOUR:
        age += rest([Pending(age)])
        count += 1
    return count


def main() -> None:
    with tempfile.TemporaryDirectory() as name, steered_platform() as (environment, control):
        folder = Path(name)
        (folder / "setup.cfg").touch()
        (folder / "services_of_parking.py").write_text(SERVICE)
        parameters = [{"name": "until", "type": "string"}]
        definition = {"name": "until", "entry": "services_of_parking:until", "parameters": parameters}
        register(environment["IVCAP_URL"], environment["IVCAP_JWT"], definition, folder / "services.yaml")
        with prefect(environment, folder) as server:
            (folder / "flow").mkdir()
            deployment = server.deploy(folder / "flow")
            parked = held(server, control, deployment, folder / "first", park=True)
            control.forget_requests()
            waiting = held(server, control, deployment, folder / "second", park=False)
    rounds = wakings()
    by_itself = parked[0] + rounds * parked[-1]
    report(
        "parking",
        sum(parked) / sum(waiting),
        limit=LIMIT,
        worker_seconds={"parked": round(sum(parked), 1), "in_process": round(sum(waiting), 1)},
        processes=[round(each, 1) for each in parked],
        without_watcher={"wakings": rounds, "ratio": round(by_itself / sum(waiting), 3)},
    )


if __name__ == "__main__":
    main()
