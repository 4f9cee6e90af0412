"""The orphans as a table in Prefect, from a deployment that runs now and then."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from prefect import flow

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import journal
from ivcap_flows.capture.context import flow_run_id
from ivcap_flows.capture.prefect_artifacts import PrefectArtifact, show
from ivcap_flows.capture.reconcile import not_to_come_back, reconcile
from ivcap_flows.secrets import logger_of
from ivcap_flows.work.orphans import as_rows, elsewhere, orphans_of, seen

__all__ = ["report_orphans"]

logger = logger_of("ivcap_flows.orphans")

KEY: Final = "ivcap-flows-orphans"
_SAID: Final = (
    "Orders and jobs that no live run of this journal waits for. IVCAP has no call to cancel one: each runs to its end "
    "and is paid for."
)


@flow(name="report-orphans")
def report_orphans() -> int:
    """Write the table artifact `ivcap-flows-orphans`: what cancelled, killed and failed runs have left; their number.

    It needs the journal of the flows and the credentials of the environment.
    """
    known = journal()
    reconcile(known)
    here = orphans_of(known, not_to_come_back)
    rows = loop.run(_rows(here))
    show(PrefectArtifact("table", rows or [{"what": "nothing"}], _SAID, flow_run_id(), key=KEY))
    if here:
        logger.warning("%d orders and jobs have no live owner; the artifact %s names them.", len(here), KEY)
    return len(here)


async def _rows(here: list[Any]) -> list[dict[str, Any]]:
    client = await ivcap_client(None, deployed=True)
    known = journal()
    others = await asyncio.create_task(elsewhere(client, known))
    return as_rows([*await seen(client, here), *others])
