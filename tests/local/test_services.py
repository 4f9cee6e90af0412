"""Services: parameters of orders, products, events, logs, functions and commands."""

import json

import pytest

from ivcap_flows.errors import InputError, NotAuthorizedError, PlatformError, UnreachableError
from ivcap_flows.local.services.register import read_definition, register

TOOL = "urn:sd-core:schema.ai-tool.1"
PARAMETERS = [
    {"name": "n", "type": "int", "description": "a number"},
    {"name": "ratio", "type": "float", "default": "0.5", "optional": True},
    {"name": "flag", "type": "bool", "optional": True},
    {"name": "mode", "type": "option", "options": [{"value": "a"}, {"value": "b"}], "default": "a"},
    {"name": "series", "type": "artifact", "optional": True},
]


def test_a_function_sees_values_of_the_declared_types(first, register_service):
    """An order's strings become int, float or bool, and defaults are filled in. Optional parameters may be absent.

    One 422 names all unknown, missing and mistyped parameters, and records no order.
    """
    service = register_service("shows", *PARAMETERS)
    artifact = first.upload(b"in")["id"]
    order = first.finished(first.order(service, n="7", flag="true", mode="b", series=artifact))
    assert order["status"] == "succeeded", first.job_of(order)
    seen = {"n": 7, "ratio": 0.5, "flag": True, "mode": "b", "series": artifact}
    assert first.job_of(order)["result-content"] == seen
    (used,) = first.aspects(entity=artifact, schema="urn:ivcap:schema:artifact-usedBy-order.1")
    (uses,) = first.aspects(entity=order["id"], schema="urn:ivcap:schema:order-uses-artifact.1")
    assert used["content"] == uses["content"] == {"order": order["id"], "artifact": artifact}
    newest = [item["id"] for item in first.get("/1/orders", params={"limit": 1})["items"]]
    message = first.order(service, 422, ratio="much", colour="red", flag="maybe", mode="c")["message"]
    for word in (
        "ratio must be of type float",
        "colour",
        "flag must be of type bool",
        "mode must be one of",
        "n is missing",
    ):
        assert word in message
    assert first.call("POST", "/1/orders", 422, json={"parameters": []}).json()["name"] == "service"
    assert [item["id"] for item in first.get("/1/orders", params={"limit": 1})["items"]] == newest


def test_a_job_of_its_own_tells_what_it_uses_as_an_order_does(first, register_service):
    service, artifact = register_service("shows", *PARAMETERS), first.upload(b"of a job")["id"]
    job = first.call("POST", f"/1/services2/{service}/jobs", 202, json={"n": 7, "series": artifact}).json()
    order = first.get(f"/1/services2/{service}/jobs/{job['job-id']}")["order"]
    for entity, schema in ((artifact, "artifact-usedBy-order.1"), (order, "order-uses-artifact.1")):
        (told,) = first.aspects(entity=entity, schema=f"urn:ivcap:schema:{schema}")
        assert told["content"] == {"order": order, "artifact": artifact}


def test_what_a_user_states_about_a_job_holds_up_no_job(first):
    """Although it is in the platform's own words."""
    order = first.order("sleep", seconds="2")
    job = first.job_of(order)
    first.add(job["id"], {"id": job["id"], "status": "mine"}, schema="urn:ivcap:schema:job.2")
    assert first.finished(first.order("echo", message="beside"))["status"] == "succeeded"
    assert first.finished(order)["status"] == "succeeded"


def test_products_come_from_the_service_with_their_bytes(first, register_service):
    """Products are listed on order and job, can be read as artifacts, and aspects link them to their order."""
    order = first.finished(first.order(register_service("produces", {"name": "text", "type": "string"}), text="bytes"))
    names = {product["name"]: product for product in order["products"]["items"]}
    assert set(names) == {"one.txt", "empty.bin"} and names["one.txt"]["mime-type"] == "text/plain"
    one = names["one.txt"]["id"]
    assert first.bytes_of(one) == b"bytes" and first.bytes_of(names["empty.bin"]["id"]) == b""
    job = first.job_of(order)
    assert job["result-content"] == {"one": one, "again": "bytes"}
    assert [p["id"] for p in job["products"]["items"]] == [p["id"] for p in order["products"]["items"]]
    (made,) = first.aspects(entity=one, schema="urn:ivcap:schema:artifact-producedBy-order.1")
    assert made["content"]["order"] == order["id"]
    assert "said by the service" in first.log_of(order)


