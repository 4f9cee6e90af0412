"""Register a service by the description that its SDK prints, as the SDKs' own Makefile does.

`python service.py --print-service-description` and `--print-tool-description` (ivcap-service, ivcap-ai-tool) print the
documents. They become aspects of the service, which the platform is told first, so that it names what is wrong with
it. The command that runs it here is stored apart from them, in the state folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from ivcap_flows.errors import InputError
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.mapping import RunnerMapping, write_mapping
from ivcap_flows.local.services.register import account_of, define, put, service_urn

__all__ = ["is_description", "register_description"]

_SERVICE: Final = "urn:ivcap:schema.service.2"
_ANY_SERVICE: Final = re.compile(r"urn:ivcap:schema[.:]service\.(\d+)")
"""Schemas of descriptions, in both spellings that are in use."""
_TOOL: Final = "urn:sd-core:schema.ai-tool.1"
_RUNNABLE: Final = ("urn:ivcap:schema.service.batch.1", "urn:ivcap:schema.service.rest.1")
_POLICY: Final = "urn:ivcap:policy:ivcap.open.metadata"


def is_description(document: Mapping[str, Any]) -> bool:
    """Return whether a document describes a service to IVCAP, as opposed to a definition for the embedded platform."""
    return bool(_ANY_SERVICE.fullmatch(str(document.get("$schema")))) or "workflow" in document


def register_description(
    url: str,
    token: str,
    directory: Path,
    document: Mapping[str, Any],
    *,
    tool: Mapping[str, Any] | None = None,
    mapping: RunnerMapping | None = None,
) -> str:
    """Create or update a service so that it matches its description. Idempotent. Returns its URN.

    A description without a URN gets the one that the SDKs' convention derives from its name. `tool` describes the
    requests; without it, the description's own `request-schema` does. Raises InputError, PlatformError.
    """
    if "workflow" in document:
        raise InputError(
            "It describes a service of the older ivcap-sdk-service, which the embedded platform does not run. Port the "
            "service to ivcap-service or ivcap-lambda, and register what it prints then."
        )
    version = _ANY_SERVICE.fullmatch(str(document.get("$schema")))
    if version is None or version[1] != "2":
        raise InputError(f"It describes a service by the schema {document.get('$schema')}; only {_SERVICE} is known.")
    name, controller, kind = (document.get(field) for field in ("name", "controller", "controller-schema"))
    if not isinstance(name, str) or not name:
        raise InputError("The service description has no name.")
    if not isinstance(kind, str):
        raise InputError(
            f"The text `controller-schema` is missing: {_RUNNABLE[1]} for a server, {_RUNNABLE[0]} for a process for "
            f"each job.{_stated(controller)} Add it to the description."
        )
    if mapping is not None and kind not in _RUNNABLE:
        raise InputError(
            f"The service {name} has a controller of schema {kind}; a command can be named for "
            f"{' and '.join(_RUNNABLE)}."
        )
    given = document.get("$id") or document.get("id")
    # The SDKs print a placeholder if they do not know the id.
    known = isinstance(given, str) and given.startswith("urn:ivcap:service:")
    urn = str(given) if known else service_urn(name, account_of(token))
    urn = define(url, token, urn, {"description": name, **document})
    if mapping is not None:
        write_mapping(Directory(directory), urn, mapping)
    _assert(url, token, urn, _SERVICE, {**document, "$id": urn})
    if tool is not None:
        _assert(url, token, urn, _TOOL, {**tool, "service-id": urn})
    return urn


def _stated(controller: Any) -> str:
    schema = controller.get("$schema") if isinstance(controller, dict) else None
    return f" Its controller is of schema {schema}." if schema else ""


def _assert(url: str, token: str, urn: str, schema: str, content: Mapping[str, Any]) -> None:
    query = urlencode({"entity": urn, "schema": schema, "policy": _POLICY})
    put(url, token, f"/1/aspects?{query}", content)
