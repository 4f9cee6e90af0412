"""`/1/services2/{service}/jobs` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from ivcap_flows.local import clock, ids
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import checked_policy, readable
from ivcap_flows.local.ivcap.artifacts.blobs import BlobResponse
from ivcap_flows.local.ivcap.artifacts.routes import product
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.jobs import shapes
from ivcap_flows.local.ivcap.jobs.state import TERMINAL
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import json_bytes, link, media_type, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import CONTENT

__all__ = ["OPERATIONS"]

_LONGEST_HOLD: Final = 60.0
_EVENT_BATCH: Final = 100

LISTING: Final = Listing(
    "jobs",
    "jobs",
    {
        "id": Column("id", never_null=True),
        "name": Column("name", never_null=True),
        "status": Column("status", never_null=True),
        "order": Column("order_id", never_null=True),
        "account": Column("account", never_null=True),
        "requested-at": Column("requested_at", "time", never_null=True),
        "created-at": Column("requested_at", "time", never_null=True),
        "started-at": Column("started_at", "time"),
        "finished-at": Column("finished_at", "time"),
    },
    "requested-at",
    since="requested_at",
)


def _href(call: Call, service: str, job: str) -> str:
    return f"{call.base}/1/services2/{service.rsplit(':', 1)[-1]}/jobs/{job.rsplit(':', 1)[-1]}"


def _job_headers(call: Call, row: sqlite3.Row) -> dict[str, str]:
    href = _href(call, row["service"], row["id"])
    return {"IVCAP-Job-Id": row["id"], "IVCAP-Order-Id": row["order_id"], "IVCAP-Job-URL": href}


def _hold(call: Call) -> float:
    """Return the seconds that the request may be held, from the `Timeout` header. Raises Problem 400."""
    text = call.header("Timeout")
    if text is None:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise errors.bad_request("Timeout must be a number of seconds.")
    return min(seconds, _LONGEST_HOLD)


def _request_of(call: Call) -> Any:
    """Return the request document: the body itself, or the aspect that it names."""
    body = call.json()
    if not isinstance(body, dict) or body.get("$schema") != schemas.JOB_INPUT:
        return body
    given = body.get("request-aspect")
    urn = ids.as_urn("aspect", given) if isinstance(given, str) else None
    if urn is None:
        raise errors.parameter("request-aspect", "request-aspect must be the URN of an aspect.")
    return json.loads(call.platform.aspects.read(call.who, urn)["content"])


def _create(call: Call) -> sqlite3.Row:
    service = call.platform.services.usable(call.who, call.id("service", "service"))
    policy = checked_policy(call.query["policy"], "job") if call.query["policy"] else None
    order = call.header("IVCAP-Order-Id")
    urn = call.platform.orders.request(call.who, service, _request_of(call), order=order, policy=policy)
    return call.platform.jobs.get(urn)


async def _ended(call: Call, job: str, seconds: float) -> sqlite3.Row:
    """Return the job's row once it has ended or the time is up."""
    platform = call.platform
    end = asyncio.get_running_loop().time() + seconds
    event = platform.changes.watch(job)
    try:
        while True:
            row: sqlite3.Row = await call.state(platform.jobs.get, job)
            left = end - asyncio.get_running_loop().time()
            if row["status"] in TERMINAL or left <= 0:
                return row
            try:
                await asyncio.wait_for(event.wait(), left)
            except (asyncio.TimeoutError, TimeoutError):
                continue
            event.clear()
    finally:
        platform.changes.forget(job, event)


async def create(call: Call) -> Response:
    hold = _hold(call)
    row: sqlite3.Row = await call.state(_create, call)
    if hold:
        row = await _ended(call, row["id"], hold)
    if row["status"] == "succeeded":
        return await call.state(_result, call, row)
    if row["status"] in TERMINAL:
        return _failure(call, row)
    body = {
        "job-id": row["id"],
        "service-id": row["service"],
        "location": _href(call, row["service"], row["id"]),
        "retry-later": call.platform.likeness.retry_later,
    }
    return reply(body, 202)


def _result(call: Call, row: sqlite3.Row) -> Response:
    """Reply with the result as it is, whatever its media type."""
    headers = _job_headers(call, row)
    if row["result_urn"] is None:
        return Response(row["result"].encode(), 200, headers, media_type(row["result_type"]))
    artifact = call.platform.artifacts.read(call.platform.jobs.owner(row), row["result_urn"])
    bare = row["result_urn"].rsplit(":", 1)[-1]
    response = BlobResponse(
        call.platform.directory.blob(bare), artifact["size"], artifact["mime"], bare, call.request.headers
    )
    response.headers.update(headers)
    return response


def _failure(call: Call, row: sqlite3.Row) -> Response:
    """Reply for a job that failed: a 400 for `failed`, a 500 for `error`."""
    status, kind = (400, "job-request-error") if row["status"] == "failed" else (500, "job-internal-error")
    return errors.Problem(status, kind, {"message": row["error_message"]}, _job_headers(call, row)).response()


def _row(call: Call) -> sqlite3.Row:
    service = call.platform.services.read(call.who, call.id("service", "service"))
    return call.platform.jobs.read(call.who, service["id"], call.id("job"))


def read(call: Call) -> Response:
    row = _row(call)
    times = {"requested-at": "requested_at", "started-at": "started_at", "finished-at": "finished_at"}
    products = [product(call.base, one) for one in call.platform.jobs.products(row["id"])]
    record = {
        "id": row["id"],
        "status": row["status"],
        "name": row["name"],
        "order": row["order_id"],
        "service": row["service"],
        "account": row["account"],
        "policy": row["policy"],
        **{name: None if row[column] is None else clock.stamp(row[column]) for name, column in times.items()},
        "request-content-type": "application/json",
        "error-message": row["error_message"],
        "products": {"items": products, "links": []},
        "result-content-type": row["result_type"],
        "result-content-urn": row["result_urn"],
        "links": [link("self", _href(call, row["service"], row["id"]))],
    }
    content = {}
    if call.query["with-request-content"]:
        content["request-content"] = json.loads(row["request"])
    if call.query["with-result-content"] and row["result"] is not None:
        content["result-content"] = json.loads(row["result"])
    return reply(without_none(record) | content)


