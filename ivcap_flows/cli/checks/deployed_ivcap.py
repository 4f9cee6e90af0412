"""What the package relies on of a deployment of IVCAP: the table of checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
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
from ivcap_flows.http.paging import PAGE_SIZE
from ivcap_flows.identity import INTENT_SCHEMA
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.services import TOOL_SCHEMA, name_filter

__all__ = ["IVCAP_CHECKS"]

Records = Sequence[BaseModel]

_MORE: Final = PAGE_SIZE + 1
"""Records of a list, of which the last is on a second page."""
_FEW: Final = 5
_KEPT: Final = (INTENT_SCHEMA, TOOL_SCHEMA, "urn:ivcap:schema%job.2")
"""Schemas of aspects that the package looks for: its idempotency records, the requests of services, and jobs."""
_SMALL: Final = 64 * 1024
"""Bytes of content that are read at most."""
_QUOTES: Final = frozenset("'\"%\\")

_urn: Final = attrgetter("urn")
_NOTHING: Final = "there is nothing to look at"


async def _version(client: IvcapClient) -> str:
    version = await client.api_version()
    if version is None:
        raise Verdict("differs", "the OpenAPI document has no version")
    return f"API {version}"


async def _login(client: IvcapClient) -> str:
    await client.provider()
    return "it names where users log in"


async def _account(client: IvcapClient) -> str:
    return f"{private(await client.account())} {await place_of(client)}"


async def _services(client: IvcapClient) -> Records:
    return await whole_list(client.services.list(limit=_MORE), _urn)


async def _service(client: IvcapClient) -> Records:
    return [await client.services.read((await first(client.services.list(limit=1))).urn)]


async def _services_by_name(client: IvcapClient) -> Records:
    async for listed in client.services.list(limit=PAGE_SIZE):
        if listed.name and not _QUOTES & set(listed.name):
            named = client.services.list(filter=name_filter(listed.name), limit=_MORE)
            return holds([service async for service in named], listed, _urn)
    raise Verdict("not looked at", _NOTHING)


async def _artifacts(client: IvcapClient) -> Records:
    found = await whole_list(client.artifacts.list(limit=_MORE), _urn)
    return newest_first(found, attrgetter("created_at"))


async def _artifact(client: IvcapClient) -> Records:
    async for listed in client.artifacts.list(limit=PAGE_SIZE):
        if listed.ready:
            return [await client.artifacts.read(listed.urn)]
    raise Verdict("not looked at", "no artifact among the newest is ready")


async def _artifacts_by_name(client: IvcapClient) -> Records:
    async for listed in client.artifacts.list(limit=PAGE_SIZE):
        if listed.name and not _QUOTES & set(listed.name):
            return holds([one async for one in client.artifacts.list(name=listed.name, limit=_MORE)], listed, _urn)
    raise Verdict("not looked at", _NOTHING)


async def _content(client: IvcapClient) -> str:
    async for listed in client.artifacts.list(limit=PAGE_SIZE):
        if listed.ready and 0 < (listed.known_size or 0) <= _SMALL:
            await client.artifacts.read_bytes(listed.urn, limit=_SMALL)
            return "read, of the size that the record has"
    raise Verdict("not looked at", f"no artifact of at most {_SMALL} bytes is among the newest")


async def _orders(client: IvcapClient) -> Records:
    listed = client.orders.list(order_by="ordered-at", order_desc=True, limit=_MORE)
    return newest_first(await whole_list(listed, _urn), attrgetter("ordered_at"))


async def _order_urn(client: IvcapClient) -> str:
    return (await first(client.orders.list(order_by="ordered-at", order_desc=True, limit=1))).urn


async def _order(client: IvcapClient) -> Records:
    return [await client.orders.read(await _order_urn(client))]


async def _products(client: IvcapClient) -> Records:
    async for order in client.orders.list(order_by="ordered-at", order_desc=True, limit=_FEW):
        if found := [product async for product in client.orders.products(order.urn, limit=_FEW)]:
            return found
    raise Verdict("not looked at", f"none of the newest {_FEW} orders has products")


async def _logs(client: IvcapClient) -> str:
    async for order in client.orders.list(order_by="ordered-at", order_desc=True, limit=PAGE_SIZE):
        if order.done:
            async with aclosing(client.orders.logs(order.urn)) as lines:
                return "read" if await anext(lines, None) is not None else "read; it is empty"
    raise Verdict("not looked at", "no order among the newest has ended")


async def _all_jobs(client: IvcapClient) -> Records:
    return newest_first([job async for job in client.jobs.list_all(limit=_MORE)], attrgetter("requested_at"))


async def _ended(client: IvcapClient, *, well: bool = False) -> JobRecord:
    """Return a job that has ended, or ended well, and whose service is known."""
    async for job in client.jobs.list_all(limit=PAGE_SIZE):
        if job.service and job.done and (job.status == "succeeded" or not well):
            return job
    raise Verdict("not looked at", f"no job among the newest has {'succeeded' if well else 'ended'}")


async def _job(client: IvcapClient) -> Records:
    job = await _ended(client)
    return [await client.jobs.read(str(job.service), job.urn, with_request=True)]


async def _jobs_of_service(client: IvcapClient) -> Records:
    service = str((await _ended(client)).service)
    listed = await whole_list(client.jobs.list(service, limit=_MORE), _urn)
    # Listings have no times.
    read = [await client.jobs.read(service, job.urn, with_result=False) for job in listed[:_FEW]]
    newest_first(read, attrgetter("requested_at"))
    return listed


async def _output(client: IvcapClient) -> str:
    job = await _ended(client, well=True)
    output = await client.jobs.output(str(job.service), job.urn)
    if output is None:
        raise Verdict("not looked at", "the newest job that succeeded has no result")
    return f"read, of the type {output.media_type}"


async def _events(client: IvcapClient) -> str:
    job = await _ended(client)
    async with aclosing(client.jobs.events(str(job.service), job.urn, wait=1)) as events:
        if await anext(events, None) is None:
            raise Verdict("not there", "a job that has ended has no events")
    return "read"


async def _kept(client: IvcapClient, limit: int = 1) -> list[AspectRecord]:
    """Return aspects of the first schema of ours or of IVCAP's own of which there are any."""
    for schema in _KEPT:
        if found := await whole_list(client.aspects.list(schema=schema, limit=limit), _urn):
            return found
    raise Verdict("not looked at", _NOTHING)


