"""What the embedded IVCAP has of the real one is told route by route."""

import importlib.util
import re
from pathlib import Path

import pytest

from ivcap_flows.local.ivcap.app import OPERATIONS
from ivcap_flows.local.ivcap.openapi import document

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedded_pages():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare(path):
    return re.sub(r"{\w+}", "{}", path)


def test_every_route_of_the_platform_has_a_row_with_its_state(embedded_pages):
    """No route of IVCAP is missing in docs/reference/embedded-platforms.md, and each says what it has, lacks, or why it
    is not.
    """
    page = (ROOT / "docs" / "reference" / "embedded-platforms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| .*? \| (implemented|partly: \S.*|not: \S.*) \|$", page, re.MULTILINE)
    told = {(method, bare(path)) for method, path, _ in rows}
    routes = {(method, bare(path)) for method, path in embedded_pages.routes_of(embedded_pages.IVCAP_ROUTES)}
    assert len(routes) == 66
    assert routes <= told
    assert len(rows) == page.count("\n| `")


def test_a_route_that_nobody_serves_needs_a_reason(embedded_pages, monkeypatch):
    """Without one the page cannot be written; with one it is told."""
    without = [operation for operation in OPERATIONS if operation.path != "/1/search"]
    with pytest.raises(ValueError, match="POST /1/search"):
        embedded_pages.coverage(without, embedded_pages.IVCAP_ROUTES)
    monkeypatch.setitem(embedded_pages.UNSERVED, ("POST", "/1/search"), "It is a reason.")
    assert "| `POST /1/search` | | not: It is a reason. |" in embedded_pages.coverage(
        without, embedded_pages.IVCAP_ROUTES
    )


def test_what_answers_501_alone_is_told_as_not_there(embedded_pages):
    """An operation that only refuses does not count as served."""
    refusing = [type(OPERATIONS[0])("GET", "/1/x", lambda call: None, "X", answers=(501,), missing="No x here.")]
    assert embedded_pages.coverage(refusing, "").endswith("| `GET /1/x` | X | not: No x here. |\n")
    silent = [operation for operation in OPERATIONS if set(operation.answers) == {501} and not operation.missing]
    assert not silent


def test_the_document_describes_each_operation():
    """Every operation tells what a success gives, unless it gives no body, and names each of its path parameters."""
    made = document(OPERATIONS, "http://127.0.0.1:1", "1")
    for path, operations in made["paths"].items():
        for method, told in operations.items():
            named = {one["name"] for one in told["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            success = {status: reply for status, reply in told["responses"].items() if status < "300"}
            empty = [s for s, reply in success.items() if "content" not in reply and s != "204" and method != "head"]
            assert not empty or (method, path) == ("post", "/1/artifacts/{id}/blob"), f"{method} {path} {empty}"
            assert "security" in told and (told["security"] or "401" not in told["responses"])
