"""What a Dask worker must have."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fleet import Fleet
from layouts import lay_out

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

SAVE = """
import os, sys
from ivcap_flows.blocks import IvcapCredentials

IvcapCredentials(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"]).save(sys.argv[1], overwrite=True)
"""


def test_a_worker_finds_its_platform_by_a_block(fleet: Fleet) -> None:
    """With nothing about the platform in its environment but the name of a block."""
    save = [sys.executable, "-c", SAVE, "fleet"]
    subprocess.run(save, env=fleet.environment, check=True, capture_output=True)
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        del fleet.environment[name]
    fleet.environment["IVCAP_FLOWS_IVCAP_BLOCK"] = "fleet"
    lay_out(fleet, "dask")
    run = fleet.run("spread", folder=str(fleet.shared), count=2, seconds=1)
    assert fleet.ended(run) == "COMPLETED", fleet.said()
    assert fleet.orders() == 2
    fleet.audit(run)


def test_a_worker_with_another_journal_orders_nothing(fleet: Fleet) -> None:
    """Its tasks fail, and say what to set."""
    machines = {name: fleet.machine(name) for name in ("head", "one", "flows")}
    machines["one"].environment["IVCAP_FLOWS_JOURNAL"] = f"sqlite:///{machines['one'].folder}/journal.sqlite"
    fleet.dask(machines["head"], machines["one"])
    fleet.worker(machines["flows"])
    run = fleet.run("spread", folder=str(fleet.shared), count=2, seconds=1)
    assert fleet.ended(run) == "FAILED", fleet.said()
    assert "Set IVCAP_FLOWS_JOURNAL here to the journal of the flow's process" in fleet.said()
    assert fleet.orders() == 0
