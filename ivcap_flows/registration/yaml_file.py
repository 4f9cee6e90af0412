"""Read YAML or JSON files that users wrote, as pydantic types, and name every fault in them with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ivcap_flows.errors import InputError
from ivcap_flows.ivcap.requests import resolved
from ivcap_flows.plain_text import near_names
from ivcap_flows.provena.terms import Terms

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from yaml import Node

__all__ = ["read_terms", "read_yaml"]

T = TypeVar("T")


def read_yaml(path: Path, kind: TypeAdapter[T], what: str) -> T:
    """Return the content of a file as a value of this type. `what` says in errors what it should be, in the plural.

    Raises InputError, which names every fault with its line, in the order of the lines (data: `path`, `faults`).
    """
    import yaml

    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
        value = _value(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"The {what} in {path} cannot be read ({reason}).", path=str(path)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"The {what} in {path} are not valid YAML: {error}", path=str(path)) from error
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        tree, schema = _tree(text), kind.json_schema()
        found = [_fault(tree, each, schema) for each in error.errors(include_url=False, include_context=False)]
        faults = [words for _, words in sorted(found, key=lambda fault: fault[0])]
        raise InputError(
            f"The {what} in {path} are wrong. {'; '.join(faults)}.", path=str(path), faults=faults
        ) from None


def read_terms(path: Path) -> Terms:
    """Read the Terms with which datasets are minted. Raises InputError as `read_yaml`."""
    return read_yaml(path, TypeAdapter(Terms), "terms")


def _value(text: str) -> Any:
    """Return the value of JSON or YAML. Not all JSON is valid YAML, such as tabs and the escapes of emojis."""
    import yaml

    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def _tree(text: str) -> Node | None:
    """Return the content with its places; None for JSON that is not YAML, or too deep."""
    import yaml

    try:
        return yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None


def _fault(tree: Node | None, fault: ErrorDetails, schema: Mapping[str, Any]) -> tuple[tuple[int, int], str]:
    """Return the line and column of a fault, and words with its line; of what is missing, those of what should have it.

    pydantic's place also has the alternative that was tried, which is not in the file.
    """
    import yaml

    node, names, mark = tree, [], tree.start_mark if tree is not None else None
    for part in fault["loc"]:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(part):
                    node, mark = value, name.start_mark
                    names.append(str(part))
                    break
    line, column = (mark.line + 1, mark.column) if mark is not None else (1, 0)
    return (line, column), f"line {line}{', ' if names else ''}{'.'.join(names)}: {_message(fault, schema)}"


def _message(fault: ErrorDetails, schema: Mapping[str, Any]) -> str:
    *place, name = fault["loc"] or ("",)
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        return f"there is no such field ({near_names(str(name), _fields(schema, place))})"
    return fault["msg"].removeprefix("Value error, ")


def _fields(schema: Mapping[str, Any], place: Sequence[int | str]) -> list[str]:
    """Return the fields that may stand at a place, by a JSON Schema. A step that it does not know is an alternative."""
    parts = list(_alternatives(schema, schema))
    for step in place:
        inner = [each for part in parts if (each := _inner(part, step)) is not None]
        parts = [each for part in inner for each in _alternatives(part, schema)] or parts
    return [name for part in parts if part.get("additionalProperties") is False for name in part.get("properties", ())]


def _inner(part: Mapping[str, Any], step: int | str) -> Mapping[str, Any] | None:
    """Return the schema of an item, field or value; None if the step leads to none."""
    found = part.get("items") if isinstance(step, int) else part.get("properties", {}).get(step)
    found = part.get("additionalProperties") if found is None else found
    return found if isinstance(found, Mapping) else None


def _alternatives(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    part = resolved(part, schema)
    choices = [*part.get("anyOf", ()), *part.get("oneOf", ())]
    if not choices:
        yield part
    for choice in choices:
        yield from _alternatives(choice, schema)
