"""How throughput grows with processes: orders by `.map` on 1, 2 and 4 Dask workers, runs by 1 and 2 process workers.

The journal and Prefect's server are on one PostgreSQL, which waits for the disk. 50 ms lie between client and platform.
All of it is on one machine, whose processor is the limit at some point: if one worker keeps 0.4 of all cores `busy`,
four can give no more than 2.5 times as much. `of_possible` is what was reached of that, or of as many times as much as
there are workers, where that is less; the ratio is the least of it. Prefect's server, which else is a machine of its
own, lets the events of task runs go by.

Orders are placed in two ways, each after some that import what there is and open connections. `flows`: so many
processes, each with a flow that maps 150 orders to four threads of its own. `dask`: one flow that maps 50 orders for
each worker to so many Dask workers, processes of one thread each. The service runs no jobs.

Runs: each Prefect worker takes two runs at a time, each in a process of its own. A run places an order, whose job
takes ten seconds, and waits for it in its process, as most runs of pipelines wait most of their time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import Busy, medians, postgresql, python, report, rounds, steered_platform
from benchmarks.prefect_server import Prefect, end, on_postgresql, prefect
from benchmarks.recording import SERVICES
from benchmarks.submitting import service
from ivcap_flows.local.services.register import register

WORKERS = (1, 2, 4)
THREADS = {"flows": 4, "dask": 1}
ORDERS = {"flows": 150, "dask": 50}
ROUNDS = 3
LATENCY = 0.05
PROCESS_WORKERS = (1, 2)
RUNS_AT_ONCE = 2
RUNS = 8
LIMIT = 0.8
FLOWS = Path(__file__).with_name("fleet_flows.py")
SERVICE = """
import time

def waits(request, job):
    time.sleep(10)
"""

MAPPED = """
import json, sys
from pathlib import Path
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask import DaskTaskRunner
from benchmarks.fleet_flows import orders

how, mark, gate = sys.argv[1:4]
workers, threads, count, flows = map(int, sys.argv[4:])

if __name__ == "__main__":
    if how == "dask":
        cluster = {"n_workers": workers, "threads_per_worker": threads, "processes": True, "dashboard_address": None}
        runner = DaskTaskRunner(cluster_kwargs=cluster)
    else:
        runner = ThreadPoolTaskRunner(max_workers=threads)
    mapped = orders.with_options(task_runner=runner)
    print(json.dumps(mapped("submitted", mark, 4 * workers * threads, count, Path(gate), flows)))
