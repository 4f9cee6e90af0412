"""What the platforms' own lists say of what was ordered, made and registered."""

from __future__ import annotations

from dataclasses import dataclass, field

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.identity import digest
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.provena.registry import SUBTYPES

OWN = ("urn:ivcap-flows:schema:", "urn:ivcap:schema:")
"""Schemas of aspects that a platform keeps its books with, or that effects are found again by."""


@dataclass(frozen=True)
class Books:
    """How many orders, artifacts and model runs the platforms have."""

    orders: int
    artifacts: int
    model_runs: int

    @classmethod
    def read(cls) -> Books:
        found = loop.run(Contents.read())
        return cls(len(found.orders), len(found.artifacts), len(found.model_runs))

    @classmethod
    def of(cls, contents: int) -> Books:
        """What so many contents come to: each has a series and three products."""
        return cls(contents, 4 * contents, contents)


@dataclass
class Contents:
    """The bytes of artifacts, orders and model runs with what they took and made, and so on, by id."""

    artifacts: dict[str, str] = field(default_factory=dict)
    orders: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    aspects: set[str] = field(default_factory=set)
    model_runs: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)

    @classmethod
    async def read(cls) -> Contents:
        found = cls()
        async with IvcapCredentials.from_environment().get_client() as ivcap:
            async for artifact in ivcap.artifacts.list():
                found.artifacts[artifact.urn] = digest(await ivcap.artifacts.read_bytes(artifact.urn, limit=2**24))
            async for listed in ivcap.orders.list():
                order = await ivcap.orders.read(listed.urn)
                made = {product.urn async for product in ivcap.orders.products(order.urn)}
                found.orders[order.urn] = (found.artifacts.keys() & set(order.values().values()), made)
            async for aspect in ivcap.aspects.list(include_content=False):
                # What a service says of its own job is the job's result.
                if not aspect.schema_urn.startswith(OWN) and not aspect.entity.startswith("urn:ivcap:job:"):
                    found.aspects.add(aspect.urn)
        async with ProvenaCredentials.from_environment().get_client() as provena:
            # How an item came to be is the registry's own record of it.
            for subtype in SUBTYPES.keys() - {"CREATE", "VERSION"}:
                async for item in provena.registry.list(subtype):
                    found.items.add(item.id)
            async for run in provena.registry.list(ModelRun):
                record = run.info.record
                took, made = ({d.dataset_id for d in ends} for ends in (record.inputs, record.outputs))
                found.model_runs[run.id] = (took, made)
        return found
