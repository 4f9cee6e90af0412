"""What the package relies on of a deployment of Provena: the table of checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from pydantic import BaseModel

from ivcap_flows.cli.checks.deployment import (
    Check,
    Verdict,
    clock_of,
    first,
    holds,
    newest_first,
    place_of,
    private,
    whole_list,
)
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.provena.api import Api
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import DatasetInfo, ModelRun, Person, WorkflowTemplate
from ivcap_flows.provena.subtypes import SUBTYPES

__all__ = ["PROVENA_CHECKS"]

Records = Sequence[BaseModel]

_PAGE: Final = 20
_MORE: Final = _PAGE + 1
"""Records of a list, of which the last is on a second page."""
_ROLES: Final = ("entity-registry-read", "entity-registry-write")
"""The roles of which each registration needs both."""

_id: Final = attrgetter("id")
_created: Final = attrgetter("created_timestamp")


async def _login(client: ProvenaClient) -> str:
    return f"{private(await client.username())} {await place_of(client)}"


async def _healthy(api_of: Callable[[ProvenaClient], Api], client: ProvenaClient) -> str:
    try:
        api = api_of(client)
    except ConfigurationError:
        raise Verdict("not looked at", "its address is not known") from None
    await api.health()
    return "it says that it is healthy"


async def _version(client: ProvenaClient) -> str:
    release = await client.registry.about()
    known = [text for text in (release.tag_name, release.commit_id) if text]
    if not known:
        raise Verdict("differs", "the reply names no version")
    return ", commit ".join(known)


async def _person(client: ProvenaClient) -> str:
    person = await client.auth_api.linked_person()
    if person is None:
        raise Verdict("refused", "the user is not linked to a person")
    return f"the user is linked to {private(person)}"


async def _email(client: ProvenaClient) -> str:
    if await client.email() is None:
        raise Verdict("refused", "the token has no e-mail address")
    return "the token has it"


async def _roles(client: ProvenaClient) -> str:
    missing = [role for role in _ROLES if role not in (await client.auth_api.access_report()).granted()]
    if missing:
        raise Verdict("refused", f"the user lacks {', '.join(missing)}")
    return f"the user has {', '.join(_ROLES)}"


async def _items(subtype: str, client: ProvenaClient) -> Records:
    """List the items of a subtype, and read the newest of them."""
    found = await whole_list(client.registry.list(subtype, page_size=_PAGE, limit=_MORE), _id)
    if found:
        await client.registry.fetch(subtype, found[0].id)
    return newest_first(found, _created)


async def _datasets_by_uri(client: ProvenaClient) -> Records:
    async for listed in client.registry.list(DatasetInfo, limit=_MORE):
        if uri := listed.info.access_info_uri:
            found = client.registry.list(
                DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with=uri, ascending=True
            )
            return holds([dataset async for dataset in found], listed, _id)
    raise Verdict("not looked at", "no dataset among the newest is stored elsewhere")


async def _jobs(client: ProvenaClient) -> Records:
    return newest_first(
        await whole_list(client.jobs.list(page_size=_PAGE, limit=_MORE), attrgetter("session_id")), _created
    )


async def _job(client: ProvenaClient) -> Records:
    row = await client.jobs.fetch((await first(client.jobs.list(limit=1))).session_id)
    if row is None:
        raise Verdict("differs", "a job that is listed cannot be read")
    return [row]


async def _search(client: ProvenaClient) -> Records:
    listed = await first(client.registry.list(Person, limit=1))
    return await client.search.registry(listed.display_name)


async def _lineage(client: ProvenaClient) -> Records:
    run = await first(client.registry.list(ModelRun, limit=1))
    return [await client.prov.explore(run.id, "upstream", depth=1)]


async def _csv(client: ProvenaClient) -> str:
    workflow = await first(client.registry.list(WorkflowTemplate, limit=1))
    return f"{len((await client.prov.csv_template(workflow.id)).split(','))} columns"


def _health(name: str, api: Callable[[ProvenaClient], Api], *, optional: bool = False) -> Check[ProvenaClient]:
    read: Callable[[ProvenaClient], Awaitable[str]] = partial(_healthy, api)
    return Check(f"{name} API", read, "Tasks that need this API fail until it answers.", optional=optional)


_TWICE: Final = "After a kill or a lost reply, what was registered may not be found, and be registered a second time."
_NO_WRITES: Final = "Registrations are refused."

PROVENA_CHECKS: Final[tuple[Check[ProvenaClient], ...]] = (
    Check("login", _login, "Nothing can be read or registered."),
    Check("clock", clock_of, "Times in records are wrong by as much, and tokens are renewed at the wrong time."),
    Check("version", _version, "It is not known which version of Provena this is.", optional=True),
    _health("auth", attrgetter("auth_api")),
    _health("registry", attrgetter("registry")),
    _health("prov", attrgetter("prov")),
    _health("job", attrgetter("jobs")),
    _health("data store", attrgetter("datastore")),
    _health("search", attrgetter("search"), optional=True),
    _health("handle", attrgetter("ids"), optional=True),
    Check("person", _person, _NO_WRITES),
    Check("e-mail address", _email, _NO_WRITES),
    Check("roles", _roles, _NO_WRITES),
    *(
        Check(f"list of {subtype}", partial(_items, subtype), _TWICE, ("created_timestamp", "owner_username"))
        for subtype in SUBTYPES
    ),
    Check("datasets by their address", _datasets_by_uri, _TWICE),
    Check("list of jobs", _jobs, _TWICE, ("created_timestamp", "job_sub_type", "payload")),
    Check("job", _job, "Waits for registrations fail.", ("job_sub_type", "payload")),
    Check("search", _search, "`search_registry` fails.", optional=True),
    Check("lineage", _lineage, "Traces end at Provena."),
    Check("CSV template", _csv, "`ivcap-flows models` writes no file to fill in.", optional=True),
)
