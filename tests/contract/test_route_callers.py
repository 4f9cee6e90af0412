"""The embedded platforms have only routes that somebody requests."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import interpreter

import ivcap_flows
from ivcap_flows.local.ivcap.app import OPERATIONS
from ivcap_flows.local.provena.platform import EmbeddedProvena

pytestmark = [pytest.mark.contract, pytest.mark.long]

PACKAGE = Path(ivcap_flows.__file__).parent
REFUSES = "who is refused here is checked by the conformance cases"
NO_CALLER = {
    "/1/artifacts/{}/blob": "clients take the address of an upload from a reply",
    "/model_run/register_sync": REFUSES,
    "/graph/admin/clear": REFUSES,
}
"""Paths that no source names, with the reason for having them."""
STEP = "name each path in ivcap_flows/ivcap or ivcap_flows/provena (an f-string counts), or in NO_CALLER with a reason"


def named(client: str) -> set[str]:
    """Return every path, or part of one, in the sources of an official client and of this package's own."""
    package = client.replace("-", "_")
    official = list(interpreter(client).parents[1].glob(f"lib/python3*/site-packages/{package}/**/*.py"))
    assert official
    ours = [file for file in PACKAGE.rglob("*.py") if PACKAGE / "local" not in file.parents]
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in (*official, *ours))
    return {re.sub("{[^}]*}", "{}", text).partition("?")[0] for tree in trees for text in texts(tree)}


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield each text in the source; the values within an f-string as `{}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the official IVCAP client needs Python 3.11")
def test_each_route_of_ivcap_has_a_caller():
    """A client names the path of each operation."""
    known = named("ivcap-client")
    paths = {re.sub("{[^}]*}", "{}", operation.path) for operation in OPERATIONS}
    assert paths - known <= set(NO_CALLER), STEP


def test_each_route_of_provena_has_a_caller(tmp_path):
    """A client names each path, or its beginning and its end."""
    known = named("provenaclient")
    embedded = EmbeddedProvena(tmp_path, "http://127.0.0.1:1")
    asyncio.run(embedded.stop())
    paths = {path for make in embedded.apis.values() for path in make().openapi()["paths"]}

    def has_a_caller(path: str) -> bool:
        joined = [(path[:at], path[at:]) for at in range(1, len(path)) if path[at] == "/"]
        return path in known or any(begin in known and {end, end[1:]} & known for begin, end in joined)

    assert {path for path in paths if not has_a_caller(path)} <= set(NO_CALLER), STEP
