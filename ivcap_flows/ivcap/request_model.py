"""Build a pydantic model from the JSON Schema of a service's request, with its constraints.

Types, bounds, names and descriptions become parts of the model. Some rules have no counterpart in pydantic
(`uniqueItems`, `oneOf` as exactly one, `not`, conditions), so every instance of the model is also checked against the
schema itself.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Final, ForwardRef, Literal, Union
from uuid import UUID

from pydantic import (
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Strict,
    TypeAdapter,
    create_model,
    model_serializer,
    model_validator,
)

from ivcap_flows.canonical import canonical_form
from ivcap_flows.errors import InputError
from ivcap_flows.ivcap.requests import resolved, violations

__all__ = ["RequestModel", "model_of"]


class RequestModel(BaseModel):
    """Base of the generated models. A dump contains only the fields that were given; dump by alias to send it.

    Values are not converted: a text is not accepted as a number. Handles are replaced by their URNs.
    """

    model_config = ConfigDict(
        extra="allow",
        populate_by_name=True,
        protected_namespaces=(),
        regex_engine="python-re",
        allow_inf_nan=False,
        defer_build=True,
    )

    __request_schema__: ClassVar[Mapping[str, Any] | None] = None
    """The whole schema; set on the model of the request itself only."""

    @model_validator(mode="before")
    @classmethod
    def _of_handles(cls, given: Any) -> Any:
        try:
            return canonical_form(given, "request") if isinstance(given, Mapping) else given
        except InputError as error:
            raise ValueError(error.message) from error

    @model_validator(mode="after")
    def _keeps_the_schema(self) -> RequestModel:
        schema = type(self).__request_schema__
        faults = violations(schema, self.model_dump(mode="json", by_alias=True)) if schema is not None else []
        if faults:
            raise ValueError(" ".join(faults))
        return self

    @model_serializer(mode="wrap")
    def _what_was_given(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        owner: Any = type(self)
        # This also runs for the None of a field that was not given, which is not a model.
        for name, field in getattr(owner, "model_fields", {}).items():
            alias = field.alias or name
            # `$schema` says what the document is, so it is sent even if only its default is set.
            if name not in self.model_fields_set and not (alias.startswith("$") and field.default is not None):
                written.pop(alias if info.by_alias else name, None)
        return written


class _ClosedModel(RequestModel):
    model_config = ConfigDict(extra="forbid")


def model_of(schema: Mapping[str, Any], name: str = "Request") -> type[RequestModel]:
    """Return the model of an object's JSON Schema (2020-12, and what older drafts share with it).

    `name` is used if the schema has no title. References within the schema are followed, recursive ones too; any other
    reference becomes `Any`.
    """
    builder = _Builder(schema)
    model = builder.build(name)
    model.__request_schema__ = schema
    return model


def _whole(value: Any) -> Any:
    """Return a float without a fraction as an int: JSON Schema counts 1.0 as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _being(kind: type[Any]) -> Callable[[Any], Any]:
    """Return a validator that keeps a text as it is written, if it can be read as `kind`."""
    adapter = TypeAdapter(kind)

    def checked(value: Any) -> Any:
        adapter.validate_python(value)
        return str(value)

    return checked


def _moment(value: Any) -> Any:
    """Reject a number, which pydantic would read as seconds since 1970; the schema wants a text."""
    if isinstance(value, int | float):
        raise ValueError("Input should be a date or time")
    return value


_SCALARS: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": Annotated[int, Strict()],
    "number": Annotated[float, Strict()],
    "boolean": Annotated[bool, Strict()],
    "null": None,
}
_FORMATS: Final[Mapping[str, Any]] = {
    "date-time": Annotated[datetime, BeforeValidator(_moment)],
    "date": Annotated[date, BeforeValidator(_moment)],
    "uuid": Annotated[str, BeforeValidator(_being(UUID))],
    "uri": Annotated[str, BeforeValidator(_being(AnyUrl))],
}
_BOUNDS: Final = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}