def test_more_products_than_a_page_holds_are_all_found(first, register_service):
    """The record has the first page, and `next` leads to the rest, each product once."""
    order = first.finished(first.order(register_service("many", {"name": "count", "type": "int"}), count="23"))
    found, page = [], order["products"]
    while True:
        found += [item["name"] for item in page["items"]]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        page = first.call("GET", following[0].removeprefix(first.url)).json()
    assert sorted(found) == sorted(f"p{n}" for n in range(23))


def test_a_failing_function_is_failed_with_its_reason(first, register_service):
    """The exception is the error message, and its traceback is in the log. The same holds for a missing module."""
    order = first.finished(first.order(register_service("breaks")))
    assert order["status"] == "failed" and first.job_of(order)["error-message"] == "ValueError: it broke"
    assert "Traceback" in first.log_of(order)
    order = first.finished(first.order(register_service("absent", module="no_such_module")))
    assert "no_such_module" in first.job_of(order)["error-message"]


def test_results_that_are_no_json_keep_their_type(first, register_service):
    """Text and bytes are a URN in the record, and the output returns them unchanged."""
    for name, kind, content in (("text", "text/plain", b"plain"), ("raw", "application/octet-stream", b"\x00\xff")):
        order = first.finished(first.order(register_service(name)))
        job = first.job_of(order)
        assert job["result-content-type"].startswith(kind) and "result-content" not in job
        assert first.bytes_of(job["result-content-urn"]) == content
        output = first.call("GET", f"/1/services2/{order['service']}/jobs/{job['id']}/output")
        assert output.content == content and output.headers["Content-Type"].startswith(kind)
        assert output.headers["IVCAP-Job-Id"] == job["id"]
        assert order["products"]["items"] == []


def test_a_result_with_an_id_is_kept_on_that_entity(first, register_service):
    """`$schema` makes a result an aspect, `$id` is its entity and `$policy` its policy."""
    order = first.finished(first.order(register_service("redirects")))
    (kept,) = first.aspects(entity="urn:t:cache", schema="urn:t:schema:cached.1")
    assert kept["content"]["value"] == 7
    assert first.get(f"/1/aspects/{kept['id']}")["policy"] == "urn:ivcap:policy:ivcap.open.metadata"
    assert first.job_of(order)["result-content-type"] == "application/vnd.ivcap.urn:t:schema:cached.1"


def test_events_of_a_service_reach_those_who_watch(first, register_service):
    """The event stream has status changes and the service's own events, in order, and can resume after an id."""
    order = first.finished(first.order(register_service("tells")))
    path = f"/1/services2/{order['service']}/jobs/{first.job_of(order)['id']}/events"
    text = first.call("GET", path).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    told = [event["data"].get("status") or event["data"]["name"] for event in events]
    assert told[0] == "pending" and told[-1] == "succeeded" and {"one", "two"} < set(told)
    assert told.index("one") < told.index("two") < told.index("succeeded")
    rest = first.call("GET", path, headers={"Last-Event-Id": events[-2]["SeqID"]}).text
    assert rest.count("data: ") == 1
    first.call("GET", path, 204, headers={"Last-Event-Id": events[-1]["SeqID"]})


COMMAND = """
import json, os, sys, urllib.request
base = os.environ["IVCAP_BASE_URL"]
def call(method, path, data=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(base + path, data, headers, method=method)
    return urllib.request.urlopen(request)
job = json.load(call("GET", "/next_job"))
request = job["in-content"]
text = call("GET", f"/1/artifacts/{request['series']}/blob").read()
made = json.load(call("POST", "/1/artifacts", b"", X_Content_Length=str(len(text)), X_Name="upper.txt"))
assert made["data-href"].startswith(base), made
def parts():
    yield text[:3].upper()
    yield text[3:].upper()
call("PATCH", made["data-href"][len(base):], parts(), Upload_Offset="0", Content_Type="application/offset+octet-stream")
call("POST", "/events/" + job["id"], json.dumps({"name": "half"}).encode(), Content_Type="application/json")
failed = request["fail"]
body = {"error": "as ordered"} if failed else {"upper": made["id"]}
call("POST", "/results/" + job["id"], json.dumps(body).encode(), Content_Type="application/json", Is_Error=str(failed))
assert json.load(call("GET", "/next_job"))["$schema"].startswith("urn:ivcap:schema.service.batch.done")
print("left")
"""


