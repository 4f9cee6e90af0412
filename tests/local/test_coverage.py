"""The reference page says of each route whether the embedded platform has it, and each route has a description."""

import asyncio
import re
from pathlib import Path

import pytest
from modules import load

from ivcap_flows.local.ivcap.app import OPERATIONS
from ivcap_flows.local.ivcap.openapi import document
from ivcap_flows.local.provena.platform import EmbeddedProvena

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    """Return docs/generate.py as a module."""
    return load(ROOT / "docs" / "generate.py")


@pytest.fixture(scope="module")
def apis(tmp_path_factory):
    embedded = EmbeddedProvena(tmp_path_factory.mktemp("apis"), "http://127.0.0.1:1")
    asyncio.run(embedded.stop())
    return {name: make() for name, make in embedded.apis.items()}


def test_the_embedded_ivcap_has_no_route_that_ivcap_lacks(pages):
    """So no client uses one."""
    served = {(operation.method, operation.path) for operation in OPERATIONS}
    lacking = "ROUTES_OF_IVCAP in docs/generate.py lacks it: add it if the real platform has it"
    assert served <= set(pages.routes_of(pages.ROUTES_OF_IVCAP)), lacking


def test_the_embedded_provena_has_no_route_that_provena_lacks(pages, apis):
    """So no client uses one."""
    routes = pages.provena_routes(pages.PROVENA_ROUTES.read_text(encoding="utf-8"))
    assert set(routes) == set(apis)
    for name, api in apis.items():
        served = {(method.upper(), path) for path, methods in api.openapi()["paths"].items() for method in methods}
        assert served <= routes[name], "docs/provena-routes.txt lacks it: add it if the real server has it"


def test_a_route_that_nobody_serves_needs_a_reason(pages, apis, monkeypatch):
    """The page cannot be written if a missing route has no reason. With a reason it has a row.

    An operation that only refuses does not count as implemented. A route that one type of item has names it.
    """
    without = [operation for operation in OPERATIONS if operation.path != "/1/search"]
    with pytest.raises(ValueError, match="POST /1/search"):
        pages.coverage(without, pages.ROUTES_OF_IVCAP)
    with pytest.raises(ValueError, match="GET /search/everything"):
        pages.provena_coverage(apis["search"], {("GET", "/search/everything")})
    monkeypatch.setitem(pages.UNSERVED_OF_IVCAP, ("POST", "/1/search"), "It is a reason.")
    assert "| `POST /1/search` | | not: It is a reason. |" in pages.coverage(without, pages.ROUTES_OF_IVCAP)
    monkeypatch.setitem(pages.UNSERVED_OF_PROVENA, "/registry/{type}/x", "It is one, too.")
    lacking = pages.provena_coverage(apis["registry"], {("GET", "/registry/entity/dataset/x")})
    assert "| `GET /registry/{type}/x` | for entity/dataset | not: It is one, too. |" in lacking
    refusing = [type(OPERATIONS[0])("GET", "/1/x", lambda call: None, "X", answers=(501,), missing="No x here.")]
    assert pages.coverage(refusing, "").endswith("| `GET /1/x` | X | not: No x here. |\n")
    assert not [operation for operation in OPERATIONS if set(operation.answers) == {501} and not operation.missing]


def test_no_reason_is_left_over(pages, apis):
    """Each path with a reason is one that the platform has and the embedded one lacks."""
    served = {(operation.method, operation.path) for operation in OPERATIONS}
    assert pages.UNSERVED_OF_IVCAP.keys() <= set(pages.routes_of(pages.ROUTES_OF_IVCAP)) - served
    routes, lacking = pages.provena_routes(pages.PROVENA_ROUTES.read_text(encoding="utf-8")), set()
    for name, api in apis.items():
        served = {(method.upper(), path) for path, methods in api.openapi()["paths"].items() for method in methods}
        lacking |= {pages._of_type(path)[0] for _, path in routes[name] - served}
    assert pages.UNSERVED_OF_PROVENA.keys() <= lacking


def test_each_document_describes_what_is_asked_and_answered(apis):
    """Every operation describes its path parameters, who may request it, and its replies unless they have no body."""
    for path, operations in document(OPERATIONS, "http://127.0.0.1:1", "1")["paths"].items():
        for method, told in operations.items():
            named = {one["name"] for one in told["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            success = {status: reply for status, reply in told["responses"].items() if status < "300"}
            empty = [s for s, reply in success.items() if "content" not in reply and s != "204" and method != "head"]
            assert not empty or (method, path) == ("post", "/1/artifacts/{id}/blob"), f"{method} {path} {empty}"
            assert "security" in told and (told["security"] or "401" not in told["responses"])
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
