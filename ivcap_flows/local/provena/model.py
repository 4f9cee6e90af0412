"""The base of the models of requests, and their types: pydantic 2 that accepts what pydantic 1 does.

Provena runs on FastAPI 0.88 with pydantic 1.10. What a client sees of that is the values that are accepted, which is
here, and the form of a 422, which is in `faults.py`. An error with a dot in its type has pydantic 1's type already.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

__all__ = [
    "EMPTY_ID",
    "AnyDict",
    "Closed",
    "Date",
    "Email",
    "HttpUrl",
    "Id",
    "Mapping",
    "Model",
    "RootError",
    "Texts",
    "Uri",
    "Whole",
    "Words",
]

EMPTY_ID = "embedded.empty_id"
"""The error type of an empty id. The real server crashes on one, so clients must never send it."""


class RootError(ValueError):
    """A broken rule about several fields of a model, which is reported at the model.

    With `at_field` a validator of a field raises it, so that it is checked although other fields are wrong.
    """

    def __init__(self, message: str, *, at_field: bool = False) -> None:
        super().__init__(message)
        self.at_field = at_field


def _as_dict(value: Any) -> Any:
    """Convert as pydantic 1 does: everything that `dict()` accepts becomes an object.

    That includes an empty list or text, and a list of pairs.
    """
    try:
        found = value if isinstance(value, dict) else dict(value)
    except (TypeError, ValueError):
        found = None
    if found is None or not all(isinstance(name, str) for name in found):
        raise PydanticCustomError("type_error.dict", "value is not a valid dict")
    return found


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("type_error.integer", "value is not a valid integer") from None


def _day(value: Any) -> str:
    try:
        midnight = re.fullmatch(r"(\d{4}-\d\d-\d\d)T00:00(:00)?", value)
        return date.fromisoformat(midnight[1] if midnight else value).isoformat()
    except (TypeError, ValueError):
        raise PydanticCustomError("value_error.date", "invalid date format") from None


def _email(text: str) -> str:
    if re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", text.strip()):
        return text.strip()
    raise PydanticCustomError("value_error.email", "value is not a valid email address")


def _http_url(text: str) -> str:
    text = text.strip()
    try:
        parts = urlsplit(text)
        if parts.scheme.lower() in ("http", "https") and parts.hostname and not re.search(r"\s", text):
            return text
    except ValueError:
        pass
    raise PydanticCustomError("value_error.url.scheme", "invalid or missing URL scheme")


def _uri(text: str) -> str:
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+", text.strip()):
        return text.strip()
    raise PydanticCustomError("value_error.url.scheme", "invalid or missing URL scheme")


def _not_empty(text: str) -> str:
    if text:
        return text
    raise PydanticCustomError(EMPTY_ID, "An id is empty.")


_T = TypeVar("_T")
_DICT = BeforeValidator(_as_dict)
AnyDict = Annotated[dict[str, Any], _DICT]
Mapping = Annotated[dict[str, _T], _DICT]
Texts = Mapping[str]
Whole = Annotated[int, BeforeValidator(_whole)]
Words = Annotated[str, Field(min_length=1)]
Id = Annotated[str, AfterValidator(_not_empty)]
Date = Annotated[str, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Email = Annotated[str, AfterValidator(_email), WithJsonSchema({"type": "string", "format": "email"})]
HttpUrl = Annotated[str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})]
Uri = Annotated[str, AfterValidator(_uri), WithJsonSchema({"type": "string", "format": "uri"})]


class Model(BaseModel):
    """A JSON object with known keys. Other keys are dropped; numbers become texts where a text is wanted."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _from_anything(cls, value: Any) -> Any:
        return _as_dict(value)


class Closed(Model):
    """An object in which other keys are faults."""

    model_config = ConfigDict(extra="forbid")
