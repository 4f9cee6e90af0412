"""The flows that the fleet runs.

`FLEET_RUNNER` says where their mapped tasks run: `dask=<address>`, `ray=<address>`, or else in the flow's threads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import flow, task, unmapped
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.coastal_el_nino import coastal_el_nino
from flows.order_pipeline import order_pipeline
from flows.register_runs import register_runs
from ivcap_flows.tasks import place_order, upload_artifact, wait_for_orders


def runner() -> TaskRunner[Any]:
    kind, _, address = os.environ.get("FLEET_RUNNER", "").partition("=")
    if kind == "dask":
        from prefect_dask import DaskTaskRunner

        return DaskTaskRunner(address=address)
    if kind == "ray":
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(address=address)
    return ThreadPoolTaskRunner(max_workers=4)


coastal = coastal_el_nino.with_options(task_runner=runner())
pipeline = order_pipeline.with_options(task_runner=runner())
register = register_runs.with_options(task_runner=runner())


@task
def write(folder: Path, number: int) -> Path:
    """A task of Prefect's own, in whichever process."""
    path = folder / f"{number}.txt"
    path.write_text(f"{folder.name} {number}\n", encoding="ascii")
    return path


@flow(task_runner=runner())
def spread(folder: str, count: int, seconds: float) -> list[str]:
    """Files, artifacts and orders from all processes at once. There is no `@recorded` and no call of a task before."""
    here = Path(folder)
    files = write.map(unmapped(here), range(count))
    artifacts = upload_artifact.map(files)
    parameters = [{"seconds": seconds + number / 1000} for number in range(count)]
    orders = place_order.map(unmapped("sleep"), parameters, wait_for=artifacts)
    placed = orders.result()
    (here / "placed").touch()
    done = wait_for_orders.map([[order] for order in placed]).result()
    return [order.urn for (order,) in done]
