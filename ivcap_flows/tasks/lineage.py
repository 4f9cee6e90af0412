"""Tasks for the lineage in Provena: follow it, and request a report about it."""

from __future__ import annotations

import os
from typing import Literal

from ivcap_flows.durable import planning
from ivcap_flows.errors import ProtocolError, UnavailableError
from ivcap_flows.handles import LocalFile, ModelRun, RegistryItem
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.prov import Direction
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.items import stated
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PlannedError

__all__ = ["aexplore_lineage", "alineage_report", "explore_lineage", "lineage_report"]

Ends = Literal["anything", "datasets", "agents"]


async def _explore_lineage(
    start: RegistryItem | ModelRun | str,
    direction: Direction = "upstream",
    *,
    ends: Ends = "anything",
    depth: int | None = None,
    credentials: ProvenaCredentialsLike = None,
) -> Lineage:
    """Return what an item was made from (`upstream`) or what was made from it (`downstream`), from Provena's graph.

    `ends` keeps only the paths that end at datasets (`"datasets"`), or at persons and organisations (`"agents"`).
    `depth` is the number of links to follow, 1 to 10; the default is 2, or 4 if `ends` is given. Raises NotFoundError
    for an unknown id.
    """
    call = await ProvenaCall.of(credentials)
    call.check(start)
    PlannedError.refuse([start])
    urn, prov = urn_of(start), call.client.prov
    ask = {
        ("upstream", "datasets"): prov.contributing_datasets,
        ("upstream", "agents"): prov.contributing_agents,
        ("downstream", "datasets"): prov.effected_datasets,
        ("downstream", "agents"): prov.effected_agents,
    }.get((direction, ends))
    try:
        return await (ask(urn, depth=depth) if ask else prov.explore(urn, direction, depth=depth))
    except UnavailableError as error:
        if error.status == 500:
            # The prov API answers 500 for an unknown id. The registry raises NotFoundError for it.
            await call.client.registry.fetch_any(urn)
        raise


async def _lineage_report(
    item: RegistryItem | ModelRun | str,
    path: str | os.PathLike[str],
    *,
    depth: int = 1,
    timeout: float = 600.0,
    credentials: ProvenaCredentialsLike = None,
) -> LocalFile:
    """Request a report (.docx) about a model run or a study from Provena and save it in the file `path`.

    The report follows `depth` links, 1 to 3. Raises WaitTimeoutError after `timeout` seconds, and
    RegistrationFailedError for items of other subtypes.
    """
    call = await ProvenaCall.of(credentials)
    call.check(item)
    urn = urn_of(item)
    if planning() is not None:
        raise PlannedError(f"The plan ends here: the flow would request a report about {urn}.")
    if isinstance(item, ModelRun):
        subtype = "MODEL_RUN"
    else:
        subtype = item.subtype if isinstance(item, RegistryItem) else (await stated(call, urn)).item_subtype
    session = await call.client.prov.report(urn, subtype, depth=depth)
    row = (await call.client.jobs.wait(session, timeout)).checked()
    if row.report_url is None:
        raise ProtocolError(f"Provena finished the report about {urn} (job {session}) but gave no URL to download it.")
    return await call.client.documents.save(row.report_url, path, what=f"the report about {urn}")


explore_lineage, aexplore_lineage = task_pair(_explore_lineage, "lineage of {start} {direction}")
lineage_report, alineage_report = task_pair(_lineage_report, "report about {item}", writes=("path",))
