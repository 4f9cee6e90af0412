"""The page of the order pipeline's report, from a real run in a real browser."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

import pytest
from prefect.settings import temporary_settings

from flows.monthly_table import BUNDLED, data_file
from flows.order_pipeline import order_pipeline
from ivcap_flows.cli import main
from ivcap_flows.local.register import read_definition, register

SERVICES = Path(__file__).parents[2] / "flows/services"

T = TypeVar("T")

pytestmark = pytest.mark.xdist_group("e2e")  # which shares the Prefect server


def in_thread(run: Callable[[], T]) -> T:
    """Run a function in a thread without an event loop; the browser's is in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, run).result()


@pytest.fixture
def report(chromium, prefect_settings, embedded_platform, ivcap_journal, tmp_path) -> Path:
    """The report of a short run on a series that no other test has uploaded, so that its artifact is this run's."""
    source = tmp_path / "ersst_nino12_monthly.csv"
    source.write_bytes(data_file(BUNDLED).read_bytes() + b"\n")
    for path in SERVICES.glob("*.yaml"):
        register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], read_definition(path), path)
    with temporary_settings(prefect_settings):
        made = in_thread(
            lambda: asyncio.run(
                order_pipeline(
                    source=str(source),
                    bases=("1981-2010",),
                    seasons=("DJF", "MAM", "JJA"),
                    resamples=100,
                    output=tmp_path / "results",
                )
            )
        )
    return Path(made["report.md"])


@pytest.mark.long
def test_the_page_of_the_pipeline_is_searched_folded_and_clicked(report, opened, tmp_path):
    """The page leads from the report to the series and the code.

    Orders are found, groups open, details show, and no token is in it.
    """
    with pytest.raises(SystemExit) as ended:
        main(["trace", str(report), "--html", str(tmp_path / "page.html")])
    assert ended.value.code == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    tokens = [value for name, value in os.environ.items() if "JWT" in name or "TOKEN" in name]
    assert tokens and not any(token in text for token in tokens)

    shown = opened(text)
    assert shown.page.locator("#heading").inner_text() == "Lineage of report.md"
    assert shown.node("report.md, file").is_visible() and not shown.page.locator('[data-item$="task run"]').count()
    assert not shown.page.locator('[data-item][aria-label*=", code"]').count()
    shown.page.click("#who")
    shown.page.locator("#who[aria-pressed=true]").wait_for()
    shown.wait_drawn()
    assert len(shown.asked) == 1, "the page is read again, and nothing else"
    shown.asked.clear()
    shown.page.fill("#search", "ersst_nino12_monthly.csv")
    assert "hit" in shown.node("ersst_nino12_monthly.csv, file").get_attribute("class")
    shown.page.fill("#search", "MAM against 1981-2010")
    shown.page.press("#search", "Enter")
    details = shown.page.locator("#details")
    assert details.locator("h2").inner_text() == "MAM against 1981-2010"
    assert "completed: it succeeded" in details.inner_text() and "urn:ivcap:order:" in details.inner_text()
    details.get_by_role("button", name="season.csv").click()
    assert details.locator("h2").inner_text() == "season.csv"
    shown.page.press("#search", "Escape")

    shown.page.click("#fit")
    shown.wait_drawn()
    before = shown.shown()
    shown.node("order-pipeline, flow run").locator("> .toggle").click()
    shown.wait_drawn()
    assert shown.shown() < before
    for name in ("ersst_nino12_monthly.csv, file", "order-pipeline, flow run", "report.md, file"):
        assert shown.node(name).is_visible()
    assert not shown.page.locator('[data-item][aria-label^="MAM against 1981-2010"]').count()
    shown.node("order-pipeline, flow run").focus()
    shown.page.keyboard.press("Space")
    shown.wait_drawn()
    assert shown.shown() == before
    shown.page.click("#fit")
    shown.wait_drawn()
    shown.node("order_pipeline, code").click()
    assert "flows/order_pipeline.py" in details.inner_text() and "commit" in details.inner_text()
