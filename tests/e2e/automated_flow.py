"""A flow whose process is killed with its worker: it has a side effect of its own, and an order."""

from __future__ import annotations

import os

from prefect import flow, task

from ivcap_flows.tasks import place_order, wait_for_orders


@task(persist_result=True)
def count(what: str) -> str:
    with open(os.environ["COUNTED"], "a", encoding="utf-8") as told:
        told.write(f"{what} {os.getpid()}\n")
    return what


@flow
def waits_long(seconds: float) -> list[str]:
    """Tell the file COUNTED which process it runs in, place an order, and wait for it."""
    count("begins in")
    return [order.status for order in wait_for_orders([place_order("sleep", {"seconds": seconds})])]
