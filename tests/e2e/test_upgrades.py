"""Runs that began with older code go on with newer code, on real platforms, a real Prefect server, and with kills."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from eventually import until
from other_processes import end_at_once, settings_of_platforms
from parking_fleet import POOL, PREFECT, WAITED_FOR, Fleet

from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.canary, pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

BEFORE_THE_FIRST_REVISION = "0c4c0bb6"
ROOT = Path(__file__).parents[2]
NEWER_CODE = ROOT / "tests" / "journal" / "revisions"


@pytest.fixture
def older_code(tmp_path: Path) -> Path:
    """The package as it was before its tables had revisions, from the history of the repository."""
    words = ["git", "-C", str(ROOT), "archive", BEFORE_THE_FIRST_REVISION, "ivcap_flows"]
    archive = subprocess.run(words, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip("this checkout does not have the history")
    folder = tmp_path / "older"
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


@pytest.fixture
def journal_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a journal that is still to be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'upgraded.sqlite'}"
    server = request.getfixturevalue("postgresql_server")
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS upgraded")
        connection.execute("CREATE DATABASE upgraded")
    return str(server.format("upgraded"))


def woken(fleet: Fleet, run: str) -> None:
    end = time.monotonic() + 120
    while fleet.state(run)["name"] == "Parked":
        assert time.monotonic() < end, fleet.log("watch")
        process = fleet.start("watch", sys.executable, "-m", "ivcap_flows.cli", "watch", "--once")
        assert process.wait(60) == 0, fleet.log("watch")


@pytest.mark.parametrize("journal_place", ["sqlite", "postgresql"], indirect=True)
def test_what_older_code_left_is_ended_by_newer_code(
    prefect_server, embedded_platform, older_code, journal_place, tmp_path
):
    """A run that is parked, one that was killed while it waited for its order, and one whose order had no reply and
    shows nowhere yet: each is completed, and the platform has each order once."""
    alone = Fleet(tmp_path, prefect_server, settings_of_platforms())
    alone.environment |= {"IVCAP_FLOWS_JOURNAL": journal_place, "PARK_FOR_AT_LEAST": "600"}
    marks = ("parked", "waits", "doubt")
    deployment = alone.deployment("parks", "upgraded", work_pool_name=None)
    runs = {mark: alone.run(deployment, f"{mark} {tmp_path}", WAITED_FOR) for mark in marks}

    def go(mark: str, **variables: str) -> subprocess.Popen[bytes]:
        words = (sys.executable, "-m", "prefect.engine")
        return alone.start("worker", *words, PREFECT__FLOW_RUN_ID=runs[mark], **variables)

    def placed() -> int:
        return len(list(embedded_platform.requests("POST", "/1/orders$")))

    def killed(mark: str, count: int) -> None:
        process = go(mark, PYTHONPATH=str(older_code), IVCAP_FLOWS_PARK_AFTER="1000")
        until(lambda: process.poll() is not None or placed() == count, seconds=120)
        time.sleep(1)
        assert process.poll() is None, alone.log("worker")[-4000:]
        end_at_once(process)

    try:
        assert go("parked", PYTHONPATH=str(older_code)).wait(120) == 0, alone.log("worker")[-4000:]
        assert alone.state(runs["parked"])["name"] == "Parked" and placed() == 1
        killed("waits", 2)
        embedded_platform.add_fault(method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True)
        embedded_platform.add_fault(method="GET", path="^/1/orders", count=1000, status=503)
        killed("doubt", 3)
        embedded_platform.clear_faults()
        for mark in ("waits", "doubt"):
            while alone.state(runs[mark])["name"] != "Completed":
                state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
                alone.asked(f"/flow_runs/{runs[mark]}/set_state", {"state": state, "force": True})
                assert go(mark, IVCAP_FLOWS_PARK_AFTER="1000").wait(240) == 0, alone.log("worker")[-4000:]
        woken(alone, runs["parked"])
        assert go("parked").wait(120) == 0, alone.log("worker")[-4000:]
        assert alone.state(runs["parked"])["name"] == "Completed"
        assert placed() == 3
        assert "gets tables of revision 1; it has 0" in alone.log("worker") + alone.log("watch")
        with Journal.open(journal_place) as journal:
            orders = journal.intents.where(noun="order")
        assert [order.status for order in orders] == ["succeeded"] * 3 and len({order.urn for order in orders}) == 3
    finally:
        alone.end()


@pytest.mark.parametrize("journal_place", ["postgresql"], indirect=True)
def test_workers_of_two_revisions_share_a_journal(prefect_server, embedded_platform, journal_place, tmp_path):
    """The newer one only adds to the tables. Each worker is replaced by one of the other revision while runs are
    parked, there and back. No run fails, and each orders once."""
    fleet = Fleet(tmp_path, prefect_server, settings_of_platforms())
    fleet.environment |= {
        "IVCAP_FLOWS_JOURNAL": journal_place,
        # No run wakes by itself while a worker is replaced.
        "PARK_FOR_AT_LEAST": "600",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    pool = f"{POOL}-revisions"
    newer = {"NEWER_CODE": "1", "PYTHONPATH": str(NEWER_CODE)}

    def worker(name: str, **variables: str) -> subprocess.Popen[bytes]:
        return fleet.start("worker", *PREFECT, "worker", "start", "--pool", pool, "--name", name, **variables)

    def parks(mark: str) -> str:
        run = fleet.run(deployment, f"{mark} {os.getpid()}", WAITED_FOR)
        fleet.until(run, {"Parked"})
        return run

    def wakes(run: str) -> None:
        woken(fleet, run)
        fleet.until(run, {"Completed"})

    try:
        fleet.asked("/work_pools/", {"name": pool, "type": "process"})
        deployment = fleet.deployment("parks", "revisions", work_pool_name=pool)
        older = worker("older")
        first, second = parks("with older"), parks("with older, too")
        later = worker("newer", **newer)
        end_at_once(older)
        third = parks("with newer")
        wakes(first)
        # Started again, on tables that it does not know all of.
        worker("older again")
        end_at_once(later)
        wakes(second)
        wakes(third)
        assert len(list(embedded_platform.requests("POST", "/1/orders$"))) == 3
        assert "gets tables of revision 2; it has 1" in fleet.log("worker")
        with Journal.open(journal_place) as journal:
            assert [run.outcome for run in journal.runs.recent(9)] == ["completed"] * 3
    finally:
        fleet.end()
