"""The flows that `benchmarks/fleet.py` measures."""

from __future__ import annotations

import time

from prefect import flow, unmapped

from ivcap_flows import recorded
from ivcap_flows.tasks import place_order, wait_for_orders


@flow
@recorded
def orders(service: str, mark: str, first: int, count: int) -> dict[str, float]:
    """What so many orders take, after some that open connections and import what there is in each worker."""
    # A process worker runs the other flow from a copy of this file, without what is beside it.
    from benchmarks.measure import Busy

    found: dict[str, float] = {}
    for numbers in (range(-first, 0), range(count)):
        used, begin = Busy(), time.time()
        messages = [{"message": f"{mark} {number}"} for number in numbers]
        placed = place_order.map(unmapped(service), messages).result()
        if len({order.urn for order in placed}) != len(messages):
            raise RuntimeError("Orders are missing.")
        found = {"begin": begin, "end": time.time(), "cpu": used.seconds(), "busy": used.share()}
    return found


@flow
def waits(message: str) -> str:
    order = place_order("waits", {"message": message})
    [done] = wait_for_orders([order])
    return done.status
