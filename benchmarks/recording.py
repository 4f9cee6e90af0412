"""A flow of 200 trivial tasks, recorded, against the same flow plain; Prefect's heartbeat off in both.

Both run in one process against one temporary Prefect server. Between two flows the server is given the time to take in
all events of the last one: a server that is behind slows down whoever comes next, by far more than is measured here.
The journal is SQLite with the durability as shipped.
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
from prefect import flow, get_client, task
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
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

def taken_in(run):
    wanted = dict(
        flow_run_filter=FlowRunFilter(id=dict(any_=[run])),
        task_run_filter=TaskRunFilter(state=dict(type=dict(any_=["COMPLETED"]))),
        limit={TASKS},
    )
    with get_client(sync_client=True) as client:
        while len(client.read_task_runs(**wanted)) < {TASKS}:
            time.sleep(0.5)
    time.sleep(1)

def timed(f):
    begin = time.perf_counter()
    state = f(return_state=True)
    seconds = time.perf_counter() - begin
    taken_in(state.state_details.flow_run_id)
    return seconds

with prefect_test_harness(), temporary_settings({{PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}}):
    timed(plain); timed(recorded_flow)
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
