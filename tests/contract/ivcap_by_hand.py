"""Uses of IVCAP what its official Python client has no method for, or a broken one: by generated calls, or by HTTP.

Runs as `ivcap_official.py` does, and prints as it does. A call that the client cannot make at all is made by the HTTP
client that it holds, and counted by method and path.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from counting import calls
from ivcap_client import IVCAP
from ivcap_client.api.dashboard import dashboard_list
from ivcap_client.api.metadata import metadata_add, metadata_list
from ivcap_client.api.order import order_create, order_list, order_metadata, order_top
from ivcap_client.api.package import package_list
from ivcap_client.api.project import project__create_project, project_delete, project_list, project_read
from ivcap_client.api.queue import queue_create, queue_delete, queue_dequeue, queue_enqueue, queue_list, queue_read
from ivcap_client.api.secret import secret_get, secret_set
from ivcap_client.api.service import (
    service_service_create,
    service_service_delete,
    service_service_read,
    service_service_update,
)
from ivcap_client.api.servicex import servicex_list
from ivcap_client.exception import IvcapApiError
from ivcap_client.models.order_request_t import OrderRequestT
from ivcap_client.models.parameter_def_t import ParameterDefT
from ivcap_client.models.parameter_t import ParameterT
from ivcap_client.models.payload_for_create_endpoint import PayloadForCreateEndpoint
from ivcap_client.models.project_create_request import ProjectCreateRequest
from ivcap_client.models.service_definition_t import ServiceDefinitionT
from ivcap_client.models.set_secret_request_t import SetSecretRequestT
from official_calls import Json, count_calls, finished, plain, raw, seen

HELD = "urn:contract:schema:held.1"


def by_http(iv: IVCAP, method: str, path: str, shown: str, **more: Any) -> Any:
    """A reply of the HTTP client that the official client holds; `shown` is the path by which it is counted."""
    calls[f"{method} {shown}"] += 1
    return iv._client.get_httpx_client().request(method, path, **more)


def refused(call: Any) -> int:
    """The status with which a call is refused."""
    try:
        call()
    except IvcapApiError as error:
        return int(error.status_code)
    raise AssertionError("it is not refused")


def services(iv: IVCAP) -> Json:
    urn = f"urn:ivcap:service:{uuid.uuid4()}"
    definition = ServiceDefinitionT(
        id=urn,
        name=f"by-hand-{urn[-6:]}",
        description="First.",
        parameters=[ParameterDefT(name="depth", description="In metres.", type_="float", unit="m", options=[])],
        policy="urn:ivcap:policy:ivcap.base.service",
        controller_schema="urn:ivcap:schema.service.batch.1",
        controller={"$schema": "urn:ivcap:schema.service.batch.1", "image": "x", "command": ["true"]},
        tags=["by hand"],
    )
    made = raw(service_service_create, client=iv._client, body=definition)
    twice = refused(lambda: raw(service_service_create, client=iv._client, body=definition))
    definition.description = "Second."
    raw(service_service_update, urn, client=iv._client, body=definition)
    read = raw(service_service_read, urn, client=iv._client)
    fields = seen(iv.get_service(urn).refresh())
    gone = f"urn:ivcap:service:{uuid.uuid4()}"
    definition.id = gone
    unknown = refused(lambda: raw(service_service_update, gone, client=iv._client, body=definition))
    raw(service_service_update, gone, client=iv._client, body=definition, force_create=True)
    raw(service_service_delete, gone, client=iv._client)
    legacy = raw(servicex_list, client=iv._client, limit=5)
    return {
        "made": made,
        "twice": twice,
        "read": read,
        "fields": fields,
        "unknown": unknown,
        "gone": gone,
        "legacy": len(legacy.items),
    }


def placed(iv: IVCAP, service: str, **values: str) -> str:
    request = OrderRequestT(
        parameters=[ParameterT(name=name, value=value) for name, value in values.items()],
        service=iv.get_service_by_name(service).id,
        name=f"{service} by hand",
    )
    return str(raw(order_create, client=iv._client, body=request).id)


def orders(iv: IVCAP) -> Json:
    urn = placed(iv, "sleep", seconds="2")
    top: list[Any] = []
    end = time.monotonic() + 20
    while not top and time.monotonic() < end:
        top = raw(order_top, urn, client=iv._client)
        time.sleep(0.05)
    order = iv.get_order(urn)
    status = finished(order)
    order.add_metadata({"$schema": HELD, "by": "hand"})
    talkative = placed(iv, "contract-survey", title="words", **{"sea-level": "1", "count": "1"})
    finished(iv.get_order(talkative))
    logs = by_http(iv, "GET", f"/1/orders/{talkative}/logs", "/1/orders/{id}/logs").text
    return {
        "urn": urn,
        "status": status,
        "top": top,
        "metadata": raw(order_metadata, urn, client=iv._client, limit=50).items,
        "held": [each.content for each in iv.list_aspects(entity=urn, schema=HELD)],
        "talkative": talkative,
        "logs": logs,
        "listed": [each.id for each in raw(order_list, client=iv._client, limit=2, order_by="ordered-at").items],
    }


def jobs(iv: IVCAP) -> Json:
    echo = iv.get_service_by_name("echo")
    job = echo.request_job(echo.request_model(message="by hand"))
    finished(job)
    path, shown = f"/1/services2/{echo.id}/jobs/{job.id}", "/1/services2/{service}/jobs/{id}"
    output = by_http(iv, "GET", f"{path}/output", f"{shown}/output")
    events = by_http(iv, "GET", f"{path}/events", f"{shown}/events", params={"max-wait-time": 5})
    [asked] = iv.list_aspects(entity=job.id, schema="urn:ivcap:schema:job.2")
    with_aspect = iv.add_aspect(job.id, {"$schema": HELD, "message": "from an aspect"})
    indirect = by_http(
        iv,
        "POST",
        f"/1/services2/{echo.id}/jobs",
        "/1/services2/{service}/jobs",
        headers={"Timeout": "20"},
        json={
            "$schema": "urn:ivcap:schema:job.input.1",
            "request-aspect": with_aspect.id,
            "service": echo.id,
        },
    )
    return {
        "id": job.id,
        "service": echo.id,
        "output": [output.headers["content-type"], output.text],
        "events": events.text,
        "service_of": asked.content["service-id"],
        "indirect": indirect.json(),
    }


def agents(iv: IVCAP) -> Json:
    agent = iv.get_agent(iv.get_service_by_name("echo").id)
    done = agent.exec_agent(agent.request_model(message="agent"), timeout=20)
    return {"id": done.id, "result": done.result, "finished": done.finished}


def secrets(iv: IVCAP) -> Json:
    names = sorted(f"by-hand-{uuid.uuid4().hex}" for _ in range(12))
    for name in names:
        body = SetSecretRequestT(secret_name=name, secret_value=f"value of {name}", expiry_time=0)
        raw(secret_set, client=iv._client, body=body)
    first = raw(secret_get, client=iv._client, secret_name=names[0])
    return {
        "names": names,
        "first": first,
        "listed": [seen_name(each) for each in iv.list_secrets(limit=50)],
        "missing": refused(lambda: raw(secret_get, client=iv._client, secret_name="no-such-secret")),
    }


def seen_name(secret: Any) -> str:
    """The name of a secret as listed; the class fills nothing else."""
    return str(secret.secret_name)


def search(iv: IVCAP) -> Json:
    schema = f"urn:contract:schema:found-{uuid.uuid4()}.1"
    for kind, depth in (("buoy", 10), ("mooring", 200)):
        iv.add_aspect(f"urn:contract:place:{depth}", {"$schema": schema, "kind": kind, "depth": depth})
    program = (
        f'# buoys\n:load_aspect(/place, "{schema}", ["entity", ".kind", ".depth"]).\nquery(E) :- place(E, "buoy", D).'
    )
    found = iv.search(program)
    return {"program": program, "items": found.items}


def queues(iv: IVCAP) -> Json:
    name = f"by-hand-{uuid.uuid4().hex}"
    policy = "urn:ivcap:policy:ivcap.base.queue"
    made = raw(
        queue_create, client=iv._client, body=PayloadForCreateEndpoint(name=name, description="d", policy=policy)
    )
    body = PayloadForCreateEndpoint(name=name, description="d", policy=policy)
    twice = refused(lambda: raw(queue_create, client=iv._client, body=body))
    for n in range(3):
        raw(queue_enqueue, made.id, client=iv._client, body={"n": n}, schema=HELD, content_type="application/json")
    read = raw(queue_read, made.id, client=iv._client)
    taken = raw(queue_dequeue, made.id, client=iv._client, limit=2).messages
    listed = [each.id for each in raw(queue_list, client=iv._client, limit=50).items]
    other = raw(queue_create, client=iv._client, body=PayloadForCreateEndpoint(name=f"{name}-x", policy=policy))
    raw(queue_delete, other.id, client=iv._client)
    return {
        "id": made.id,
        "name": name,
        "twice": twice,
        "read": read,
        "taken": taken,
        "listed": listed,
        "gone": refused(lambda: raw(queue_read, other.id, client=iv._client)),
    }


def projects(iv: IVCAP) -> Json:
    made = raw(project__create_project, client=iv._client, body=ProjectCreateRequest(name="By hand"))
    read = raw(project_read, made.urn, client=iv._client)
    listed = [each.urn for each in raw(project_list, client=iv._client, limit=50).projects]
    gone = raw(project__create_project, client=iv._client, body=ProjectCreateRequest(name="To go"))
    raw(project_delete, gone.urn, client=iv._client)
    return {
        "urn": made.urn,
        "read": read,
        "listed": listed,
        "packages": raw(package_list, client=iv._client).items,
        "dashboards": raw(dashboard_list, client=iv._client).items,
    }


def metadata(iv: IVCAP) -> Json:
    """The older names of aspects."""
    entity = f"urn:contract:entity:{uuid.uuid4()}"
    raw(metadata_add, client=iv._client, body={"n": 1}, entity_id=entity, schema=HELD, content_type="application/json")
    listed = raw(metadata_list, client=iv._client, entity_id=entity).items
    return {"entity": entity, "listed": listed, "aspects": [each.content for each in iv.list_aspects(entity=entity)]}


def artifacts(iv: IVCAP, folder: Path) -> Json:
    """A data URL that stands for an artifact; and part of one's bytes."""
    inline = iv.get_artifact("data:text/plain;base64,aW5saW5l")
    source = folder / "upload.bin"
    whole = iv.upload_artifact(name="ranged", file_path=str(source), force_upload=True)
    reply = by_http(
        iv,
        "GET",
        f"/1/artifacts/{whole.id}/blob",
        "/1/artifacts/{id}/blob",
        headers={"Range": "bytes=10-19"},
    )
    return {
        "inline": inline.open().read().decode(),
        "url": inline.as_data_url(),
        "id": whole.id,
        "status": str(getattr(whole.status, "value", whole.status)),
        "range": [reply.status_code, reply.content.hex()],
        "when": datetime.now(timezone.utc),
    }


def main(folder: Path) -> int:
    count_calls()
    iv = IVCAP()
    read = {
        "services": services(iv),
        "orders": orders(iv),
        "jobs": jobs(iv),
        "agents": agents(iv),
        "secrets": secrets(iv),
        "search": search(iv),
        "queues": queues(iv),
        "projects": projects(iv),
        "metadata": metadata(iv),
        "artifacts": artifacts(iv, folder),
    }
    print(json.dumps({"calls": calls, **read}, default=plain))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
