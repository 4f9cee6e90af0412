"""Services: what can be ordered, and the parameters and requests they take (IVCAP OpenAPI 0.48, `/1/services2`)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timezone
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Final

from ivcap_flows.errors import (
    BadRequestError,
    InputError,
    InvalidParameterError,
    PlatformError,
)
from ivcap_flows.handles import Service
from ivcap_flows.http.session import Session
from ivcap_flows.identity import fingerprint, is_utf8, ivcap_urn
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.parameters import ParameterDef, encode_parameters
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment
from ivcap_flows.loop import asked_once

__all__ = ["TOOL_SCHEMA", "ServiceRecord", "Services", "name_filter", "tool_schema_of"]

TOOL_SCHEMA: Final = "urn:sd-core:schema.ai-tool.1"
"""The aspect that describes the request of a service."""
_SERVICE_SCHEMA: Final = "urn:ivcap:schema.service.2"

_OPEN_SERVICE: Final = "urn:ivcap:policy:ivcap.open.service"
_OPEN_METADATA: Final = "urn:ivcap:policy:ivcap.open.metadata"

_DEFINITION: Final = (
    "id",
    "name",
    "description",
    "parameters",
    "policy",
    "tags",
    "controller-schema",
    "controller",
    "request-schema",
)
"""The fields of `ServiceDefinitionT`, and `request-schema`; a platform that does not know the latter ignores it."""
_NEEDED: Final = ("name", "description", "controller-schema", "controller")


_DEFINED: Final = {"name", "description", "parameters", "controller_schema", "controller"}


class ServiceRecord(Wire):
    """A service as read or listed; listings have no parameters."""

    id: str
    name: Text = None
    description: Text = None
    status: str = "unknown"
    """`active`, `inactive`, `error`, or another word of a newer server. Listings do not carry it."""
    parameters: list[ParameterDef] | None = None
    policy: Text = None
    account: Text = None
    controller_schema: Text = None
    controller: Any = None
    tags: list[str] | None = None
    valid_from: Instant = None
    valid_to: Instant = None
    score: float | None = None
    """How well the service matches a search, from 0 to 1."""

    @property
    def urn(self) -> str:
        return ivcap_urn("service", self.id)

    @cached_property
    def definition(self) -> str:
        """A digest of the definition as the platform shows it. A new image under an old tag does not change it."""
        shown = self.model_dump(mode="json", include=_DEFINED)
        return fingerprint({"service": self.urn, **shown})

    def handle(self, platform: str) -> Service:
        return Service(urn=self.urn, platform=platform, name=self.name, description=self.description)


class Services:
    """`/1/services2`. Methods take URNs or bare ids. `account` returns the URN of the account that registers."""

    def __init__(self, session: Session, aspects: Aspects, account: Callable[[], Awaitable[str]]) -> None:
        self._session = session
        self._aspects = aspects
        self._account = account

    def list(
        self,
        *,
        limit: int | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
        search: str | None = None,
    ) -> AsyncIterator[ServiceRecord]:
        """Yield the services. `limit` is the total; `search` searches by meaning if the platform supports it."""
        params = {
            "filter": filter,
            "order-by": order_by,
            "order-desc": order_desc,
            "at-time": instant(at_time),
            "search": search,
        }
        return listed(ServiceRecord, self._session, "/1/services2", params, limit)

    async def read(self, urn: str) -> ServiceRecord:
        """Read a service with its parameters."""
        reply = await self._session.request("GET", f"/1/services2/{segment(urn)}", repeat="idempotent")
        return replied(ServiceRecord, reply, self._session)

    async def by_name(self, name: str) -> ServiceRecord:
        """Read the service with exactly this name (or this URN), with its parameters.

        Searches all pages. Raises InputError, with the candidates, if no service or several services have the name.
        Calls for the same name at the same time share one look-up, so a thousand orders at once cost a single one.
        """
        return await asked_once((self, name), lambda: self._by_name(name))

    async def _by_name(self, name: str) -> ServiceRecord:
        if not is_utf8(name):
            raise InputError(f"No service is named {name!r}, since it is not UTF-8. `ivcap-flows services` lists all.")
        if name.startswith("urn:"):
            return await self.read(name)
        if not name.strip():
            raise InputError("The name of the service is empty.")
        # The filter's quoting is not documented, so a name that needs quotes is searched for in the whole list.
        found: list[ServiceRecord] = []
        if not set(name) & set("'\"%\\"):
            found = await _filtered(self, name)
        known = {}
        if not found:
            known = {service.urn: service async for service in self.list()}
            found = _matching(name, known.values())
        if len(found) > 1:
            which = ", ".join(service.urn for service in found)
            raise InputError(f"Several services are named {name!r}: {which}. Give the URN of one.", candidates=which)
        if not found:
            raise InputError(_unknown(name, [service.name for service in known.values() if service.name]))
        return await self.read(found[0].urn)

    async def request_schema(self, urn: str) -> dict[str, Any]:
        """Return the JSON Schema of a service's job request, from the aspects that its registration wrote.

        Raises NotFoundError for a service that publishes none.
        """
        entity = ivcap_urn("service", urn)
        for schema in (TOOL_SCHEMA, _SERVICE_SCHEMA):
            async for aspect in self._aspects.list(entity=entity, schema=schema, limit=1):
                found = tool_schema_of(aspect.content)
                if found is not None:
                    return found
        raise self._aspects.absent(
            f"The service {entity} publishes no request model (aspect {TOOL_SCHEMA}).", "no request model"
        )

    async def register(self, definition: Mapping[str, Any], *, id: str | None = None) -> ServiceRecord:  # noqa: A002
        """Create or update a service so that it matches a definition. Idempotent.

        `definition` needs `name`, `description`, `controller-schema` and `controller`. It may have `parameters`,
        `policy` (default: open to all), `tags`, and `request-schema`, the JSON Schema of a job's request. Without an
        `id` argument or field, the id is derived from the name and the account, as the SDKs do (ivcap-service,
        Makefile). If the platform does not offer registration by its API (403, 404, 405, 501), the aspects that the
        SDKs write are written instead. Raises InputError for an incomplete definition.
        """
        urn = await self.urn_of(definition, id=id)
        whole = {"parameters": [], "policy": _OPEN_SERVICE, **definition, "id": urn}
        try:
            await self._session.request(
                "PUT",
                f"/1/services2/{segment(urn)}",
                params={"force-create": True},
                json={name: whole[name] for name in _DEFINITION if name in whole},
                repeat="idempotent",
                expect=(200, 201, 204),
            )
        except PlatformError as error:
            if not _has_no_route(error):
                raise
            await self._put(urn, _SERVICE_SCHEMA, _service_aspect(whole))
        if tool_schema_of(whole) is not None:
            await self._put(urn, TOOL_SCHEMA, _tool_aspect(whole), ("name", "description", "fn_schema"))
        return await self.read(urn)

    async def urn_of(self, definition: Mapping[str, Any], *, id: str | None = None) -> str:  # noqa: A002
        """Return the URN that `register` would use for a definition. Raises InputError for an incomplete definition."""
        missing = [name for name in _NEEDED if not definition.get(name)]
        if missing:
            raise InputError(f"The definition of the service lacks {', '.join(missing)}.", missing=missing)
        named = id or definition.get("id") or definition.get("$id")
        if named is None:
            named = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{definition['name']}{await self._account()}"))
        return ivcap_urn("service", str(named))

    async def _put(self, urn: str, schema: str, content: dict[str, Any], says: Iterable[str] | None = None) -> None:
        """Make this the content of the active aspect. Only the keys in `says` are compared; all keys if it is None."""
        keys = list(content if says is None else says)

        def told(given: Any) -> str:
            return fingerprint({key: given.get(key) for key in keys} if isinstance(given, Mapping) else None)

        active = [aspect async for aspect in self._aspects.list(entity=urn, schema=schema, limit=2)]
        if len(active) != 1 or told(active[0].content) != told(content):
            await self._aspects.update(urn, schema, content, _OPEN_METADATA)

    @staticmethod
    def encode_parameters(service: ServiceRecord, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the wire values of an order's parameters; see `ivcap_flows.ivcap.parameters`."""
        return encode_parameters(service, values)


