"""Runs the order pipeline on the embedded platforms, draws where its report came from, and keeps a picture of the page:
`python docs/picture.py`, or `make picture`. It takes a minute, and needs a Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "order-pipeline.png"
CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pipeline(folder: Path) -> Path:
    """The page of a fresh run of the pipeline, of which some orders failed and were placed again."""
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

    run("ivcap_flows.cli", "local", "register", *sorted((ROOT / "flows" / "services").glob("*.yaml")))
    run("flows.order_pipeline", "--resamples", 200, "--breakdowns", 0.3, "--output", folder / "results")
    run("ivcap_flows.cli", "trace", folder / "results" / "report.md", "--up", "--down", "--html", folder / "page.html")
    return folder / "page.html"


def photograph(page: Path) -> None:
    """The page with a stack of orders chosen, some of which failed, as a PNG of few colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1360, "height": 860}, color_scheme="light")
        shown.goto(page.as_uri())
        shown.locator('[aria-label*="failed within"][aria-label^="Place order"]').first.click()
        shown.mouse.move(5, 5)
        shown.screenshot(path=PICTURE)
        browser.close()
    with Image.open(PICTURE) as taken:
        taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            PICTURE, optimize=True
        )


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("No Chromium is installed here; Debian's package is called chromium.")
    PICTURE.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as made:
        photograph(pipeline(Path(made)))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")
