"""The form of FastAPI 0.88 with pydantic 1.10 for what a request's query and body lack: the 422 that clients see."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from ivcap_flows.local.provena.model import EMPTY_ID, RootError

__all__ = ["Fault", "first_fault", "refuse_faults"]

Fault = dict[str, Any]
"""`loc`, `msg`, `type`, and sometimes `ctx`."""

_SHORT = ("value_error.any_str.min_length", "ensure this value has at least")
_LONG = ("value_error.any_str.max_length", "ensure this value has at most")
_BOOL = ("type_error.bool", "value could not be parsed to a boolean")
_DICT = ("type_error.dict", "value is not a valid dict")
_KNOWN: Final = {
    "missing": ("value_error.missing", "field required"),
    "extra_forbidden": ("value_error.extra", "extra fields not permitted"),
    "string_type": ("type_error.str", "str type expected"),
    "string_too_short": _SHORT,
    "string_too_long": _LONG,
    "greater_than_equal": ("value_error.number.not_ge", "ensure this value is greater than or equal to"),
    "less_than_equal": ("value_error.number.not_le", "ensure this value is less than or equal to"),
    "bool_type": _BOOL,
    "bool_parsing": _BOOL,
    "list_type": ("type_error.list", "value is not a valid list"),
    "dict_type": _DICT,
    "literal_error": ("type_error.enum", "value is not a valid enumeration member; permitted: "),
}
"""Error type of pydantic 2 -> type and message of pydantic 1."""
_LIMITS: Final = ("min_length", "max_length", "ge", "le")


def _fault(error: Mapping[str, Any], body: Any = None) -> Fault:
    """Return an error of pydantic 2 as pydantic 1 reports it. `body` is the text of a body that is not JSON."""
    kind, message, loc = error["type"], error["msg"], list(error["loc"])
    ctx: dict[str, Any] = {}
    if kind == "json_invalid":
        broken = json.JSONDecodeError(error["ctx"]["error"], body, loc[1])
        kind, message = "value_error.jsondecode", str(broken)
        ctx = {name: getattr(broken, name) for name in ("msg", "doc", "pos", "lineno", "colno")}
    elif error["input"] is None and kind not in ("missing", "extra_forbidden"):
        kind, message = "type_error.none.not_allowed", "none is not an allowed value"
    elif kind == "value_error":
        rule = error["ctx"]["error"]
        message = str(rule)
        if isinstance(rule, RootError):
            loc = [*(loc[:-1] if rule.at_field else loc), "__root__"]
    elif kind in _KNOWN:
        kind, message = _KNOWN[kind]
        limits = [limit for name, limit in error.get("ctx", {}).items() if name in _LIMITS]
        if limits:
            ctx = {"limit_value": limits[0]}
            message += f" {limits[0]}" + " characters" * kind.startswith("value_error.any_str")
        elif kind == "type_error.enum":
            ctx = {"enum_values": re.findall("'([^']*)'", error["ctx"]["expected"])}
            message += ", ".join(map(repr, ctx["enum_values"]))
    return {"loc": loc, "msg": message, "type": kind} | ({"ctx": ctx} if ctx else {})


def first_fault(error: ValidationError) -> Fault:
    """Return the first fault that a model found."""
    return _fault(error.errors()[0])


async def refuse_faults(request: Request, error: RequestValidationError) -> Response:
    """Reply 422 with all faults, or 400 where only ids are empty."""
    faults = [_fault(each, error.body) for each in error.errors()]
    if all(each["type"] == EMPTY_ID for each in faults):
        return JSONResponse({"detail": f"The id {faults[0]['loc'][-1]} is empty."}, 400)
    return JSONResponse({"detail": faults}, 422)
