"""Tasks for the lineage that Provena knows: follow it, have a report written about it."""

from __future__ import annotations

import os
from typing import Literal

from ivcap_flows.errors import ProtocolError, UnavailableError
from ivcap_flows.handles import LocalFile, ModelRun, RegistryItem
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.prov import Direction
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.items import stated
from ivcap_flows.tasks.pair import task_pair

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
    """What an item came of (`upstream`) or what came of it (`downstream`), as Provena's graph has it.

    `ends` keeps the ways that end at datasets, or at persons and organisations. `depth` is the number of links that are
    followed, 1 to 10; by default 2, or 4 where `ends` is given. Raises NotFoundError for an id that is not known.
    """
    call = await ProvenaCall.of(credentials)
    call.check(start)
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
            # So the prov API answers to an id that it does not know; the registry knows better.
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
    """Have Provena write a document (.docx) about a model run or a study, and save it in the file `path`.

    It goes 1 to 3 links deep (`depth`). Waits for at most `timeout` seconds (WaitTimeoutError). Raises
    RegistrationFailedError for items of other subtypes.
    """
    call = await ProvenaCall.of(credentials)
    call.check(item)
    urn = urn_of(item)
    if isinstance(item, ModelRun):
        subtype = "MODEL_RUN"
    else:
        subtype = item.subtype if isinstance(item, RegistryItem) else (await stated(call, urn)).item_subtype
    session = await call.client.prov.report(urn, subtype, depth=depth)
    row = (await call.client.jobs.wait(session, timeout)).checked()
    if row.report_url is None:
        raise ProtocolError(f"Provena's report about {urn} has ended well (job {session}) without a URL.")
    return await call.client.documents.save(row.report_url, path, what=f"the report about {urn}")


explore_lineage, aexplore_lineage = task_pair(
    _explore_lineage, name="Explore lineage", run_name="lineage of {start} {direction}"
)
lineage_report, alineage_report = task_pair(
    _lineage_report, name="Lineage report", run_name="report about {item}", writes=("path",)
)
