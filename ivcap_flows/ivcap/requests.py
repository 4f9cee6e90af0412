"""Check a job's request document against the request model of its service, before anything is sent.

The functions are pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import ParameterError
from ivcap_flows.plain_text import unknown_name

if TYPE_CHECKING:
    from jsonschema import ValidationError

__all__ = ["JOB_INPUT", "indirect", "resolved", "validate_request"]

JOB_INPUT: Final = "urn:ivcap:schema:job.input.1"
"""The schema of a request that names an aspect with the real document (ivcap-cli job.go)."""

_DIALECTS: Final = ("http://json-schema.org/", "https://json-schema.org/")
_SHOWN: Final = 200


def indirect(service: str, aspect: str) -> dict[str, str]:
    """Return a request document that names the aspect with the real document."""
    return {"$schema": JOB_INPUT, "request-aspect": aspect, "service": service}


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
    """Check a request against a JSON Schema, the form of a service's request model.

    Raises ParameterError with every fault: missing fields, unknown fields (unless the schema allows them), wrong types,
    values outside an enum or const, and faults in nested values. Fields that begin with `$` belong to the platform and
    are always allowed. If the schema is invalid, or has references that cannot be resolved, only the parts that can be
    read are checked.
    """
    faults = list(_faults(schema, document))
    if faults:
        of = f" of {service}" if service else ""
        raise ParameterError(
            f"The request does not fit the request model{of}. " + " ".join(faults), service=service, faults=faults
        )


def _faults(root: Mapping[str, Any], document: Any) -> Iterator[str]:
    schema = resolved(root, root)
    if not isinstance(document, Mapping):
        yield f"The request must be an object, not {type(document).__name__}."
        return
    fields = schema.get("properties")
    known: Mapping[str, Any] = fields if isinstance(fields, Mapping) else {}
    for name in schema.get("required") or ():
        if isinstance(name, str) and name not in document and not name.startswith("$"):
            yield f"{name!r} is missing."
    open_ended = not known or schema.get("additionalProperties", False) is not False
    told = set()
    for name, value in document.items():
        if name in known:
            wanted = _wanted(known[name], root)
            if wanted is not None and not _fits(known[name], value, root):
                told.add(name)
                yield f"{name!r} takes {wanted}, not {value!r:.80} ({type(value).__name__})."
        elif not open_ended and not str(name).startswith("$"):
            told.add(name)
            yield unknown_name("field", name, known)
    ours = {name: value for name, value in document.items() if name in known or not str(name).startswith("$")}
    for error in _errors(root, ours):
        whole = not error.absolute_path
        if whole and error.validator in ("type", "required", "additionalProperties"):
            continue
        if whole or error.absolute_path[0] not in told:
            yield _sentence(error)


def _errors(schema: Mapping[str, Any], document: Any) -> list[ValidationError]:
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.exceptions import UnknownType
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    named = str(schema.get("$schema", ""))
    dialect = validator_for(schema, Draft202012Validator) if named.startswith(_DIALECTS) else Draft202012Validator
    try:
        dialect.check_schema(schema)
        # An empty registry fetches nothing: a schema must not make this process call other hosts.
        found = dialect(schema, registry=Registry()).iter_errors(document)
        return sorted(found, key=lambda error: [str(step) for step in error.absolute_path])
    except (SchemaError, UnknownType, Unresolvable, RecursionError, re.error):
        return []


def _sentence(error: ValidationError) -> str:
    from jsonschema.exceptions import best_match

    deepest = best_match([error]) or error
    where = ".".join(str(step) for step in deepest.absolute_path)
    words = deepest.message if len(deepest.message) <= _SHOWN else deepest.message[: _SHOWN - 1] + "…"
    return f"{where!r}: {words}." if where else f"{words}."


def resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema, or the target of its local `$ref`; empty if there is no target."""
    for _ in range(16):  # the limit ends a reference to itself
        if not isinstance(part, Mapping):
            return {}
        reference = part.get("$ref")
        if reference == "#":
            return root
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
    part = resolved(part, root)
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
    """Describe the values that a field takes; None if the schema does not say."""
    part = resolved(part, root)
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
