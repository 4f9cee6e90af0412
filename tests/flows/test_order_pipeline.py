"""The chain of orders on the embedded platform, from the series to the report, each order placed once."""

import asyncio
import os
from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.settings import temporary_settings

from flows.order_pipeline import order_pipeline
from ivcap_flows.errors import OrderFailedError
from ivcap_flows.local.services.register import read_definition, register

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "flows/services"


@pytest.fixture
def registered(prefect_settings, embedded_platform, ivcap_journal):
    for path in SERVICES.glob("*.yaml"):
        register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], read_definition(path), path)
    with temporary_settings(prefect_settings):
        yield embedded_platform


def placed(embedded) -> int:
    return len(embedded.requests("POST", "/1/orders"))


@pytest.mark.long
@pytest.mark.xdist_group("e2e")  # which shares the Prefect server
def test_every_season_of_every_base_period_is_in_the_report(registered, tmp_path):
    """One order for each step, each placed once, and a report and a plot at the end of the chain."""
    made = asyncio.run(
        order_pipeline(bases=("1961-1990", "1981-2010"), seasons=("DJF", "JJA"), resamples=100, output=tmp_path)
    )
    assert placed(registered) == 2 + 4 + 2 + 1
    assert "| season | 1961-1990 | 1981-2010 |" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert Path(made["plot.png"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.xdist_group("e2e")
def test_an_order_that_fails_is_placed_again_so_often_and_no_more(registered, tmp_path):
    """With every job breaking down, the error names the order after the last repeat, with the words of its log."""
    with pytest.raises(OrderFailedError, match="Order it again"):
        asyncio.run(
            order_pipeline(bases=("1981-2010",), seasons=("DJF",), resamples=100, breakdowns=1.0, output=tmp_path)
        )
    assert placed(registered) == 1 + 6 + 1


@pytest.mark.xdist_group("e2e")
def test_a_base_period_that_is_none_is_refused(registered):
    """Nothing is ordered for a base period that is not two years."""
    with pytest.raises(ParameterTypeError, match=r"bases\.0"):
        asyncio.run(order_pipeline(bases=("thirty years",)))
    assert placed(registered) == 0
