"""Draw the Mermaid diagrams of the pages for the site: `python docs/diagrams.py`, or `make diagrams`.

GitHub draws them when a page is shown. The site loads no program for that: it has them as SVG, which this makes in a
Chromium, with Mermaid from npm. Each drawing is named for the text that it was made from, so one whose text has changed
is never shown; the site then has the text.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PAGES: Final = Path(__file__).parent
DRAWINGS: Final = PAGES / "images" / "diagrams"
MERMAID: Final = "mermaid@11.17.2"
CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FENCE: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)

COLOURS: Final = """
    text, tspan, .nodeLabel { fill: var(--md-default-fg-color) !important; stroke: none !important }
    .node rect, .node path, .node polygon, .node circle, .actor { fill: var(--md-code-bg-color) !important }
    .node rect, .node path, .node polygon, .cluster rect, .actor { stroke: var(--md-accent-fg-color) !important }
    .cluster rect { fill: transparent !important }
    .state-start { fill: var(--md-default-fg-color--light) !important }
    .edgePaths path, .messageLine0, .messageLine1, .actor-line, .transition, line {
        stroke: var(--md-default-fg-color--light) !important }
    marker path, marker circle, #arrowhead path { fill: var(--md-default-fg-color--light) !important }
    .edgeLabel rect, .edgeLabel .background { fill: var(--md-default-bg-color) !important; opacity: 1 !important }
"""
"""Colours of the theme, so that a drawing goes with its light and its dark form."""

CONFIGURATION: Final = {
    "startOnLoad": False,
    "deterministicIds": True,
    "fontFamily": "sans-serif",
    "htmlLabels": False,  # Labels as text of SVG are not cut off where the reader's font is wider.
    "flowchart": {"htmlLabels": False, "useMaxWidth": False},
    "sequence": {"useMaxWidth": False},
    "state": {"useMaxWidth": False},
    "theme": "neutral",
    "themeCSS": COLOURS,
}


def drawing(text: str) -> Path:
    """Return where the drawing of a diagram is."""
    return DRAWINGS / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.svg"


def diagrams() -> list[str]:
    """Return the texts of the diagrams of all pages."""
    return [text for page in sorted(PAGES.rglob("*.md")) for text in FENCE.findall(page.read_text(encoding="utf-8"))]


def draw(texts: list[str], folder: Path) -> None:
    """Draw those that are not there yet; `folder` is for the program."""
    from playwright.sync_api import sync_playwright

    packed = ["npm", "pack", "--silent", "--pack-destination", folder, MERMAID]
    name = subprocess.run(packed, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder / name) as archive:
        archive.extract("package/dist/mermaid.min.js", folder, filter="data")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_content("<!doctype html><body></body>")
        page.add_script_tag(path=folder / "package" / "dist" / "mermaid.min.js")
        page.evaluate("configuration => mermaid.initialize(configuration)", CONFIGURATION)
        for text in texts:
            path = drawing(text)
            made = page.evaluate("([id, text]) => mermaid.render(id, text)", [f"diagram-{path.stem}", text])
            # On one line, which Markdown takes as it is.
            path.write_text(" ".join(made["svg"].split()) + "\n", encoding="utf-8")
            print(f"{path.relative_to(PAGES.parent)}: {path.stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    if CHROMIUM is None or shutil.which("npm") is None:
        sys.exit("Drawing needs a Chromium and npm; Debian's packages are called chromium and npm.")
    DRAWINGS.mkdir(exist_ok=True)
    shown = diagrams()
    for old in set(DRAWINGS.glob("*.svg")) - set(map(drawing, shown)):
        old.unlink()
    with TemporaryDirectory() as place:
        draw([text for text in shown if not drawing(text).exists()], Path(place))
