"""What Prefect's web interface shows of the package, in a real Chromium: forms of blocks and deployments, and a run.

With IVCAP_FLOWS_TEST_PICTURES set to a folder, pictures are kept there; `make screenshots` keeps those of the
documentation. Where there is no Chromium, these tests are skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from prefect_servers import own_prefect_server

from ivcap_flows.local import ensure

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
PICTURES = os.environ.get("IVCAP_FLOWS_TEST_PICTURES")
# A busy machine is long in showing a page.
expect.set_options(timeout=60_000)

PIPELINE = ["-p", "bases=[1981-2010]", "-p", "seasons=[DJF, MAM]", "-p", "resamples=200"]


@pytest.fixture(scope="module")
def web_interface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server with its web interface; the value is the environment in which its clients run."""
    with own_prefect_server(tmp_path_factory.mktemp("interface"), interface=True) as environment:
        yield environment


@pytest.fixture(scope="module")
def command(web_interface, tmp_path_factory) -> Iterator[Callable[..., None]]:
    """Run a module as a command, as a user of that Prefect server with the embedded platforms."""
    folder = tmp_path_factory.mktemp("pipeline")
    own = {"IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}", "IVCAP_LOCAL_DIR": str(folder / "ivcap")}

    def run(*words: object) -> None:
        whole = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(
            whole, cwd=ROOT, env={**web_interface, **own}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    yield run
    ensure(own["IVCAP_LOCAL_DIR"]).end_with_jobs()


@pytest.fixture(scope="module")
def filled(command, web_interface, tmp_path_factory) -> str:
    """The address of the interface, with the blocks, the shipped deployments, and a run of the order pipeline."""
    command("prefect", "block", "register", "-m", "ivcap_flows.blocks")
    command("prefect", "work-pool", "create", "ivcap-flows", "--type", "process")
    command("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    command("ivcap_flows.cli", "local", "register", *sorted((ROOT / "flows/services").glob("*.yaml")))
    flow = "flows/order_pipeline.py:order_pipeline"
    command("ivcap_flows.cli", "run", flow, *PIPELINE, "-p", f"output={tmp_path_factory.mktemp('results')}")
    return web_interface["PREFECT_API_URL"].removesuffix("/api")


@pytest.fixture
def opened(chromium: Browser, filled: str) -> Callable[[str], Page]:
    """Return a function that opens a page of the interface by its path."""
    pages: list[Page] = []

    def open_page(path: str) -> Page:
        page = chromium.new_page(viewport={"width": 1360, "height": 900})
        page.set_default_timeout(60_000)
        page.route("https://raw.githubusercontent.com/**", with_logo)
        page.goto(filled + path)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


def with_logo(route: Route) -> None:
    """Answer for the repository on the web, whose pictures are also here."""
    route.fulfill(path=IMAGES / route.request.url.rpartition("/")[2])


def asked(address: str, path: str) -> Any:
    """What the server's API lists."""
    return httpx.post(f"{address}/api{path}", json={}, timeout=60).raise_for_status().json()


def keep(page: Page, name: str) -> None:
    """Keep a picture of few colours, if pictures are wanted."""
    if PICTURES is None:
        return
    path = Path(PICTURES, f"{name}.png")
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    with Image.open(path) as taken:
        few = taken.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def assert_form_of_a_block(page: Page) -> None:
    """Each field has a title and says if it is optional; no field asks for a type; an empty form is refused."""
    expect(page.get_by_text("URL", exact=True).first).to_be_visible()
    expect(page.get_by_text("URL (Optional)", exact=True)).to_have_count(0)
    text = page.locator("form").inner_text()
    assert text.count("(Optional)") >= 2 and "null" not in text
    logo = page.locator("img[src*='githubusercontent']").first
    assert logo.evaluate("picture => picture.complete && picture.naturalWidth") == 200
    keep(page, "web-block")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("is required").first).to_be_visible()


def keyed(address: str, key: str) -> dict[str, Any]:
    """The newest artifact of a key."""
    return next(each for each in asked(address, "/artifacts/filter") if each["key"] == key)


@pytest.mark.parametrize(("interface", "picture"), [("", "web-record-v1"), ("/v2", "web-record")])
def test_a_run_and_what_starts_it_are_readable_in_both_interfaces(opened, filled, interface, picture):
    """A row for each order, in columns none of which is cut; inputs and outputs open on a click. The table of orders
    has names and times. The forms of a block and a deployment say what to fill in, and no path of this machine."""
    page = opened(f"{interface}/artifacts/artifact/{keyed(filled, 'provenance-order-pipeline')['id']}")
    expect(page.get_by_role("heading", name="order-pipeline: completed")).to_be_visible()
    for said in ("Report on all seasons", "plot.png, report.md"):
        expect(page.get_by_text(said, exact=True)).to_be_visible()
    assert page.locator("table").evaluate("table => table.scrollWidth <= table.clientWidth")
    read = page.locator("details").first.get_by_text("ersst_nino12_monthly.csv")
    expect(read).to_be_hidden()
    keep(page, picture)
    page.get_by_text("Inputs (1)", exact=True).click()
    expect(read).to_be_visible()
    if interface:
        return
    shown = keyed(filled, "orders-order-pipeline")
    orders = opened(f"/artifacts/artifact/{shown['id']}")
    for said in ("Index against 1981-2010", "DJF against 1981-2010", "Report on all seasons"):
        expect(orders.get_by_text(said, exact=True)).to_be_visible()
    expect(orders.get_by_text(re.compile(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d$")).first).to_be_visible()
    run = opened(f"/runs/flow-run/{shown['flow_run_id']}")
    expect(run.get_by_text("Waiting for").or_(run.get_by_text("Finished in state Completed()")).first).to_be_visible()
    keep(run, "web-run")
    assert_form_of_a_block(opened("/blocks/catalog/ivcap-credentials/create"))
    [deployment] = [each for each in asked(filled, "/deployments/filter") if each["name"] == "monthly-index"]
    form = opened(f"/deployments/deployment/{deployment['id']}/run")
    expect(form.get_by_text("source (Optional)", exact=True)).to_be_visible()
    values = form.locator("input, textarea").evaluate_all("all => all.map(each => each.value)")
    assert any(values) and not any(value.startswith("/") or str(ROOT) in value for value in values)
    keep(form, "web-deployment")
