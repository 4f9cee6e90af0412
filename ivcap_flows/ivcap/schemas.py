"""Find the aspect schema that a pydantic model, or a content, declares. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ivcap_flows.errors import InputError

__all__ = ["schema_of"]

_NAME: Final = "$schema"
_WAY_OUT: Final = (
    'Declare it as a field, `jschema: str = Field("urn:…", alias="$schema")`, or in '
    '`model_config = ConfigDict(json_schema_extra={"$id": "urn:…"})`, or pass schema=\'urn:…\'.'
)


def schema_of(declared: type[BaseModel] | BaseModel | Mapping[str, Any]) -> str:
    """Return the schema URN of a model, of an instance of it, or of a content with `$schema`.

    A model declares it in a field with alias `$schema` or name `jschema` (as in IVCAP's service SDK), by the field's
    value, default or single Literal; or as `$schema` or `$id` in its `json_schema_extra`. Raises InputError if there is
    no declaration, if it is not a URN, or if two declarations differ.
    """
    found = list(dict.fromkeys(_declared(declared)))
    name = declared.__name__ if isinstance(declared, type) else type(declared).__name__
    if not found:
        raise InputError(f"The {name} declares no aspect schema. {_WAY_OUT}")
    if len(found) > 1:
        raise InputError(f"The {name} declares several aspect schemas: {', '.join(map(repr, found))}. Leave one.")
    urn = found[0]
    if not isinstance(urn, str) or not urn.startswith("urn:") or any(c.isspace() for c in urn):
        raise InputError(f"The {name} declares the aspect schema {urn!r}, which is no URN. {_WAY_OUT}")
    return urn


def _declared(declared: type[BaseModel] | BaseModel | Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(declared, Mapping):
        if declared.get(_NAME) is not None:
            yield declared[_NAME]
        return
    model = declared if isinstance(declared, type) else type(declared)
    for name, field in model.model_fields.items():
        if _NAME in (field.alias, field.serialization_alias, field.validation_alias) or name == "jschema":
            value = getattr(declared, name) if isinstance(declared, BaseModel) else _fixed(field)
            if value is not None:
                yield value
    extra = model.model_config.get("json_schema_extra")
    if isinstance(extra, Mapping):
        # `$schema` in a JSON Schema usually names the dialect, which is a URL.
        yield from (
            extra[key] for key in (_NAME, "$id") if key in extra and not str(extra[key]).startswith(("http:", "https:"))
        )


def _fixed(field: FieldInfo) -> Any:
    """Return the value that a field has by default or by its only choice; None if there is neither."""
    if not field.is_required():
        return field.get_default(call_default_factory=False)
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return choices[0] if len(choices) == 1 else None