def list_all(call: Call) -> Response:
    service = call.platform.services.read(call.who, call.id("service", "service"))["id"]

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen, "service = ?"], [*values, service]

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        times = {"started-at": row["started_at"], "finished-at": row["finished_at"]}
        return without_none(
            {
                "id": row["id"],
                "status": row["status"],
                "name": row["name"],
                "order": row["order_id"],
                "service": row["service"],
                "href": _href(call, row["service"], row["id"]),
                **{name: None if at is None else clock.stamp(at) for name, at in times.items()},
            }
        )

    return reply(page_of(call, LISTING, conditions, item))


def output(call: Call) -> Response:
    row = _row(call)
    if row["status"] not in TERMINAL:
        headers = {"goa-error": "not-ready-yet", "Location": _href(call, row["service"], row["id"]) + "/output"}
        return Response(status_code=204, headers=_job_headers(call, row) | headers)
    return _result(call, row) if row["status"] == "succeeded" else _failure(call, row)


def _event(row: sqlite3.Row, service: str) -> bytes:
    body = {
        "SeqID": f"{row['seq']:08d}",
        "eventID": row["id"],
        "type": row["type"],
        "schema": row["schema"],
        "source": service,
        "timestamp": clock.event_stamp(row["at"]),
        "data": json.loads(row["data"]),
    }
    return f"id: {row['seq']:08d}\ndata: ".encode() + json_bytes(body) + b"\n\n"


async def events(call: Call) -> Response:
    """Stream server-sent events after `Last-Event-Id`, until the job ends or nothing arrives for a while."""
    row: sqlite3.Row = await call.state(_row, call)
    job, service, wait = row["id"], row["service"], float(call.query["max-wait-time"])
    most, last = call.query["max-messages"], call.header("Last-Event-Id") or "0"
    if not last.isdecimal() or len(last) > 18:
        raise errors.bad_request("Last-Event-Id must be the id of an event.")
    found, over = await _news(call, job, int(last), wait)
    if not found and over:
        return Response(status_code=204, headers={"goa-error": "job-no-result"})
    if not found:
        message = f"No event came within {wait:g} seconds."
        body = {
            "name": "event-timeout",
            "id": job,
            "message": message,
            "temporary": True,
            "timeout": True,
            "fault": False,
        }
        return errors.Problem(504, "event-timeout", body).response()

    async def stream() -> AsyncIterator[bytes]:
        rows, done, sent = found, over, 0
        while rows:
            for one in rows:
                yield _event(one, service)
                sent += 1
                if sent == most:
                    return
            # Even if the job has ended, it may have more events than one batch holds.
            rows, done = await _news(call, job, rows[-1]["seq"], 0 if done else wait)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _news(call: Call, job: str, after: int, wait: float) -> tuple[list[sqlite3.Row], bool]:
    """Wait for the next events; return them, and whether the job has ended."""
    jobs, loop = call.platform.jobs, asyncio.get_running_loop()
    end = loop.time() + wait
    changed = call.platform.changes.watch(job)
    try:
        while True:
            over = (await call.state(jobs.get, job))["status"] in TERMINAL
            found: list[sqlite3.Row] = await call.state(jobs.events, job, after, _EVENT_BATCH)
            left = end - loop.time()
            if found or over or left <= 0:
                return found, over
            try:
                await asyncio.wait_for(changed.wait(), left)
            except (asyncio.TimeoutError, TimeoutError):
                continue
            changed.clear()
    finally:
        call.platform.changes.forget(job, changed)


_JOBS: Final = "/1/services2/{service}/jobs"

OPERATIONS: Final = (
    Operation(
        "GET",
        _JOBS,
        list_all,
        "List the jobs of a service",
        LIST,
        answers=(200, 400, 404, 422),
        missing="`at-time` selects the records that existed then; their content is the present one.",
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        _JOBS,
        create,
        "Request a job",
        (Param("policy"),),
        body=True,
        answers=(200, 202, 400, 403, 404, 422, 500),
        headers=(
            Param("Timeout", description="Maximum number of seconds to wait for the job before the reply."),
            Param("IVCAP-Order-Id", description="The order that the job belongs to."),
        ),
        gives={200: CONTENT, 202: shapes.ACCEPTED},
        missing="Container images are not run: a service runs the command that was registered for it. There is no proxy"
        " for its calls to other hosts (Ivcap-Forward-Url).",
    ),
    Operation(
        "GET",
        _JOBS + "/{id}",
        read,
        "Read a job",
        (Param("with-request-content", "boolean", False), Param("with-result-content", "boolean", True)),
        answers=(200, 404),
        gives=shapes.RECORD,
    ),
    Operation(
        "GET",
        _JOBS + "/{id}/output",
        output,
        "The result of a job",
        answers=(200, 204, 400, 404, 500),
        gives=CONTENT,
    ),
    Operation(
        "GET",
        _JOBS + "/{id}/events",
        events,
        "Events of a job (server-sent)",
        (Param("max-messages", "integer", None, least=1), Param("max-wait-time", "integer", 30, least=0, most=300)),
        answers=(200, 204, 400, 404, 504),
        headers=(Param("Last-Event-Id", description="Id of the event after which the stream begins."),),
        gives=shapes.STREAM,
    ),
)