def test_a_command_works_through_its_sidecar(first, local_platform, command_of):
    """A command gets input through the proxy, uploads a product in chunks, and sends an event and a result, by the
    standard library alone. `Is-Error: True` makes the job fail with the posted error.
    """
    parameters = {"name": "series", "type": "artifact"}, {"name": "fail", "type": "bool"}
    service, artifact = command_of(local_platform, "tool", COMMAND, *parameters), first.upload(b"lower case")
    order = first.finished(first.order(service, series=artifact["id"], fail="false"))
    job = first.job_of(order)
    assert order["status"] == "succeeded", job
    (product,) = order["products"]["items"]
    assert job["result-content"] == {"upper": product["id"]} and product["name"] == "upper.txt"
    assert first.bytes_of(product["id"]) == b"LOWER CASE"
    assert first.log_of(order) == "left\n"
    order = first.finished(first.order(service, series=artifact["id"], fail="true"))
    assert order["status"] == "failed" and first.job_of(order)["error-message"] == "as ordered"


def test_registering_twice_is_one_service_with_one_request_model(first, register_service):
    """The id follows from name and account. A changed definition replaces the old one, and the newest description."""
    one = register_service("shows", *PARAMETERS)
    assert register_service("shows", *PARAMETERS[:1]) == one
    record = first.get(f"/1/services2/{one}")
    assert [p["name"] for p in record["parameters"]] == ["n"]
    (tool,) = first.aspects(entity=one, schema=TOOL)
    assert tool["content"]["fn_schema"]["required"] == ["n"]
    first.call("POST", "/1/services2", 409, json={"id": one})
    first.call("PUT", "/1/services2/urn:ivcap:service:none", 404, json=record)
    first.add(one, {"n": 1}, TOOL)
    assert register_service("shows", *PARAMETERS) == one
    told = [each["content"] for each in first.aspects(entity=one, schema=TOOL)]
    assert len(told) == 2 and {"n": 1} not in told


@pytest.mark.parametrize(
    "definition",
    [
        {"name": "x"},
        {"entry": "a:b"},
        {"name": "x", "entry": "a:b", "command": ["c"]},
        {"name": "x", "entry": "a:b", "colour": "red"},
    ],
)
def test_a_definition_that_makes_no_sense_is_refused_before_anything_is_sent(definition, tmp_path):
    """An invalid definition is an InputError, without a server."""
    with pytest.raises(InputError):
        register("http://127.0.0.1:9", "a.b.c", definition, tmp_path / "x.yaml")


def test_what_the_platform_refuses_names_the_field(local_platform, tmp_path):
    """A wrong entry or type is the platform's 422 with a message.

    A bad token and a missing server have their own errors.
    """
    url, token = local_platform.url, local_platform.environment["IVCAP_JWT"]
    good = {"name": "x", "entry": "a:b"}
    for wrong in ({"entry": "no-colon"}, {"parameters": [{"name": "p", "type": "colour"}]}):
        with pytest.raises(PlatformError, match=r"form|type"):
            register(url, token, good | wrong, tmp_path / "x.yaml")
    expired = local_platform.environment["IVCAP_JWT_EXPIRED"]
    with pytest.raises(NotAuthorizedError) as refused:
        register(url, expired, good, tmp_path / "x.yaml")
    assert expired not in str(refused.value)
    with pytest.raises(UnreachableError):
        register("http://127.0.0.1:9", token, good, tmp_path / "x.yaml")


def test_definitions_are_read_from_yaml_and_json(tmp_path):
    """Both formats are read. A missing or broken file is an InputError with its name."""
    (tmp_path / "a.yaml").write_text("name: x\nentry: a:b\n")
    (tmp_path / "a.json").write_text('{"name": "x", "entry": "a:b"}')
    assert read_definition(tmp_path / "a.yaml") == read_definition(tmp_path / "a.json")
    (tmp_path / "bad.yaml").write_text("name: [")
    for name in ("bad.yaml", "none.yaml"):
        with pytest.raises(InputError, match=name):
            read_definition(tmp_path / name)
