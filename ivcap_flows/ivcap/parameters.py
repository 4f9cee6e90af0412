"""Encode Python values as the strings that an order carries, by the types that a service declares. Pure.

Values are sent as text whatever the declared type (IVCAP OpenAPI 0.48, `ParameterT`). The types are those in use by
services of the official SDKs:

| type | takes | sends |
|---|---|---|
| `string` | str, date, datetime, a handle | the text; ISO 8601, in UTC if there is an offset; the handle's URN |
| `int` | int, NumPy's too; no bool, no float | decimal digits |
| `float` | float, int, NumPy's too; finite; no bool, no text | the shortest text that reads back the same |
| `bool` | bool, NumPy's too | `true` or `false` |
| `option` | one of the declared values (any text if none is declared) | the value |
| `artifact` | an Artifact; a URN or URL that begins with one of `ARTIFACT_PREFIXES` | the URN or URL |
| `collection` | a handle; any URN | the URN |
| any other | whatever `string`, `bool`, `int` or `float` takes | as that type |

A member of an Enum counts as its value; None counts as not given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from enum import Enum
from typing import Any, Final, Protocol

from ivcap_flows.canonical import canonical_form, is_path, upload_first
from ivcap_flows.errors import InputError, ParameterError
from ivcap_flows.handles import Artifact, Handle
from ivcap_flows.ivcap.wire import Text, Wire
from ivcap_flows.plain_text import unknown_name

__all__ = ["ARTIFACT_PREFIXES", "Declaring", "Option", "ParameterDef", "encode_parameters"]

ARTIFACT_PREFIXES: Final = ("urn:ivcap:artifact:", "http://", "https://", "urn:http://", "urn:https://")
"""Prefixes that the value of an artifact parameter may have (ivcap-client service.py)."""


class Option(Wire):
    """One value of an option parameter."""

    value: str
    description: Text = None


class ParameterDef(Wire):
    """A declared parameter. `type` is a free string of the platform; `default` is always text."""

    name: str
    description: Text = None
    type: str = "string"
    label: Text = None
    unit: Text = None
    constant: bool | None = None
    optional: bool | None = None
    unary: bool | None = None
    default: str | None = None
    options: list[Option] | None = None

    @property
    def mandatory(self) -> bool:
        """Whether an order must give it.

        A parameter with a default is optional, whatever `optional` says (ivcap-client).
        """
        return not self.optional and self.default is None


class Declaring(Protocol):
    """The part of a service that encoding parameters needs."""

    @property
    def urn(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def parameters(self) -> list[ParameterDef] | None: ...


class _UnfitError(Exception):
    """A value does not fit its type. The message completes the sentence "takes …"."""


def encode_parameters(service: Declaring, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the wire values of an order's parameters, in the service's order. None means not given.

    Equal values encode equally. Raises ParameterError with every fault: unknown names (with similar names), missing
    mandatory parameters (those with no default that are not optional), and values that do not fit their type.
    """
    known = {definition.name: definition for definition in service.parameters or ()}
    given = {name: value for name, value in values.items() if value is not None}
    faults = [unknown_name("parameter", name, known) for name in given if name not in known]
    encoded: dict[str, str] = {}
    for name, definition in known.items():
        if name not in given:
            if definition.mandatory:
                faults.append(f"{name!r} ({definition.type}) is missing.")
            continue
        value = given[name]
        try:
            text = _ENCODERS.get(definition.type.lower(), _any)(value, definition)
        except _UnfitError as unfit:
            fault = f"{name!r} takes {unfit}, not {value!r:.80} ({type(value).__name__})."
            faults.append(f"{fault} {upload_first(value)}" if _may_be_file(value, definition) else fault)
            continue
        if definition.constant and definition.default is not None and text != definition.default:
            faults.append(f"{name!r} is constant: {definition.default!r}.")
            continue
        encoded[name] = text
    if faults:
        title = service.name or service.urn
        raise ParameterError(
            f"The service {title!r} does not take these parameters. " + " ".join(faults),
            service=service.urn,
            faults=faults,
        )
    return encoded


def _may_be_file(value: Any, definition: ParameterDef) -> bool:
    """Return whether a value that does not fit may be a file of which the parameter takes the artifact."""
    kind = definition.type.lower()
    text = isinstance(value, str) and kind == "artifact" and not value.startswith("urn:")
    return text or (is_path(value) and kind not in ("int", "float", "bool", "option"))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _string(value: Any, _: ParameterDef) -> str:
    value = _plain(value)
    if not isinstance(value, str | date | Handle):  # a datetime is a date, too
        raise _UnfitError("a string")
    try:
        return str(canonical_form(value, ""))
    except InputError as error:
        raise _UnfitError("a string that UTF-8 can hold, or a time of UTC") from error


def _int(value: Any, _: ParameterDef) -> str:
    value = _plain(value)
    if not _is_bool(value):
        try:
            return str(operator.index(value))
        except TypeError:
            pass
    raise _UnfitError("an int")


def _float(value: Any, _: ParameterDef) -> str:
    value = _plain(value)
    if not isinstance(value, str | bytes | bytearray) and not _is_bool(value):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return repr(number + 0.0)  # -0.0 is 0.0
    raise _UnfitError("a finite float or an int")


def _bool(value: Any, _: ParameterDef) -> str:
    if _is_bool(value):
        return "true" if value else "false"
    raise _UnfitError("a bool")


def _option(value: Any, definition: ParameterDef) -> str:
    value = _plain(value)
    allowed = [option.value for option in definition.options or ()]
    if isinstance(value, str) and (not allowed or value in allowed):
        return value
    raise _UnfitError("one of " + ", ".join(map(repr, allowed)) if allowed else "a string")


def _artifact(value: Any, _: ParameterDef) -> str:
    if isinstance(value, Artifact):
        return value.urn
    if isinstance(value, str) and value.startswith(ARTIFACT_PREFIXES):
        return value
    raise _UnfitError("an artifact or its URN")


def _collection(value: Any, _: ParameterDef) -> str:
    if isinstance(value, Handle):
        return value.urn
    if isinstance(value, str) and value.startswith("urn:"):
        return value
    raise _UnfitError("the URN of a collection")


def _any(value: Any, definition: ParameterDef) -> str:
    """Encode a value of an unknown type, if it has one obvious text."""
    for encode in (_string, _bool, _int, _float):
        with suppress(_UnfitError):
            return encode(value, definition)
    raise _UnfitError("a string, number, bool, time or handle")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # NumPy has its own


_ENCODERS: Final[Mapping[str, Callable[[Any, ParameterDef], str]]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "option": _option,
    "artifact": _artifact,
    "collection": _collection,
}
