"""The processes of a fleet ask the platform together, and one that dies is not missed."""

from __future__ import annotations

import psycopg
import pytest
from fleet import Fleet
from layouts import lay_out

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]


def test_others_ask_when_a_machine_dies(fleet: Fleet) -> None:
    """Rounds go on when a machine is killed, whichever it is; no order is lost by it."""
    machines = lay_out(fleet, "dask")
    run = fleet.run("spread", folder=str(fleet.shared), count=4, seconds=45)
    fleet.until("all orders", lambda: (fleet.shared / "placed").exists())
    with psycopg.connect(fleet.journal, autocommit=True) as journal:

        def rounds() -> int:
            return journal.execute("SELECT coalesce(max(ended), 0) FROM polls").fetchone()[0]  # type: ignore[index]

        fleet.until("a round", lambda: rounds() > 0)
        machines["one"].kill()
        before = rounds()
        fleet.until("further rounds", lambda: rounds() > before + 2)
    fleet.completes(run, again=False)
    assert fleet.orders() == 4
    fleet.audit(run)
