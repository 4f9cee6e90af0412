"""Register a service by the description that its SDK prints, as the SDKs' own Makefile does.

`python service.py --print-service-description` and `--print-tool-description` (ivcap-service, ivcap-ai-tool) print the
documents. They become aspects of the service, from which the platform creates the service. The command that runs it
here is stored apart from them, in the state folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from ivcap_flows.errors import InputError
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.mapping import RunnerMapping, write_mapping
from ivcap_flows.local.register import account_of, put, service_urn

__all__ = ["is_description", "register_description"]

_SERVICE: Final = "urn:ivcap:schema.service.2"
_TOOL: Final = "urn:sd-core:schema.ai-tool.1"
_RUNNABLE: Final = ("urn:ivcap:schema.service.batch.1", "urn:ivcap:schema.service.rest.1")
_POLICY: Final = "urn:ivcap:policy:ivcap.open.metadata"


def is_description(document: Mapping[str, Any]) -> bool:
    """Return whether an SDK printed this document, as opposed to a definition written for the embedded platform."""
    return document.get("$schema") == _SERVICE


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
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise InputError("The service description has no name.")
    if mapping is not None and document.get("controller-schema") not in _RUNNABLE:
        raise InputError(
            f"The service {name} has a controller of schema {document.get('controller-schema')}; a command can be named"
            f" for {' and '.join(_RUNNABLE)}."
        )
    given = document.get("$id")
    # The SDKs print a placeholder if they do not know the id.
    known = isinstance(given, str) and given.startswith("urn:ivcap:service:")
    urn = str(given) if known else service_urn(name, account_of(token))
    if mapping is not None:
        write_mapping(Directory(directory), urn, mapping)
    _assert(url, token, urn, _SERVICE, {**document, "$id": urn})
    model = tool if tool is not None else _tool_of(name, document)
    if model is not None:
        _assert(url, token, urn, _TOOL, {**model, "service-id": urn})
    return urn


def _tool_of(name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
    shape = document.get("request-schema")
    if not isinstance(shape, dict):
        return None
    return {
        "$schema": _TOOL,
        "id": f"urn:sd-core:ai-tool.{name}",
        "name": name,
        "description": document.get("description") or name,
        "fn_signature": f"{name}({', '.join(shape.get('properties', {}))})",
        "fn_schema": shape,
    }


def _assert(url: str, token: str, urn: str, schema: str, content: Mapping[str, Any]) -> None:
    query = urlencode({"entity": urn, "schema": schema, "policy": _POLICY})
    put(url, token, f"/1/aspects?{query}", content)
