"""What the platforms' own lists say of what was ordered, made and registered."""

from __future__ import annotations

from dataclasses import dataclass

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.provena.models import ModelRun


@dataclass(frozen=True)
class Books:
    """How many orders, artifacts and model runs the platforms have."""

    orders: int
    artifacts: int
    model_runs: int

    @classmethod
    def read(cls) -> Books:
        return loop.run(cls._read())

    @classmethod
    async def _read(cls) -> Books:
        async with IvcapCredentials.from_environment().get_client() as ivcap:
            orders = [order async for order in ivcap.orders.list()]
            artifacts = [artifact async for artifact in ivcap.artifacts.list()]
        async with ProvenaCredentials.from_environment().get_client() as provena:
            runs = [run async for run in provena.registry.list(ModelRun)]
        return cls(len(orders), len(artifacts), len(runs))

    @classmethod
    def of(cls, contents: int) -> Books:
        """What so many contents come to: each has a series and three products."""
        return cls(contents, 4 * contents, contents)
