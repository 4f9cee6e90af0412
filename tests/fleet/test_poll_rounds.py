"""The processes of a fleet ask the platform together, and one that dies is not missed."""

from __future__ import annotations

import psycopg
import pytest
from fleet import Fleet
from layouts import lay_out

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]


def test_others_ask_when_a_machine_dies(fleet: Fleet) -> None:
    """Rounds go on when one of two machines is killed; no order is lost by it, nor placed again."""
    machines = lay_out(fleet, "workers")
    folders = {name: fleet.shared / name for name in ("flows", "spare")}
    runs = {}
    for name, folder in folders.items():
        folder.mkdir()
        runs[name] = fleet.run("spread", on=name, folder=str(folder), count=4, seconds=45)
    for folder in folders.values():
        fleet.until("all orders", (folder / "placed").exists)
    with psycopg.connect(fleet.journal, autocommit=True) as journal:

        def rounds() -> int:
            return journal.execute("SELECT coalesce(max(ended), 0) FROM polls").fetchone()[0]  # type: ignore[index]

        fleet.until("a round", lambda: rounds() > 0)
        machines["flows"].kill()
        before = rounds()
        fleet.until("further rounds", lambda: rounds() > before + 2)
    fleet.completes(runs["spare"], again=False)
    assert fleet.orders() == 8