async def _aspects(client: IvcapClient) -> Records:
    return newest_first(await _kept(client, _MORE), attrgetter("valid_from"))


async def _aspect(client: IvcapClient) -> Records:
    return [await client.aspects.read((await _kept(client))[0].urn)]


async def _aspects_by_key(client: IvcapClient) -> Records:
    [listed] = await _kept(client)
    same = client.aspects.list(entity=listed.entity, schema=listed.schema_urn, order_direction="ASC")
    found = [aspect async for aspect in same]
    holds(found, listed, _urn)
    if any((one.entity, one.schema_urn) != (listed.entity, listed.schema_urn) for one in found):
        raise Verdict("differs", "the look-up finds aspects of another entity or schema")
    newest_first(found[::-1], attrgetter("valid_from"))
    return found


async def _aspects_by_pattern(client: IvcapClient) -> Records:
    [listed] = await _kept(client)
    found = client.aspects.list(entity=listed.entity, schema=f"{listed.schema_urn[:-1]}%")
    return holds([aspect async for aspect in found], listed, _urn)


async def _aspects_by_content(client: IvcapClient) -> Records:
    for listed in await _kept(client, PAGE_SIZE):
        content = listed.content if isinstance(listed.content, Mapping) else {}
        for name, value in content.items():
            if name.isidentifier() and isinstance(value, str):
                path = f"$.{name} ? (@ == {json.dumps(value)})"
                found = client.aspects.list(entity=listed.entity, schema=listed.schema_urn, content_path=path)
                return holds([aspect async for aspect in found], listed, _urn)
    raise Verdict("not looked at", _NOTHING)


