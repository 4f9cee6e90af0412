"""A flow of 200 trivial tasks, recorded, against the same flow plain; Prefect's heartbeat off in both.

Both run in one process against one temporary Prefect server. The journal is SQLite with the durability as shipped.
"""

import statistics
import tempfile

from benchmarks.measure import QUIET, python, report

TASKS = 200
ROUNDS = 7
LIMIT = 1.15
LIMIT_MS = 0.5

CODE = f"""
import json, time
from prefect import flow, task
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from ivcap_flows import recorded

@task
def plain_task(n): return n + 1

@task
@recorded
def recorded_task(n): return n + 1

@flow
def plain():
    for n in range({TASKS}): plain_task(n)

@flow
@recorded
def recorded_flow():
    for n in range({TASKS}): recorded_task(n)

def timed(f):
    begin = time.perf_counter(); f(); return time.perf_counter() - begin

with prefect_test_harness(), temporary_settings({{PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}}):
    plain(); recorded_flow()
    print(json.dumps([[timed(plain), timed(recorded_flow)] for _ in range({ROUNDS})]))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pairs = python(CODE, env={**QUIET, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"})
    plain = statistics.median(p for p, _ in pairs)
    recorded = statistics.median(r for _, r in pairs)
    report(
        "recording",
        recorded / plain,
        limit=LIMIT,
        seconds={"plain": round(plain, 4), "recorded": round(recorded, 4)},
        ms_per_task=round((recorded - plain) / TASKS * 1000, 3),
        limit_ms_per_task=LIMIT_MS,
        tasks=TASKS,
    )


if __name__ == "__main__":
    main()