"""


def place_orders(server: Prefect, how: Literal["dask", "flows"], threads: int, count: int) -> dict[str, Any]:
    """Orders a second by number of workers, and what they used of the machine's processor.

    With `dask` one flow sends them to so many workers, with `flows` so many flows place them in threads of their own.
    """
    busy: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def mapped(workers: int, flows: int, gate: str) -> dict[str, float]:
        numbers = map(str, (workers, threads, count * workers, flows))
        told: dict[str, float] = python(MAPPED, how, uuid.uuid4().hex, gate, *numbers, env=server.environment)
        return told

    def placed(workers: int) -> float:
        shares = [workers] if how == "dask" else [1] * workers
        with tempfile.TemporaryDirectory() as gate, ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda share: mapped(share, len(shares), gate), shares))
        busy.setdefault(str(workers), []).append(statistics.mean(each["busy"] for each in told))
        used = statistics.mean(each["cpu"] for each in told)
        cpu.setdefault(str(workers), []).append(1000 * used / (count * workers))
        return max(each["end"] for each in told) - min(each["begin"] for each in told)

    subjects = {str(workers): lambda workers=workers: placed(workers) for workers in WORKERS}
    print(f"orders by {how}", file=sys.stderr)
    taken = rounds(subjects, ROUNDS)
    rates = {name: count * int(name) / seconds for name, seconds in medians(taken).items()}
    return {
        "threads": threads,
        "a_second": {name: round(rate, 1) for name, rate in rates.items()},
        **compared(rates, medians(busy)),
        "cpu_ms_per_order": medians(cpu),
    }


def compared(rates: dict[str, float], busy: dict[str, float]) -> dict[str, Any]:
    """Rates by number of workers against that of one, which kept a share of all cores busy."""
    ratios = {name: rate / rates["1"] for name, rate in rates.items()}
    possible = {name: min(int(name), 1 / busy["1"]) for name in rates}
    return {
        "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "per_worker": round(min(ratio / int(name) for name, ratio in ratios.items()), 3),
        "of_possible": round(min(ratio / possible[name] for name, ratio in ratios.items()), 3),
        "busy": busy,
    }


def finish_runs(server: Prefect, folder: Path, count: int) -> dict[str, Any]:
    """Runs a minute by number of workers, and what they used of the machine's processor."""
    (folder / "flows").mkdir()
    deployment = server.deploy(FLOWS, "waits", folder / "flows")
    busy: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def finished(workers: int) -> float:
        started = [server.worker("--limit", str(RUNS_AT_ONCE)) for _ in range(workers)]
        # The first run shows that the workers are there.
        until_completed(server, [server.run(deployment, {"message": uuid.uuid4().hex}) for _ in started])
        used, begin = Busy(), time.perf_counter()
        runs = [server.run(deployment, {"message": uuid.uuid4().hex}) for _ in range(count * workers)]
        until_completed(server, runs)
        seconds = time.perf_counter() - begin
        busy.setdefault(str(workers), []).append(used.share())
        cpu.setdefault(str(workers), []).append(used.seconds() / len(runs))
        for worker in started:
            end(worker)
        return seconds

    subjects = {str(workers): lambda workers=workers: finished(workers) for workers in PROCESS_WORKERS}
    print("runs by process workers", file=sys.stderr)
    taken = rounds(subjects, ROUNDS)
    rates = {name: 60 * count * int(name) / seconds for name, seconds in medians(taken).items()}
    return {
        "a_minute": {name: round(rate, 1) for name, rate in rates.items()},
        **compared(rates, medians(busy)),
        "cpu_seconds_per_run": medians(cpu),
    }


def until_completed(server: Prefect, runs: list[str]) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        found = server.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}, "limit": 200})
        states = [run["state"]["type"] for run in found]
        if "FAILED" in states or "CRASHED" in states:
            raise RuntimeError(f"Runs ended otherwise: {sorted(set(states))}.")
        if states.count("COMPLETED") == len(runs):
            return
        time.sleep(0.5)
    raise RuntimeError("Runs did not end.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--orders", type=int, help="orders for each process")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs for each process worker")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        postgresql("journal", "prefect") as (journal, prefects),
        steered_platform() as (environment, control),
    ):
        folder = Path(name)
        (folder / "setup.cfg").touch()
        (folder / "services_of_fleet.py").write_text(SERVICE)
        parameters = [{"name": "message", "type": "string"}]
        definition = {"name": "waits", "entry": "services_of_fleet:waits", "parameters": parameters}
        register(environment["IVCAP_URL"], environment["IVCAP_JWT"], definition, folder / "services.yaml")
        service(environment)
        control.add_fault(delay=LATENCY)
        off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in SERVICES}
        # It may stop a Dask worker for ever on Python 3.11: python/cpython issue 106883.
        off["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
        with prefect(
            {**environment, **off, **on_postgresql(prefects), "IVCAP_FLOWS_JOURNAL": journal}, folder
        ) as server:
            flows, dask = (
                place_orders(server, how, THREADS[how], chosen.orders or ORDERS[how]) for how in ("flows", "dask")
            )
            runs = finish_runs(server, folder, chosen.runs)
    report(
        "fleet",
        min(each["of_possible"] for each in (flows, dask, runs)),
        better="higher",
        limit=LIMIT,
        latency_ms=1000 * LATENCY,
        runs_at_once_per_process_worker=RUNS_AT_ONCE,
        orders={"flows": flows, "dask": dask},
        runs=runs,
    )


if __name__ == "__main__":
    main()