class _Builder:
    """Builds the models of one schema, including nested models and those behind references."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._models: dict[str, type[RequestModel] | None] = {}
        self._named: dict[str, str] = {}
        """Reference to an object -> name of its model."""
        self._following: set[str] = set()

    def build(self, title: str) -> type[RequestModel]:
        whole = resolved(self._root, self._root)
        name = self._new_name(str(whole.get("title") or title))
        self._named["#"] = name
        if isinstance(reference := self._root.get("$ref"), str):
            self._named[reference] = name
        self._object(self._merged(whole) or whole, name)
        made = {name: model for name, model in self._models.items() if model is not None}
        for model in made.values():
            model.model_rebuild(force=True, _types_namespace=made)
        return made[name]

    def _object(self, schema: Mapping[str, Any], name: str) -> None:
        required = set(schema.get("required") or ())
        fields: dict[str, Any] = {}
        properties = schema.get("properties") or {}
        # Names that are valid identifiers are assigned first, so that they stay unchanged.
        for alias in sorted(properties, key=lambda alias: _identifier(alias) != alias):
            part, identifier = properties[alias], _identifier(alias)
            while identifier in fields:
                identifier += "_"
            told = part if isinstance(part, Mapping) else {}
            options: dict[str, Any] = {} if identifier == alias else {"alias": alias}
            if isinstance(told.get("description"), str):
                options["description"] = told["description"]
            if alias not in required:
                default = told.get("default")
                options |= {"default": default, "validate_default": default is not None}
            fields[identifier] = (self._type(part, f"{name}_{identifier}"), Field(**options))
        order = list(properties)
        ordered = dict(sorted(fields.items(), key=lambda item: order.index(item[1][1].alias or item[0])))
        base = _ClosedModel if schema.get("additionalProperties") is False else RequestModel
        about = schema.get("description")
        self._models[name] = create_model(
            name, __base__=base, __module__=__name__, __doc__=about if isinstance(about, str) else None, **ordered
        )

    def _type(self, schema: Any, name: str) -> Any:
        if not isinstance(schema, Mapping) or not schema:
            return Any
        if isinstance(schema.get("$ref"), str):
            return self._reference(schema["$ref"])
        if "const" in schema:
            return _literal([schema["const"]])
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return _literal(schema["enum"])
        if schema.get("allOf"):
            merged = self._merged(schema)
            return Any if merged is None else self._type(merged, name)
        kind = schema.get("type")
        if isinstance(kind, list):
            return _union([self._type({**schema, "type": one}, name) for one in kind])
        choices = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(choices, list) and kind is None and "properties" not in schema:
            return _union([self._type(choice, name) for choice in choices])
        if kind == "object" or (kind is None and "properties" in schema):
            return self._mapping(schema, name)
        if kind == "array":
            return self._array(schema, name)
        if isinstance(kind, str) and kind in _SCALARS:
            return _scalar(kind, schema)
        return Any

    def _mapping(self, schema: Mapping[str, Any], name: str) -> Any:
        if schema.get("properties"):
            unique = self._new_name(str(schema.get("title") or name))
            self._object(schema, unique)
            return self._models[unique]
        inner = schema.get("additionalProperties")
        return _sized(dict[str, self._type(inner, name)], schema, "minProperties", "maxProperties")  # type: ignore[misc]

    def _array(self, schema: Mapping[str, Any], name: str) -> Any:
        items, first = schema.get("items"), schema.get("prefixItems")
        if isinstance(items, list):  # the tuples of drafts before 2020-12
            items, first = schema.get("additionalItems"), items
        if isinstance(first, list) and first:
            fixed = items is False or schema.get("maxItems") == len(first)
            if fixed and schema.get("minItems", 0) == len(first):
                return tuple[tuple(self._type(each, name) for each in first)]  # type: ignore[misc]
            return _sized(list[Any], schema, "minItems", "maxItems")
        return _sized(list[self._type(items, name)], schema, "minItems", "maxItems")  # type: ignore[misc]

    def _reference(self, reference: str) -> Any:
        """Return the type behind a reference; a forward reference for a model that is still being built."""
        if reference in self._named:
            name = self._named[reference]
            return self._models.get(name) or ForwardRef(name)
        target = resolved({"$ref": reference}, self._root)
        target = self._merged(target) or target
        title = str(target.get("title") or reference.rpartition("/")[2])
        if target.get("properties") and target.get("type", "object") == "object":
            self._named[reference] = name = self._new_name(title)
            self._object(target, name)
            return self._models[name]
        if not target or reference in self._following:
            return Any
        self._following.add(reference)
        try:
            return self._type(target, title)
        finally:
            self._following.discard(reference)

    def _merged(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Merge all parts of an `allOf` into one object schema; None if the parts are not objects.

        A single part that is only a reference is returned as it is.
        """
        parts = schema.get("allOf")
        if not isinstance(parts, list) or not parts:
            return None
        own = {key: value for key, value in schema.items() if key != "allOf"}
        if len(parts) == 1 and not own.get("properties") and isinstance(parts[0], Mapping) and "$ref" in parts[0]:
            return parts[0]
        merged: dict[str, Any] = {**own, "type": "object", "properties": {}, "required": []}
        for part in (own, *parts):
            whole = resolved(part, self._root)
            whole = self._merged(whole) or whole
            if whole.get("type", "object") != "object":
                return None
            merged["properties"] |= whole.get("properties") or {}
            merged["required"] += whole.get("required") or []
        return merged if merged["properties"] else None

    def _new_name(self, title: str) -> str:
        name = base = re.sub(r"\W", "_", title, flags=re.ASCII).strip("_") or "Model"
        if not base.isidentifier():
            name = base = f"Model_{base}"
        number = 2
        while name in self._models:
            name, number = f"{base}_{number}", number + 1
        self._models[name] = None
        return name


