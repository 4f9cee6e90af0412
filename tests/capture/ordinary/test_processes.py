"""Work that goes on elsewhere: in threads, asynchronously, in processes of a pool and of Dask, in other programs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.futures import wait
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from ivcap_flows import recorded
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.file_activity import unseen
from ivcap_flows.capture.file_rules import WHO_WROTE

Edges = Callable[..., None]


def dask() -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": 2,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            "dashboard_address": None,
            "worker_dashboard_address": None,
        }
    )


@pytest.mark.long
@pytest.mark.parametrize("runner", [lambda: ProcessPoolTaskRunner(max_workers=2), dask], ids=["processes", "dask"])
def test_tasks_in_processes_of_their_own(runner: Callable[[], TaskRunner[Any]], tmp_path: Path, edges: Edges) -> None:
    """Each process sees what its own task does: three files in one folder, over what was there."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.csv").write_text("what was here before")

    @task
    @recorded
    def split(number: int, folder: Path) -> None:
        (folder / f"{number}.csv").write_text(f"the rows of the part with the number {number}")

    @task
    @recorded
    def gather(folder: Path, target: Path) -> None:
        target.write_text("".join(path.read_text() for path in sorted(folder.iterdir())))

    @flow
    @recorded
    def main() -> None:
        # By names of their own: which of several was asked for first is not known across processes.
        parts = [split.with_options(name=f"split {number}").submit(number, tmp_path / "parts") for number in range(3)]
        wait(parts)
        gather.submit(tmp_path / "parts", tmp_path / "all.csv").wait()

    main.with_options(task_runner=runner())()
    edges(
        {("made", f"split {number}", f"parts/{number}.csv") for number in range(3)}
        | {("used", "gather", f"parts/{number}.csv") for number in range(3)}
        | {("made", "gather", "all.csv")}
    )


@pytest.mark.catches("other processes write nothing")
def test_in_a_pool_another_process_may_have_written_a_file(tmp_path: Path) -> None:
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


def test_asynchronous_tasks_at_once(tmp_path: Path, edges: Edges) -> None:
    """Tasks that take turns in one thread are told apart, also where a thread does the work."""
    for name in "ab":
        (tmp_path / f"{name}.in").write_text(f"the rows of the input {name}")
    (tmp_path / "out").mkdir()
    met = asyncio.Event()

    @task
    @recorded
    async def convert(source: Path, folder: Path) -> None:
        text = await asyncio.to_thread(source.read_text)
        met.set() if source.stem == "b" else await met.wait()
        (folder / f"{source.stem}.out").write_text(text.upper())

    @flow
    @recorded
    async def main() -> None:
        await asyncio.gather(*(convert(tmp_path / f"{name}.in", tmp_path / "out") for name in "ab"))

    asyncio.run(main())
    edges(
        {("used", f"convert[{number}]", f"{name}.in") for number, name in enumerate("ab")}
        | {("made", f"convert[{number}]", f"out/{name}.out") for number, name in enumerate("ab")}
    )


@pytest.mark.parametrize("recording", [recorded, recorded(False)], ids=["recorded", "plain"])
def test_a_long_task_does_not_make_what_another_writes_meanwhile(recording: Any, tmp_path: Path, edges: Edges) -> None:
    """Also when the other ended long ago, and whether or not the flow is recorded."""
    begun, done = threading.Event(), threading.Event()

    @task
    @recorded
    def watch(target: Path) -> None:
        begun.set()
        done.wait(30)

    @task
    @recorded
    def write(target: Path) -> None:
        target.write_text("the rows of the target")

    @task
    @recorded
    def after(number: int) -> None:
        """End, so that what ended before is forgotten if nobody needs it."""

    @flow
    @recording
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


def test_threads_of_the_users(tmp_path: Path, edges: Edges) -> None:
    """What a pool of threads in a task writes is not seen being written; it is new, and nobody else ran."""
    (tmp_path / "out").mkdir()

    @task
    @recorded
    def split(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: (folder / name).write_text(f"the text of the file {name}"), ["a", "b"]))

    @flow
    @recorded
    def main() -> None:
        split(tmp_path / "out")

    main()
    edges({("made", "split", "out/a"), ("made", "split", "out/b")})


def write(path: Path) -> None:
    path.write_text(f"the text of the file {path.name}")


def test_processes_of_the_users(tmp_path: Path, edges: Edges) -> None:
    """So is what processes of the task's own have written, and returned paths say whose they are."""

    @task
    @recorded
    def split(paths: list[Path]) -> list[Path]:
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(write, paths))
        return paths

    @flow
    @recorded
    def main() -> None:
        split([tmp_path / "a", tmp_path / "b"])

    main()
    edges({("made", "split", "a"), ("made", "split", "b")})
