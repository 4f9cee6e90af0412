"""Work that goes on elsewhere: in threads, asynchronously, in processes of a pool and of Dask, in other programs."""

import asyncio
import os
import socket
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import prefect
import pytest
from prefect.futures import wait
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from ivcap_flows import flow, recorded, task
from ivcap_flows.capture import journal
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.edge_rules import WHO_WROTE
from ivcap_flows.capture.file_activity import unseen


def dask() -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    local = {"host": "127.0.0.1", "dashboard_address": None, "worker_dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, **local})


@pytest.mark.canary
@pytest.mark.parametrize(
    ("runner", "informed"),
    [
        # Prefect gives the tasks of a pool copies of the futures.
        pytest.param(lambda: ProcessPoolTaskRunner(max_workers=1), set(), id="processes"),
        pytest.param(dask, {("fail", "save"), ("save", "gather")}, id="dask", marks=pytest.mark.long),
    ],
)
def test_tasks_in_processes_of_their_own(runner, informed, tmp_path, edges, recorded_graph):
    """Each process sees what its own task does: files in one folder, over what was there, and a table over a pickle.
    All are tasks of one attempt, with their outcomes and causes.
    """
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "0.csv").write_text("what was here before")

    @task
    def split(number: int, folder: Path) -> None:
        (folder / f"{number}.csv").write_text(f"the rows of the part with the number {number}")

    @task
    def gather(folder: Path) -> pd.DataFrame:
        texts = [path.read_text() for path in sorted(folder.iterdir())]
        return pd.DataFrame({"text": texts * 30, "n": [number**2 % 101 for number in range(90)]})

    @task
    def save(frame: pd.DataFrame, target: Path) -> Path:
        frame.to_csv(target)
        return target

    @task
    def fail(path: Path) -> None:
        raise ValueError("not today")

    @flow
    def main() -> None:
        # By names of their own: which of several was asked for first is not known across processes.
        wait([split.with_options(name=f"split {number}").submit(number, parts) for number in range(3)])
        fail.submit(save.submit(gather.submit(parts), tmp_path / "all.csv")).wait()

    main.with_options(task_runner=runner())()
    graph, [run] = recorded_graph(), journal().runs.recent()
    [attempt] = [node.id for node in graph if node.type == "attempt"]
    tasks = {node.attributes["name"]: node for node in graph if node.type == "task-run"}
    # Dask gives a task that follows in the same process the table itself, another process a copy.
    alike = tasks["gather"].attributes["process"] == tasks["save"].attributes["process"]
    copied = {("used", "save", "frame"), ("same", "frame", "gather()")}
    edges(
        {("made", f"split {number}", f"parts/{number}.csv") for number in range(3)}
        | {("used", "gather", f"parts/{number}.csv") for number in range(3)}
        | {("made", "gather", "gather()")}
        | ({("used", "save", "gather()")} if alike and runner is dask else copied)
        | {("made", "save", "all.csv"), ("given", "fail", "all.csv")}
        | {("informed", *each) for each in informed}
    )
    started = {(link.source, link.target) for link in graph.relations.values() if link.type == "wasStartedBy"}
    assert {(node.id, attempt) for node in tasks.values()} <= started
    assert (tasks["save"].attributes["outcome"], run.missing_facts) == ("completed", 0)
    assert tasks["fail"].attributes["cause"] == "ValueError: not today"
    host, _, process = tasks["fail"].attributes["process"].rpartition(":")
    assert host == socket.gethostname() and process != str(os.getpid())


@pytest.mark.catches("other processes write nothing")
def test_in_a_pool_another_process_may_have_written_a_file(tmp_path):
    """What a program appended to the file that both were given is nobody's, and the record says so."""
    log = tmp_path / "log.txt"
    log.write_text("the first line of the log")
    call = Call("c", "call", "c", "r", "a", None)
    call.arguments.at("log", log)
    call.snapshot_entry(None)
    call.file_activity.begin()
    with unseen():
        log.write_text("the first line of the log, and the second one")
    call.snapshot_exit(None, other_process=True)
    call.file_activity.end()
    assert (call.files, call.unknown) == ([], {str(log): WHO_WROTE})


def test_asynchronous_tasks_at_once(tmp_path, edges):
    """Tasks that take turns in one thread are told apart, also where a thread does the work."""
    for name in "ab":
        (tmp_path / f"{name}.in").write_text(f"the rows of the input {name}")
    (tmp_path / "out").mkdir()
    met = asyncio.Event()

    @task
    async def convert(source: Path, folder: Path) -> None:
        text = await asyncio.to_thread(source.read_text)
        met.set() if source.stem == "b" else await met.wait()
        (folder / f"{source.stem}.out").write_text(text.upper())

    @flow
    async def main() -> None:
        await asyncio.gather(*(convert(tmp_path / f"{name}.in", tmp_path / "out") for name in "ab"))

    asyncio.run(main())
    edges(
        {("used", f"convert[{number}]", f"{name}.in") for number, name in enumerate("ab")}
        | {("made", f"convert[{number}]", f"out/{name}.out") for number, name in enumerate("ab")}
    )


@pytest.mark.parametrize("flow", [flow, prefect.flow], ids=["recorded", "plain"])
def test_a_long_task_does_not_make_what_another_writes_meanwhile(flow, tmp_path, edges):
    """Also when the other ended long ago, and whether or not the flow is recorded."""
    begun, done = threading.Event(), threading.Event()

    @task
    def watch(target: Path) -> None:
        begun.set()
        done.wait(30)

    @task
    def write(target: Path) -> None:
        target.write_text("the rows of the target")

    @task
    def after(number: int) -> None:
        """End, so that what ended before is forgotten if nobody needs it."""

    @flow
    def main() -> None:
        watching = watch.submit(tmp_path / "target.txt")
        begun.wait(30)
        write(tmp_path / "target.txt")
        after(1)
        after(2)
        done.set()
        watching.wait()

    main()
    edges({("made", "write", "target.txt")})


def write(path: Path) -> None:
    path.write_text(f"the text of the file {path.name}")


def test_threads_and_processes_of_the_users(tmp_path, edges):
    """What a pool in a task writes is not seen being written. It is new and nobody else ran, or it is in the result."""
    (tmp_path / "out").mkdir()

    @recorded
    def in_threads(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, [folder / "a", folder / "b"]))

    @recorded
    def in_processes(paths: list[Path]) -> list[Path]:
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(write, paths))
        return paths

    @flow
    def main() -> None:
        in_threads(tmp_path / "out")
        in_processes([tmp_path / "a", tmp_path / "b"])

    main()
    edges({("made", "in_threads", f"out/{name}") for name in "ab"} | {("made", "in_processes", name) for name in "ab"})
