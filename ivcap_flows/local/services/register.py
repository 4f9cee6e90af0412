"""Register a service that the embedded platform runs, from a definition written by hand.

name: coastal-el-nino-index
description: Monthly index and its events.
entry: flows.services.coastal_el_nino_index:run      # or: command: [python, tool.py]
parameters:
  - {name: series, type: artifact, description: Monthly temperatures as CSV.}
  - {name: base_start, type: int, default: "1981", description: First year of the base period.}
"""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ivcap_flows.errors import InputError, NotAuthorizedError, PlatformError, UnreachableError
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.local.ids import as_urn

__all__ = ["account_of", "define", "put", "read_definition", "register", "service_urn"]

_SCHEMA: Final = "urn:ivcap-flows:schema:service.local.1"
_CONTROLLER: Final = ("entry", "command", "cwd", "path")
_KNOWN: Final = frozenset({"name", "description", "parameters", "tags", "policy", "request-schema", "id", *_CONTROLLER})
_PROJECT_MARKS: Final = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


def read_definition(path: Path) -> dict[str, Any]:
    """Read a definition from a YAML or JSON file. Raises InputError with the file's name and the fault."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        try:
            value = json.loads(text)
        except ValueError:
            # Not all JSON is valid YAML: JSON's escapes of characters beyond 16 bits are not.
            value = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"The service definition {path} cannot be read ({error.strerror}).", path=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The service definition {path} is neither YAML nor JSON: {error}", path=str(path)) from error
    if not isinstance(value, dict):
        raise InputError(f"The service definition {path} must be a mapping.", path=str(path))
    return value


def service_urn(name: str, account: str) -> str:
    """Return a service's URN by the convention of IVCAP's service SDK: equal name and account give the same URN."""
    return ivcap_urn("service", str(uuid.uuid5(uuid.NAMESPACE_DNS, name + account)))


def register(url: str, token: str, definition: Mapping[str, Any], path: Path) -> str:
    """Create or update a service so that it matches a definition. Idempotent. Returns its URN.

    `entry` is imported from the project folder that contains `path` (the definition's file), and from the folders in
    the definition's own `path`. Raises InputError, PlatformError.
    """
    unknown = sorted(set(definition) - _KNOWN)
    if unknown:
        raise InputError(f"The service definition has unknown fields: {', '.join(unknown)}.")
    name = definition.get("name")
    if not isinstance(name, str) or not name:
        raise InputError("The service definition needs a name.")
    if ("entry" in definition) == ("command" in definition):
        raise InputError(f"The service definition of {name} needs either an entry or a command.")
    urn = str(definition.get("id") or service_urn(name, account_of(token)))
    controller: dict[str, Any] = {"$schema": _SCHEMA}
    controller |= {field: definition[field] for field in _CONTROLLER if field in definition}
    project = str(_project(path))
    if "entry" in definition:
        folders = [str((path.parent / folder).resolve()) for folder in definition.get("path") or []]
        controller["path"] = [project, *(folder for folder in folders if folder != project)]
    else:
        controller.setdefault("cwd", project)
    body = {
        "name": name,
        "description": definition.get("description") or name,
        "parameters": definition.get("parameters") or [],
        "policy": definition.get("policy") or "urn:ivcap:policy:ivcap.open.service",
        "controller-schema": _SCHEMA,
        "controller": controller,
        **{field: definition[field] for field in ("tags", "request-schema") if field in definition},
    }
    return define(url, token, urn, body)


def define(url: str, token: str, given: str, body: Mapping[str, Any]) -> str:
    """Create or update a service by its definition. Returns the URN under which the platform has it."""
    urn = as_urn("service", given)
    if urn is None:
        raise InputError(f"The service {body.get('name')} cannot have the id {given!r}, which is not a service's.")
    return str(put(url, token, f"/1/services2/{urn}?force-create=true", {**body, "id": urn})["id"])


def account_of(token: str) -> str:
    """Return the account of a token. Its signature is not checked here; the platform checks it."""
    try:
        part = token.split(".")[1]
        account = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["acc"]
    except (IndexError, KeyError, ValueError) as error:
        raise NotAuthorizedError(
            "The token names no account. Use the IVCAP_JWT that `ivcap-flows local serve` gives.",
            platform=None,
            method=None,
            path=None,
            status=None,
            detail=None,
        ) from error
    return ivcap_urn("account", str(account))


def _project(path: Path) -> Path:
    """Return the nearest parent folder that looks like the root of a project; else the file's own folder."""
    folder = path.resolve().parent
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _PROJECT_MARKS):
            return candidate
    return folder


def put(url: str, token: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send a platform something that has a name. Returns its record.

    Raises UnreachableError, NotAuthorizedError, PlatformError.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=30)
    told: dict[str, Any] = {"platform": url, "method": "PUT", "path": path}
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("PUT", parts.path.rstrip("/") + path, json.dumps(body).encode(), headers)
        reply = connection.getresponse()
        status, text = reply.status, reply.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"The platform at {url} does not answer ({error}). Start it with `ivcap-flows local serve`.",
            **told,
            status=None,
            detail=None,
        ) from error
    finally:
        connection.close()
    if status == 401:
        raise NotAuthorizedError(f"{url} does not accept the token.", **told, status=status, detail=None)
    try:
        record = dict(json.loads(text))
    except (ValueError, TypeError):
        record = {}
    if status >= 400 or "id" not in record:
        detail = record.get("message", text[:300])
        raise PlatformError(
            f"{url} refused the service {body.get('name')} (HTTP {status}): {detail}",
            **told,
            status=status,
            detail=detail,
        )
    return record
