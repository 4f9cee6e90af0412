"""The canonical form of a value: JSON that depends on the value alone, not on the process or host. No I/O.

| value | form |
|---|---|
| None, bool, text, a finite float, an int between -2**53 and 2**53 | itself; for a subclass, the plain value |
| list, tuple | a list |
| set, frozenset | a list, sorted by the canonical bytes (RFC 8785) of its items |
| dict and other mappings | an object; a key is text, an int in decimal digits, or has one of these forms |
| Enum | the form of its value |
| handle | its URN |
| pydantic model | its JSON dump by alias; sets, handles, times and decimals in it follow this table |
| dataclass | an object of its fields |
| datetime with an offset | ISO 8601 in UTC |
| datetime without one, date, time | ISO 8601 |
| timedelta | ISO 8601, in seconds |
| Decimal | its digits as text, without exponent and trailing zeros |
| UUID | its text |
| NumPy scalar | the form of the Python value |

Every other value has no canonical form: a value that only its address identifies, a value that JSON cannot hold
exactly, and a value that means something on this machine only, such as a path.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, RootModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Handle
from ivcap_flows.identity import canonical, is_utf8
from ivcap_flows.secrets import is_secret_type

__all__ = ["canonical_form", "is_path", "upload_first"]

_EXACT: Final = 2**53
_NUMPY_TIMES: Final = ("datetime64", "timedelta64")
_OURS: Final = (Enum, date, time, timedelta, Decimal, float)
"""Types inside a model that get this module's form, unless the model serializes them in its own way."""


def canonical_form(value: Any, at: str, *, stand_in: Callable[[Any], Any] | None = None) -> Any:
    """Return the JSON that equal values share. Errors name the value by `at`, for example `request`.

    Each part goes through `stand_in` first. It returns the part itself or a replacement, and raises ValueError for a
    part that must not be read.

    Raises InputError for the first part without a canonical form. Its data: `path`, such as `request.options[3].when`,
    and `type`.
    """
    try:
        return _Form(stand_in).of(value)
    except _UnfitError as unfit:
        path = at + unfit.path
        raise InputError(f"`{path}` {unfit.why}", path=path, type=unfit.kind) from unfit
    except RecursionError as error:
        raise InputError(f"`{at}` holds itself, or is nested too deep.", path=at, type=type(value).__name__) from error


def is_path(value: Any) -> bool:
    """Return whether a value is a path on this machine. A text is none."""
    return hasattr(type(value), "__fspath__")


def upload_first(path: Any) -> str:
    """Return the sentence that says how a file, named by a path or a text, gets to the platform."""
    named = path.__fspath__() if is_path(path) else path
    return f"Upload the file first and pass the artifact: upload_artifact({named!r})."


class _UnfitError(Exception):
    """A part without a canonical form. `why` completes the sentence that begins with its `path`."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.kind, self.why, self.path = type(value).__name__, why, ""


class _Form:
    def __init__(self, stand_in: Callable[[Any], Any] | None) -> None:
        self._stand_in = stand_in

    def of(self, value: Any) -> Any:
        if self._stand_in is not None:
            try:
                value = self._stand_in(value)
            except ValueError as error:
                raise _UnfitError(value, f"is a {type(value).__name__}, {error}.") from error
        if value is None or value is True or value is False:
            return value
        if isinstance(value, Enum):
            return self.of(value.value)
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, float):
            return _number(value)
        if isinstance(value, Handle):
            return value.urn
        _refuse_what_stays_here(value)
        if isinstance(value, BaseModel):
            return self._model(value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            return [_at(f"[{index}]", self.of, item) for index, item in enumerate(value)]
        if isinstance(value, set | frozenset):
            return _sorted(_at("[…]", self.of, item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                field.name: _at(f".{field.name}", self.of, getattr(value, field.name))
                for field in dataclasses.fields(value)
            }
        return self._scalar(value)

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        form: dict[str, Any] = {}
        for key, inner in value.items():
            name = self._key(key)
            if name in form:
                raise _UnfitError(value, f"has two keys that both become {name[:80]!r}. Leave one of them.")
            form[name] = _at(_step(name), self.of, inner)
        return form

    def _key(self, key: Any) -> str:
        form = self.of(key)
        if isinstance(form, str):
            return form
        if isinstance(form, int) and not isinstance(form, bool):
            return str(form)
        raise _UnfitError(key, f"has a key of the type {type(key).__name__}. Give its keys as text.")

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return _moment(value)
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, timedelta):
            return _duration(value)
        if isinstance(value, Decimal):
            return _digits(value)
        if isinstance(value, UUID):
            return str(value)
        kind = type(value)
        if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
            plain = value.item()
            # An int from datetime64 or timedelta64 counts nanoseconds or months, and does not say which.
            if type(plain) is not kind and not (kind.__name__ in _NUMPY_TIMES and isinstance(plain, int)):
                return self.of(plain)
        raise _UnfitError(
            value,
            f"is a {kind.__module__}.{kind.__qualname__}, for which no JSON value stands. Pass its values instead.",
        )

    def _model(self, model: BaseModel) -> Any:
        try:
            dumped = model.model_dump(mode="json", by_alias=True)
        except PydanticSerializationError as error:
            raise _UnfitError(model, f"is a {type(model).__name__} that cannot be dumped as JSON: {error}.") from error
        return self._dumped(model, dumped)

    def _dumped(self, raw: Any, dumped: Any) -> Any:
        """Return the form of a model's part `raw` from its JSON dump, where a set and a list look the same."""
        if isinstance(raw, Handle) and isinstance(dumped, Mapping):
            return raw.urn
        if isinstance(raw, RootModel):
            return self._dumped(raw.root, dumped)
        if isinstance(raw, BaseModel) and isinstance(dumped, Mapping):
            parts = _parts(raw)
            return {
                name: _at(f".{name}", self._dumped, parts.get(name, inner), inner) for name, inner in dumped.items()
            }
        if isinstance(raw, set | frozenset) and isinstance(dumped, list):
            paired = zip(raw, dumped) if len(raw) == len(dumped) else zip(dumped, dumped)  # noqa: B905
            return _sorted(_at("[…]", self._dumped, *pair) for pair in paired)
        if isinstance(raw, list | tuple) and isinstance(dumped, list) and len(raw) == len(dumped):
            return [_at(f"[{index}]", self._dumped, *pair) for index, pair in enumerate(zip(raw, dumped, strict=True))]
        if dataclasses.is_dataclass(raw) and isinstance(dumped, Mapping):
            return {
                name: _at(f".{name}", self._dumped, getattr(raw, name, inner), inner) for name, inner in dumped.items()
            }
        if isinstance(raw, Mapping) and isinstance(dumped, Mapping) and len(raw) == len(dumped):
            pairs = zip(raw.values(), dumped.items(), strict=True)
            return {name: _at(_step(name), self._dumped, inner, said) for inner, (name, said) in pairs}
        # pydantic silently dumps NaN and infinity as null.
        if dumped != _default(raw) and not (isinstance(raw, float) and dumped is None):
            return self.of(dumped)
        _refuse_what_stays_here(raw)
        return self.of(raw if isinstance(raw, _OURS) else dumped)


