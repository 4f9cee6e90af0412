"""Whether a job's request document fits the request model of its service, told before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ivcap_flows.errors import ParameterError
from ivcap_flows.ivcap.parameters import unknown_name

__all__ = ["validate_request"]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
}


def validate_request(schema: Mapping[str, Any], document: Any, *, service: str | None = None) -> None:
    """Check the top-level fields of a request against a JSON Schema (what a service's request model is).

    Raises ParameterError that lists every fault: missing, unknown (unless the schema allows more) and mistyped fields,
    and values beside an enum or const. What lies deeper is the service's to check. Fields beginning with `$` are the
    platform's and always allowed.
    """
    faults: list[str] = []
    schema = _resolved(schema, schema)
    if not isinstance(document, Mapping):
        faults.append(f"The request must be an object, not {type(document).__name__}.")
    else:
        fields = schema.get("properties")
        known: Mapping[str, Any] = fields if isinstance(fields, Mapping) else {}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        faults += [f"{name!r} is missing." for name in required if name not in document and not name.startswith("$")]
        open_ended = not known or schema.get("additionalProperties", False) is not False
        for name, value in document.items():
            if name in known:
                wanted = _wanted(known[name], schema)
                if wanted is not None and not _fits(known[name], value, schema):
                    faults.append(f"{name!r} takes {wanted}, not {value!r:.80} ({type(value).__name__}).")
            elif not open_ended and not str(name).startswith("$"):
                faults.append(unknown_name("field", name, known))
    if faults:
        of = f" of {service}" if service else ""
        raise ParameterError(
            f"The request does not fit the request model{of}. " + " ".join(faults), service=service, faults=faults
        )


def _resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, or what its local `$ref` points to."""
    for _ in range(16):  # a reference to itself ends here
        if not isinstance(part, Mapping):
            return {}
        reference = part.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return part
        target: Any = root
        for step in reference[2:].split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, Mapping) else None
        part = target
    return {}


def _choices(part: Mapping[str, Any]) -> list[Any]:
    return [*(part.get("anyOf") or ()), *(part.get("oneOf") or ())]


def _fits(part: Any, value: Any, root: Mapping[str, Any]) -> bool:
    part = _resolved(part, root)
    if choices := _choices(part):
        return any(_fits(choice, value, root) for choice in choices)
    if "const" in part and value != part["const"]:
        return False
    if isinstance(part.get("enum"), list) and value not in part["enum"]:
        return False
    names = part.get("type")
    names = [names] if isinstance(names, str) else names
    return not isinstance(names, list) or any(_TYPES.get(name, lambda _: True)(value) for name in names)


def _wanted(part: Any, root: Mapping[str, Any]) -> str | None:
    """What a field takes, in words; None where the schema does not say."""
    part = _resolved(part, root)
    if choices := _choices(part):
        words = [_wanted(choice, root) for choice in choices]
        return None if None in words else " or ".join(dict.fromkeys(word for word in words if word))
    if "const" in part:
        return repr(part["const"])
    if isinstance(part.get("enum"), list):
        return "one of " + ", ".join(map(repr, part["enum"]))
    names = part.get("type")
    if isinstance(names, str):
        return names
    return " or ".join(map(str, names)) if isinstance(names, list) else None
