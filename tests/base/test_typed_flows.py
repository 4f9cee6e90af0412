"""A user's flow that is checked by mypy, strictly: `flow` and `task` have the types of Prefect's."""

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


@pytest.mark.long
def test_flows_and_tasks_have_prefects_types(tmp_path: Path) -> None:
    """What is revealed and refused is what mypy says of Prefect's own decorators."""
    (tmp_path / "ours.py").write_text(FLOW)
    (tmp_path / "theirs.py").write_text(FLOW.replace("from ivcap_flows import", "from prefect import"))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    told = subprocess.run([*command, "ours.py", "theirs.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    ours, theirs = (
        [line.removeprefix(name) for line in told.stdout.splitlines() if line.startswith(name)]
        for name in ("ours.py", "theirs.py")
    )
    assert ours == theirs
    assert sum(": error:" in line for line in ours) == 2
    assert any("Flow[[number: int =], str]" in line for line in ours)