async def _aspects_of_earlier(client: IvcapClient) -> str:
    [listed] = await _kept(client)
    if listed.valid_from is None:
        raise Verdict("differs", "an aspect has no valid-from")
    before = client.aspects.list(
        entity=listed.entity, schema=listed.schema_urn, at_time=listed.valid_from - timedelta(seconds=1)
    )
    if listed.urn in [aspect.urn async for aspect in before]:
        raise Verdict("differs", "the list of an earlier time has a later record")
    return "a list shows the records of a given time"


async def _search(client: IvcapClient) -> str:
    [listed] = await _kept(client)
    program = f':load_aspect(/seen, "{listed.schema_urn}", ["entity"]).\nquery(E) :- seen(E).'
    if await anext(client.search(program, limit=1), None) is None:
        raise Verdict("differs", "it does not find an aspect that is there")
    return "it finds an aspect"


async def _queues(client: IvcapClient) -> Records:
    return await whole_list(client.queues.list(limit=_MORE), _urn)


async def _queue(client: IvcapClient) -> Records:
    return [await client.queues.read((await first(client.queues.list(limit=1))).urn)]


async def _secrets(client: IvcapClient) -> Records:
    return [secret async for secret in client.secrets.list(limit=_MORE)]


_TWICE: Final = "After a kill or a lost reply, what was sent may not be found, and be sent a second time."
_UNREAD: Final = "Tasks that read it fail."

IVCAP_CHECKS: Final[tuple[Check[IvcapClient], ...]] = (
    Check("clock", clock_of, "Times in records are wrong by as much, and tokens are renewed at the wrong time."),
    Check("version", _version, "It is not known which version of IVCAP this is.", optional=True),
    Check("login", _login, "`ivcap-flows login` does not work here; use a token.", optional=True),
    Check("account", _account, "Nothing is sent, since each idempotency key has the account."),
    Check("list of services", _services, "Services are found by their URN alone.", ("name",)),
    Check("service", _service, "No order can be placed.", ("status", "parameters", "controller_schema", "controller")),
    Check("services by name", _services_by_name, "The whole list is read instead.", ("name",), optional=True),
    Check(
        "list of artifacts",
        _artifacts,
        "Uploads that were left unfinished are not found.",
        ("status", "created_at"),
    ),
    Check("artifact", _artifact, _UNREAD, ("status", "size", "data_href")),
    Check("artifacts by name", _artifacts_by_name, "`list_artifacts` by name fails."),
    Check("content of an artifact", _content, "Downloads fail."),
    Check("list of orders", _orders, _TWICE, ("status", "name", "service", "account", "ordered_at")),
    Check("order", _order, _UNREAD, ("status", "service", "account", "parameters", "products")),
    Check("products of an order", _products, "Products beyond the first page are missing.", ("status",)),
    Check("log of an order", _logs, "Errors of orders do not show the end of the log.", optional=True),
    Check("jobs of all services", _all_jobs, "`list_jobs` needs a service.", ("service", "status", "requested_at")),
    Check("job", _job, _UNREAD, ("status", "service", "account", "requested_at", "request_content")),
    Check("jobs of a service", _jobs_of_service, _TWICE, ("status",)),
    Check("output of a job", _output, "Only results that the job's record holds or names are read.", optional=True),
    Check("events of a job", _events, "Waits read the job instead, and do not show its messages.", optional=True),
    Check("list of aspects", _aspects, _TWICE, ("valid_from", "content")),
    Check("aspect", _aspect, _UNREAD, ("account", "policy", "asserter", "valid_from", "content")),
    Check("aspects by entity and schema", _aspects_by_key, _TWICE, ("valid_from", "content")),
    Check("aspects by a pattern", _aspects_by_pattern, "`list_jobs` and the look-up of a job's service fail."),
    Check("aspects by content", _aspects_by_content, "All aspects of the query are read instead.", optional=True),
    Check("aspects of an earlier time", _aspects_of_earlier, "`at_time` has no effect."),
    Check("search", _search, "The task `search` fails.", optional=True),
    Check("list of queues", _queues, "Tasks that use queues fail.", ("name",), optional=True),
    Check("queue", _queue, "Tasks that use queues fail.", ("name", "total_messages"), optional=True),
    Check("list of secrets", _secrets, "Tasks that use secrets fail.", optional=True),
)
