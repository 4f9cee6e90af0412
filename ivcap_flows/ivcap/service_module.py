"""Write a service's parameters as a Python module with a typed class, for `run_order` and its kin."""

from __future__ import annotations

import json
import keyword
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Set
from textwrap import indent, wrap
from typing import Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.identity import is_utf8
from ivcap_flows.ivcap.parameters import ParameterDef
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.plain_text import visible

__all__ = ["service_module"]

_TYPES: Final[Mapping[str, str]] = {
    "string": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "artifact": "Artifact | str",
    "collection": "Collection | str",
}
_OTHER: Final = "str | int | float | bool"
_NAMES: Final = frozenset(
    {"str", "int", "float", "bool", "Artifact", "Collection", "Mapping", "ClassVar", "Literal", "ServiceRequest"}
)
"""What the module itself calls by these names."""
_WIDTH: Final = 100


def service_module(service: ServiceRecord, taken: Set[str]) -> str:
    """Return the code of a module. `taken` are names that no field may have.

    Raises InputError for a service without parameters: its jobs take a document by a JSON schema.
    """
    if not service.parameters:
        raise InputError(
            f"The service {service.name or service.urn} has no parameters of orders. If its jobs take a document, "
            "`ivcap-flows services NAME --json` prints its JSON schema, of which datamodel-code-generator makes models."
        )
    name = service.name or service.urn
    fields = _field_names([parameter.name for parameter in service.parameters], taken)
    renamed = {field: parameter for parameter, field in fields.items() if field != parameter}
    code = indent("\n".join(_body(service, fields, renamed, name)), "    ")
    handles = ", ".join(each for each in ("Artifact", "Collection") if re.search(rf"\b{each} \|", code))
    typing = "ClassVar, Literal" if "Literal[" in code else "ClassVar"
    head = [
        _docstring(f"The service {name}, as `ivcap-flows services` has written it. Do not edit."),
        "",
        *(["from collections.abc import Mapping"] if renamed else []),
        f"from typing import {typing}",
        "",
        *([f"from ivcap_flows.handles import {handles}"] if handles else []),
        "from ivcap_flows.tasks import ServiceRequest",
        "",
        f'__all__ = ["{_class_name(name)}"]',
        "",
        "",
        f"class {_class_name(name)}(ServiceRequest):",
    ]
    return "\n".join([*head, code, ""])


def _body(service: ServiceRecord, fields: Mapping[str, str], renamed: Mapping[str, str], name: str) -> Iterator[str]:
    yield _docstring(service.description or name)
    yield ""
    yield f"service: ClassVar[str] = {_quoted(name)}"
    if renamed:
        yield "names: ClassVar[Mapping[str, str]] = {"
        yield from (f"    {_quoted(field)}: {_quoted(parameter)}," for field, parameter in renamed.items())
        yield "}"
    yield ""
    # What must be given goes first, as in a call.
    for parameter in sorted(service.parameters or (), key=lambda each: not each.mandatory):
        yield f"{fields[parameter.name]}: {_annotation(parameter)}"
        if told := _told(parameter):
            yield _docstring(told)


def _annotation(parameter: ParameterDef) -> str:
    kind = _type(parameter)
    if parameter.mandatory:
        return kind
    default = _default(parameter)
    if default is None:
        return f"{kind} | None = None"
    return f"{kind} = {_literal(default)}"


def _type(parameter: ParameterDef) -> str:
    if parameter.options:
        return f"Literal[{', '.join(_quoted(option.value) for option in parameter.options)}]"
    return "str" if parameter.type.lower() == "option" else _TYPES.get(parameter.type.lower(), _OTHER)


def _default(parameter: ParameterDef) -> Any:
    """Return the default as a value of the parameter's type; None if it is none."""
    text, kind = parameter.default, parameter.type.lower()
    if text is None or (parameter.options and text not in {option.value for option in parameter.options}):
        return None
    try:
        if kind in ("int", "float"):
            return int(text) if kind == "int" else float(text)
    except ValueError:
        return None
    if kind == "bool":
        return {"true": True, "false": False}.get(text.lower())
    return text


def _told(parameter: ParameterDef) -> str:
    """Return what is said of a parameter: its description and unit, and what its options mean."""
    parts = [parameter.description or parameter.label or "", f"In {parameter.unit}." if parameter.unit else ""]
    parts += [f"{option.value}: {option.description}." for option in parameter.options or () if option.description]
    return " ".join(part for part in parts if part)


def _docstring(text: str) -> str:
    """Return a text as a docstring, in lines."""
    plain = " ".join(visible(text).replace("\\", "\\\\").replace('"""', "'''").split())
    lines = wrap(plain, _WIDTH) or [""]
    end = '"""' if len(lines) == 1 and not lines[-1].endswith('"') else '\n"""'
    return '"""' + "\n".join(lines) + end


def _quoted(text: str) -> str:
    """Return a text as a string of Python."""
    return json.dumps(text, ensure_ascii=False) if is_utf8(text) else ascii(text)


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return _quoted(value) if isinstance(value, str) else repr(value)


def _field_names(parameters: Iterable[str], taken: Set[str]) -> dict[str, str]:
    """Return a field for each parameter, no two alike. One that can have the name of its parameter has it."""
    used, fields = {*taken, *_NAMES}, dict[str, str]()
    for name in sorted(parameters, key=lambda name: _identifier(name) != name):
        field = _identifier(name)
        while field in used or keyword.iskeyword(field):
            field += "_"
        used.add(field)
        fields[name] = field
    return fields


def _identifier(name: str) -> str:
    """Return a name as Python reads names: in the normal form, with an underscore for what none can have."""
    letters = unicodedata.normalize("NFKC", name)
    plain = "".join(letter if f"a{letter}".isidentifier() else "_" for letter in letters).strip("_") or "parameter"
    return plain if plain.isidentifier() and not plain.startswith("model_") else f"p_{plain}"


def _class_name(name: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", name.rpartition(":")[2])
    made = "".join(word[:1].upper() + word[1:] for word in words) or "Service"
    if made in _NAMES or keyword.iskeyword(made):
        return f"{made}Service"
    return f"Service{made}" if made[0].isdigit() else made
