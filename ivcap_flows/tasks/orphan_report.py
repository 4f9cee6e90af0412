"""A flow that shows the orphans as a table in Prefect, for a deployment that runs on a schedule."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from prefect import flow
from prefect.states import Completed

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import journal
from ivcap_flows.capture.prefect_context import flow_run_id
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, show
from ivcap_flows.in_prefect.flow_run_states import ended_flow_runs
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.secrets import logger_of
from ivcap_flows.work.orphans import as_rows, elsewhere, orphans_of, seen

__all__ = ["report_orphans"]

logger = logger_of("ivcap_flows.orphans")

KEY: Final = "ivcap-flows-orphans"
_SAID: Final = (
    "Orders and jobs that no live run of this journal waits for. IVCAP cannot cancel them: each runs to its end and is "
    "paid for. The column `next` says what to do."
)


@flow(name="report-orphans")
def report_orphans(ivcap: str | None = None) -> int:
    """Write the table artifact `ivcap-flows-orphans` and return the number of orphans that this journal knows.

    It lists the orders and jobs that cancelled, killed and failed runs left. If there are any, the run ends as
    `OrphansFound`, a completed state that automations can match. It needs the journal of the flows.

    Args:
        ivcap: Name of the block `IvcapCredentials`; by default, the worker's environment decides.
    """
    known = journal()
    reconcile(known)
    here = orphans_of(known, ended_flow_runs)
    rows = loop.run(_rows(here, ivcap))
    show(PrefectArtifact("table", rows or [{"what": "nothing"}], _SAID, flow_run_id(), key=KEY))
    if not here:
        return 0
    told = f"No live run waits for {len(here)} orders and jobs; the table artifact {KEY} lists them."
    logger.warning(told)
    # The caller of the flow gets the state's data.
    return Completed(name="OrphansFound", message=told, data=len(here))  # type: ignore[return-value]


async def _rows(here: list[Any], credentials: str | None) -> list[dict[str, Any]]:
    client = await ivcap_client(credentials, deployed=True)
    known = journal()
    others = await asyncio.create_task(elsewhere(client, known))
    return as_rows([*await seen(client, here), *others])
