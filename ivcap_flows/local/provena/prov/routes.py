"""The prov-api over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from starlette.responses import JSONResponse, Response

from ivcap_flows.local.provena.jobs.state import MESSAGE_LIMIT
from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.prov import graph as lineage
from ivcap_flows.local.provena.prov.document import Relation
from ivcap_flows.local.provena.prov.record import RECORD, check
from ivcap_flows.local.provena.prov.sheet import Sheet, convert, regenerate
from ivcap_flows.local.provena.prov.state import ModelRuns
from ivcap_flows.local.provena.registry.kinds import ANY_SUBTYPE
from ivcap_flows.local.provena.shape import FLAG, ID, TEXT, WHOLE, Many, Object, Whole, given, maybe, needed
from ivcap_flows.local.provena.web import Api, Desk, Refusal, invalid, status

__all__ = ["api"]

_DEEPEST = 10
_SENDING = f"The token has no email address, or the message has {MESSAGE_LIMIT} bytes or more."
_START = Object({"starting_id": needed(ID), "depth": maybe(WHOLE)})
_WORKFLOW = Object({"workflow_template_id": needed(ID)})
_BATCH = Object({"batch_id": needed(ID)})
_STORED = Object({"id": needed(ID), "record": needed(RECORD)})
_VALIDATE = Object({"validate_record": given(FLAG, True)})

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
    _exploring(site, runs)
    _sheets(site, runs)
    _administration(site, runs)
    return site


def _lodging(site: Api, runs: ModelRuns) -> None:
    def accepted(session: str) -> dict[str, Any]:
        return {"status": status(True, "The job was dispatched."), "session_id": session}

    def register(call: Call) -> dict[str, Any]:
        return accepted(runs.register(call.user, call.body))

    def register_batch(call: Call) -> dict[str, Any]:
        return accepted(runs.register_batch(call.user, call.body["records"]))

    def register_sync(call: Call) -> dict[str, Any]:
        check(call.body, runs.fetcher(call.user))
        info = runs.lodge(call.user.username, call.body)
        return {"status": status(True, "The model run was lodged."), "record_info": info}

    def update(call: Call) -> dict[str, Any]:
        said = call.body
        return {"session_id": runs.update(call.user, said["model_run_id"], said["reason"], said["record"])}

    def link(call: Call) -> dict[str, Any]:
        ids = {name: call.query[name] for name in ("model_run_id", "study_id")}
        return accepted(runs.link_to_study(call.user, *ids.values())) | ids

    def delete(call: Call) -> dict[str, Any]:
        run = call.body["record_id"]
        if runs.registry.find("MODEL_RUN", run) is None:
            raise invalid(f"{run} is not the id of a complete MODEL_RUN.")
        diff = runs.graph.removal(run)
        if not call.body["trial_mode"]:
            runs.graph.remove(run)
        return {"diff": diff}

    change = Object({"model_run_id": needed(ID), "reason": needed(TEXT), "record": needed(RECORD)})
    removal = Object({"record_id": needed(ID), "trial_mode": given(FLAG, False)})
    both = Object({"model_run_id": needed(ID), "study_id": needed(ID)})
    cached = "Validation reads every item again; nothing is cached for 60 seconds."
    lodges: dict[str, Any] = {"gives": ("status", "session_id"), "fails": _SENDING, "missing": cached}
    site.post("/model_run/register", "write", register, RECORD, **lodges)
    records = Object({"records": needed(Many(RECORD))})
    site.post("/model_run/register_batch", "write", register_batch, records, **lodges | {"missing": ""})
    site.post("/model_run/register_sync", "admin", register_sync, RECORD, hidden=True)
    site.post("/model_run/update", "write", update, change, **lodges | {"gives": ("session_id",)})
    site.post("/model_run/edit/link_to_study", "write", link, query=both, **lodges)
    site.post("/model_run/delete", "admin", delete, removal, hidden=True)


def _exploring(site: Api, runs: ModelRuns) -> None:
    def explore(query: Explore, usual: int) -> Callable[[Call], dict[str, Any] | Response]:
        def handler(call: Call) -> dict[str, Any] | Response:
            start, depth = call.query["starting_id"], call.query["depth"] or usual
            if depth > _DEEPEST:
                raise invalid(f"The depth {depth} is over the limit of {_DEEPEST}.")
            if runs.registry.get(start) is None:
                raise Refusal(500, f"The starting item {start} could not be fetched from the registry.")
            try:
                found = lineage.shown(runs.graph, query(runs.graph, start, depth))
            except lineage.TooLargeError:
                return JSONResponse({"message": "Internal server error"}, 502)
            return {
                "status": status(True, f"Explored to a depth of {depth}."),
                "record_count": len(found["nodes"]),
                "graph": found,
            }

        return handler

    def report(call: Call) -> dict[str, Any]:
        return {"session_id": runs.dispatch(call.user, "GENERATE_REPORT", **call.body)}

    gives, unknown = (
        ("status", "record_count", "graph"),
        f"The starting item is unknown. More than {lineage.MOST_LINKS} links are refused with 502.",
    )
    for path, (usual, query) in _QUERIES.items():
        site.get(f"/explore/{path}", "read", explore(query, usual), _START, gives=gives, fails=unknown)
    wanted = Object({"id": needed(ID), "item_subtype": needed(ANY_SUBTYPE), "depth": needed(Whole(1, 3))})
    site.post("/explore/generate/report", "read", report, wanted, gives=("session_id",), fails=_SENDING)


def _sheets(site: Api, runs: ModelRuns) -> None:
    def generate(call: Call) -> Response:
        return _csv(Sheet(call.query["workflow_template_id"], runs.fetcher(call.user)).text([]), "test.csv")

    def read(call: Call) -> dict[str, Any]:
        found = convert(_upload(call, "csv_file"), runs.fetcher(call.user))
        return {"status": status(True, "The file was converted.")} | found

    def rewrite(call: Call) -> Response:
        jobs = runs.jobs.of_batch(call.query["batch_id"])
        if any(job["username"] != call.user.username for job in jobs):
            raise Refusal(401, "A job of the batch belongs to another user.")
        return _csv(regenerate(jobs, runs.fetcher(call.user)), "model_runs.csv")

    twice = "Two columns would have the same name."
    site.get("/bulk/generate_template/csv", "read", generate, _WORKFLOW, gives="text/csv", fails=twice)
    converted = ("status", "new_records", "existing_records", "warnings")
    site.post("/bulk/convert_model_runs/csv", "read", read, upload="csv_file", gives=converted, fails=twice)
    unknown = f"The batch is unknown. {twice}"
    site.get("/bulk/regenerate_from_batch/csv", "read", rewrite, _BATCH, gives="text/csv", fails=unknown)


def _administration(site: Api, runs: ModelRuns) -> None:
    def store(call: Call, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        count = 0
        for stored in records:
            count += 1
            if call.query.get("validate_record", True):
                check(stored["record"], runs.fetcher(call.user))
            runs.relodge(stored["id"], stored["record"])
        return {"status": status(True, f"Stored {count} records.")}

    def store_all(call: Call) -> dict[str, Any]:
        rows = runs.registry.store.rows(
            "SELECT id FROM items WHERE item_subtype='MODEL_RUN' AND record_type='COMPLETE_ITEM'"
        )
        return store(call, (runs.registry.known(row["id"]).item for row in rows))

    def clear(call: Call) -> dict[str, Any]:
        runs.graph.clear()
        return {"status": status(True, "The graph is empty.")}

    site.post("/admin/store_record", "admin", lambda call: store(call, [call.body]), _STORED, query=_VALIDATE)
    site.post("/admin/store_records", "admin", lambda call: store(call, call.body), Many(_STORED), query=_VALIDATE)
    site.post("/admin/store_all_registry_records", "admin", store_all, query=_VALIDATE)
    site.on("DELETE", "/graph/admin/clear", "admin", clear, hidden=True)


def _csv(text: str, name: str) -> Response:
    return Response(text, media_type="text/csv", headers={"content-disposition": f'attachment; filename="{name}"'})


def _upload(call: Call, name: str) -> bytes:
    """Return a file of a multipart form."""
    kind = call.request.headers.get("content-type", "").encode()
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + kind + b"\r\n\r\n" + call.raw)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == name:
            content = part.get_payload(decode=True)
            return content if isinstance(content, bytes) else b""
    missing = {"loc": ["body", name], "msg": "field required", "type": "value_error.missing"}
    raise Refusal(422, [missing])
