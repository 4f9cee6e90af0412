"""Shapes of request bodies and queries: small tables that check, coerce and describe.

Faults have the form of FastAPI 0.88 with pydantic 1.10, which Provena's clients see in a 422: `{"loc": [...], "msg":
..., "type": ..., "ctx"?: {...}}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol
from urllib.parse import urlsplit

__all__ = [
    "DATE",
    "DICT",
    "EMAIL",
    "EMPTY_ID",
    "FLAG",
    "HTTP_URL",
    "ID",
    "TEXT",
    "TEXTS",
    "URI",
    "WHOLE",
    "Choice",
    "Fault",
    "Field",
    "Loc",
    "Many",
    "Mapped",
    "Object",
    "Ruled",
    "Shape",
    "Text",
    "Whole",
    "given",
    "maybe",
    "needed",
]

Fault = dict[str, Any]
Loc = tuple[str | int, ...]
_FAILED: Any = object()
EMPTY_ID = "embedded.empty_id"
"""The fault type of an empty id. The real server crashes on one, so clients must never send it."""


def _fault(at: Loc, msg: str, type: str, **ctx: Any) -> Fault:  # noqa: A002 - the wire's own word
    return {"loc": list(at), "msg": msg, "type": type} | ({"ctx": ctx} if ctx else {})


class Shape(Protocol):
    """The expected form of a value."""

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        """Return the coerced value. Faults are added to `faults`; then the result is useless."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""


@dataclass(frozen=True)
class _Scalar:
    """A value that one function coerces; the function raises ValueError for a value that it does not accept."""

    coerce: Callable[[Any], Any]
    msg: str
    type: str
    json: Mapping[str, Any]

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        try:
            return self.coerce(value)
        except (ValueError, TypeError, OverflowError):
            faults.append(_fault(at, self.msg, self.type))
            return _FAILED

    def schema(self) -> dict[str, Any]:
        return dict(self.json)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError


_YES, _NO = {"1", "on", "t", "true", "y", "yes"}, {"0", "off", "f", "false", "n", "no"}


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | int | str) and word in _YES | _NO:
        return word in _YES
    raise ValueError


def _day(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return date.fromisoformat(value[:10] if re.fullmatch(r"\d{4}-\d\d-\d\dT00:00(:00)?", value) else value).isoformat()


def _email(value: Any) -> str:
    text = _text(value).strip()
    if not re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", text):
        raise ValueError
    return text


def _http_url(value: Any) -> str:
    text = _text(value).strip()
    parts = urlsplit(text)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
        raise ValueError
    return text


def _uri(value: Any) -> str:
    text = _text(value).strip()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+", text):
        raise ValueError
    return text


def _dict(value: Any) -> dict[str, Any]:
    """Convert as pydantic 1 does: everything that `dict()` accepts becomes an object.

    That includes an empty list or text, and a list of pairs.
    """
    found = value if isinstance(value, dict) else dict(value)
    if not all(isinstance(name, str) for name in found):
        raise ValueError
    return found


@dataclass(frozen=True)
class Text:
    """A string; numbers become strings."""

    min_length: int = 0
    max_length: int | None = None

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        try:
            text = _text(value)
        except ValueError:
            faults.append(_fault(at, "str type expected", "type_error.str"))
            return _FAILED
        if len(text) < self.min_length:
            msg = f"ensure this value has at least {self.min_length} characters"
            faults.append(_fault(at, msg, "value_error.any_str.min_length", limit_value=self.min_length))
        elif self.max_length is not None and len(text) > self.max_length:
            msg = f"ensure this value has at most {self.max_length} characters"
            faults.append(_fault(at, msg, "value_error.any_str.max_length", limit_value=self.max_length))
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string"} | ({"minLength": self.min_length} if self.min_length else {})


@dataclass(frozen=True)
class Whole:
    """A whole number; text and fractions are coerced."""

    least: int | None = None
    most: int | None = None

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        try:
            number = int(value)
        except (ValueError, TypeError, OverflowError):
            faults.append(_fault(at, "value is not a valid integer", "type_error.integer"))
            return _FAILED
        if self.least is not None and number < self.least:
            msg = f"ensure this value is greater than or equal to {self.least}"
            faults.append(_fault(at, msg, "value_error.number.not_ge", limit_value=self.least))
        elif self.most is not None and number > self.most:
            msg = f"ensure this value is less than or equal to {self.most}"
            faults.append(_fault(at, msg, "value_error.number.not_le", limit_value=self.most))
        return number

    def schema(self) -> dict[str, Any]:
        limits = {"minimum": self.least, "maximum": self.most}
        return {"type": "integer"} | {key: limit for key, limit in limits.items() if limit is not None}


class Id(Text):
    """A string that identifies something, so it must not be empty."""

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        found = super().read(value, at, faults)
        if found == "":
            faults.append(_fault(at, f"The id {at[-1]} is empty.", EMPTY_ID))
        return found


class Choice:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        if value in self.words:
            return value
        permitted = ", ".join(f"'{word}'" for word in self.words)
        msg = f"value is not a valid enumeration member; permitted: {permitted}"
        faults.append(_fault(at, msg, "type_error.enum", enum_values=list(self.words)))
        return _FAILED

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class Many:
    """A list of values of one shape."""

    of: Shape

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        if not isinstance(value, list):
            faults.append(_fault(at, "value is not a valid list", "type_error.list"))
            return _FAILED
        return [_read(self.of, inner, (*at, place), faults) for place, inner in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.of.schema()}


@dataclass(frozen=True)
class Mapped:
    """An object with any keys, its values of one shape."""

    of: Shape

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        found = DICT.read(value, at, faults)
        if found is _FAILED:
            return _FAILED
        return {key: _read(self.of, inner, (*at, key), faults) for key, inner in found.items()}

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.of.schema()}


