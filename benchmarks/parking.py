"""Seconds for which a run that waits an hour holds its worker: parked, against waiting in its process.

Both are runs of a deployment, on a real Prefect server with a real process worker and a watcher, and wait for an order
of the embedded platform. Its clock is what counts: it is moved on by the hour once the run waits as it will, and each
second of it counts in which the run has a process. Parking is as shipped: after a minute in the process.

Without a watcher a run wakes by itself now and then; what an hour of that takes follows from when it would wake, and
what one waking took here.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.measure import report, steered_platform
from benchmarks.prefect_server import Prefect, prefect
from ivcap_flows.durable.parking import rest
from ivcap_flows.local import PlatformControl
from ivcap_flows.local.services.register import register
from ivcap_flows.settings import Settings

HOUR = 3600.0
LIMIT = 0.05
FLOW = Path(__file__).with_name("parking_flow.py")
SERVICE = """
import time
from pathlib import Path

def until(request, job):
    while not Path(request["until"]).exists():
        time.sleep(0.2)
"""


def busy(worker: subprocess.Popen[bytes]) -> bool:
    """Whether the worker has a process for a run."""
    return bool(psutil.Process(worker.pid).children())


def held(
    server: Prefect, worker: subprocess.Popen[bytes], control: PlatformControl, deployment: str, until: Path, park: bool
) -> list[float]:
    """Seconds on the platform's clock of each process that the run had."""
    run = server.run(deployment, {"until": str(until), "park": park})
    seconds: list[float] = []
    before, was_busy, waits_since = platform_time(control), False, 0.0
    while (state := server.state(run)) != "Completed" or busy(worker):
        if state in ("Failed", "Crashed", "Cancelled"):
            raise RuntimeError(f"The run is {state}.")
        is_busy = busy(worker)
        now = platform_time(control)
        if is_busy and not was_busy:
            seconds.append(0.0)
        if is_busy:
            seconds[-1] += now - before
        before, was_busy = now, is_busy
        placed = bool([r for r in control.requests("POST", "/1/orders") if r["status"] == 200])
        waits = (state == "Parked" and not is_busy) if park else (state == "Running" and placed)
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
        age += rest([age])
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
            worker = server.worker()
            server.watcher()
            (folder / "flow").mkdir()
            deployment = server.deploy(FLOW, "waits", folder / "flow")
            parked = held(server, worker, control, deployment, folder / "first", park=True)
            control.forget_requests()
            waiting = held(server, worker, control, deployment, folder / "second", park=False)
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
