"""A flow that shows the orphans as a table in Prefect, for a deployment that runs on a schedule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

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
from ivcap_flows.work.orphans import all_orphans, as_rows

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["report_orphans"]

T = TypeVar("T")

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
    known = journal(deployed=True)
    reconcile(known)

    def ask(look: Callable[[IvcapClient], Awaitable[T]]) -> T:
        return loop.run(_asked(look, ivcap))

    mine, others, failure = all_orphans(known, ended_flow_runs, ask)
    said = _SAID
    if failure is not None:
        said = f"{_SAID} The platform could not be asked for their status: {failure}"
        logger.warning("The platform could not be asked for orphans: %s", failure)
    rows = as_rows([*mine, *others])
    show(PrefectArtifact("table", rows or [{"what": "nothing"}], said, flow_run_id(), key=KEY))
    if not mine:
        return 0
    told = f"No live run waits for {len(mine)} orders and jobs; the table artifact {KEY} lists them."
    logger.warning(told)
    # The caller of the flow gets the state's data.
    return Completed(name="OrphansFound", message=told, data=len(mine))  # type: ignore[return-value]


async def _asked(look: Callable[[IvcapClient], Awaitable[T]], credentials: str | None) -> T:
    return await look(await ivcap_client(credentials, deployed=True))
