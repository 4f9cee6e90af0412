"""Whether the graph has a model run: a job's row does not always say so, since a late write may put it back to PENDING.

Provena writes the row without conditions. So the run is asked once there was no progress for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ivcap_flows.errors import PlatformError
from ivcap_flows.provena.models import JobRow, ModelRunRecord
from ivcap_flows.provena.models import ModelRun as ModelRunInfo

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["graph_has", "is_lodged", "unless_done"]

_QUIET: Final = 60.0
"""Seconds without progress of a job after which its run is asked, and again after as many."""

_COMPARED: Final = frozenset({"DATASET", "STUDY", "PERSON", "ORGANISATION", "MODEL_RUN_WORKFLOW_TEMPLATE"})
"""The subtypes of the neighbours of a run that its record names. The graph has nothing else of a record."""

D = TypeVar("D")


async def unless_done(
    waiting: Awaitable[JobRow], done: Callable[[], Awaitable[D | None]], moved: Callable[[], float] = lambda: 0.0
) -> JobRow | D:
    """Wait for a job's row, or for what `done` returns instead, once it is not None.

    `done` is called after each minute in which nothing moved; `moved` returns the monotonic time of the last progress
    of the jobs that wait in one queue. An outage of the platform does not end the wait.
    """
    job = asyncio.ensure_future(waiting)
    asked = time.monotonic()
    try:
        while True:
            left = max(asked, moved()) + _QUIET - time.monotonic()
            if left > 0:
                await asyncio.wait({job}, timeout=left)
            if job.done():
                return job.result()
            if max(asked, moved()) + _QUIET > time.monotonic():
                continue
            try:
                found = await done()
            except PlatformError as error:
                if not error.retryable:
                    raise
                found = None
            if found is not None:
                return found
            asked = time.monotonic()
    finally:
        if not job.done():
            job.cancel()
            await asyncio.wait({job})


async def is_lodged(client: ProvenaClient, run: str) -> bool:
    """Return whether a run has been lodged: by its own record, else by the graph, since an update takes LODGED away."""
    info = (await client.registry.fetch(ModelRunInfo, run)).info
    return info.record_status == "LODGED" or await graph_has(client, run, info.record)


async def graph_has(client: ProvenaClient, run: str, record: ModelRunRecord) -> bool:
    """Return whether the graph shows a run as its record states it: its datasets, study, people and workflow."""
    causes, effects = await asyncio.gather(
        client.prov.explore(run, "upstream", depth=1), client.prov.explore(run, "downstream", depth=1)
    )
    compared = {node.id for node in (*causes.nodes, *effects.nodes) if node.subtype in _COMPARED}
    people = record.associations
    stated = {record.workflow_template_id, record.study_id, people.modeller_id, people.requesting_organisation_id}
    stated |= {part.dataset_id for part in record.inputs}
    return {link.target for link in causes.links if link.source == run} & compared == stated - {None} and {
        link.source for link in effects.links if link.target == run
    } & compared == {part.dataset_id for part in record.outputs}
