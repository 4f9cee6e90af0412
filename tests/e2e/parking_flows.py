"""A flow that parks, as a user writes it. What it does beside the platform is told in the file COUNTED."""

from __future__ import annotations

import os

from prefect import flow, task

from ivcap_flows import a_wait_or_park, recorded, wait_or_park
from ivcap_flows.durable import parking as times
from ivcap_flows.tasks import aplace_order, arequest_job, parking, place_order

if os.environ.get("NEWER_CODE"):
    import newer_code

    newer_code.become(adds_only=True)

# So that a test need not wait for what takes minutes.
times.SHORTEST = parking.SHORTEST = float(os.environ["PARK_FOR_AT_LEAST"])  # type: ignore[misc]


def count(what: str) -> None:
    with open(os.environ["COUNTED"], "a", encoding="utf-8") as told:
        told.write(f"{what}\n")


@task(persist_result=True)
def side_effect(mark: str) -> str:
    count(f"{mark} side effect")
    return mark


@flow
@recorded
def parks(mark: str, seconds: float) -> list[str]:
    """One wait, after something that must not happen twice."""
    count(f"{mark} begins in {os.getpid()}")
    side_effect(mark)
    order = place_order("sleep", {"seconds": seconds}, discriminator=mark)
    return [done.status for done in wait_or_park([order])]


@flow
async def parks_twice(mark: str, seconds: float) -> list[str]:
    """An order, then a job that needs it, in an asynchronous flow that is not recorded."""
    count(f"{mark} begins in {os.getpid()}")
    side_effect(mark)
    placed = await aplace_order("sleep", {"seconds": seconds}, discriminator=mark)
    [order] = await a_wait_or_park([placed])
    asked = await arequest_job("sleep", {"seconds": seconds}, discriminator=f"{mark} {order.urn}")
    [job] = await a_wait_or_park([asked])
    return [order.status, job.status]
