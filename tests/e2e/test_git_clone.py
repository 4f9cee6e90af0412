"""A deployment whose code is cloned for each run, on a real Prefect server with a real process worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checkouts import git
from eventually import until
from other_processes import settings_of_platforms
from prefect_api import ask_prefect

from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

FLOW = """
from pathlib import Path

from ivcap_flows import flow
from ivcap_flows.tasks import place_order, wait_for_orders


@flow
def cloned(mark: str, told: str) -> str:
    with Path(told).open("a", encoding="utf-8") as file:
        file.write(f"{Path(__file__).resolve()}\\n")
    order = place_order("echo", {"message": mark}, once_per="flow")
    [done] = wait_for_orders([order])
    return done.urn
"""


@pytest.fixture
def repository(tmp_path) -> Path:
    """A working copy with a flow, whose commits are pushed to the bare repository `origin.git` beside it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    git(tmp_path, "init", "--bare", "--initial-branch", "main", "origin.git")
    git(copy, "init", "--initial-branch", "main")
    git(copy, "remote", "add", "origin", str(tmp_path / "origin.git"))
    commit(copy, FLOW)
    return copy


def commit(copy: Path, code: str) -> None:
    (copy / "cloned.py").write_text(code, encoding="utf-8")
    git(copy, "add", "cloned.py")
    git(copy, "commit", "--message", "Order once")
    git(copy, "push", "origin", "main")


@pytest.mark.long
def test_two_runs_of_a_cloned_flow_share_an_order(prefect_server, worker, embedded_platform, repository, tmp_path):
    """With once_per="flow", two runs from two clones, of two commits, place one order."""
    told, log = tmp_path / "told", tmp_path / "worker-0.log"
    worker(**settings_of_platforms())

    deployment = ask_prefect(
        prefect_server,
        "/deployments/",
        {
            "name": "cloned",
            "flow_id": ask_prefect(prefect_server, "/flows/", {"name": "cloned"})["id"],
            "work_pool_name": "local",
            "entrypoint": "cloned.py:cloned",
            "parameters": {"mark": str(tmp_path), "told": str(told)},
            "pull_steps": [
                {
                    "prefect.deployments.steps.git_clone": {
                        "repository": (tmp_path / "origin.git").as_uri(),
                        "branch": "main",
                    }
                }
            ],
        },
    )

    def run() -> None:
        made = ask_prefect(
            prefect_server, f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        )
        ended = until(
            lambda: ask_prefect(prefect_server, f"/flow_runs/{made['id']}", method="GET"),
            lambda found: found["state_type"] in ("COMPLETED", "FAILED", "CRASHED"),
            180,
            pause=0.2,
            said=log.read_text,
        )
        assert ended["state_type"] == "COMPLETED", f"{ended['state']}\n{log.read_text()[-6000:]}"

    run()
    commit(repository, f"{FLOW}\n# Another commit.\n")
    run()

    first, second = told.read_text(encoding="utf-8").splitlines()
    assert first != second and repository not in Path(first).parents
    assert len([each for each in embedded_platform.requests("POST", "/1/orders") if each["status"] < 300]) == 1
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        [order] = journal.intents.where(noun="order")
        assert order.scope == "flow:cloned"
        runs = journal.runs.recent(flow_name="cloned")
    assert [each.outcome for each in runs] == ["completed", "completed"]
