"""The parameters of a flow, given as `name=value` and read by their types."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from pydantic import ConfigDict, SecretStr, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaValidator

from ivcap_flows.cli.written_values import Plain, Tree, json_tree, plain_value, tree, untyped
from ivcap_flows.errors import InputError
from ivcap_flows.identity import is_utf8
from ivcap_flows.secrets import scrub, scrub_text

if TYPE_CHECKING:
    from prefect import Flow


__all__ = ["Params", "how_written", "parameters"]

Params = Annotated[
    list[str] | None,
    Parameter(
        name=("--param", "-p"),
        help="Parameter of the flow as `name=value`, read by its type; a list or mapping is JSON or YAML. "
        "`name:=value` is JSON whatever the type.",
    ),
]
Schema = Mapping[str, Any]
"""A node of the core schema into which pydantic translates a type."""

_ANY: Final[Schema] = {"type": "any"}
_EXAMPLES: Final = {
    "int": "10",
    "float": "0.5",
    "bool": "true",
    "decimal": "0.10",
    "date": "2010-01-31",
    "datetime": "2010-01-31T12:30:00+00:00",
    "time": "12:30:00",
    "timedelta": "PT1H30M",
    "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "complex": "1+2j",
    "fraction": "1/3",
    "none": "null",
}
"""How a scalar of each type is written. These are the types that pydantic reads from a text without further code."""
_SCALARS: Final = _EXAMPLES.keys() - {"none"}
_NUMBERS: Final = {
    int: ("int", "float", "decimal", "fraction", "complex"),
    float: ("float", "decimal", "fraction", "complex"),
}
"""The types that may take a number of JSON, by Python's type of it."""
_TEXTS: Final = ("str", "bytes", "url", "multi-host-url", "json", "secret")
_CODE: Final = ("text", "is-instance", "function-plain")
"""Only code knows what these take."""
_MANY: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""The kinds of parameters that stand for any number of values."""
_FEW: Final = 6
"""How many values a type may have for its help to name them all."""
_LISTS: Final[Mapping[str, Callable[[Iterable[Any]], Any]]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "deque": list,
    "generator": list,
    "named-tuple": list,
    "arguments": list,
}
_MAPPINGS: Final = ("dict", "ordered-dict", "counter")
_FIELDS: Final = {
    "model-fields": "fields",
    "typed-dict": "fields",
    "dataclass-args": "fields",
    "named-tuple": "fields",
    "arguments": "arguments_schema",
}
"""What has named parts, and where in the schema they are."""
_INNER: Final = {
    "default": "schema",
    "model": "schema",
    "dataclass": "schema",
    "function-after": "schema",
    "custom-error": "schema",
    "lax-or-strict": "lax_schema",
    "json-or-python": "json_schema",
    "call": "arguments_schema",
}


def parameters(flow: Flow[..., Any], given: Iterable[str]) -> dict[str, Any]:
    """Return the parameters that are given as `name=value`. Raises InputError if the flow does not accept them."""
    from prefect.utilities.callables import get_call_parameters

    from ivcap_flows.in_prefect.parameters import validated

    types = _annotations(flow)
    readers: dict[str, _TypedReader] = {}
    values: dict[str, Any] = {}
    for each in given:
        name, text, is_json = _parts(each)
        if name in values:
            raise InputError(f"The parameter {name} is given twice. Leave one; a list is written as {name}=[…, …].")
        _learn(name, text)
        readers[name] = _reader(flow, name, types)
        values[name] = _value(readers[name], name, text, is_json=is_json)
    _refuse_missing(flow, types, values)
    try:
        validated(flow, get_call_parameters(flow.fn, (), values))
    except Exception as error:  # noqa: BLE001 - a validator of the user's may raise anything
        message = scrub_text(f"{error}" or type(error).__name__)
        hints = [
            _hint(name, reader) for name, reader in readers.items() if re.search(rf"^ - {name}[.:]", message, re.M)
        ]
        faults = message.removeprefix("Flow run received invalid parameters:\n - ").replace("\n - ", "; ")
        text = f"The flow {flow.name} does not accept these parameters: {faults.rstrip('.')}."
        raise InputError(" ".join([text, *hints])) from None
    return values


def how_written(flow: Flow[..., Any]) -> dict[str, str]:
    """Return for each parameter how its value is written: the few values that it may have, or an example."""
    types = _annotations(flow)
    return {name: _reader(flow, name, types).written for name, each in types.items() if each.kind not in _MANY}


def _refuse_missing(flow: Flow[..., Any], types: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> None:
    """Raise InputError, which says how each is written, if parameters without a default are not given."""
    needed = [name for name, each in types.items() if each.kind not in _MANY and each.default is each.empty]
    if missing := [name for name in needed if name not in values]:
        examples = [shlex.quote(f"{name}={_reader(flow, name, types).example}") for name in missing]
        raise InputError(
            f"The flow {flow.name} needs a value of {', '.join(missing)}, which is written like this: "
            f"{' '.join(f'-p {each}' for each in examples)}"
        )


def _learn(name: str, text: str) -> None:
    """Hide from now on, in whatever is said of it, a value that is given to a secret name."""
    parts: Any = None
    with suppress(ValueError, InputError):
        parts = untyped(tree(text))
    scrub({name: {"whole": text, "parts": parts}})


def _parts(given: str) -> tuple[str, str, bool]:
    """Return the name, the text of the value, and whether that is JSON whatever the type."""
    name, equals, text = given.partition("=")
    if not name.removesuffix(":") or not equals:
        raise InputError(f"Give a parameter as name=value, not {given!r}.")
    if not is_utf8(given):
        raise InputError(
            f"The parameter {name} has a character that is not UTF-8, and Prefect keeps parameters as UTF-8. "
            "Rename the file, or give its folder."
        )
    return name.removesuffix(":"), text, name.endswith(":")


def _annotations(flow: Flow[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(flow.fn, eval_str=True).parameters
    except Exception:  # noqa: BLE001 - an annotation names what is imported for type checkers only
        return inspect.signature(flow.fn).parameters


def _reader(flow: Flow[..., Any], name: str, types: Mapping[str, inspect.Parameter]) -> _TypedReader:
    known = [each for each in types.values() if each.kind not in _MANY]
    found = next((each for each in known if each.name == name), None)
    found = found or next((each for each in types.values() if each.kind is each.VAR_KEYWORD), None)
    if found is None:
        names = [each.name for each in known]
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"The flow {flow.name} has no parameter {name}. {meant}It has: {', '.join(names) or 'none'}.")
    return _TypedReader(Any if found.annotation is found.empty else found.annotation)


def _value(reader: _TypedReader, name: str, text: str, *, is_json: bool) -> Any:
    try:
        return reader.read_json(text) if is_json else reader.read(text)
    except InputError as error:
        raise InputError(f"The value of {name} {str(error).rstrip('.')}. {_hint(name, reader)}") from None
    except RecursionError:
        raise InputError(f"The value of {name} is nested too deep.") from None


def _hint(name: str, reader: _TypedReader) -> str:
    return f"It is written like this: {shlex.quote(f'{name}={reader.example}')}"


class _TypedReader:
    """Reads written values of one type, as far as the type is plain.

    The value is for Prefect, whose own validation stays the one that runs validators and judges: a scalar gets the
    value that pydantic reads from its text, and stays a text where a validator, or a type that pydantic does not know,
    reads it.
    """

    def __init__(self, annotation: Any) -> None:
        self._definitions: dict[str, Schema] = {}
        try:
            model = create_model("Value", __config__=ConfigDict(arbitrary_types_allowed=True), value=(annotation, ...))
            schema: Any = model.__pydantic_core_schema__
            while schema["type"] != "model-fields":
                self._definitions |= {each["ref"]: each for each in schema.get("definitions", ())}
                schema = schema["schema"] if "schema" in schema else self._definitions[schema["schema_ref"]]
            self._options = self._flat_of(schema["fields"]["value"]["schema"])
        except (PydanticUserError, NameError, TypeError):
            # Prefect cannot tell either what it takes.
            self._options = [_ANY]

    def read(self, text: str) -> Any:
        """Return the value that a text stands for. Raises InputError if it is neither JSON nor YAML, but must be."""
        return self._value(self._options, self._tree(text))

    def read_json(self, text: str) -> Any:
        """Return the value that JSON stands for. Raises InputError if it is none."""
        try:
            return self._value(self._options, json_tree(text))
        except ValueError as error:
            raise InputError(f"is no JSON: {error}") from None

    @property
    def example(self) -> str:
        """A text that the type takes, if no validator refuses it."""
        return self._example(self._options, 0)

    @property
    def written(self) -> str:
        """The few texts that the type takes, or an example."""
        options = [each for each in self._options if each["type"] != "none"]
        if (
            len(options) == 1
            and options[0]["type"] in ("literal", "enum")
            and len(values := _values(options[0])) <= _FEW
        ):
            return " or ".join(str(written) for written, _ in values)
        return self.example

    def _tree(self, text: str) -> Tree:
        kinds = {option["type"] for option in self._options}
        in_brackets = text[:1] in ("[", "{")
        structures = kinds & (_LISTS.keys() | _FIELDS.keys() | {*_MAPPINGS})
        try:
            if "any" in kinds or (in_brackets and not structures and kinds & {*_CODE}):
                return json_tree(text) if in_brackets or text[:1] == '"' else Plain(text)
            if structures and (in_brackets or not kinds & {*_TEXTS}):
                found = tree(text)
                if not isinstance(found, str) and (self._fitting(self._options, found) or not kinds & {*_TEXTS}):
                    return found
        except ValueError as error:
            if not kinds - structures - {"none"}:
                raise InputError(f"is neither JSON nor YAML: {error}") from None
        return Plain(text)

    def _value(self, options: Sequence[Schema], value: Tree) -> Any:
        if isinstance(value, str):
            return self._scalar(options, value)
        fitting = self._fitting(options, value)
        if not fitting:
            return untyped(value)
        built = [self._built(option, value) for option in fitting]
        if len(built) > 1:
            plain = untyped(value)
            for strict, values in ((True, [plain] * len(built)), (False, built)):
                for option, given, read in zip(fitting, values, built, strict=True):
                    if self._accepts(option, given, strict=strict):
                        return read
        return built[0]

    @staticmethod
    def _fitting(options: Sequence[Schema], value: Tree) -> list[Schema]:
        wanted = {*_LISTS} if isinstance(value, list) else {*_MAPPINGS, *_FIELDS}
        return [option for option in options if option["type"] in wanted]

    def _accepts(self, option: Schema, value: Any, *, strict: bool) -> bool:
        whole: Any = {"type": "definitions", "schema": option, "definitions": [*self._definitions.values()]}
        try:
            SchemaValidator(whole).validate_python(value, strict=strict)
        except Exception:  # noqa: BLE001 - whatever a user's validator raises, another type may take it
            return False
        return True

    def _scalar(self, options: Sequence[Schema], text: str) -> Any:
        kinds = [option["type"] for option in options]
        value = plain_value(text) if isinstance(text, Plain) else str(text)
        if value is None and "none" in kinds:
            return None
        for option in options:
            if option["type"] in ("literal", "enum") and (found := _member(option, value, text)) is not None:
                return found[0]
        if "any" in kinds:
            return value
        if "secret" in kinds:
            return next(option["cls"] for option in options if option["type"] == "secret")(text)
        texts = bool({*_TEXTS, *_CODE} & {*kinds})
        if texts and isinstance(value, str):
            return str(text)
        wanted = [kind for kind in kinds if kind == type(value).__name__]
        if not wanted:
            # Beside a text, only a number as JSON writes it is one.
            numbers = _NUMBERS.get(type(value), ())
            wanted = [kind for kind in kinds if kind in (numbers if texts else _SCALARS)]
        if wanted:
            return _read(wanted, text)
        return str(text) if texts else value

    def _built(self, option: Schema, value: Tree) -> Any:
        kind = option["type"]
        if kind in _FIELDS:
            return self._fields(option, value)
        if isinstance(value, dict):
            keys, values = (self._flat_of(option.get(f"{part}_schema", _ANY)) for part in ("keys", "values"))
            return {self._key(keys, name): self._value(values, item) for name, item in value.items()}
        assert isinstance(value, list)
        read = [
            self._value(self._flat_of(self._item(option, place, len(value))), item) for place, item in enumerate(value)
        ]
        try:
            return _LISTS[kind](read)
        except TypeError:  # a set of what has no hash
            return read

    def _key(self, options: Sequence[Schema], name: str) -> Any:
        # The names of JSON are texts, whatever they look like.
        return name if {"any", "str"} & {option["type"] for option in options} else self._scalar(options, Plain(name))

    @staticmethod
    def _item(option: Schema, place: int, count: int) -> Schema:
        items = option.get("items_schema", _ANY)
        if not isinstance(items, list):
            return items  # type: ignore[no-any-return]
        many = option.get("variadic_item_index")
        if many is not None and place >= many:
            place = max(many, place - (count - len(items)))
        return items[place] if place < len(items) else _ANY

    def _fields(self, option: Schema, value: Tree) -> Any:
        fields = _fields_of(option)
        if isinstance(value, list):
            schemas = [field["schema"] for field in fields] + [_ANY] * len(value)
            return [self._value(self._flat_of(schema), item) for schema, item in zip(schemas, value, strict=False)]
        assert isinstance(value, dict)
        # A record has the names of fields, pydantic takes their aliases.
        known = {name: (_alias(field), field["schema"]) for field in fields for name in (field["name"], _alias(field))}
        read = {}
        for name, item in value.items():
            taken, schema = known.get(name, (name, _ANY))
            read[taken] = self._value(self._flat_of(schema), item)
        return read

    def _flat_of(self, schema: Schema) -> list[Schema]:
        return list(self._flat(schema))

    def _flat(self, schema: Schema) -> Iterator[Schema]:
        """Yield the alternatives of a type, without what only wraps them."""
        kind = schema["type"]
        if kind == "definition-ref":
            yield from self._flat(self._definitions[schema["schema_ref"]])
        elif kind == "nullable":
            yield from self._flat(schema["schema"])
            yield {"type": "none"}
        elif kind in ("union", "tagged-union"):
            choices = schema["choices"]
            for choice in choices.values() if isinstance(choices, dict) else choices:
                yield from self._flat(choice[0] if isinstance(choice, tuple) else choice)
        elif kind == "json-or-python" and (secret := _secret_type(schema["python_schema"])) is not None:
            yield {"type": "secret", "cls": secret}
        elif kind in ("function-before", "function-wrap"):
            # Its code gets a scalar as it is written.
            yield {"type": "text"}
            scalars = {*_SCALARS, *_TEXTS, *_CODE, "literal", "enum"}
            yield from (each for each in self._flat(schema["schema"]) if each["type"] not in scalars)
        elif kind in _INNER:
            yield from self._flat(schema[_INNER[kind]])
        else:
            yield schema

    def _example(self, options: Sequence[Schema], depth: int) -> str:
        option = options[0] if options[0]["type"] != "text" else options[-1]
        kind = option["type"]
        if kind in _EXAMPLES:
            return _EXAMPLES[kind]
        if kind in ("literal", "enum"):
            written, _ = _values(option)[0]
            return written if isinstance(written, str) else json.dumps(written, default=str)
        if depth > 3:
            return "…"
        if kind in _FIELDS:
            fields = [each for each in _fields_of(option) if each.get("required", each["schema"]["type"] != "default")]
            inner = (f"{_alias(each)}: {self._example(self._flat_of(each['schema']), depth + 1)}" for each in fields)
            return f"{{{', '.join(inner)}}}"
        if kind in _MAPPINGS:
            parts = (option.get(f"{part}_schema", _ANY) for part in ("keys", "values"))
            return "{{{}: {}}}".format(*(self._example(self._flat_of(part), depth + 1) for part in parts))
        if kind in _LISTS:
            items = option.get("items_schema", _ANY)
            listed = (self._example(self._flat_of(item), depth + 1) for item in (items if kind == "tuple" else [items]))
            return f"[{', '.join(listed)}]"
        return "text"


def _read(kinds: Sequence[str], text: Any) -> Any:
    """Return what pydantic reads from a text as one of these types, or the text if it reads nothing."""
    schema: Any = {"type": "union", "choices": [{"type": kind} for kind in kinds]}
    try:
        return SchemaValidator(schema).validate_strings(text)
    except ValidationError:
        return str(text)


def _member(option: Schema, value: Any, text: str) -> tuple[Any] | None:
    """Return the value of an enumeration that this JSON value is, or else that is written so; a tuple of one."""
    values = _values(option)
    same = [member for known, member in values if type(known) is type(value) and known == value]
    written = [member for known, member in values if isinstance(known, str) and known == text]
    return next(((member,) for member in (*same, *written)), None)


def _values(option: Schema) -> list[tuple[Any, Any]]:
    """Return the values of an enumeration as they are written, each with what the flow gets."""
    members = option["members"] if option["type"] == "enum" else option["expected"]
    return [(member.value if isinstance(member, Enum) else member, member) for member in members]


def _fields_of(option: Schema) -> list[Schema]:
    fields = option[_FIELDS[option["type"]]]
    return [{"name": name, **each} for name, each in fields.items()] if isinstance(fields, dict) else fields


def _alias(field: Schema) -> str:
    """Return the name under which a field is given."""
    alias = field.get("validation_alias", field.get("alias"))
    if isinstance(alias, list):  # several, each a path
        alias = next((path[0] for path in alias if isinstance(path, list) and len(path) == 1), None)
    return alias if isinstance(alias, str) else str(field["name"])


def _secret_type(schema: Schema) -> Any:
    """Return the type of secret texts that a schema takes instances of, if it is one."""
    for choice in schema.get("choices", ()) if schema["type"] == "union" else (schema,):
        kind = choice.get("cls") if isinstance(choice, dict) else None
        if isinstance(kind, type) and issubclass(kind, SecretStr):
            return kind
    return None