def tool_schema_of(content: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a request from an `ai-tool.1` or `service.2` aspect, whose keys have two spellings."""
    if isinstance(content, Mapping):
        for key in ("fn_schema", "fn-schema", "request-schema", "request_schema"):
            if isinstance(content.get(key), Mapping):
                return dict(content[key])
    return None


def _has_no_route(error: PlatformError) -> bool:
    """Return whether the platform does not offer this kind of request, as opposed to refusing this one."""
    return error.data.get("status") in (403, 404, 405, 501)


def _service_aspect(definition: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in definition.items() if name != "id"}
    return {**rest, "$schema": _SERVICE_SCHEMA, "$id": definition["id"]}


def _tool_aspect(definition: Mapping[str, Any]) -> dict[str, Any]:
    name, schema = definition["name"], tool_schema_of(definition) or {}
    return {
        "$schema": TOOL_SCHEMA,
        "id": f"urn:sd-core:ai-tool.{name}",
        "name": name,
        "service-id": definition["id"],
        "description": definition["description"],
        "fn_signature": definition.get("fn_signature") or f"{name}({', '.join(schema.get('properties', {}))})",
        "fn_schema": schema,
    }


def name_filter(name: str) -> str:
    """Return the platform's expression for services of this name, which holds no quote, `%` or backslash."""
    return f"name~='{name}'"


async def _filtered(services: Services, name: str) -> list[ServiceRecord]:
    try:
        return _matching(name, [service async for service in services.list(filter=name_filter(name))])
    except (BadRequestError, InvalidParameterError):
        return []  # the platform has another filter language; the caller reads the whole list


def _matching(name: str, services: Iterable[ServiceRecord]) -> list[ServiceRecord]:
    """Return the active services with this name; if there are none, those whose name differs only in case."""
    now = datetime.now(timezone.utc)
    active = {s.urn: s for s in services if s.name and (s.valid_to is None or s.valid_to > now)}.values()
    exact = [service for service in active if service.name == name]
    return exact or [service for service in active if (service.name or "").casefold() == name.casefold()]


def _unknown(name: str, names: list[str]) -> str:
    near = [other for other in names if name.casefold() in other.casefold()]
    near = list(dict.fromkeys(near + get_close_matches(name, names, n=5)))[:8] or sorted(set(names))[:8]
    return f"There is no service named {name!r}. " + (
        "Candidates: " + ", ".join(map(repr, near)) + "." if near else "The platform lists no service at all."
    )
