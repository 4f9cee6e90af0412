"""Uses IVCAP as its official Python client does: every noun of it, through the client's own methods.

Runs in an environment of its own with `ivcap-client` installed and this project not. The platform is named by IVCAP_URL
and IVCAP_JWT, the folder with `upload.bin` and `empty.bin` by the argument. Prints one JSON line: in `calls` how often
each method of the client was called, and for each noun what was read. What has no method is read by the client's raw
generated calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import sys
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from counting import calls
from ivcap_client import IVCAP
from ivcap_client.api.aspect import aspect_read
from ivcap_client.api.order import order_create, order_products, order_read
from ivcap_client.api.secret import secret_set
from ivcap_client.api.service import service_job_list, service_job_read, service_service_read
from ivcap_client.artifact import Artifact, TarMember
from ivcap_client.exception import IvcapApiError, NotAuthorizedException, ResourceNotFound
from ivcap_client.job import Job
from ivcap_client.models.order_request_t import OrderRequestT
from ivcap_client.models.parameter_t import ParameterT
from ivcap_client.models.set_secret_request_t import SetSecretRequestT
from official_calls import Json, count_calls, finished, plain, raw, seen

IN_COLLECTION = "urn:ivcap:schema:artifact-in-collection.1"
"""What the platform says of an artifact that is uploaded into a collection."""


def services(iv: IVCAP) -> Json:
    listed = list(iv.list_services(limit=50))
    survey = iv.get_service_by_name("contract-survey")
    by_id = iv.get_service(survey.id)
    parameters = by_id.parameters
    model = iv.get_service_by_name("contract-note").request_model
    [tool] = iv.list_aspects(entity=survey.id, schema="urn:sd-core:schema.ai-tool.1")
    try:
        iv.get_service_by_name("no-such-service")
    except ResourceNotFound:
        unknown = "ResourceNotFound"
    with contextlib.redirect_stdout(sys.stderr):  # the check of an option prints
        for name, value in (("kind", "xbt"), ("sea_level", 1.5), ("count", 3), ("source", "urn:ivcap:artifact:1")):
            parameters[name].verify(value)
    return {
        "listed": [seen(each) for each in listed],
        "newest": [each.id for each in iv.list_services(limit=2, order_by="name", order_desc=True)],
        "survey": seen(by_id),
        "status": by_id.status(),
        "raw": raw(service_service_read, survey.id, client=iv._client),
        "parameters": {name: vars(each) for name, each in parameters.items()},
        "mandatory": sorted(by_id.mandatory_parameters),
        "model": {name: None if field.is_required() else [field.default] for name, field in model.model_fields.items()},
        "tool": tool.content,
        "unknown": unknown,
    }


def told(iv: IVCAP, job: Job) -> Json:
    """All that the platform says of a job, by the generated call, as `Job` hides its error, order and products."""
    found: Json = raw(
        service_job_read, job.service, job.id, client=iv._client, with_request_content=True, with_result_content=True
    ).to_dict()
    return found


def jobs(iv: IVCAP) -> Json:
    echo, sleep, fail = (iv.get_service_by_name(name) for name in ("echo", "sleep", "fail"))
    read: Json = {}

    deferred = echo.request_job(echo.request_model(message="later"))
    status = finished(deferred)
    read["deferred"] = {
        "status": status,
        "result": deferred.result,
        "fields": seen(deferred),
        "raw": told(iv, deferred),
    }

    direct = echo.request_job(io.StringIO('{"message": "now"}'), timeout=20)
    # The reply was the result itself: the client knows nothing else of the job before it reads it.
    read["direct"] = {"result": direct.result, "fields": seen(direct), "raw": told(iv, direct)}

    slow = sleep.request_job(sleep.request_model(seconds=1.5), timeout=1)
    early = slow._status
    read["slow"] = {"early": early, "status": finished(slow), "result": slow.result, "raw": told(iv, slow)}

    failing = fail.request_job(fail.request_model(message="no luck"))
    read["failing"] = {"status": finished(failing), "succeeded": failing.succeeded, "raw": told(iv, failing)}

    try:
        fail.request_job(fail.request_model(message="no luck now"), timeout=20)
    except IvcapApiError as error:
        read["refused"] = {"status": error.status_code, "content": error.content.decode()}

    note = iv.get_service_by_name("contract-note")
    noted = note.request_job(note.request_model(text="x"))
    read["note"] = {"status": finished(noted), "result": noted.result, "raw": told(iv, noted)}

    # The client makes no model of a field with choices, so this request is written by hand.
    survey = iv.get_service_by_name("contract-survey")
    request = {"title": "north", "sea-level": 2.5, "count": 2, "kind": "xbt"}
    done = survey.request_job(io.StringIO(json.dumps(request)))
    read["survey"] = {"status": finished(done), "result": done.result, "raw": told(iv, done)}

    awaited = asyncio.run(wait(iv, echo.id))
    read["awaited"] = {"succeeded": awaited.succeeded, "result": awaited.result, "raw": told(iv, awaited)}

    listed = raw(service_job_list, echo.id, client=iv._client, limit=50)
    read["listed"] = [each.to_dict() for each in listed.items]
    return read


async def wait(iv: IVCAP, service: str) -> Job:
    echo = iv.get_service(service)
    model = await echo.request_model_async()
    return await echo.request_job_async(model(message="awaited"), poll_interval=0.05)


def artifacts(iv: IVCAP, folder: Path) -> Json:
    source = folder / "upload.bin"
    content = {"content_type": "application/x-test"}
    whole = iv.upload_artifact(name="Niño whole", file_path=str(source), **content)
    again = iv.upload_artifact(name="Niño whole", file_path=str(source), **content)
    known = iv.artifact_for_file(str(source))
    chunked = iv.upload_artifact(
        name="chunked", file_path=str(source), chunk_size=64 * 1024, force_upload=True, **content
    )
    stream = iv.upload_artifact(
        name="stream",
        io_stream=io.BytesIO(b"a,b\n1,2\n"),
        content_type="text/csv",
        content_size=8,
        policy="urn:ivcap:policy:ivcap.open.artifact",
    )
    empty = iv.upload_artifact(name="empty", file_path=str(folder / "empty.bin"), **content)
    members = [TarMember.from_file(str(source)), TarMember.from_bytes(b"x", "note.txt")]
    tar = iv.upload_tar_artifact(members, name="both.tar.gz")
    tar.untar(folder / "untarred")
    files = {"whole": whole, "chunked": chunked, "stream": stream, "empty": empty, "tar": tar}

    whole.as_local_file(folder / "whole.bin")
    with chunked.open() as file:
        (folder / "chunked.bin").write_bytes(file.read())
    listed = {each.id: seen(each) for each in iv.list_artifacts(limit=50)}
    whole.add_metadata({"$schema": "urn:contract:schema:note.1", "text": "of the whole"})
    try:
        iv.get_artifact(f"urn:ivcap:artifact:{uuid.uuid4()}")
    except IvcapApiError as error:
        missing = error.status_code
    return {
        "read": {name: seen(iv.get_artifact(each.id)) for name, each in files.items()},
        "again": [again.id, known.id],
        "url": stream.as_data_url(),
        "streamed": len(b"".join(chunked.as_stream(chunk_size=1000))),
        "listed": listed,
        "sha256": {urn: hashlib.sha256(iv.get_artifact(urn).open().read()).hexdigest() for urn in listed},
        "first": [each.id for each in iv.list_artifacts(limit=2, order_by="name")],
        "filtered": [each.id for each in iv.list_artifacts(filter="name ~= 'chunk%'")],
        "metadata": [each.content for each in whole.metadata if each.schema == "urn:contract:schema:note.1"],
        "missing": missing,
    }


def small(iv: IVCAP, name: str, **more: Any) -> Artifact:
    """An artifact of one byte."""
    return iv.upload_artifact(name=name, io_stream=io.BytesIO(b"x"), content_type="x/y", content_size=1, **more)


def orders(iv: IVCAP) -> Json:
    survey = iv.get_service_by_name("contract-survey")
    values = {"title": "south", "sea-level": "0.5", "count": "2"}
    request = OrderRequestT(
        parameters=[ParameterT(name=name, value=value) for name, value in values.items()],
        service=survey.id,
        name="an order",
        tags=["contract"],
    )
    placed = raw(order_create, client=iv._client, body=request)
    order = iv.get_order(placed.id)
    status = finished(order)
    return {
        "placed": placed,
        "status": status,
        "fields": seen(order),
        "parameters": {name: each.value for name, each in order.parameters.items()},
        "raw": raw(order_read, placed.id, client=iv._client),
        "products": raw(order_products, placed.id, client=iv._client).items,
        "listed": [seen(each) for each in iv.list_orders(limit=50)],
    }


def aspects(iv: IVCAP) -> Json:
    entity, schema = f"urn:contract:entity:{uuid.uuid4()}", "urn:contract:schema:reading.1"
    first = iv.add_aspect(entity, {"$schema": schema, "n": 1, "deep": {"list": [1, {"é": None}]}})
    before = now()
    second = iv.update_aspect(entity, {"n": 2}, schema=schema)
    between = now()
    third = iv.add_aspect(entity, {"n": 3}, schema=schema, policy="urn:ivcap:policy:ivcap.open.metadata")
    with_all = now()
    third.retract()

    def at(moment: datetime | None) -> list[str]:
        more = {} if moment is None else {"at_time": moment}
        return [each.id for each in iv.list_aspects(entity=entity, schema=schema, **more)]

    many = f"{entity}:many"
    for n in range(55):
        iv.add_aspect(many, {"n": n}, schema=schema)
    moments = {"before": before, "between": between, "with_all": with_all, "now": None}
    return {
        "entity": entity,
        "read": [raw(aspect_read, each.id, client=iv._client) for each in (first, second, third)],
        "fields": [seen(each.refresh()) for each in (first, second, third)],
        "contents": [each.content for each in (first, second, third)],
        "moments": moments,
        "at": {name: at(moment) for name, moment in moments.items()},
        "listed": [seen(each) | {"content": each.content} for each in iv.list_aspects(entity=entity)],
        "wildcard": [each.id for each in iv.list_aspects(entity=entity, schema="urn:contract:schema:read%")],
        "matching": [each.content["n"] for each in iv.list_aspects(entity=many, content_path="$.n ? (@ >= 53)")],
        "many": [each.content["n"] for each in iv.list_aspects(entity=many, limit=55)],
        "oldest": [each.content["n"] for each in iv.list_aspects(entity=many, order_direction="ASC", limit=52)],
    }


def now() -> datetime:
    """A time that is after all that was done and before all that comes: the platform counts milliseconds."""
    time.sleep(0.01)
    moment = datetime.now(timezone.utc)
    time.sleep(0.01)
    return moment


def collections(iv: IVCAP) -> Json:
    urn = f"urn:ivcap:collection:{uuid.uuid4()}"
    items = [f"urn:contract:item:{n}" for n in range(3)]
    made = iv.create_collection(urn, "Ocean survey", description="First")
    added = [iv.add_to_collection(urn, item) is not None for item in [*items, items[0]]]
    file = small(iv, "in it", collection=urn)
    before = now()
    iv.create_collection(urn, "Ocean survey, second")
    removed = [iv.remove_from_collection(urn, items[1]), made.remove_item(items[1])]
    kept = {
        "urn": urn,
        "file": file.id,
        "of_file": [each.content for each in file.metadata if each.schema == IN_COLLECTION],
        "added": added,
        "removed": removed,
        "name": iv.get_collection(urn).name,
        "name_before": iv.get_collection(urn, at_time=before).name,
        "found": [
            [each.urn for each in iv.list_collections(name_filter=name, limit=50)]
            for name in ('starts with "Ocean"', 'like_regex ".*ocean.*" flag "i"')
        ],
        "items": [(each.id, each.item) for each in made.items(limit=50)],
        "items_before": [each.item for each in made.items(limit=50, at_time=before)],
    }
    gone = f"{urn}:gone"
    iv.create_collection(gone, "To be retracted").add_item(items[0])
    kept["retracted"] = iv.retract_collection(gone)
    try:
        iv.get_collection(gone)
    except ResourceNotFound:
        kept["gone"] = gone
    return kept


def accounts(iv: IVCAP) -> Json:
    """Who is let in, and what the second account sees of the first one's things."""
    url = os.environ["IVCAP_URL"]
    other = IVCAP(url=url, token=os.environ["IVCAP_JWT_2"])
    mine, theirs = small(iv, "mine"), small(other, "theirs")
    read: Json = {"mine": iv.get_artifact(mine.id).account, "theirs": other.get_artifact(theirs.id).account}
    try:
        other.get_artifact(mine.id)
    except IvcapApiError as error:
        read["foreign"] = error.status_code
    try:
        IVCAP(url=url, token=os.environ["IVCAP_JWT_EXPIRED"]).list_services()
    except NotAuthorizedException as error:
        read["expired"] = error.status_code
    read["slash"] = IVCAP(url=f"{url}/").get_service_by_name("echo").name
    return read


