"""The flow that is killed, in the shape of `flows/order_pipeline.py`: an upload, several orders at once of which one
fails now and then and one takes long, a wait that parks, and of all that another upload and order. Beside them, where
the scenario says so, a job, an aspect, a registry item and a minted dataset.

A trial copies this file, as a user's checkout, and each process loads its copy; a worker loads the file itself. The
scenario's folder is in CRASH_FOLDER.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, task
from pydantic import BaseModel

from harness.scenario import EQUAL, NOTE, Scenario
from harness.steps import FAN_IN, arm, ending
from ivcap_flows import recorded
from ivcap_flows.errors import JournalError
from ivcap_flows.handles import Artifact
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import Organisation
from ivcap_flows.provena.terms import Terms
from ivcap_flows.tasks import (
    OrderStep,
    attach_aspect,
    mint_dataset,
    place_order,
    register_item,
    request_job,
    run_orders,
    upload_artifact,
    wait_for_jobs,
)

REPEATS = 3
LICENCE = "https://creativecommons.org/licenses/by/4.0/"


class Wanted(BaseModel):
    """What the flow is about. It has no order, whatever the hash seed makes of a set."""

    mark: str
    tags: set[str] = set()


@flow
@recorded
def chain(folder: str, wanted: Wanted) -> list[str]:
    """The URNs of the orders that succeeded."""
    here = Path(folder)
    with (here / "entered").open("a", encoding="ascii") as told:
        told.write(f"{os.getpid()}\n")
    scenario = Scenario.read(here)
    with told_without_journal(here / "refused"):
        series = upload_artifact(here / f"{scenario.mark}-series.bin")
    with told_without_journal(here / "cut off"):
        return ordered(series, wanted, scenario, here)


def ordered(series: Artifact, wanted: Wanted, scenario: Scenario, here: Path) -> list[str]:
    if "equal jobs" in scenario.vary:
        request_equal_jobs(series, scenario, here)
    if "other effects" in scenario.vary:
        cause_others(series, wanted, scenario, here)
    last = scenario.names[-1]
    seconds = {name: scenario.seconds if name == last else 0.0 for name in scenario.names}
    steps = moody(seconds, series, scenario, here)
    if "any order" in scenario.vary:
        place_in_any_order(steps)
    done = run_orders(steps, max_resubmits=REPEATS)
    together = here / f"{scenario.mark}-{FAN_IN}"
    # The same bytes again whoever writes them, and whole whenever somebody reads them.
    written = here / f"{FAN_IN}.{os.getpid()}"
    text = "\n".join(order.urn for order in done) + "\n"
    written.write_text(text * (1 + scenario.size // len(text)), encoding="ascii")
    written.replace(together)
    of_all = moody({f"{scenario.mark}-all": 0.0}, upload_artifact(together), scenario, here)
    done += run_orders(of_all, max_resubmits=REPEATS)
    for arrive in ending:
        arrive()
    return [order.urn for order in done]


@contextmanager
def told_without_journal(file: Path) -> Iterator[None]:
    """Write this process down if its journal fails."""
    try:
        yield
    except JournalError:
        with file.open("a", encoding="ascii") as told:
            told.write(f"{os.getpid()}\n")
        raise


def cause_others(series: Artifact, wanted: Wanted, scenario: Scenario, here: Path) -> None:
    request = {"name": scenario.job, "series": series.urn, "ledger": str(here / "ledger"), "fails": 0, "seconds": 0.0}
    wait_for_jobs([request_job("moody", request, once_per=scenario.scope)])
    attach_aspect(series, wanted, schema=NOTE, once_per=scenario.scope)
    owner = register_item(Organisation(display_name=scenario.owner, name=scenario.owner)).urn
    terms = Terms(organisation_id=owner, publisher_id=owner, license=LICENCE, approvals=Approvals())
    mint_dataset(series, terms=terms)


def request_equal_jobs(series: Artifact, scenario: Scenario, here: Path) -> None:
    """At once, told apart by a discriminator alone: the platform shows no difference."""
    request = {"name": scenario.equal, "series": series.urn, "ledger": str(here / "ledger"), "fails": 0, "seconds": 0.0}
    asked = [
        request_job.submit("moody", request, once_per=scenario.scope, discriminator=str(number))
        for number in range(EQUAL)
    ]
    wait_for_jobs([each.result() for each in asked])


def place_in_any_order(steps: list[OrderStep]) -> None:
    """Place the orders at once, in tasks whose first step takes another time in each process; then they exist."""
    chance = random.Random(os.getpid())
    cases = [(step, chance.uniform(0.0, 0.5)) for step in steps]
    if chance.random() < 0.5:
        for future in [case.submit(*each) for each in cases]:
            future.result()
    else:
        asyncio.run(at_once(cases))


async def at_once(cases: list[tuple[OrderStep, float]]) -> None:
    await asyncio.gather(*(asyncio.to_thread(case, *each) for each in cases))


@task(name="A case", tags=["replay-safe"])
def case(step: OrderStep, seconds: float) -> str:
    time.sleep(seconds)
    return place_order(step.service, step.parameters, once_per=step.once_per).urn


def moody(names: dict[str, float], series: Artifact, scenario: Scenario, here: Path) -> list[OrderStep]:
    """A step for each name, whose order takes so many seconds; those of the first name fail at first."""
    return [
        OrderStep(
            "moody",
            {
                "name": name,
                "series": series,
                "ledger": str(here / "ledger"),
                "fails": scenario.fails if name == scenario.names[0] else 0,
                "seconds": seconds,
            },
            once_per=scenario.scope,
        )
        for name, seconds in names.items()
    ]


if "CRASH_FOLDER" in os.environ:
    arm(Path(os.environ["CRASH_FOLDER"]))
