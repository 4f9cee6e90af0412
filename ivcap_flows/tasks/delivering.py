"""`sync` as a flow, for a deployment that runs on a schedule."""

from __future__ import annotations

from functools import partial
from typing import Final

from prefect import flow
from prefect.states import Completed

from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.capture import journal
from ivcap_flows.capture.prefect_context import flow_run_id
from ivcap_flows.in_prefect.artifacts import PrefectArtifact, show
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.sink_registry import Clients
from ivcap_flows.sinks.synchronise import synchronise

__all__ = ["deliver_records"]

logger = logger_of("ivcap_flows.sinks")

KEY: Final = "ivcap-flows-deliveries"
_SAID: Final = (
    "Records of runs that sinks have not received yet. Pending ones are tried again automatically. For dead ones, "
    "remove the reason first, then run `ivcap-flows sync --again`."
)


@flow(name="deliver-records")
def deliver_records(again: bool = False, ivcap: str | None = None, provena: str | None = None) -> int:
    """Deliver the records in this worker's journal to the sinks in IVCAP_FLOWS_SINKS. Return how many are left.

    The table artifact `ivcap-flows-deliveries` lists what is left, and the run ends in a completed state that
    automations can match: `DeliveriesRefused` if a sink refused a record or cannot be used, `DeliveriesPending` if all
    is tried again automatically.

    Args:
        again: Also try deliveries that wait for their next try, and deliveries that were refused.
        ivcap: Name of the block `IvcapCredentials`; by default, the worker's environment decides.
        provena: Name of the block `ProvenaCredentials`; by default, the worker's environment decides.
    """
    names = Settings.current().sinks
    if not names:
        logger.warning("No sink is enabled: name the sinks in IVCAP_FLOWS_SINKS on the worker.")
    clients = Clients(
        partial(ivcap_client, ivcap, deployed=True),
        partial(provena_client, provena, deployed=True),
    )
    done = synchronise(journal(deployed=True), names, clients, again=again)
    rows = [
        {"sink": row.sink, "run": row.run_id or "", "state": row.state, "tries": row.tries, "reason": row.reason or ""}
        for row in done.left
    ]
    rows += [
        {"sink": name, "run": "", "state": "unusable", "tries": 0, "reason": str(error)}
        for name, error in done.unusable.items()
    ]
    show(PrefectArtifact("table", rows or [{"sink": "nothing is left"}], _SAID, flow_run_id(), key=KEY))
    for row in rows:
        logger.warning("Sink %s has not received run %s (%s): %s", row["sink"], row["run"], row["state"], row["reason"])
    if not rows:
        return 0
    refused = sum(row["state"] != "pending" for row in rows)
    told = f"{len(rows)} deliveries are left, {refused} of them refused; the table artifact {KEY} lists them."
    name = "DeliveriesRefused" if refused else "DeliveriesPending"
    # The caller of the flow gets the state's data.
    return Completed(name=name, message=told, data=len(rows))  # type: ignore[return-value]
