"""One process of a fleet asks the platform for all that wait."""

from __future__ import annotations

import time

import psycopg
import pytest
from fleet import Fleet
from layouts import lay_out

from ivcap_flows.journal.poll_status import POLL_LEASE_SECONDS

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

LEADERS = "SELECT p.host, l.token FROM poll_leaders l JOIN processes p ON p.id = l.process_id"


def test_another_leads_when_the_leaders_machine_dies(fleet: Fleet) -> None:
    """Within the lease of the lead, and some seconds for a busy machine; no order is lost by it."""
    machines = lay_out(fleet, "dask")
    run = fleet.run("spread", folder=str(fleet.shared), count=4, seconds=45)
    fleet.until("all orders", lambda: (fleet.shared / "placed").exists())
    with psycopg.connect(fleet.journal, autocommit=True) as journal:
        [(host, token)] = fleet.until("a leader", lambda: journal.execute(LEADERS).fetchall())
        begin = time.monotonic()
        machines[host].kill()

        def another() -> bool:
            leaders = journal.execute(LEADERS).fetchall()
            assert len(leaders) <= 1
            return bool(leaders) and leaders[0][1] != token

        fleet.until("another leader", another)
        assert time.monotonic() - begin < 2 * POLL_LEASE_SECONDS
    fleet.completes(run, again=False)
    assert fleet.orders() == 4
    fleet.audit(run)
