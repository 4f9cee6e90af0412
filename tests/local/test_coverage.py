"""The reference page says of each route of IVCAP whether the embedded platform has it."""

import importlib.util
import re
from pathlib import Path

import pytest

from ivcap_flows.local.ivcap.app import OPERATIONS
from ivcap_flows.local.ivcap.openapi import document

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedded_pages():
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare(path):
    return re.sub(r"{\w+}", "{}", path)


def test_every_route_of_the_platform_has_a_row_with_its_state(embedded_pages):
    """Each route of IVCAP is in docs/reference/embedded-platforms.md, with its state, or with the reason why it is
    missing."""
    page = (ROOT / "docs" / "reference" / "embedded-platforms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| .*? \| (implemented|partly: \S.*|not: \S.*) \|$", page, re.MULTILINE)
    told = {(method, bare(path)) for method, path, _ in rows}
    routes = {(method, bare(path)) for method, path in embedded_pages.routes_of(embedded_pages.ROUTES_OF_IVCAP)}
    assert len(routes) == 66, "if IVCAP publishes other routes now, correct the number"
    assert routes <= told, "run `make docs`"
    assert len(rows) == len(re.findall(r"^\| `[A-Z]+ ", page, re.MULTILINE))


def test_a_route_that_nobody_serves_needs_a_reason(embedded_pages, monkeypatch):
    """The page cannot be written if a missing route has no reason. With a reason it has a row."""
    without = [operation for operation in OPERATIONS if operation.path != "/1/search"]
    with pytest.raises(ValueError, match="POST /1/search"):
        embedded_pages.coverage(without, embedded_pages.ROUTES_OF_IVCAP)
    monkeypatch.setitem(embedded_pages.UNSERVED, ("POST", "/1/search"), "It is a reason.")
    assert "| `POST /1/search` | | not: It is a reason. |" in embedded_pages.coverage(
        without, embedded_pages.ROUTES_OF_IVCAP
    )


def test_what_answers_501_alone_is_told_as_not_there(embedded_pages):
    """An operation that only refuses does not count as implemented."""
    refusing = [type(OPERATIONS[0])("GET", "/1/x", lambda call: None, "X", answers=(501,), missing="No x here.")]
    assert embedded_pages.coverage(refusing, "").endswith("| `GET /1/x` | X | not: No x here. |\n")
    silent = [operation for operation in OPERATIONS if set(operation.answers) == {501} and not operation.missing]
    assert not silent


def test_the_document_describes_each_operation():
    """Every operation describes its successful reply, unless that has no body, and each of its path parameters."""
    made = document(OPERATIONS, "http://127.0.0.1:1", "1")
    for path, operations in made["paths"].items():
        for method, told in operations.items():
            named = {one["name"] for one in told["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            success = {status: reply for status, reply in told["responses"].items() if status < "300"}
            empty = [s for s, reply in success.items() if "content" not in reply and s != "204" and method != "head"]
            assert not empty or (method, path) == ("post", "/1/artifacts/{id}/blob"), f"{method} {path} {empty}"
            assert "security" in told and (told["security"] or "401" not in told["responses"])