def others(iv: IVCAP) -> Json:
    """An agent, a search, the secrets, and an artifact that is its own data URL."""
    agent = iv.get_agent(iv.get_service_by_name("echo").id)
    schema = f"urn:contract:schema:found-{uuid.uuid4()}.1"
    for kind, depth in (("buoy", 10), ("mooring", 200)):
        iv.add_aspect(f"urn:contract:place:{depth}", {"$schema": schema, "kind": kind, "depth": depth})
    program = f':load_aspect(/place, "{schema}", ["entity", ".kind"]).\nquery(E) :- place(E, "buoy").'
    names = sorted(f"official-{uuid.uuid4().hex}" for _ in range(12))
    for name in names:
        body = SetSecretRequestT(secret_name=name, secret_value="v", expiry_time=0)
        raw(secret_set, client=iv._client, body=body)
    return {
        "agent": agent.exec_agent(agent.request_model(message="agent"), timeout=20).result,
        "program": program,
        "found": iv.search(program).items,
        "secrets": names,
        "listed": [each.secret_name for each in iv.list_secrets(limit=50)],
        "inline": iv.get_artifact("data:text/plain;base64,aW5saW5l").open().read().decode(),
    }


def main(folder: Path) -> int:
    count_calls()
    iv = IVCAP()
    read = {
        "services": services(iv),
        "jobs": jobs(iv),
        "artifacts": artifacts(iv, folder),
        "orders": orders(iv),
        "aspects": aspects(iv),
        "collections": collections(iv),
        "accounts": accounts(iv),
        "others": others(iv),
    }
    print(json.dumps({"calls": calls, **read}, default=plain))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
