"""Runs that park, with a real Prefect server, a real process worker and real watchers.

One worker runs them all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import psycopg
import pytest
from eventually import until
from other_processes import end_at_once, settings_of_platforms
from parking_fleet import POOL, PREFECT, WAITED_FOR, Fleet
from prefect_servers import OwnPrefect

from ivcap_flows.journal import Journal

pytestmark = [pytest.mark.canary, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def fleet(prefect_server, _embedded, tmp_path_factory) -> Iterator[Fleet]:
    """One worker for all tests of this module."""
    made = Fleet(tmp_path_factory.mktemp("parking"), prefect_server, settings_of_platforms(_embedded.environment))
    made.asked("/work_pools/", {"name": POOL, "type": "process"})
    made.start("worker", *PREFECT, "worker", "start", "--pool", POOL)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def started(fleet) -> dict[str, str]:
    """Two runs of a deployment that has a limit of one: the second is started while the first is parked for long."""
    limit = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "ENQUEUE"}}
    limited = fleet.deployment("parks", "limited", **limit)
    long = fleet.run(limited, "long", 600.0, PARK_FOR_AT_LEAST="600")
    fleet.until(long, {"Parked"})
    return {"long": long, "short": fleet.run(limited, "short", 6.0)}


@pytest.fixture
def journal(fleet) -> Iterator[Journal]:
    with Journal.open(fleet.environment["IVCAP_FLOWS_JOURNAL"]) as opened:
        yield opened


def outcomes(journal: Journal, run: str) -> list[str]:
    """Return how the attempts ended. Prefect hears of the last end a moment before the journal does."""
    runs = journal.runs
    return until(
        lambda: [attempt.outcome for attempt in runs.attempts(runs.get(run).id)], lambda found: found[-1] != "running"
    )


@pytest.mark.long
def test_parked_runs_give_their_slot_away_and_come_back_by_themselves(fleet, started, journal):
    """Beside one that is parked, a run of the same limit parks, wakes without a watcher, and completes. What must not
    happen twice happened once, and each round was in a process of its own."""
    run = started["short"]
    fleet.until(run, {"Completed"})
    assert fleet.state(started["long"])["name"] == "Parked"
    did = fleet.told("short")
    begins = [line for line in did if line.startswith("begins")]
    assert did.count("side effect") == 1 and len(begins) >= 2 and len(set(begins)) == len(begins)
    assert outcomes(journal, run) == ["parked"] * (len(begins) - 1) + ["completed"]
    found = journal.runs.get(run)
    [order] = journal.intents.where(run_id=found.id)
    assert (order.noun, order.status) == ("order", "succeeded")
    assert [each.park.round for each in journal.runs.attempts(found.id) if each.park] == list(range(1, len(begins)))


@pytest.mark.long
def test_a_parked_run_is_cancelled_at_once(fleet, started, journal):
    """Nothing has to be ended for that; a look of the watcher notes it, and the order stays on record."""
    run = started["long"]
    fleet.until(run, {"Parked"})
    fleet.asked(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert fleet.state(run)["name"] == "Cancelled"
    watch = subprocess.run(
        [sys.executable, "-m", "ivcap_flows.cli", "watch", "--once"],
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert watch.returncode == 0, watch.stderr
    found = journal.runs.get(run)
    assert found.outcome == "cancelled"
    [order] = journal.intents.where(run_id=found.id)
    assert order.state == "done"


@pytest.mark.long
def test_a_watcher_wakes_each_round_and_another_takes_over(fleet, journal):
    """Two waits in one run, a round each, each woken as soon as its work has ended, though the run would sleep for an
    hour once a watcher has polled for its account. One of two watchers is killed in between."""
    killed, lives = fleet.watcher("killed"), fleet.watcher("lives")
    until(lambda: all("Watching" in fleet.log(name) for name in ("killed", "lives")), said=lambda: fleet.log("lives"))
    run = fleet.run(fleet.deployment("parks_twice", "watched"), "watched", 5.0)
    fleet.until(run, {"Parked"})
    fleet.until(run, {"Running"})
    end_at_once(killed)
    fleet.until(run, {"Completed"})
    attempts = journal.runs.attempts(journal.runs.get(run).id)
    assert [each.park and each.park.round for each in attempts] == [1, 2, None]
    sleeps = [(left.park.wake_at - left.ended_at).total_seconds() for left in attempts[:-1]]
    assert sleeps[0] < 60 and sleeps[1] > 3000
    for left, again in pairwise(attempts):
        assert (again.started_at - left.ended_at).total_seconds() < 60
    assert fleet.told("watched").count("side effect") == 1
    assert outcomes(journal, run) == ["parked", "parked", "completed"]
    assert lives.poll() is None


@pytest.fixture
def own_server(postgresql_server, tmp_path):
    """A Prefect server of the test's own, on PostgreSQL."""
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'").fetchone()
        if known is None:
            pytest.skip("this PostgreSQL has no pg_trgm, without which Prefect makes no tables")
        connection.execute("DROP DATABASE IF EXISTS prefect_parking WITH (FORCE)")
        connection.execute("CREATE DATABASE prefect_parking")
    asynchronous = postgresql_server.format("prefect_parking").replace("postgresql://", "postgresql+asyncpg://")
    settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": asynchronous, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    server = OwnPrefect(tmp_path, **settings)
    yield server
    server.end()


