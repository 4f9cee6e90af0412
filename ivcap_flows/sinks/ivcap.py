"""The record of a run as an aspect on IVCAP: entity `urn:ivcap-flows:run:<id>`, one active record per run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.identity import canonical, digest, flows_urn
from ivcap_flows.provenance import prov_json
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import Delivery, is_trial, shareable

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import RunRow

__all__ = ["RUN_SCHEMA", "IvcapSink"]

RUN_SCHEMA: Final = "urn:ivcap-flows:schema:run.1"


class IvcapSink:
    """Asserts run records with one account's client, under `policy`, else under the platform's default for aspects,
    which lets the account alone read them."""

    def __init__(self, client: IvcapClient, name: str = "ivcap", policy: str | None = None) -> None:
        self._client = client
        self._name = name
        self._policy = policy

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Read what is there first: an equal record is left, an older one retracted once the new one is in place."""
        if await is_trial(graph, self._client.platform):
            return Delivery("delivered", "nothing was sent: the run was made on another, embedded platform")
        aspects, entity = self._client.aspects, flows_urn("run", run.id)
        content = _content(run, graph)
        there = [record async for record in aspects.list(entity=entity, schema=RUN_SCHEMA, order_direction="ASC")]
        same = [record for record in there if _digest(record.content) == content["sha256"]]
        if not same:
            await aspects.add(entity, RUN_SCHEMA, content, self._policy)
        for record in there:
            if record not in same[:1]:
                await aspects.retract(record.urn)
        return Delivery("delivered")


def _content(run: RunRow, graph: Graph) -> dict[str, Any]:
    record = {
        "$schema": RUN_SCHEMA,
        "run": flows_urn("run", run.id),
        "flow": run.flow_name,
        "outcome": run.outcome,
        "missing-facts": run.missing_facts,
        "prov": json.loads(prov_json.dumps(shareable(graph), indent=None)),
    }
    return {**record, "sha256": digest(canonical(record))}


def _digest(content: Any) -> Any:
    return content.get("sha256") if isinstance(content, dict) else None
