"""The clients offer only what the package, or an example of the documentation, uses."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from textwrap import dedent
from types import FunctionType
from typing import Any, NamedTuple

import ivcap_flows
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.provena.client import Endpoints, ProvenaClient

PACKAGE = Path(ivcap_flows.__file__).parent
PAGES = [PACKAGE.parent / "README.md", *PACKAGE.parent.glob("docs/**/*.md")]
CLIENTS = ("ivcap_flows.ivcap.", "ivcap_flows.provena.")
KINDS = (FunctionType, property, cached_property, classmethod, staticmethod)


class Use(NamedTuple):
    """A place in a source that names an attribute."""

    receiver: str
    """The word before the attribute: `jobs` in `self._jobs.list()`."""
    name: str
    within: tuple[type, str] | None
    """The class of a client and the method in which it stands."""


def uses(node: ast.AST, classes: dict[str, type], within: tuple[type, str] | None = None) -> Iterator[Use]:
    """Yield each use below a node; `classes` are those of its module, if that belongs to a client."""
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.ClassDef) and node.name in classes and isinstance(child, ast.stmt):
            yield from uses(child, {}, (classes[node.name], getattr(child, "name", "")))
            continue
        if isinstance(child, ast.Attribute):
            yield Use(word(child.value), child.attr, within)
        elif isinstance(child, ast.Call) and word(child.func) == "attrgetter":
            yield from (Use("", str(ast.literal_eval(argument)), within) for argument in child.args)
        yield from uses(child, classes, within)


def word(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")).lstrip("_")


def examples() -> Iterator[ast.AST]:
    for page in PAGES:
        for code in re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S):
            yield ast.parse(dedent(code))


def classes_of(file: Path) -> dict[str, type]:
    """Return the public classes of a module, if it belongs to a client."""
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    members = vars(importlib.import_module(name)) if name.startswith(CLIENTS) else {}
    return {
        word: cls
        for word, cls in members.items()
        if inspect.isclass(cls) and cls.__module__ == name and not word.startswith("_")
    }


def methods_of(cls: type) -> Iterator[str]:
    """Yield the public methods and properties that a class declares, but for those that a library calls."""
    foreign = {name for base in cls.__mro__ if not base.__module__.startswith("ivcap_flows.") for name in vars(base)}
    for name, member in vars(cls).items():
        if isinstance(member, KINDS) and not name.startswith("_") and name not in foreign:
            yield name


def words_for_nouns() -> dict[type, set[str]]:
    """Return the attributes by which clients, and their nouns, have the classes of nouns."""
    url = "http://127.0.0.1:1"
    found: dict[type, set[str]] = {}
    left: list[Any] = [IvcapClient(url), ProvenaClient(Endpoints(**dict.fromkeys(Endpoints.model_fields, url)), None)]  # type: ignore[arg-type]
    while left:
        for name, part in vars(left.pop()).items():
            if type(part).__module__.startswith(CLIENTS):
                left += [] if type(part) in found else [part]
                found.setdefault(type(part), {type(part).__name__.lower()}).add(name.lstrip("_"))
    return found


def is_of(cls: type, use: Use, words: dict[type, set[str]]) -> bool:
    """Whether a use may be of this class: a noun is known by the word before it, all else by the name alone."""
    if use.receiver == "self":
        return use.within is not None and issubclass(use.within[0], cls)
    return cls not in words or use.receiver.lower() in words[cls]


def test_each_method_of_a_client_has_a_caller():
    """What the clients, their nouns and their records offer is used outside of them, or by something that is."""
    words, named, unused = words_for_nouns(), dict[str, list[Use]](), set[tuple[type, str]]()
    trees = [(tree, dict[str, type]()) for tree in examples()]
    for file in PACKAGE.rglob("*.py"):
        if PACKAGE / "local" not in file.parents:
            classes = classes_of(file)
            trees.append((ast.parse(file.read_text(encoding="utf-8")), classes))
            unused |= {(cls, name) for cls in classes.values() for name in methods_of(cls)}
    for tree, classes in trees:
        for use in uses(tree, classes):
            named.setdefault(use.name, []).append(use)
    while found := {
        (cls, name)
        for cls, name in unused
        if any(use.within not in unused and is_of(cls, use, words) for use in named.get(name, ()))
    }:
        unused -= found
    assert sorted(f"{cls.__qualname__}.{name}" for cls, name in unused) == [], "delete it, or name its caller"
