"""The example flows and a batch on platforms that are as slow, narrow and late as the real ones.

`make rehearse` lets the times of production pass as they are.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from registration_rows import Items, make_items

from flows.coastal_el_nino import coastal_el_nino
from flows.order_pipeline import order_pipeline
from flows.register_runs import register_runs
from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.journal import Journal
from ivcap_flows.local import PlatformControl
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.sources import open_source

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("example_services"),
    pytest.mark.xdist_group("e2e"),  # which shares the Prefect server
]


@pytest.fixture
def production(
    request: pytest.FixtureRequest, prefect_api: None, embedded_platform: PlatformControl
) -> Iterator[PlatformControl]:
    """Platforms that are like production, with the services of the examples."""
    embedded_platform.be_like("production", speed=request.config.getoption("--production-speed"))
    yield embedded_platform
    assert [each["path"] for each in embedded_platform.requests() if each["dropped"]] == []


def asked(embedded: PlatformControl, path: str) -> int:
    return len([each for each in embedded.requests("POST") if each["path"].endswith(path)])


def test_the_coastal_el_nino(production, ivcap_journal, own_series, tmp_path):
    """One order and one model run, and no reply is lost."""
    made = coastal_el_nino(str(own_series), output=tmp_path / "results")
    assert (asked(production, "/1/orders"), asked(production, "/model_run/register")) == (1, 1)
    assert [run.urn for _, run, _ in made.values()] != []


def test_the_order_pipeline(production, ivcap_journal, tmp_path):
    """Each order of the chain is placed once."""
    asyncio.run(order_pipeline(bases=("1981-2010",), seasons=("DJF",), resamples=100, output=tmp_path))
    assert asked(production, "/1/orders") == 1 + 1 + 1 + 1


def test_the_registered_runs(production, ivcap_journal, tmp_path):
    """Each case is ordered once, and becomes one model run."""
    made, _ = register_runs(window_years=(60,), base_years=(55,), output=tmp_path)
    assert asked(production, "/1/orders") == len(made.runs) == made.rows >= 1


def test_a_batch_with_as_many_mints(production, ivcap_journal: Journal, tmp_path):
    """Each row is one model run, each artifact one dataset, and no mint is asked for twice."""
    name, count = uuid.uuid4().hex, 12

    async def whole() -> list[str]:
        async with ProvenaCredentials.from_environment().get_client() as client:
            items = await make_items(client)
            with Batch(written(items), client, terms=items.terms) as batch:
                assert (await batch.check()).wrong == 0
                assert (await batch.register(ivcap_journal)).is_whole
            found = client.registry.list(ModelRun, page_size=200)
            return [item.id async for item in found if item.info.display_name.startswith(name)]

    def written(items: Items) -> Any:
        rows = [items.record(number, display_name=f"{name} {number}") for number in range(count)]
        for row in rows:
            row["outputs"][0]["dataset_id"] = f"urn:ivcap:artifact:{uuid.uuid4()}"
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return open_source(file)

    assert len(loop.run(whole())) == count
    # Two datasets are among the items that the rows name.
    assert asked(production, "/mint-dataset") == count + 2
