"""Parameters of a service: check their definitions, and convert the strings of an order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ivcap_flows.local.ivcap import errors

__all__ = ["TYPES", "checked_definitions", "checked_values", "converted", "request_schema"]

_URN: Final = re.compile(r"urn:[0-9A-Za-z][0-9A-Za-z-]*:.+", re.DOTALL)
_REFERENCE: Final = re.compile(r"urn:ivcap:artifact:.+|urn:https?://.+|https?://.+", re.DOTALL)
_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return convert


def _int(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,300}", text.strip()):
        raise ValueError
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _bool(text: str) -> bool:
    if text.strip().lower() not in _TRUTH:
        raise ValueError
    return _TRUTH[text.strip().lower()]


TYPES: Final[Mapping[str, tuple[Callable[[str], Any], dict[str, Any]]]] = {
    "string": (str, {"type": "string"}),
    "int": (_int, {"type": "integer"}),
    "float": (_float, {"type": "number"}),
    "bool": (_bool, {"type": "boolean"}),
    "option": (str, {"type": "string"}),
    "artifact": (_matching(_REFERENCE), {"type": "string", "format": "uri"}),
    "collection": (_matching(_URN), {"type": "string", "format": "uri"}),
}
"""Type of a parameter (as in ivcap_client/service.py) -> how to read the string of an order, and its JSON schema."""


_FIELDS: Final = {"description": str, "label": str, "unit": str, "constant": bool, "optional": bool, "unary": bool}


def checked_definitions(value: Any) -> list[dict[str, Any]]:
    """Return parameter definitions with every field that clients rely on. Raises Problem 422."""
    if not isinstance(value, list):
        raise errors.parameter("parameters", "parameters must be a list of parameter definitions.")
    made, names = [], set()
    for number, one in enumerate(value):
        where = f"parameters[{number}]"
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not one["name"]:
            raise errors.parameter(where, f"{where} must be an object with a name.")
        # A null means the same as leaving the field out.
        one = {field: told for field, told in one.items() if told is not None}
        name = one["name"]
        if name in names:
            raise errors.parameter(where, f"The parameter {name} is defined twice.")
        if not isinstance(one.get("type"), str) or one["type"] not in TYPES:
            raise errors.parameter(where, f"The type of {name} must be one of {', '.join(TYPES)}.", one.get("type"))
        for field, wanted in _FIELDS.items():
            if not isinstance(one.get(field), wanted | None):
                raise errors.parameter(where, f"The {field} of {name} has the wrong type.", one[field])
        options = one.get("options", [])
        if not isinstance(options, list) or not all(map(_is_option, options)):
            raise errors.parameter(where, f"The options of {name} must be a list of objects with a value.")
        if one["type"] == "option" and not options:
            raise errors.parameter(where, f"{name} is of type option and needs options.")
        default = one.get("default")
        if default is not None and not isinstance(default, str):
            raise errors.parameter(where, f"The default of {name} must be a string, whatever its type.")
        names.add(name)
        made.append({**one, "description": one.get("description", ""), "options": options})
        if default is not None and _fault(made[-1], default):
            raise errors.parameter(where, f"The default of {name} does not have its type.", default)
    return made


def _is_option(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("value"), str)
        and isinstance(value.get("description", ""), str)
    )


def _fault(definition: Mapping[str, Any], text: str) -> str | None:
    name, kind = definition["name"], definition["type"]
    try:
        TYPES[kind][0](text)
    except ValueError:
        return f"{name} must be of type {kind}, not {text[:80]!r}"
    known = [option["value"] for option in definition["options"]]
    if kind == "option" and text not in known:
        return f"{name} must be one of {', '.join(known)}, not {text[:80]!r}"
    if definition.get("constant") and text != definition.get("default"):
        return f"{name} is constant"
    return None


def checked_values(definitions: Sequence[Mapping[str, Any]], given: Any) -> list[dict[str, str]]:
    """Return the parameters of an order. Raises Problem 422 with all faults and the first faulty name."""
    if not isinstance(given, list):
        raise errors.parameter("parameters", "parameters must be a list of objects with name and value.")
    known = {definition["name"]: definition for definition in definitions}
    faults: list[tuple[str, str]] = []
    values: dict[str, str] = {}
    for number, one in enumerate(given):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            faults.append((f"parameters[{number}]", f"parameters[{number}] must be an object with name and value"))
            continue
        name, value = one["name"], one.get("value")
        if name not in known:
            faults.append((name, f"there is no parameter {name[:80]!r}"))
        elif name in values:
            faults.append((name, f"{name} is given twice"))
        elif not isinstance(value, str):
            faults.append((name, f"the value of {name} must be a string"))
        else:
            values[name] = value
            fault = _fault(known[name], value)
            if fault:
                faults.append((name, fault))
    told = {name for name, _ in faults}
    for name, definition in known.items():
        needed = not definition.get("optional") and definition.get("default") is None
        if needed and name not in values and name not in told:
            faults.append((name, f"{name} is missing"))
    if faults:
        names = f"; the parameters are {', '.join(known)}" if known else "; the service has no parameters"
        raise errors.parameter(faults[0][0], "; ".join(text for _, text in faults) + names + ".")
    return [{"name": name, "value": value} for name, value in values.items()]


def converted(definitions: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the service's request: values of the declared types, with defaults filled in."""
    given = {one["name"]: one["value"] for one in values}
    request = {}
    for definition in definitions:
        text = given.get(definition["name"], definition.get("default"))
        if text is not None:
            request[definition["name"]] = TYPES[definition["type"]][0](text)
    return request


def request_schema(name: str, definitions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON schema of a request that consists of parameters."""
    properties, required = {}, []
    for definition in definitions:
        shape = {**TYPES[definition["type"]][1], "description": definition["description"]}
        if definition["options"]:
            shape["enum"] = [option["value"] for option in definition["options"]]
        if definition.get("default") is not None:
            shape["default"] = TYPES[definition["type"]][0](definition["default"])
        elif not definition.get("optional"):
            required.append(definition["name"])
        properties[definition["name"]] = shape
    return {"type": "object", "title": name or "Request", "properties": properties, "required": required}
