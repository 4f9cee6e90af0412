"""Months of the shipped deployment: a real Prefect server, a real worker, and a table that grows month by month."""

from __future__ import annotations

import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from platform_books import Books
from table_server import Reply, measured, noaa_text

from flows.services.months import Month

ROOT = Path(__file__).parents[2]
NAME = "coastal-el-nino/several-months"

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500), pytest.mark.xdist_group("e2e")]


class Deployment:
    """The deployment of the shipped file, on the pool of the test's worker."""

    def __init__(self, prefect: dict[str, str], folder: Path, source: str) -> None:
        self.prefect, self.folder, self.runs = prefect, folder, 0
        shipped = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))
        [monthly] = [each for each in shipped["deployments"] if each["name"] == "monthly-index"]
        monthly |= {"name": NAME.partition("/")[2], "work_pool": {"name": "local"}}
        # The climatology of all months that the test serves; else the parameters are the shipped ones.
        monthly["parameters"] |= {"source": source, "base_start": 1971, "base_end": 2000, "output": str(folder / "out")}
        shipped["deployments"] = [monthly]
        (folder / "prefect.yaml").write_text(yaml.safe_dump(shipped), encoding="utf-8")
        self.command("--no-prompt", "deploy", "--all", "--prefect-file", str(folder / "prefect.yaml"))
        self.id = self.ask("GET", f"/deployments/name/{NAME}")["id"]

    def command(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=ROOT,
            env=self.prefect,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the Prefect server answers; on SQLite it may be busy for a while."""
        for _ in range(60):
            reply = httpx.request(method, f"{self.prefect['PREFECT_API_URL']}{path}", json=body, timeout=60)
            if not reply.is_server_error:
                break
            time.sleep(1)
        assert reply.is_success, reply.text
        return reply.json()

    def run(self) -> dict[str, Any]:
        """Have the worker do a run, and return the run when it has ended. Every other run has the other journal."""
        self.runs += 1
        journal = f"sqlite:///{self.folder / f'journal-{self.runs % 2}.sqlite'}"
        body = {"state": {"type": "SCHEDULED"}, "job_variables": {"env": {"IVCAP_FLOWS_JOURNAL": journal}}}
        run = self.ask("POST", f"/deployments/{self.id}/create_flow_run", body)
        end = time.monotonic() + 300
        while True:
            found: dict[str, Any] = self.ask("GET", f"/flow_runs/{run['id']}")
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            log = self.folder / "worker-0.log"
            assert time.monotonic() < end, f"{found['state']}\n{log.read_text()[-6000:]}"
            time.sleep(0.5)


def test_scheduled_runs_pay_for_each_content_once(prefect_server, worker, platforms, noaa, tmp_path):
    """Four new months, one unchanged, one malformed, one server error, one month corrected backwards.

    Five contents come to five orders, series and model runs, though two journals take turns.
    """
    worker(**platforms.environment)
    deployment = Deployment(prefect_server, tmp_path, noaa.url)
    values = measured()

    def serve(month: int) -> None:
        noaa.serve(noaa_text({at: value for at, value in values.items() if at <= Month(2010, month)}))

    def publishes(contents: int, month: int) -> None:
        run = deployment.run()
        assert run["state_name"] == "Completed", run["state"]
        assert Books.read() == Books.of(contents)
        assert (tmp_path / "out" / str(Month(2010, month)) / "plot.png").exists()

    serve(1)
    publishes(1, 1)

    serve(2)
    noaa.instead = [Reply(503)]
    publishes(2, 2)
    assert noaa.answered[-2:] == [503, 200]

    unchanged = deployment.run()
    assert (unchanged["state_type"], unchanged["state_name"]) == ("COMPLETED", "Unchanged")
    assert "As before, to 2010-02" in unchanged["state"]["message"]

    serve(3)
    noaa.serve(noaa.text.replace("2010   3", "2010 Mar"))
    malformed = deployment.run()
    assert malformed["state_type"] == "FAILED"
    assert "line 724, MON: Input should be a valid integer" in malformed["state"]["message"]
    assert Books.read() == Books.of(2)

    serve(3)
    publishes(3, 3)

    values[Month(1998, 3)] += Decimal("0.25")
    serve(3)
    publishes(4, 3)

    serve(4)
    publishes(5, 4)

    assert deployment.runs == 7 and len(noaa.answered) == 8
    # Whether a run is told that nothing is new depends on its journal, which two of them share in turn.
    assert noaa.answered.count(503) == 1

    # An automation can be triggered by the name of the state.
    resource = f"prefect.flow-run.{unchanged['id']}"
    wanted = {"event": {"name": ["prefect.flow-run.Unchanged"]}, "resource": {"id": [resource]}}
    end = time.monotonic() + 60
    while not deployment.ask("POST", "/events/filter", {"filter": wanted})["events"]:
        assert time.monotonic() < end
        time.sleep(1)
    deployment.command("deployment", "delete", NAME)
