"""The flows that `benchmarks/fleet.py` measures."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, unmapped

from ivcap_flows import recorded
from ivcap_flows.tasks import place_order, wait_for_orders


@flow
@recorded
def orders(service: str, mark: str, first: int, count: int, gate: Path, flows: int) -> dict[str, float]:
    """What so many orders take, after some that open connections and import what there is in each worker.

    So many flows begin together: each leaves a file in the folder `gate` once it is ready.
    """
    # A process worker runs the other flow from a copy of this file, without what is beside it.
    from benchmarks.measure import Busy

    def placed(numbers: range) -> None:
        messages = [{"message": f"{mark} {number}"} for number in numbers]
        found = place_order.map(unmapped(service), messages).result()
        if len({order.urn for order in found}) != len(messages):
            raise RuntimeError("Orders are missing.")

    placed(range(-first, 0))
    (gate / mark).touch()
    while len(list(gate.iterdir())) < flows:
        time.sleep(0.01)
    used, begin = Busy(), time.time()
    placed(range(count))
    return {"begin": begin, "end": time.time(), "cpu": used.seconds(), "busy": used.share()}


@flow
def waits(message: str) -> str:
    order = place_order("waits", {"message": message})
    [done] = wait_for_orders([order])
    return done.status
