"""What a run took and made stands beside it in Prefect's UI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ivcap_flows import recorded
from ivcap_flows.capture import use_journal
from ivcap_flows.capture.run_artifacts import links_of, page_of, rows_of
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Record, activity, entity


@task
@recorded
def double(source: Path, target: Path) -> Path:
    target.write_text(source.read_text() * 2)
    return target


@flow
@recorded
def doubling(source: Path, target: Path) -> str:
    double(source, target)
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id)


def shown(flow_run: str, count: int) -> list[Any]:
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    end = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_artifacts(artifact_filter=chosen)
            if len(found) >= count or time.monotonic() > end:
                return found
            time.sleep(0.05)


def test_a_run_shows_its_inputs_and_outputs(prefect_server: dict[str, str], tmp_path: Path) -> None:
    """As a page and as a table with each sha256; what users named means nothing in Markdown."""
    source = tmp_path / "a `<b>` |x|.csv"
    source.write_text("1\n")
    settings = {PREFECT_API_URL: prefect_server["PREFECT_API_URL"], PREFECT_LOGGING_TO_API_ENABLED: False}
    with (
        temporary_settings(settings),
        Journal.open(f"sqlite:///{tmp_path / 'j.sqlite'}") as journal,
        use_journal(journal),
    ):
        flow_run = doubling(source, tmp_path / "made.csv")
        found = shown(flow_run, 2)
        [run] = journal.runs.recent()
    by_type: dict[str, Any] = {}
    for artifact in found:
        by_type.setdefault(artifact.type, artifact.data)
    pages = [artifact.data for artifact in found if artifact.type == "markdown"]
    page = next(page for page in pages if page.startswith("# "))
    assert run.id in page and "completed" in page and "`<b>`" not in page and "'<b>'" in page
    rows = by_type["table"] if isinstance(by_type["table"], list) else json.loads(by_type["table"])
    named = {Path(row["name"]).name: row for row in rows}
    assert named["made.csv"]["role"] == "output" and len(named["made.csv"]["sha256"]) == 64
    assert named[source.name]["role"] == "input"


ASYNCHRONOUS = """
import asyncio
from prefect.runtime import flow_run
from ivcap_flows import flow

@flow
async def short():
    return flow_run.get_id()

if __name__ == "__main__":
    print(asyncio.run(short()))
"""


def test_an_asynchronous_flow_ends_without_a_traceback(prefect_server: dict[str, str], tmp_path: Path) -> None:
    """Its record is shown while the interpreter ends, which starts no thread that would send events."""
    script = tmp_path / "short.py"
    script.write_text(ASYNCHRONOUS)
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": os.environ["IVCAP_FLOWS_JOURNAL"]}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and "atexit" not in done.stderr, done.stderr
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        assert any(artifact.data.startswith("# ") for artifact in shown(done.stdout.strip(), 1))


@pytest.mark.parametrize(
    ("record", "link"),
    [
        (entity("102.1/7", "dataset", platform="https://provena.example"), "https://hdl.handle.net/102.1/7"),
        (activity("102.1/8", "model-run", platform="urn:ivcap-flows:embedded:x"), None),
        (
            entity("c", "code", remote="git@github.com:o/r.git", commit="a" * 40),
            f"https://github.com/o/r/commit/{'a' * 40}",
        ),
        (
            entity("c", "code", remote="https://g.example/o/r", commit="b" * 40),
            f"https://g.example/o/r/commit/{'b' * 40}",
        ),
        (entity("c", "code", remote="/srv/git/r", commit="c" * 40), None),
        (entity("c", "code", remote="https://x.example/](javascript:1)", commit="c" * 40), None),
    ],
)
def test_links_lead_to_what_is_public(record: Record, link: str | None) -> None:
    """A handle that only an embedded platform knows, and a repository on this machine, lead nowhere."""
    assert (f"({link})" in links_of([record])) if link else links_of([record]) == ""


def test_a_run_without_things_has_a_page_and_no_table() -> None:
    """It says that there were none."""
    assert "none" in page_of("r", "f", "failed", [], [], []) and rows_of([], []) == []
