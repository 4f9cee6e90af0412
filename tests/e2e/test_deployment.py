"""The shipped deployment and a killed one, on a real Prefect server with a real process worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from eventually import until
from other_processes import settings_of_platforms
from prefect_api import ask_prefect

from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PREFECT = [sys.executable, "-m", "prefect"]
ROOT = Path(__file__).parents[2]


def prefect(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*PREFECT, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def wait_for(
    environment: dict[str, str], condition: Callable[[dict[str, Any]], bool], seconds: float, log: Path
) -> Any:
    """The newest flow run of the server for which this holds."""

    def held() -> list[Any]:
        runs = ask_prefect(environment, "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200})
        return [run for run in runs if condition(run)]

    return until(held, seconds=seconds, pause=0.2, said=lambda: log.exists() and log.read_text())[0]


@pytest.mark.long
def test_a_scheduled_run_of_the_shipped_deployment_completes(
    prefect_server, worker, example_services, embedded_platform, own_series, tmp_path
):
    """The shipped file deploys with its cron schedule, and a run that the scheduler made does the whole job."""
    shipped = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))
    # The watcher would be scheduled first, and is no job.
    shipped["deployments"] = [each for each in shipped["deployments"] if "output" in each["parameters"]]
    for deployment in shipped["deployments"]:
        deployment["work_pool"]["name"] = "local"
        deployment["parameters"]["output"] = str(tmp_path / "results")
    # NOAA's server is none of a test's.
    shipped["deployments"][0]["parameters"]["source"] = str(own_series)
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(shipped), encoding="utf-8")

    process = worker(**settings_of_platforms())
    prefect(prefect_server, "--no-prompt", "deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml"))
    log = tmp_path / "worker-0.log"
    made = wait_for(prefect_server, lambda r: r["auto_scheduled"], 60, log)
    assert "cron" in json.dumps(shipped["deployments"][0]["schedules"])
    # It is due next month, which the test does not wait for.
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(timezone.utc).isoformat()}}
    ask_prefect(prefect_server, f"/flow_runs/{made['id']}/set_state", {"state": state, "force": True})
    run = wait_for(prefect_server, lambda r: r["id"] == made["id"] and r["state_type"] == "COMPLETED", 150, log)
    assert process.poll() is None
    assert (tmp_path / "results" / "2010-12" / "plot.png").stat().st_size > 10_000
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        found = journal.runs.get(run["id"])
        nouns = {row.noun: row.status or row.state for row in journal.intents.where(run_id=found.id)}
    assert found.deployed and found.outcome == "completed"
    assert nouns["order"] == "succeeded" and nouns["model run"] == "done"
    prefect(prefect_server, "deployment", "delete", "coastal-el-nino/monthly-index")


@pytest.mark.long
def test_a_killed_deployed_run_goes_on_with_its_order(prefect_server, worker, embedded_platform, tmp_path):
    """`kill -9` of the flow's process under a worker, its order just sent: the retried run has one order, and one
    model run."""
    (tmp_path / "series.csv").write_text(f"YEAR,JAN\n1950,{time.time_ns()}\n", encoding="utf-8")
    worker(**settings_of_platforms())
    embedded_platform.add_fault(method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True)
    embedded_platform.add_fault(method="GET", path="^/1/(orders|aspects)$", count=2, delay=3.0)
    entry = "tests/crash/pipeline.py:pipeline"
    prefect(prefect_server, "--no-prompt", "deploy", entry, "--name", "killed", "--pool", "local")
    parameters = json.dumps({"source": str(tmp_path / "series.csv"), "seconds": 4})
    prefect(prefect_server, "deployment", "run", "pipeline/killed", "--params", parameters)
    until(
        lambda: embedded_platform.requests("POST", "/1/orders"), seconds=90, said=(tmp_path / "worker-0.log").read_text
    )
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        [attempt] = journal.runs.attempts(journal.runs.recent(1)[0].id)
        os.kill(attempt.process.pid, signal.SIGKILL)
        run_id = attempt.flow_run_id
        log = tmp_path / "worker-0.log"
        wait_for(prefect_server, lambda r: r["id"] == run_id and r["state_type"] == "CRASHED", 60, log)
        retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        ask_prefect(prefect_server, f"/flow_runs/{run_id}/set_state", {"state": retry})
        wait_for(prefect_server, lambda r: r["id"] == run_id and r["state_type"] == "COMPLETED", 90, log)
        run = journal.runs.get(run_id)
        outcomes = [a.outcome for a in journal.runs.attempts(run.id)]
    assert outcomes == ["lost", "completed"]
    accepted = [r for r in embedded_platform.requests("POST") if (r["status"] or 500) < 300]
    assert len([r for r in accepted if r["path"] == "/1/orders"]) == 1
    assert len([r for r in accepted if r["path"] == "/provena/prov/model_run/register"]) == 1
