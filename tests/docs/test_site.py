"""The documentation site: which pages and names it has, and that it can be built."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import diagrams
import pytest
import site_pages
from docs_pages import PAGES, ROOT, blocks

PYTHON = ROOT / ".venvs" / "site" / "bin" / "python"


def listed(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(part)


def test_the_navigation_has_each_page_once():
    """It is made from docs/README.md, so a form of its list that the hook does not understand would show here."""
    pages = list(listed(site_pages.navigation((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))))
    docs = {path.relative_to(ROOT).as_posix() for path in PAGES if path.is_relative_to(ROOT / "docs")}
    own = {path.removeprefix("docs/") for path in docs - {"docs/README.md"}}
    assert sorted(pages) == sorted(
        own | set(site_pages.PROJECT.values()) | set(map(site_pages.api_page, site_pages.MODULES))
    )


def test_the_api_pages_have_the_names_that_the_modules_promise():
    """The site is built without importing the package, so its lists are read from the sources."""
    for name in site_pages.MODULES:
        promised = [each for each in importlib.import_module(name).__all__ if each != "__version__"]
        assert sorted(site_pages.public_names(name)) == sorted(promised)


def test_what_examples_import_is_in_the_api_pages():
    """A reader of a page finds each name that it imports."""
    there = {(name, each) for name in site_pages.MODULES for each in site_pages.public_names(name)}
    there |= {("ivcap_flows.tasks", each) for name, each in there if name.startswith("ivcap_flows.tasks.")}
    code = "\n".join(block.text for page in PAGES for block in blocks(page, "python"))
    wanted = {
        (module, name)
        for module, names in re.findall(r"^\s*from (ivcap_flows[\w.]*) import (\([^)]+\)|.+)$", code, re.MULTILINE)
        for name in re.findall(r"\w+", names)
    }
    assert wanted and sorted(wanted - there) == []


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("../reference/tasks.md#flow", "../reference/tasks.md#flow"),
        ("../../README.md", "../index.md"),
        ("../../CHANGELOG.md#added", "../project/changelog.md#added"),
        (
            "../../flows/order_pipeline.py",
            "https://github.com/ivcap-works/ivcap-flows/blob/main/flows/order_pipeline.py",
        ),
        ("../../tests/e2e", "https://github.com/ivcap-works/ivcap-flows/tree/main/tests/e2e"),
        ("https://docs.prefect.io", "https://docs.prefect.io"),
        ("#here", "#here"),
        ("../nowhere.md", "../nowhere.md"),
    ],
)
def test_a_link_leads_to_a_page_or_to_the_repository(target, leads_to):
    """Links are written for GitHub. One that leads nowhere stays, so that the build fails."""
    assert site_pages.target_of(target, "docs/how-to/use-blocks.md", "how-to/use-blocks.md", Pages()) == leads_to


class Pages:
    """The files of the site, as far as the hook asks for them."""

    def get_file_from_path(self, path: str) -> object:
        return object() if (ROOT / "docs" / path).is_file() and path.endswith(".md") else None


@pytest.mark.long
def test_each_diagram_is_drawn():
    """GitHub draws the diagrams by itself; the site has the drawings, and no others."""
    wanted = set(map(diagrams.drawing, diagrams.diagrams()))
    assert wanted and wanted == set(diagrams.DRAWINGS.glob("*")), "run `make diagrams`"


@pytest.mark.long
def test_the_site_is_built(tmp_path):
    """All links lead somewhere, each public name has its place in the API pages, and the search knows the pages.

    No page loads anything from another host.
    """
    if not PYTHON.exists():
        pytest.fail(f"mkdocs is not installed in {PYTHON.parents[1]}. Run `make site`.")
    command = [PYTHON, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    for module in site_pages.MODULES:
        page = pages[site_pages.api_page(module).removesuffix(".md") + ".html"]
        places = set(re.findall(r' id="([^"]+)"', page))
        assert [name for name in site_pages.public_names(module) if f"{module}.{name}" not in places] == []
    found = {
        entry["location"].partition("#")[0]
        for entry in json.loads((tmp_path / "search/search_index.json").read_text())["docs"]
    }
    assert set(pages) - found == {"404.html"}
    lost = re.compile(r"^(?:<p>)?(?:[-*]|\d\.) \S.*", re.MULTILINE)
    texts = {name: re.sub(r"<(pre|code)\b.*?</\1>", "", page, flags=re.DOTALL) for name, page in pages.items()}
    assert [(name, item) for name, text in texts.items() for item in lost.findall(text)] == [], (
        "items outside of a list"
    )
    loads = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*")
    assert [(name, load) for name, text in pages.items() for load in loads.findall(text)] == []
