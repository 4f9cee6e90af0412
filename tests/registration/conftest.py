"""The items of the session's embedded Provena, a client of it, and the model runs that it has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.local import Twin
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))

from registration_rows import Items, make_items


@pytest.fixture(scope="session")
def run_items(_twin: Twin) -> Items:
    """Made once."""

    async def make() -> Items:
        async with ProvenaCredentials.from_environment(Settings(**_twin.environment)).get_client() as client:
            return await make_items(client)

    return loop.run(make())


@pytest.fixture
def provena(ivcap_twin: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProvenaClient]:
    """A client of the embedded Provena that gives up within a second; the log of requests is empty."""
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, 0.5)))
    client = ProvenaCredentials.from_environment().get_client()
    ivcap_twin.forget_requests()
    yield client
    loop.run(client.aclose())


@pytest.fixture
def lodged(provena: ProvenaClient) -> Callable[..., list[ModelRun]]:
    """The model runs on Provena whose display name begins so."""

    async def listed(begin: str) -> list[ModelRun]:
        found = provena.registry.list(ModelRun, page_size=500)
        return [item.info async for item in found if item.info.display_name.startswith(begin)]

    return lambda begin: loop.run(listed(begin))
