"""Read a YAML file that a user wrote as a pydantic type, and name every fault in it with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from ivcap_flows.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from yaml import Node

__all__ = ["read_yaml"]

T = TypeVar("T")


def read_yaml(path: Path, kind: TypeAdapter[T], what: str) -> T:
    """Return the content of a file as a value of this type. `what` says in errors what it should be, in the plural.

    Raises InputError, which names every fault with its line (data: `path`, `faults`).
    """
    import yaml

    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
        tree, value = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"The {what} in {path} cannot be read ({reason}).", path=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The {what} in {path} are not valid YAML: {error}", path=str(path)) from error
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        faults = [
            _fault(tree, fault["loc"], _said(fault))
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise InputError(
            f"The {what} in {path} are wrong. {'; '.join(faults)}.", path=str(path), faults=faults
        ) from None


def _said(fault: ErrorDetails) -> str:
    if fault["type"] == "missing":
        return f"{fault['loc'][-1]} is missing"
    if fault["type"] == "extra_forbidden":
        return "there is no such field"
    return fault["msg"].removeprefix("Value error, ")


def _fault(tree: Node | None, place: Sequence[int | str], said: str) -> str:
    """Return a fault with its line, counted from 1; of what is missing, the line of what should have it.

    pydantic's place also has the alternative that was tried, which is not in the file.
    """
    import yaml

    node, names = tree, []
    for part in place:
        inner = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            inner = next((value for name, value in node.value if name.value == str(part)), None)
            names += [str(part)] if inner is not None else []
        node = inner or node
    line = node.start_mark.line + 1 if node is not None else 1
    return f"line {line}{', ' if names else ''}{'.'.join(names)}: {said}"
