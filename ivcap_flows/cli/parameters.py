"""The parameters of a flow, given as `name=value` and read by their types."""

from __future__ import annotations

import difflib
import inspect
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ivcap_flows.errors import InputError
from ivcap_flows.identity import is_utf8
from ivcap_flows.secrets import scrub, scrub_text

if TYPE_CHECKING:
    from prefect import Flow

    from ivcap_flows.cli.typed_values import TypedReader

__all__ = ["Params", "parameters"]

Params = Annotated[
    list[str] | None,
    Parameter(
        name=("--param", "-p"),
        help="Parameter of the flow as `name=value`, read by its type; a list or mapping is JSON or YAML. "
        "`name:=value` is JSON whatever the type.",
    ),
]


def parameters(flow: Flow[..., Any], given: Iterable[str]) -> dict[str, Any]:
    """Return the parameters that are given as `name=value`. Raises InputError if the flow does not accept them."""
    from prefect.utilities.callables import get_call_parameters

    from ivcap_flows.in_prefect.parameters import validated

    types = _annotations(flow)
    readers: dict[str, TypedReader] = {}
    values: dict[str, Any] = {}
    for each in given:
        name, text, is_json = _parts(each)
        if name in values:
            raise InputError(f"The parameter {name} is given twice. Leave one; a list is written as {name}=[…, …].")
        _learn(name, text)
        readers[name] = _reader(flow, name, types)
        values[name] = _value(readers[name], name, text, is_json=is_json)
    try:
        validated(flow, get_call_parameters(flow.fn, (), values))
    except Exception as error:  # noqa: BLE001 - a validator of the user's may raise anything
        said = scrub_text(f"{error}" or type(error).__name__)
        hints = [_hint(name, reader) for name, reader in readers.items() if re.search(rf"^ - {name}[.:]", said, re.M)]
        faults = said.removeprefix("Flow run received invalid parameters:\n - ").replace("\n - ", "; ")
        text = f"The flow {flow.name} does not accept these parameters: {faults.rstrip('.')}."
        raise InputError(" ".join([text, *hints])) from None
    return values


def _learn(name: str, text: str) -> None:
    """Hide from now on, in whatever is said of it, a value that is given to a secret name."""
    from ivcap_flows.cli.written_values import tree, untyped

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


def _reader(flow: Flow[..., Any], name: str, types: Mapping[str, inspect.Parameter]) -> TypedReader:
    from ivcap_flows.cli.typed_values import TypedReader

    known = [each for each in types.values() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    found = next((each for each in known if each.name == name), None)
    found = found or next((each for each in types.values() if each.kind is each.VAR_KEYWORD), None)
    if found is None:
        names = [each.name for each in known]
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"The flow {flow.name} has no parameter {name}. {meant}It has: {', '.join(names) or 'none'}.")
    return TypedReader(Any if found.annotation is found.empty else found.annotation)


def _value(reader: TypedReader, name: str, text: str, *, is_json: bool) -> Any:
    try:
        return reader.read_json(text) if is_json else reader.read(text)
    except InputError as error:
        raise InputError(f"The value of {name} {str(error).rstrip('.')}. {_hint(name, reader)}") from None
    except RecursionError:
        raise InputError(f"The value of {name} is nested too deep.") from None


def _hint(name: str, reader: TypedReader) -> str:
    return f"It is written like this: {shlex.quote(f'{name}={reader.example}')}"
