"""The reference page says of each route of Provena whether the embedded one has it, and each API has a description."""

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

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
    return {name: make() for name, make in embedded.apis.items()}


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
        served = {(method.upper(), path) for path, methods in api.openapi()["paths"].items() for method in methods}
        assert served <= routes[name]


def test_each_document_describes_what_is_asked_and_answered(apis):
    """Every route is in its document, with the replies that it gives, who may request it, and when it answers 500."""
    for api in apis.values():
        told = api.openapi()["paths"]
        for route in api.routes:
            if route.path == "/openapi.json":
                continue
            for method in route.methods:
                operation = told[route.path][method.lower()]
                assert {"200", "400", "401"} <= set(operation["responses"]), route.path
                assert operation.get("security") or route.path in ("/", "/check-access/public"), route.path
                failure = operation["responses"].get("500")
                assert failure is None or failure["description"].endswith("."), route.path
