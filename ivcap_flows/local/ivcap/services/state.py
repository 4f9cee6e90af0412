"""Services in the store, and the aspect that describes their request."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from ivcap_flows.identity import ivcap_urn
from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import OPEN_METADATA, checked_policy, may_read, to_write
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.ivcap.packages.state import Packages
from ivcap_flows.local.ivcap.replies import compact
from ivcap_flows.local.ivcap.services.parameters import checked_definitions, request_schema
from ivcap_flows.local.ivcap.services.ranking import score
from ivcap_flows.local.services.built_in import BUILT_IN
from ivcap_flows.local.tokens import Principal

__all__ = ["Services"]


class Services:
    def __init__(self, store: Store, aspects: Aspects, packages: Packages) -> None:
        self._store, self._aspects, self._packages = store, aspects, packages
        aspects.watch(schemas.SERVICE, self._project)
        store.function("service_score", 4, score)

    def install_built_ins(self, provider: Principal) -> None:
        """Create or update the built-in services to match this version."""
        for definition in BUILT_IN:
            urn = ivcap_urn("service", str(uuid.uuid5(uuid.NAMESPACE_DNS, definition["name"] + provider.account)))
            wanted = {**definition, "id": urn}
            row = self._find(urn)
            if row is None or json.loads(row["controller"]) != definition["controller"]:
                self.define(provider, urn, wanted, create=True)

    def create(self, who: Principal, definition: Mapping[str, Any]) -> sqlite3.Row:
        """Create a service. Raises Problem 409 if its id is taken, 422."""
        given = definition.get("id") or ids.new_id()
        urn = ids.as_urn("service", given) if isinstance(given, str) else None
        if urn is None:
            raise errors.parameter("id", "id must be a service URN or a bare id.", definition.get("id"))
        if self._find(urn) is not None:
            raise errors.already_created("service", urn)
        return self.define(who, urn, definition, create=True)

    def define(self, who: Principal, urn: str, definition: Mapping[str, Any], *, create: bool) -> sqlite3.Row:
        """Create or update a service to match a definition. Raises Problem 404 if it is missing and not `create`."""
        values, shape = _checked(definition)
        with self._store.transaction():
            row = self._find(urn)
            if row is None and not create:
                raise errors.not_found("service", urn)
            if row is not None:
                to_write(row, "service", urn, who)
            self._store_values(who, urn, values)
            name, policy = values["name"], values["policy"]
            tool = {
                "$schema": schemas.AI_TOOL,
                "id": f"urn:sd-core:ai-tool.{name or urn}",
                "name": name or urn,
                "service-id": urn,
                "description": definition["description"],
                "fn_signature": f"{name or 'service'}({', '.join(shape.get('properties', {}))})",
                "fn_schema": shape,
            }
            told = OPEN_METADATA if policy.startswith("urn:ivcap:policy:ivcap.open.") else policy
            self._aspects.tell(who, urn, schemas.AI_TOOL, tool, policy=told)
        return self._get(urn)

    def _store_values(self, who: Principal, urn: str, values: dict[str, Any]) -> None:
        if self._find(urn) is None:
            seen = clock.visible_from()
            self._store.insert(
                "services", id=urn, account=who.account, valid_from=clock.now(), visible_from=seen, **values
            )
        else:
            self._store.update("services", urn, **values)
        self._packages.note(who, json.loads(values["controller"]).get("image"))

    def _project(self, who: Principal, entity: str) -> None:
        """Make a service match an account's aspect of schema `service.2`, and end the service when that aspect ends.

        The service SDKs and the command line register services this way. An aspect that describes no service, or that
        is about another account's service, has no further effect.
        """
        if ids.as_urn("service", entity) != entity:
            return
        row = self._find(entity)
        if row is not None and row["account"] != who.account:
            return
        aspect = self._aspects.newest(who, entity, schemas.SERVICE)
        if aspect is None:
            if row is not None and row["valid_to"] is None:
                self._store.update("services", entity, valid_to=clock.now())
            return
        content = json.loads(aspect["content"])
        if not isinstance(content, dict):
            return
        try:
            values, _ = _checked({"policy": aspect["policy"], "description": content.get("name"), **content})
        except errors.Problem:
            return
        self._store_values(who, entity, values)

    def withdraw(self, who: Principal, urn: str) -> None:
        """End a service. It stays readable, with its end."""
        row = to_write(self._find(urn), "service", urn, who)
        if row["valid_to"] is None:
            self._store.update("services", urn, valid_to=clock.now())

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        if row is None or not may_read(row, who):
            raise errors.not_found("service", urn)
        return row

    def usable(self, who: Principal, urn: str) -> sqlite3.Row:
        """Return the row of a service that accepts work. Raises Problem 404, also for one that has ended."""
        row = self.read(who, urn)
        if row["valid_to"] is not None:
            raise errors.not_found("service", urn)
        return row

    def _find(self, urn: str) -> sqlite3.Row | None:
        return self._store.one("SELECT * FROM services WHERE id = ?", (urn,))

    def _get(self, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        assert row is not None
        return row


def _checked(definition: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a service, and the JSON schema of its requests. Raises Problem 422."""
    # A null means the same as leaving the field out.
    definition = {field: value for field, value in definition.items() if value is not None}
    name, controller, schema = definition.get("name"), definition.get("controller"), definition.get("controller-schema")
    if isinstance(controller, list) and len(controller) == 1:
        controller = controller[0]
    for field, right in (
        ("id", isinstance(definition.get("id", ""), str)),
        ("name", name is None or isinstance(name, str)),
        ("description", isinstance(definition.get("description"), str)),
        ("controller-schema", isinstance(schema, str)),
        ("controller", isinstance(controller, dict)),
        ("tags", _texts(definition.get("tags", []))),
    ):
        if not right:
            raise errors.parameter(field, f"{field} is missing or has the wrong type.")
    assert isinstance(controller, dict)
    if schema == schemas.SERVICE_LOCAL:
        _check_local(controller)
    parameters = checked_definitions(definition.get("parameters", []))
    shape = definition.get("request-schema", controller.get("request-schema"))
    if shape is None or shape == {}:
        shape = request_schema(name or "", parameters)
    if not isinstance(shape, dict):
        raise errors.parameter("request-schema", "request-schema must be a JSON schema.")
    values = {
        "policy": checked_policy(definition.get("policy"), "service"),
        "name": name,
        "description": definition["description"],
        "tags": compact(definition.get("tags", [])),
        "controller_schema": schema,
        "controller": compact(controller),
        "parameters": compact(parameters),
        "valid_to": None,
    }
    return values, shape


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _check_local(controller: Mapping[str, Any]) -> None:
    """Check a controller that the embedded platform runs: it needs an entry or a command. Raises Problem 422."""
    entry, command = controller.get("entry"), controller.get("command")
    if isinstance(entry, str) and command is None:
        module, _, name = entry.partition(":")
        if not module or not name:
            raise errors.parameter("controller", "entry must have the form package.module:function.", entry)
        if not _texts(controller.get("path") or []):
            raise errors.parameter("controller", "path must be a list of folders.")
    elif entry is not None or not _texts(command) or not command:
        raise errors.parameter("controller", "A local service has either an entry or a command (a list of texts).")