def _at(step: str, form: Callable[..., Any], *of: Any) -> Any:
    """Return the form of a part. Put `step`, which leads to the part, before the path of an error."""
    try:
        return form(*of)
    except _UnfitError as unfit:
        unfit.path = step + unfit.path
        raise


def _refuse_what_stays_here(value: Any) -> None:
    """Raise for secrets, paths and bytes: their text would be a leak, or would mean nothing on another machine."""
    kind: Any = type(value)
    if is_secret_type(kind):
        raise _UnfitError(value, "is a secret, which would be recorded. Pass its name on the platform instead.")
    if is_path(value):
        raise _UnfitError(value, f"is a {kind.__name__}, a path on this machine. {upload_first(value)}")
    if isinstance(value, bytes | bytearray | memoryview):
        raise _UnfitError(value, f"is a {kind.__name__}, which JSON cannot hold. Pass text, such as its base64.")


def _text(value: str) -> str:
    value = str.__str__(value)
    if not value.isascii() and not is_utf8(value):
        raise _UnfitError(value, "is a text that UTF-8 cannot hold. Leave half surrogate pairs out.")
    return value


def _integer(value: int) -> int:
    if not -_EXACT < value < _EXACT:
        raise _UnfitError(value, "is an int beyond 2**53, which JSON numbers do not hold exactly. Pass it as text.")
    return int(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise _UnfitError(value, f"is {float(value)}, which JSON cannot hold. Leave it out, or pass it as text.")
    return float(value)


def _moment(value: datetime) -> str:
    # The NaT of pandas is a datetime that is not equal to itself.
    if value != value:
        raise _UnfitError(value, "is no time. Leave it out.")
    try:
        return (value if value.utcoffset() is None else value.astimezone(timezone.utc)).isoformat()
    except OverflowError as error:
        raise _UnfitError(value, "is a time that UTC has no year for. Leave its offset out.") from error


def _duration(value: timedelta) -> str:
    sign, micro = ("-", -value) if value < timedelta(0) else ("", value)
    whole, rest = divmod(micro // timedelta(microseconds=1), 10**6)
    fraction = f".{rest:06}".rstrip("0") if rest else ""
    return f"{sign}PT{whole}{fraction}S"


def _digits(value: Decimal) -> str:
    if not value.is_finite():
        raise _UnfitError(value, f"is {value}, which is no number. Leave it out, or pass it as text.")
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _sorted(forms: Iterable[Any]) -> list[Any]:
    return sorted(forms, key=canonical)


def _parts(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model by the names under which the model dumps them."""
    kind = type(model)
    parts = {field.serialization_alias or name: getattr(model, name) for name, field in kind.model_fields.items()}
    parts |= {field.alias or name: getattr(model, name) for name, field in kind.model_computed_fields.items()}
    return parts | (model.__pydantic_extra__ or {})


def _default(raw: Any) -> Any:
    """Return what pydantic dumps for a value by default, or the value itself if pydantic cannot dump it."""
    try:
        return to_jsonable_python(raw)
    except (PydanticSerializationError, UnicodeDecodeError):
        return raw


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{name[:80]!r}]"
