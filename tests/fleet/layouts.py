"""How the tasks of a flow are spread over the machines of a fleet."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Fleet
from machines import Machine

__all__ = ["LAYOUTS", "lay_out"]

LAYOUTS = ("workers", "dask", "ray")
RAY = Path(__file__).parents[2] / ".venvs/ray/bin/python"


def lay_out(fleet: Fleet, layout: str) -> dict[str, Machine]:
    """Start the machines by name: two with a process worker of Prefect, and what tasks are mapped to.

    With `dask` and `ray` there is a `head`, and there are two machines, `one` and `two`, for tasks.
    """
    if layout == "ray":
        if not RAY.exists():
            pytest.skip("Ray is not installed; `make fleet` does that.")
        fleet.python = str(RAY)
    machines = {name: fleet.machine(name) for name in ("flows", "spare")}
    if layout != "workers":
        head, *others = (fleet.machine(name) for name in ("head", "one", "two"))
        machines |= {machine.name: machine for machine in (head, *others)}
        (fleet.dask if layout == "dask" else fleet.ray)(head, *others)
    for name in ("flows", "spare"):
        fleet.worker(machines[name])
    return machines