@pytest.mark.long
def test_parked_runs_outlast_a_killed_server_and_worker(own_server, embedded_platform, tmp_path):
    """The Prefect server and the worker are killed while a run is parked; both start anew and it completes."""
    fleet = Fleet(tmp_path, own_server.environment, settings_of_platforms())
    try:
        fleet.asked("/work_pools/", {"name": POOL, "type": "process"})
        worker = fleet.start("worker", *PREFECT, "worker", "start", "--pool", POOL)
        run = fleet.run(fleet.deployment("parks", "outlasting"), "outlasting", 5.0)
        fleet.until(run, {"Parked"})
        worker.kill()
        own_server.kill()
        own_server.start()
        fleet.start("worker", *PREFECT, "worker", "start", "--pool", POOL)
        fleet.until(run, {"Completed"})
        assert fleet.told("outlasting").count("side effect") == 1
        with Journal.open(fleet.environment["IVCAP_FLOWS_JOURNAL"]) as journal:
            assert len(journal.intents.where(noun="order")) == 1
    finally:
        fleet.end()


@pytest.mark.long
def test_a_run_that_is_killed_as_it_parks_goes_on_with_its_order(prefect_server, embedded_platform, tmp_path):
    """Without a worker: the test starts the run's process as one would, and starts it again."""
    alone = Fleet(tmp_path, prefect_server, settings_of_platforms())
    run = alone.run(alone.deployment("parks", "alone", work_pool_name=None), "alone", WAITED_FOR)

    def go() -> subprocess.Popen[bytes]:
        return alone.start("worker", sys.executable, "-m", "prefect.engine", PREFECT__FLOW_RUN_ID=run)

    try:
        with Journal.open(alone.environment["IVCAP_FLOWS_JOURNAL"]) as journal:
            process = go()
            until(
                lambda: any(attempt.flow_run_id == run for attempt, _ in journal.parks.open()),
                seconds=200,
                pause=0.01,
                said=lambda: alone.log("worker"),
            )
            end_at_once(process)
            # The next process mostly finds that the order has ended.
            time.sleep(1)
            while alone.state(run)["name"] != "Completed":
                state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
                alone.asked(f"/flow_runs/{run}/set_state", {"state": state, "force": True})
                assert go().wait(120) == 0, alone.log("worker")[-4000:]
            [order] = journal.intents.where(run_id=journal.runs.get(run).id)
            assert (order.noun, order.status) == ("order", "succeeded")
        assert alone.told("alone").count("side effect") == 1
    finally:
        alone.end()


@pytest.fixture
def both_places(postgresql_server, tmp_path) -> dict[str, str]:
    """The URLs of a journal that is still to be made, on each kind of database."""
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS parked")
        connection.execute("CREATE DATABASE parked")
    return {"sqlite": f"sqlite:///{tmp_path / 'parked.sqlite'}", "postgresql": postgresql_server.format("parked")}


