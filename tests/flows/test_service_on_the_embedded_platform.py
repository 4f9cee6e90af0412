"""The service `coastal-el-nino-index` as the embedded IVCAP runs it, from its definition to its products."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.local.register import read_definition, register

FLOWS = Path(__file__).parents[2] / "flows"
SERIES = FLOWS / "data/ersst_nino12_monthly.csv"


@pytest.fixture(scope="module")
def platform_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an embedded IVCAP that knows the service."""
    folder = tmp_path_factory.mktemp("embedded")
    written = folder / "environment"
    command = [sys.executable, "-m", "ivcap_flows.local", "serve", "--port", "0", "--dir", str(folder / "state")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--env-file", str(written)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not (written.exists() and "IVCAP_JWT=" in written.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        environment = dict(line.split("=", 1) for line in written.read_text().splitlines() if "=" in line)
        definition = FLOWS / "services/coastal_el_nino_index.yaml"
        register(environment["IVCAP_URL"], environment["IVCAP_JWT"], read_definition(definition), definition)
        yield environment
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
async def ivcap(platform_environment):
    token = StaticToken(platform_environment["IVCAP_JWT"])
    async with IvcapClient(platform_environment["IVCAP_URL"], token) as client:
        yield client


async def order(ivcap: IvcapClient, series: Path, **years: int) -> OrderRecord:
    """Upload a series, order its index and wait."""
    service = await ivcap.services.by_name("coastal-el-nino-index")
    artifact = await ivcap.artifacts.create(name="series", media_type="text/csv", size=series.stat().st_size)
    await ivcap.artifacts.send(artifact, series)
    values = ivcap.services.encode_parameters(service, {"series": artifact.urn, **years})
    placed = await ivcap.orders.place(service.urn, values, name="index")
    deadline = time.monotonic() + 30
    while not placed.done:
        assert time.monotonic() < deadline, placed
        await asyncio.sleep(0.1)
        placed = await ivcap.orders.read(placed.urn)
    return placed


@pytest.mark.long
async def test_an_order_ends_with_three_products(ivcap, tmp_path):
    """An order of the real series gives the index, the events and the plot, and says in its log what it read."""
    done = await order(ivcap, SERIES)
    products = {product.name: product async for product in ivcap.orders.products(done.urn)}

    assert done.status == "succeeded"
    assert set(products) == {"index.csv", "events.csv", "plot.png"}
    assert "Read 732 months, 1950-01 to 2010-12" in await ivcap.orders.log_tail(done.urn)
    table = await ivcap.artifacts.download(products["events.csv"].urn, tmp_path / "events.csv")
    rows = Path(table.path).read_text().splitlines()
    assert [row for row in rows if ",extraordinary," in row] == [
        "warm,extraordinary,1982-07,1983-11,17,4.0154,1983-06",
        "warm,extraordinary,1997-03,1998-09,19,3.8442,1997-11",
    ]


async def test_a_malformed_series_fails_with_its_line_and_column(ivcap, tmp_path):
    """The log of the failed order ends with where the fault is, and there is no product."""
    spoiled = tmp_path / "spoiled.csv"
    spoiled.write_bytes(SERIES.read_bytes().replace(b"1982,", b"1982,warm ", 1))
    done = await order(ivcap, spoiled)

    assert done.status == "failed"
    assert not [product async for product in ivcap.orders.products(done.urn)]
    last = (await ivcap.orders.log_tail(done.urn)).splitlines()[-1]
    assert last.endswith("line 34, column 2 (JAN): 'warm 24.360' is no number; a missing month is an empty cell")


async def test_a_base_period_beyond_the_data_fails_by_its_name(ivcap):
    """The log of the failed order names the year that the data do not have."""
    done = await order(ivcap, SERIES, base_start=1981, base_end=2020)

    assert done.status == "failed"
    assert "base_end is 2020, the data have 1950 to 2010" in await ivcap.orders.log_tail(done.urn)
