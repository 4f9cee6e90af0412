"""The run that `benchmarks/parking.py` measures, once with each wait."""

from __future__ import annotations

from prefect import flow

from ivcap_flows import wait_or_park
from ivcap_flows.tasks import place_order, wait_for_orders


@flow
def waits(until: str, park: bool) -> str:
    order = place_order("until", {"until": until})
    [done] = (wait_or_park if park else wait_for_orders)([order])
    return done.status