def _identifier(name: str) -> str:
    """Return a field's name in Python. `$schema` becomes `schema_`, since pydantic models have a `schema` already."""
    found = re.sub(r"\W", "_", name).lstrip("_") or "field"
    if not found.isidentifier():
        found = f"field_{found}"
    return f"{found}_" if keyword.iskeyword(found) or hasattr(RequestModel, found) else found


def _literal(values: list[Any]) -> Any:
    if all(value is None or isinstance(value, str | int) for value in values):
        return Literal[tuple(values)]
    return Any


def _union(kinds: list[Any]) -> Any:
    return Any if Any in kinds else Union[tuple(kinds)]  # noqa: UP007 - the types are known only at run time


def _scalar(kind: str, schema: Mapping[str, Any]) -> Any:
    if kind == "string":
        if (known := _FORMATS.get(str(schema.get("format")))) is not None:
            return known
        sized = _sized(_SCALARS[kind], schema, "minLength", "maxLength")
        pattern = schema.get("pattern")
        return Annotated[sized, Field(pattern=pattern)] if _compiles(pattern) else sized
    if kind not in ("integer", "number"):
        return _SCALARS[kind]
    given: dict[str, Any] = {}
    for word, bound in _BOUNDS.items():
        value: Any = schema.get(word)
        fits = isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
        if fits and (word != "multipleOf" or value > 0):
            given[bound] = value
    bounded = Annotated[_SCALARS[kind], Field(**given)] if given else _SCALARS[kind]
    return Annotated[bounded, BeforeValidator(_whole)] if kind == "integer" else bounded


def _compiles(pattern: Any) -> bool:
    try:
        re.compile(pattern)
    except (TypeError, re.error):
        return False
    return True


def _sized(kind: Any, schema: Mapping[str, Any], least: str, most: str) -> Any:
    bounds = {"min_length": schema.get(least), "max_length": schema.get(most)}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if isinstance(bound, int)}
    return Annotated[kind, Field(**given)] if given else kind
