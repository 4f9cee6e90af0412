"""The reference page says of each route of Provena whether the embedded one has it, and each API has a description."""

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

from ivcap_flows.local.provena.openapi import document
from ivcap_flows.local.provena.platform import EmbeddedProvena

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pages():
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate_provena", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def apis(tmp_path_factory):
    embedded = EmbeddedProvena(tmp_path_factory.mktemp("apis"), "http://127.0.0.1:1", 0, None)
    asyncio.run(embedded.stop())
    return embedded.apis


@pytest.fixture(scope="module")
def routes(pages):
    return pages.provena_routes(pages.PROVENA_ROUTES.read_text(encoding="utf-8"))


def test_every_route_of_each_api_has_a_row_with_its_state(pages, apis, routes):
    """Each route of Provena is in docs/reference/embedded-platforms.md, with its state, or with the reason why it is
    missing."""
    page = (ROOT / "docs" / "reference" / "embedded-platforms.md").read_text(encoding="utf-8")
    assert set(routes) == set(apis)
    assert sum(map(len, routes.values())) == 392
    for name, api in apis.items():
        table = page.partition(f"### {api.title}\n")[2].partition("\n#")[0]
        rows = re.findall(
            r"^\| `([A-Z]+) (\S+)` \| .*? \| (implemented|partly: \S.*|not: \S.*) \|$", table, re.MULTILINE
        )
        assert {(method, pages._of_type(path)[0]) for method, path in routes[name]} <= {found[:2] for found in rows}
        assert len(rows) == table.count("\n| `")


def test_a_route_that_nobody_serves_needs_a_reason(pages, apis):
    """The page cannot be written if a missing route has no reason."""
    with pytest.raises(ValueError, match="GET /search/everything"):
        pages.provena_coverage(apis["search"], {("GET", "/search/everything")})


def test_no_route_is_served_that_provena_has_not(apis, routes):
    """The embedded platform has no route that Provena lacks, so clients cannot come to depend on one."""
    for name, api in apis.items():
        assert {(operation.method, operation.path) for operation in api.operations} <= routes[name]


def test_each_document_describes_what_is_asked_and_answered(apis):
    """Every operation describes its replies, and one that may answer 500 says when."""
    for api in apis.values():
        told = document(api.title, api.operations, "")
        assert set(told["paths"]) == {operation.path for operation in api.operations if not operation.hidden}
        for path, operations in told["paths"].items():
            for operation in operations.values():
                assert all("content" in reply for reply in operation["responses"].values()), path
                assert ("500" in operation["responses"]) == ("Answers 500" in operation.get("description", "")), path
