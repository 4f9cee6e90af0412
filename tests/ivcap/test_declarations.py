"""Each request that changes something says what sending it twice would do, and docs/reference/writes.md tells it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ivcap_flows

PACKAGE = Path(ivcap_flows.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "writes.md"
SENDERS = {"ivcap": {"request"}, "provena": {"call", "call_text"}}
"""The methods of a client by which all its requests go out."""


class Write(NamedTuple):
    client: str
    call: str
    method: str
    declared: str
    path: str | None
    """With `{}` for what varies; None where it is not told where the request is made."""


def sent(client: str, node: ast.AST, where: tuple[str, ...] = (), default: str | None = None) -> Iterator[Write]:
    """Every request below a node that is no plain read. `default` is that of a function's parameter `repeat`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        given = dict(zip((each.arg for each in node.args.kwonlyargs), node.args.kw_defaults, strict=True))
        default = literal(value) if (value := given.get("repeat")) is not None else default
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        # What is defined inside of a function belongs to it.
        inner = (*where, child.name) if named and not (where and where[-1][0].islower()) else where
        yield from sent(client, child, inner, default)
        if not isinstance(child, ast.Call) or not isinstance(child.func, ast.Attribute):
            continue
        given = {keyword.arg: keyword.value for keyword in child.keywords}
        if child.func.attr not in SENDERS[client] or ("repeat" not in given and not names_a_method(child)):
            continue
        method = literal(child.args[0]) or "?"
        declared = literal(given["repeat"]) or default or "?" if "repeat" in given else "nothing"
        if method not in ("GET", "HEAD") or declared != "idempotent":
            yield Write(client, ".".join(inner), method, declared, path_of(child.args[1]))


def names_a_method(call: ast.Call) -> bool:
    return bool(call.args) and literal(call.args[0]) in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def path_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return literal(node)


def in_the_code() -> list[Write]:
    return [
        write
        for client in SENDERS
        for file in sorted((PACKAGE / client).glob("*.py"))
        for write in sent(client, ast.parse(file.read_text(encoding="utf-8")))
        # The one place of Provena's client where its own `call` hands on what it was told.
        if (client, write.call) != ("provena", "Api.call")
    ]


def on_the_page() -> list[Write]:
    rows = re.findall(
        r"^\| (\w+) \| `([\w.]+)` \| `([A-Z]+) (\S+)` \| (\w+) \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.M
    )
    return [
        Write(client, call, method, declared, re.sub(r"{\w+}", "{}", path))
        for client, call, method, path, declared in rows
    ]


def test_every_write_declares_itself():
    """A literal word each, where the request is made: what a variable holds can be read by nobody."""
    writes = in_the_code()
    assert len(writes) > 20
    assert [write for write in writes if write.declared not in ("idempotent", "keyed", "unsafe")] == []


@pytest.mark.parametrize("client", SENDERS)
def test_the_page_tells_each_write_as_it_is(client):
    """A write that is new, gone or declared otherwise changes the page, and with it what the users are told."""
    page = {write[:4]: write.path for write in on_the_page() if write.client == client}
    code = {write[:4]: write.path for write in in_the_code() if write.client == client}
    assert sorted(code.keys() - page.keys()) == [], "add a row to docs/reference/writes.md"
    assert sorted(page.keys() - code.keys()) == [], "correct or remove the row of docs/reference/writes.md"
    other = {call: (told, page[call]) for call, told in code.items() if told not in (None, page[call])}
    assert other == {}
