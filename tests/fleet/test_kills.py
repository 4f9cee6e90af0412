"""What dies in a fleet while mapped tasks of one flow run in the processes of several machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Final

import psycopg
import pytest
from fleet import Fleet
from layouts import lay_out
from machines import Machine

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

COUNT: Final = 6
SECONDS: Final = 20
"""Of an order: long enough for what dies, while orders are waited for, to be missed."""

Kill = Callable[[Fleet, dict[str, Machine]], None]


def flows(fleet: Fleet, machines: dict[str, Machine]) -> None:
    """The machine with the flow's process and its worker."""
    machines["flows"].kill()


def one_of_dask(fleet: Fleet, machines: dict[str, Machine]) -> None:
    """A machine with a Dask worker."""
    machines["one"].kill()


def dasks_scheduler(fleet: Fleet, machines: dict[str, Machine]) -> None:
    """The scheduler. Its workers end without it, and are started again, as by a supervisor."""
    machines["head"].kill()
    for name in ("one", "two"):
        machines[name].kill()
    fleet.start_scheduler()
    for name in ("one", "two"):
        fleet.dask_worker(machines[name])


def one_of_ray(fleet: Fleet, machines: dict[str, Machine]) -> None:
    """A machine with a node of Ray."""
    machines["one"].kill()


def connections(fleet: Fleet, machines: dict[str, Machine]) -> None:
    """Every connection to the journal, three times."""
    for _ in range(3):
        with psycopg.connect(fleet.journal, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(1)


@pytest.mark.parametrize("moment", ["while they are placed", "while they are waited for"])
@pytest.mark.parametrize(
    ("layout", "kill"),
    [
        ("dask", flows),
        ("dask", one_of_dask),
        ("dask", dasks_scheduler),
        ("dask", connections),
        ("ray", one_of_ray),
        ("ray", flows),
    ],
)
def test_what_dies(fleet: Fleet, layout: str, kill: Kill, moment: str) -> None:
    """Whatever dies: the run continues with the orders that there are; when it is run again, where only that helps."""
    machines = lay_out(fleet, layout)
    # Only one machine takes the run, so that it is known which.
    machines["spare"].kill()
    run = fleet.run("spread", folder=str(fleet.shared), count=COUNT, seconds=SECONDS)
    if moment == "while they are placed":
        fleet.reaches(run, "two orders", lambda: fleet.orders() >= 2)
    else:
        fleet.reaches(run, "all orders", lambda: (fleet.shared / "placed").exists())
    begin = datetime.now(timezone.utc)
    kill(fleet, machines)
    fleet.killed = (begin, datetime.now(timezone.utc))
    fleet.worker(machines["spare"])
    if kill is flows:
        fleet.again(run)
    fleet.completes(run, again=kill in (dasks_scheduler, connections))
    assert fleet.orders() == COUNT
    if kill in (one_of_dask, one_of_ray):
        # A task run that another worker takes over is no second call.
        assert "share one" not in fleet.said()
    fleet.audit(run)
