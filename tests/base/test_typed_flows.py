"""A user's flow that is checked by mypy, strictly: `flow` and `task` have the types of Prefect's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FLOW = """
from prefect.futures import PrefectFuture

from ivcap_flows import flow, task


@task
def plain(number: int) -> str:
    return str(number)


@task(retries=2, name="counted")
def counted(text: str) -> int:
    return len(text)


@task
async def later(text: str) -> float:
    return 1.5


@flow(log_prints=True)
def main(number: int = 1) -> str:
    text: str = plain(number)
    future: PrefectFuture[int] = counted.submit(text)
    length: int = future.result() + counted.with_options(retries=0)(text)
    return text * length


@flow
async def awaited() -> float:
    return await later("text")


reveal_type(plain)
reveal_type(counted)
reveal_type(main)
plain("text")  # wrong
main(number="text")  # wrong
"""

WORK = """
from typing_extensions import assert_type

from prefect.futures import PrefectFuture

from ivcap_flows import flow, wait_or_park
from ivcap_flows.handles import Artifact, Job, LocalFile, Order
from ivcap_flows.tasks import (
    JobStep, OrderStep, ServiceRequest, arun_jobs, download_products, place_order, request_job, run_job, run_jobs,
    run_order, run_orders, wait_for_jobs,
)


@flow
def main(request: ServiceRequest) -> None:
    order, job = place_order(request), request_job("echo", {"a": 1})
    assert_type(wait_or_park([order]), list[Order])
    assert_type(wait_or_park([job]), list[Job])
    assert_type(wait_or_park([order, job, "urn:ivcap:job:1"]), list[Order | Job])
    assert_type(wait_for_jobs([job], follow=True), list[Job])
    assert_type(run_orders([OrderStep(request)], at_once=8), list[Order])
    assert_type(run_orders({1: OrderStep(request)}), dict[int, Order])
    assert_type(run_jobs({"a": JobStep(request)}, timeout=60), dict[str, Job])
    assert_type(run_order(request, max_resubmits=1).products["a"], Artifact)
    assert_type(run_job(request), Job)
    assert_type(place_order.submit(request), PrefectFuture[Order])
    assert_type(download_products(order, "results"), dict[str, LocalFile])


@flow
async def awaited(request: ServiceRequest) -> list[Job]:
    return await arun_jobs([JobStep(request)])
"""

WRONG = """
from ivcap_flows.tasks import enqueue, place_order, run_job, set_secret

enqueue("urn:ivcap:queue:1")  # wrong: no content
enqueue("urn:ivcap:queue:1", {}, once="run")  # wrong: once_per
place_order("echo", {}, credentials=1)  # wrong: no block
run_job("echo", {}).sha256  # wrong: a job has none
set_secret("name", "text")  # wrong: no SecretStr
"""


def mypy(*files: str, folder: Path) -> str:
    """Return what mypy says of files, checked strictly."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    return subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, check=False).stdout


def pyright(*files: str, folder: Path) -> str:
    """Return what pyright says of files, as editors do."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--level", "error"]
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    return subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.long
def test_orders_and_jobs_have_types(tmp_path: Path) -> None:
    """What a flow gets of each task, and of those for many, also of orders and jobs together. mypy and pyright say so,
    and refuse what is wrong in the same lines."""
    (tmp_path / "work.py").write_text(WORK)
    assert mypy("work.py", folder=tmp_path) == ""
    assert pyright("work.py", folder=tmp_path) == "0 errors, 0 warnings, 0 notes\n"
    (tmp_path / "wrong.py").write_text(WRONG)
    lines = {str(number) for number, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}
    for checker in mypy, pyright:
        assert set(re.findall(r"wrong.py:(\d+).*error", checker("wrong.py", folder=tmp_path))) == lines


@pytest.mark.long
def test_flows_and_tasks_have_prefects_types(tmp_path: Path) -> None:
    """What is revealed and refused is what mypy says of Prefect's own decorators."""
    (tmp_path / "ours.py").write_text(FLOW)
    (tmp_path / "theirs.py").write_text(FLOW.replace("from ivcap_flows import", "from prefect import"))
    told = mypy("ours.py", "theirs.py", folder=tmp_path)
    ours, theirs = (
        [line.removeprefix(name) for line in told.splitlines() if line.startswith(name)]
        for name in ("ours.py", "theirs.py")
    )
    assert ours == theirs
    assert sum(": error:" in line for line in ours) == 2
    assert any("Flow[[number: int =], str]" in line for line in ours)
