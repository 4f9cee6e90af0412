"""Tasks for IVCAP services: find, list, register."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import mark_existing
from ivcap_flows.durable import Effect, Found, Resume
from ivcap_flows.errors import NotFoundError
from ivcap_flows.handles import Service
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow
from ivcap_flows.registration.yaml_file import read_yaml
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.threads import FILES

__all__ = [
    "afind_service",
    "alist_services",
    "aregister_service",
    "find_service",
    "list_services",
    "register_service",
]

_DEFINITION: Final = TypeAdapter(dict[str, Any])


async def _find_service(name: str, *, credentials: IvcapCredentialsLike = None) -> Service:
    """Return the service with exactly this name or URN.

    Raises InputError, which names the candidates, if no service or several have the name.
    """
    call = await IvcapCall.of(credentials)
    record = await call.service(name)
    mark_existing(record.urn)
    return record.handle(call.platform)


async def _list_services(
    *,
    filter: str | None = None,  # noqa: A002 - the API's word
    search: str | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Service]:
    """List the services that the account can see: all of them, or the first `limit`.

    `filter` is an expression in the platform's grammar, such as `name ~= 'survey%'`. `search` searches by meaning;
    BadRequestError is raised if the platform cannot do that.
    """
    call = await IvcapCall.of(credentials)
    services = []
    async for record in call.client.services.list(filter=filter, search=search, limit=limit):
        mark_existing(record.urn)
        services.append(record.handle(call.platform))
    return services


async def _register_service(
    definition: Mapping[str, Any] | str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> Service:
    """Register a service, or update an existing one, according to a definition. Idempotent.

    If the service already equals the definition, nothing is sent. `definition` is a mapping, or the path of a YAML or
    JSON file that contains one. It has `name`, `description`, `controller-schema` and `controller`. It may also have
    `parameters`, `policy` (default: open to all), `tags`, `id` (default: computed from name and account, as in the
    SDKs) and `request-schema`, the JSON Schema of a job's request.

    Raises InputError for a definition that is incomplete or cannot be read.
    """
    call = await IvcapCall.of(credentials)
    if isinstance(definition, Mapping):
        wanted = dict(definition)
    else:
        wanted = await FILES.run(read_yaml, Path(definition), _DEFINITION, "fields of the service")
    wanted = canonical_form(wanted, "definition")
    urn = await call.client.services.urn_of(wanted)

    done = await call.perform(
        ServiceEffect(
            call=call,
            service=urn,
            request=wanted,
            visibility_delay=call.client.visibility_delay,
            subject=wanted["name"],
        )
    )
    if done.how == "adopted":
        mark_existing(done.value.urn)
    return done.value


@dataclass(frozen=True, kw_only=True)
class ServiceEffect(Effect[Service]):
    """Making a service equal its definition, the `request`. `service` is its URN."""

    noun: str = "service"
    # The service's state is read each time: it may have changed since this run registered it.
    once_per: OncePer = "call"
    look_first: bool = True
    call: IvcapCall
    service: str

    async def send(self, intent: IntentRow, progress: Resume) -> Service:
        return (await self.call.client.services.register(self.request)).handle(self.call.platform)

    async def find(self, intent: IntentRow) -> list[Found[Service]]:
        if not await _is_so(self.call, self.service, self.request):
            return []
        record = await self.call.client.services.read(self.service)
        return [Found(record.handle(self.call.platform), record.urn, record.valid_from)]

    def decode(self, outcome: Any) -> Service:
        return Service.model_validate(outcome)

    def placeholder(self, key: str) -> Service:
        urn = f"urn:ivcap-flows:planned:{key}"
        return Service(urn=urn, platform=self.call.platform, name=self.request["name"])


async def _is_so(call: IvcapCall, urn: str, wanted: Mapping[str, Any]) -> bool:
    """Return whether the platform's service has everything in the definition. It may have more."""
    services = call.client.services
    try:
        record = await services.read(urn)
        schema = await services.request_schema(urn) if "request-schema" in wanted else None
    except NotFoundError:
        return False
    there = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    said = {name: value for name, value in wanted.items() if name not in ("id", "request-schema", "$id", "$schema")}
    return record.status in ("active", "unknown") and _within(said, there) and schema == wanted.get("request-schema")


def _within(said: Any, there: Any) -> bool:
    if isinstance(said, Mapping):
        return isinstance(there, Mapping) and all(_within(value, there.get(name)) for name, value in said.items())
    if isinstance(said, list):
        return isinstance(there, list) and len(said) == len(there) and all(map(_within, said, there))
    return bool(said == there)


find_service, afind_service = task_pair(_find_service, "find {name}")
list_services, alist_services = task_pair(_list_services)
register_service, aregister_service = task_pair(_register_service)
