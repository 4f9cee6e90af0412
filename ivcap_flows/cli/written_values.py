"""Values as a command line writes them: JSON, or YAML 1.2, whose scalars stay texts until their types are known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import yaml

from ivcap_flows.errors import InputError

__all__ = ["Plain", "Tree", "json_tree", "parameter", "plain_value", "tree", "untyped"]

_PLAIN: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_TAGS: Final = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


class Plain(str):
    """A scalar without quotes. Its type says what it is."""

    __slots__ = ()


Tree: TypeAlias = "str | list[Tree] | dict[str, Tree]"
"""A value whose scalars are texts: `Plain` where they stand without quotes."""


def plain_value(text: str) -> Any:
    """Return the number, flag or None that a text is in JSON. Any other text is itself."""
    if _PLAIN.fullmatch(text):
        try:
            return json.loads(text)
        except ValueError:  # more digits than Python reads
            pass
    return str(text)


def untyped(value: Tree) -> Any:
    """Return a value of which no type is known: what is not JSON is a text."""
    if isinstance(value, list):
        return [untyped(item) for item in value]
    if isinstance(value, dict):
        return {name: untyped(item) for name, item in value.items()}
    return plain_value(value) if isinstance(value, Plain) else str(value)


def json_tree(text: str) -> Tree:
    """Read JSON. Raises ValueError if it is none, InputError if a name stands twice in an object."""
    try:
        return _of_json(
            json.loads(text, object_pairs_hook=_mapping, parse_int=Plain, parse_float=Plain, parse_constant=_constant)
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def tree(text: str) -> Tree:
    """Read JSON or else YAML. Raises ValueError if it is neither, InputError if a name stands twice in a mapping."""
    try:
        return json_tree(text)
    except ValueError:
        pass
    try:
        return _of_yaml(yaml.compose(text, yaml.BaseLoader))
    except yaml.YAMLError as error:
        # The whole message quotes the value.
        mark = getattr(error, "problem_mark", None)
        where = f" at character {mark.index + 1}" if mark is not None else ""
        raise ValueError(
            f"{getattr(error, 'problem', None) or 'it has a character that YAML has not'}{where}"
        ) from None
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def parameter(name: str, value: Any) -> str:
    """Return the `name=value` that is read as this JSON value, whatever the type of the parameter.

    `name:=value` is JSON also where the type takes a text.
    """
    written = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return f"{name}={written}"
    return f"{name}:={written}" if value[:1] in ("[", "{", '"') or plain_value(value) != value else f"{name}={value}"


def _mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"has the name {name!r} twice; leave one of them.")
        found[name] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _of_json(value: Any) -> Tree:
    if isinstance(value, list):
        return [_of_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _of_json(item) for name, item in value.items()}
    return value if isinstance(value, str) else Plain(json.dumps(value))


def _of_yaml(node: yaml.Node | None) -> Tree:
    if node is None:
        return Plain("")
    if node.tag not in _TAGS:
        raise ValueError(f"it has the tag {node.tag}, and tags are not read")
    if isinstance(node, yaml.SequenceNode):
        return [_of_yaml(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping((_name(name), _given(name, _of_yaml(value))) for name, value in node.value)
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else Plain(node.value)


def _name(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("a list or mapping is no name in a mapping")
    return str(_of_yaml(node))


def _given(name: yaml.Node, value: Tree) -> Tree:
    if isinstance(value, Plain) and not value:
        raise ValueError(f"{name.value} has no value; write a blank after the colon, and null or '' for none")
    return value
