"""The prov-api over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ivcap_flows.local.provena.jobs.state import MESSAGE_LIMIT
from ivcap_flows.local.provena.model import Id, Model, Whole
from ivcap_flows.local.provena.prov import graph as lineage
from ivcap_flows.local.provena.prov.document import Relation
from ivcap_flows.local.provena.prov.record import Record, check
from ivcap_flows.local.provena.prov.sheet import Sheet, convert, regenerate
from ivcap_flows.local.provena.prov.state import ModelRuns
from ivcap_flows.local.provena.registry.kinds import AnySubtype
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, denied, fails, invalid, status

__all__ = ["api"]

_DEEPEST = 10
_SENDING = f"The token has no email address, or the message has {MESSAGE_LIMIT} bytes or more."
_UNCACHED = "Validation reads every item again; nothing is cached for 60 seconds."


class _Batch(Model):
    records: list[Record]


class _Change(Model):
    model_run_id: Id
    reason: str
    record: Record


class _Removal(Model):
    record_id: Id
    trial_mode: bool = False


class _Stored(Model):
    id: Id
    record: Record


class _Report(Model):
    id: Id
    item_subtype: AnySubtype
    depth: Annotated[Whole, Field(ge=1, le=3)]


Explore = Callable[[lineage.Graph, str, int], set[Relation]]

_QUERIES: dict[str, tuple[int, Explore]] = {
    "upstream": (2, lineage.upstream),
    "downstream": (2, lineage.downstream),
    "special/contributing_datasets": (
        4,
        lambda graph, start, depth: lineage.contributing(graph, start, depth, lambda node: node.subtype == "DATASET"),
    ),
    "special/contributing_agents": (
        4,
        lambda graph, start, depth: lineage.contributing(graph, start, depth, lambda node: node.category == "AGENT"),
    ),
    "special/effected_datasets": (4, lineage.effected_datasets),
    "special/effected_agents": (4, lineage.effected_agents),
}
"""Path -> (depth if none is asked for, the query)."""


def api(desk: Desk, runs: ModelRuns) -> Api:
    """Return the prov-api."""
    site = Api(desk, "prov-api", "entity-registry")
    site.check_access()
    _lodging(site, runs)
    _changing(site, runs)
    for path, (usual, query) in _QUERIES.items():
        _exploring(site, runs, path, usual, query)
    _reporting(site, runs)
    _sheets(site, runs)
    _administration(site, runs)
    return site


def _accepted(session: str) -> dict[str, Any]:
    return {"status": status(True, "The job was dispatched."), "session_id": session}


def _lodging(site: Api, runs: ModelRuns) -> None:
    @site.post("/model_run/register", responses=fails(_SENDING), description=_UNCACHED)
    def register(record: Record, user: User = site.write) -> Any:
        return _accepted(runs.register(user, record.model_dump()))

    @site.post("/model_run/register_batch", responses=fails(_SENDING))
    def register_batch(batch: _Batch, user: User = site.write) -> Any:
        return _accepted(runs.register_batch(user, batch.model_dump()["records"]))

    @site.post("/model_run/register_sync")
    def register_sync(record: Record, user: User = site.admin) -> Any:
        check(record.model_dump(), runs.fetcher(user))
        info = runs.lodge(user.username, record.model_dump())
        return {"status": status(True, "The model run was lodged."), "record_info": info}

    @site.post("/model_run/update", responses=fails(_SENDING), description=_UNCACHED)
    def update(wanted: _Change, user: User = site.write) -> Any:
        return {"session_id": runs.update(user, wanted.model_run_id, wanted.reason, wanted.record.model_dump())}


def _changing(site: Api, runs: ModelRuns) -> None:
    @site.post("/model_run/edit/link_to_study", responses=fails(_SENDING), description=_UNCACHED)
    def link(model_run_id: Id, study_id: Id, user: User = site.write) -> Any:
        session = runs.link_to_study(user, model_run_id, study_id)
        return _accepted(session) | {"model_run_id": model_run_id, "study_id": study_id}

    @site.post("/model_run/delete")
    def delete(wanted: _Removal, user: User = site.admin) -> Any:
        run = wanted.record_id
        if runs.registry.find("MODEL_RUN", run) is None:
            raise invalid(f"{run} is not the id of a complete MODEL_RUN.")
        diff = runs.graph.removal(run)
        if not wanted.trial_mode:
            runs.graph.remove(run)
        return {"diff": diff}


def _exploring(site: Api, runs: ModelRuns, path: str, usual: int, query: Explore) -> None:
    unknown = f"The starting item is unknown. More than {lineage.MOST_LINKS} links are refused with 502."

    @site.get(f"/explore/{path}", responses=fails(unknown))
    def explore(starting_id: Id, depth: Whole | None = None, user: User = site.read) -> Any:
        depth = depth or usual
        if depth > _DEEPEST:
            raise invalid(f"The depth {depth} is over the limit of {_DEEPEST}.")
        if runs.registry.get(starting_id) is None:
            raise HTTPException(500, f"The starting item {starting_id} could not be fetched from the registry.")
        try:
            found = lineage.shown(runs.graph, query(runs.graph, starting_id, depth))
        except lineage.TooLargeError:
            return JSONResponse({"message": "Internal server error"}, 502)
        return {
            "status": status(True, f"Explored to a depth of {depth}."),
            "record_count": len(found["nodes"]),
            "graph": found,
        }


def _reporting(site: Api, runs: ModelRuns) -> None:
    @site.post("/explore/generate/report", responses=fails(_SENDING))
    def report(wanted: _Report, user: User = site.read) -> Any:
        return {"session_id": runs.dispatch(user, "GENERATE_REPORT", **wanted.model_dump())}


class _Csv(Response):
    media_type = "text/csv"


def _csv(text: str, name: str) -> Response:
    return _Csv(text, headers={"content-disposition": f'attachment; filename="{name}"'})


async def _csv_file(request: Request) -> bytes:
    """Return the file of a multipart form."""
    kind = request.headers.get("content-type", "").encode()
    body = await request.body()
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + kind + b"\r\n\r\n" + body)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "csv_file":
            content = part.get_payload(decode=True)
            return content if isinstance(content, bytes) else b""
    raise RequestValidationError([{"loc": ("body", "csv_file"), "msg": "", "type": "missing", "input": None}])


_CSV_FORM = {
    "type": "object",
    "properties": {"csv_file": {"type": "string", "format": "binary"}},
    "required": ["csv_file"],
}


def _sheets(site: Api, runs: ModelRuns) -> None:
    twice = "Two columns would have the same name."

    @site.get("/bulk/generate_template/csv", responses=fails(twice), response_class=_Csv)
    def generate(workflow_template_id: Id, user: User = site.read) -> Any:
        return _csv(Sheet(workflow_template_id, runs.fetcher(user)).text([]), "test.csv")

    @site.post(
        "/bulk/convert_model_runs/csv",
        responses={**fails(twice), 422: {"description": "Unprocessable Entity"}},
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _CSV_FORM}}}},
    )
    def read(user: User = site.read, file: bytes = Depends(_csv_file)) -> Any:
        return {"status": status(True, "The file was converted.")} | convert(file, runs.fetcher(user))

    @site.get("/bulk/regenerate_from_batch/csv", responses=fails(f"The batch is unknown. {twice}"), response_class=_Csv)
    def rewrite(batch_id: Id, user: User = site.read) -> Any:
        jobs = runs.jobs.of_batch(batch_id)
        if any(job["username"] != user.username for job in jobs):
            raise denied("A job of the batch belongs to another user.")
        return _csv(regenerate(jobs, runs.fetcher(user)), "model_runs.csv")


def _administration(site: Api, runs: ModelRuns) -> None:
    def store(user: User, records: Iterable[dict[str, Any]], *, validate: bool) -> dict[str, Any]:
        count = 0
        for stored in records:
            count += 1
            if validate:
                check(stored["record"], runs.fetcher(user))
            runs.relodge(stored["id"], stored["record"])
        return {"status": status(True, f"Stored {count} records.")}

    @site.post("/admin/store_record")
    def store_record(stored: _Stored, validate_record: bool = True, user: User = site.admin) -> Any:
        return store(user, [stored.model_dump()], validate=validate_record)

    @site.post("/admin/store_records")
    def store_records(stored: list[_Stored], validate_record: bool = True, user: User = site.admin) -> Any:
        return store(user, [each.model_dump() for each in stored], validate=validate_record)

    @site.post("/admin/store_all_registry_records")
    def store_all(validate_record: bool = True, user: User = site.admin) -> Any:
        rows = runs.registry.store.rows(
            "SELECT id FROM items WHERE item_subtype='MODEL_RUN' AND record_type='COMPLETE_ITEM'"
        )
        items = (runs.registry.known(row["id"]).item for row in rows)
        return store(user, items, validate=validate_record)

    @site.delete("/graph/admin/clear")
    def clear(user: User = site.admin) -> Any:
        runs.graph.clear()
        return {"status": status(True, "The graph is empty.")}
