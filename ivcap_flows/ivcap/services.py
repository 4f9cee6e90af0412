"""Services: what can be ordered, and what it takes (IVCAP OpenAPI 0.48, `/1/services2`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime, timezone
from difflib import get_close_matches
from typing import Any, Final

from ivcap_flows.errors import BadRequestError, InputError, InvalidParameterError, NotFoundError
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.parameters import encode_parameters
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment

__all__ = ["Option", "ParameterDef", "ServiceRecord", "Services"]

_TOOL_SCHEMA: Final = "urn:sd-core:schema.ai-tool.1"
_SERVICE_SCHEMA: Final = "urn:ivcap:schema.service.2"


class Option(Wire):
    """One value of an option parameter."""

    value: str
    description: Text = None


class ParameterDef(Wire):
    """A declared parameter. `type` is a free string of the platform; `default` always text."""

    name: str
    description: Text = None
    type: str = "string"
    label: Text = None
    unit: Text = None
    constant: bool | None = None
    optional: bool | None = None
    unary: bool | None = None
    default: str | None = None
    options: list[Option] | None = None

    @property
    def mandatory(self) -> bool:
        """Whether an order must give it. A default makes it optional whatever `optional` says (ivcap-client)."""
        return not self.optional and self.default is None


class ServiceRecord(Wire):
    """A service as read or listed; listings have no parameters."""

    id: str
    name: Text = None
    description: Text = None
    status: str = "unknown"
    parameters: list[ParameterDef] | None = None
    policy: Text = None
    account: Text = None
    controller_schema: Text = None
    controller: Any = None
    tags: list[str] | None = None
    valid_from: Instant = None
    valid_to: Instant = None

    @property
    def urn(self) -> str:
        return ivcap_urn("service", self.id)


class Services:
    """`/1/services2`. Methods take URNs, or bare ids."""

    def __init__(self, session: Session, aspects: Aspects) -> None:
        self._session = session
        self._aspects = aspects

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
        """The services; `limit` is the total, `search` asks by meaning where the platform can."""
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
        """The service of exactly this name (a URN is read as such), with its parameters.

        All pages are looked at. Raises InputError when no service or several have the name; it names the candidates.
        """
        if name.startswith("urn:"):
            return await self.read(name)
        if not name.strip():
            raise InputError("The name of the service is empty.")
        # The filter's quoting is not documented: a name that would need it is looked for in the whole list.
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

    async def request_model(self, urn: str) -> dict[str, Any]:
        """The JSON Schema of a service's job request, from the aspects that its registration wrote.

        Raises NotFoundError for a service that publishes none.
        """
        entity = ivcap_urn("service", urn)
        for schema, keys in (
            (_TOOL_SCHEMA, ("fn_schema", "fn-schema")),
            (_SERVICE_SCHEMA, ("request-schema", "request_schema")),
        ):
            async for aspect in self._aspects.list(entity=entity, schema=schema, limit=1):
                content = aspect.content if isinstance(aspect.content, Mapping) else {}
                for key in keys:
                    if isinstance(content.get(key), Mapping):
                        return dict(content[key])
        raise NotFoundError(
            f"The service {entity} publishes no request model (aspect {_TOOL_SCHEMA}).",
            platform=self._session.platform,
            method="GET",
            path="/1/aspects",
            status=None,
            detail="no request model",
            sent=True,
        )

    @staticmethod
    def encode_parameters(service: ServiceRecord, values: Mapping[str, Any]) -> dict[str, str]:
        """The wire values of an order's parameters; see `ivcap_flows.ivcap.parameters`."""
        return encode_parameters(service, values)


async def _filtered(services: Services, name: str) -> list[ServiceRecord]:
    try:
        return _matching(name, [service async for service in services.list(filter=f"name~='{name}'")])
    except (BadRequestError, InvalidParameterError):
        return []  # a platform with another filter language; the caller reads the whole list


def _matching(name: str, services: Iterable[ServiceRecord]) -> list[ServiceRecord]:
    """Active services of the name; where none is spelt so, those that differ in case only."""
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
