"""Runs the order pipeline on the embedded platforms, and keeps pictures of two pages: where its report came from, and a
run with its neighbours. `python docs/picture.py`, or `make picture`; it takes three minutes, and needs a Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SMALL: Final = ("-p", "bases=[1981-2010]", "-p", "seasons=[DJF, MAM]")


def pages(folder: Path) -> tuple[Path, Path]:
    """Where the report of a run came from, some of whose orders failed and were placed again; and the last of three
    runs with the others."""
    ours = ("IVCAP", "PROVENA", "PREFECT")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder / 'journal.sqlite'}",
        "IVCAP_LOCAL_DIR": str(folder / "platforms"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "DO_NOT_TRACK": "1",
    }

    def run(*command: object) -> None:
        subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, env=environment, check=True)

    def order(output: str, *options: object) -> None:
        flow = ROOT / "flows" / "order_pipeline.py:order_pipeline"
        run("ivcap_flows.cli", "run", flow, "-p", "resamples=200", "-p", f"output={folder / output}", *options)

    def trace(page: str, *words: object) -> Path:
        run("ivcap_flows.cli", "trace", *words, "--html", folder / page)
        return folder / page

    run("ivcap_flows.cli", "local", "register", *sorted((ROOT / "flows" / "services").glob("*.yaml")))
    order("results", "-p", "breakdowns=0.3")
    report = trace("report.html", folder / "results" / "report.md")
    order("before", *SMALL)
    order("last", *SMALL)
    return report, trace("run.html", "latest", "--up", "--down")


def photograph(address: str, picture: Path, scheme: Literal["light", "dark"]) -> None:
    """The whole page without its legend, as a PNG of few colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1360, "height": 860}, color_scheme=scheme)
        shown.goto(address)
        if shown.locator("#legend[open]").count():
            shown.locator("summary").click()
        shown.get_by_role("button", name="Fit").click()
        shown.mouse.move(5, 5)
        shown.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as taken:
        few = taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("No Chromium is installed here; Debian's package is called chromium.")
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as made:
        report, last = pages(Path(made))
        photograph(report.as_uri(), IMAGES / "order-pipeline.png", "light")
        for scheme, name in (("light", "run.png"), ("dark", "run-dark.png")):
            photograph(f"{last.as_uri()}#all", IMAGES / name, scheme)