@dataclass(frozen=True)
class Ruled:
    """A shape with another rule: a function that returns a sentence for a value that it does not accept."""

    shape: Shape
    rule: Callable[[Any], str | None]

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        before = len(faults)
        found = self.shape.read(value, at, faults)
        if len(faults) == before and (complaint := self.rule(found)):
            faults.append(_fault(at, complaint, "value_error"))
        return found

    def schema(self) -> dict[str, Any]:
        return self.shape.schema()


@dataclass(frozen=True)
class Field:
    """One key of an object. If it is not `required`, `default` replaces it; `nullable` allows an explicit null."""

    shape: Shape
    required: bool = True
    nullable: bool = False
    default: Any = None


def needed(shape: Shape) -> Field:
    """Return a key that must be present and not null."""
    return Field(shape)


def maybe(shape: Shape) -> Field:
    """Return a key that may be absent or null; null is its default."""
    return Field(shape, required=False, nullable=True)


def given(shape: Shape, default: Any) -> Field:
    """Return a key that may be absent but not null."""
    return Field(shape, required=False, default=default)


@dataclass(frozen=True)
class Object:
    """An object with known keys. Other keys are dropped, or are faults if it is `closed`.

    `rules` are checked if all fields are valid, `early_rules` in any case: an invalid field is None for them.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    closed: bool = False
    rules: tuple[Callable[[dict[str, Any]], str | None], ...] = ()
    early_rules: tuple[Callable[[dict[str, Any]], str | None], ...] = ()

    def read(self, value: Any, at: Loc, faults: list[Fault]) -> Any:
        value = DICT.read(value, at, faults)
        if value is _FAILED:
            return _FAILED
        before = len(faults)
        unsound: set[str] = set()
        found: dict[str, Any] = {}
        for name, known in self.fields.items():
            so_far = len(faults)
            if name not in value:
                if known.required:
                    faults.append(_fault((*at, name), "field required", "value_error.missing"))
                else:
                    found[name] = _copied(known.default)
            elif value[name] is None and known.nullable:
                found[name] = None
            else:
                found[name] = _read(known.shape, value[name], (*at, name), faults)
            if len(faults) > so_far:
                unsound.add(name)
        if self.closed:
            extra = [name for name in value if name not in self.fields]
            faults += [_fault((*at, name), "extra fields not permitted", "value_error.extra") for name in extra]
        sound = {name: None if name in unsound else found[name] for name in self.fields}
        complaints = [rule(sound) for rule in self.early_rules]
        complaints += [rule(found) for rule in self.rules] if len(faults) == before else []
        faults += [_fault((*at, "__root__"), complaint, "value_error") for complaint in complaints if complaint]
        return found

    def schema(self) -> dict[str, Any]:
        names = {name: known.shape.schema() for name, known in self.fields.items()}
        required = [name for name, known in self.fields.items() if known.required]
        return (
            {"type": "object", "properties": names}
            | ({"required": required} if required else {})
            | ({"additionalProperties": False} if self.closed else {})
        )


def _read(shape: Shape, value: Any, at: Loc, faults: list[Fault]) -> Any:
    if value is None:
        faults.append(_fault(at, "none is not an allowed value", "type_error.none.not_allowed"))
        return _FAILED
    return shape.read(value, at, faults)


def _formatted(name: str) -> dict[str, str]:
    return {"type": "string", "format": name}


def _copied(default: Any) -> Any:
    return default.copy() if isinstance(default, dict | list) else default


TEXT = Text()
ID = Id()
TEXTS = Mapped(TEXT)
WHOLE = Whole()
FLAG = _Scalar(_flag, "value could not be parsed to a boolean", "type_error.bool", {"type": "boolean"})
DATE = _Scalar(_day, "invalid date format", "value_error.date", _formatted("date"))
EMAIL = _Scalar(_email, "value is not a valid email address", "value_error.email", _formatted("email"))
HTTP_URL = _Scalar(_http_url, "invalid or missing URL scheme", "value_error.url.scheme", _formatted("uri"))
URI = _Scalar(_uri, "invalid or missing URL scheme", "value_error.url.scheme", _formatted("uri"))
DICT = _Scalar(_dict, "value is not a valid dict", "type_error.dict", {"type": "object"})