@pytest.mark.long
@pytest.mark.parametrize(("old", "new"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_parked_run_goes_on_where_its_journal_was_moved(
    prefect_server, embedded_platform, both_places, tmp_path, old, new
):
    """It parks with one database, a watcher wakes it with the other, and it orders nothing again. The test starts its
    process as a worker would."""
    alone = Fleet(tmp_path, prefect_server, settings_of_platforms())
    alone.environment |= {"IVCAP_FLOWS_JOURNAL": both_places[old], "PARK_FOR_AT_LEAST": "600"}
    run = alone.run(alone.deployment("parks", f"moved-{new}", work_pool_name=None), f"moved-{new}", WAITED_FOR)

    def go() -> None:
        process = alone.start("worker", sys.executable, "-m", "prefect.engine", PREFECT__FLOW_RUN_ID=run)
        assert process.wait(120) == 0, alone.log("worker")[-4000:]

    def command(*words: str) -> None:
        assert alone.start("command", sys.executable, "-m", "ivcap_flows.cli", *words).wait(120) == 0, alone.log(
            "command"
        )

    try:
        go()
        assert alone.state(run)["name"] == "Parked"
        command("journal", "move", both_places[old], both_places[new])
        alone.environment["IVCAP_FLOWS_JOURNAL"] = both_places[new]
        end = time.monotonic() + 120
        while alone.state(run)["name"] == "Parked":
            assert time.monotonic() < end, alone.log("command")
            command("watch", "--once")
        go()
        assert alone.state(run)["name"] == "Completed"
        with Journal.open(both_places[new]) as journal:
            [order] = journal.intents.where(run_id=journal.runs.get(run).id)
            assert (order.noun, order.status) == ("order", "succeeded")
            assert outcomes(journal, run) == ["parked", "completed"]
        mark = f"moved-{new}"
        assert len([line for line in alone.told(mark) if line.startswith("begins")]) == 2
        assert alone.told(mark).count("side effect") == 1
        placed = list(embedded_platform.requests("POST", "/1/orders"))
        assert len(placed) == 1
    finally:
        alone.end()


@pytest.mark.long
def test_a_served_run_parks_and_comes_back(prefect_server, embedded_platform, tmp_path):
    """`serve` starts a process for each round, without a worker."""
    alone = Fleet(tmp_path, prefect_server, settings_of_platforms())
    try:
        program = str(Path(__file__).with_name("serving.py"))
        alone.start("worker", sys.executable, program, PREFECT_RUNNER_POLL_FREQUENCY="1")
        found = until(
            lambda: httpx.get(f"{alone.environment['PREFECT_API_URL']}/deployments/name/parks/served", timeout=60),
            lambda reply: reply.is_success,
            120,
            said=lambda: alone.log("worker"),
        )
        run = alone.run(found.json()["id"], "served", WAITED_FOR)
        alone.until(run, {"Parked"})
        alone.until(run, {"Completed"})
        begins = [line for line in alone.told("served") if line.startswith("begins")]
        assert len(begins) == len(set(begins)) >= 2 and alone.told("served").count("side effect") == 1
        with Journal.open(alone.environment["IVCAP_FLOWS_JOURNAL"]) as journal:
            [order] = journal.intents.where(run_id=journal.runs.get(run).id)
            assert (order.noun, order.status) == ("order", "succeeded")
    finally:
        alone.end()


@pytest.mark.long
def test_a_run_in_a_container_parks_and_comes_back(prefect_server, embedded_platform, tmp_path):
    """The command that Docker and Kubernetes workers give their containers ends well when the run parks, and begins the
    next round when it is given again."""
    alone = Fleet(tmp_path, prefect_server, settings_of_platforms())
    run = alone.run(alone.deployment("parks", "contained", work_pool_name=None), "contained", WAITED_FOR)
    try:
        rounds = 0
        while alone.state(run)["name"] != "Completed":
            command = [*PREFECT, "flow-run", "execute"]
            assert alone.start("worker", *command, PREFECT__FLOW_RUN_ID=run).wait(120) == 0, alone.log("worker")[-4000:]
            rounds += 1
            assert alone.state(run)["name"] in ("Parked", "Completed"), alone.log("worker")[-4000:]
        assert rounds >= 2 and alone.told("contained").count("side effect") == 1
    finally:
        alone.end()
