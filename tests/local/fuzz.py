"""Drives every operation of a served embedded platform with schemathesis, by the OpenAPI documents that the embedded
platform gives.

`python tests/local/fuzz.py --examples 100` is `make fuzz`; the tests run a short form for each platform. Fails on a
broken check (a reply with a status, media type, header or body that the document does not have, an accepted bad
request, a missing 401, a 5xx that is not declared) and on a traceback in the server's log. Prints the number of cases.
"""

import argparse
import contextlib
import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import jwt
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.cli import schemathesis as command

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

from served_home import Home

from ivcap_flows.local.provena.keycloak.state import Key

LEFT_OUT = (
    # Whether a filter, a cursor, a JSON path, an order or a program is a good one is more than a JSON schema can say.
    "positive_data_acceptance",
    # It takes the declared 501, 504, 507 and a job's own 500 for faults; `only_declared_server_errors` does not.
    "not_a_server_error",
    # In their place `bad_requests_are_refused`.
    "negative_data_rejection",
    "missing_required_header",
)
FOREIGN = {
    "name": "not for here",
    "description": "A service that the embedded platform lists but does not run",
    "controller-schema": "urn:ivcap:schema.service.rest.1",
    "controller": {"image": "x"},
    "parameters": [],
}


@schemathesis.serializer("application/offset+octet-stream")
def as_bytes(context, value):
    return schemathesis.transport.serialization.serialize_binary(value)


@schemathesis.deserializer("text/yaml", "text/x-yaml", "application/x-yaml", "text/vnd.yaml", "application/yaml")
def as_text(context, response):
    """What has a YAML type is what was sent with it, be it YAML or not. schemathesis would end its thread over that."""
    return response.text


@schemathesis.check
def only_declared_server_errors(context, response, case):
    """Check that an internal error has the name `fault`, and that the operation declares any other 5xx."""
    declared = {str(status) for status in case.operation.responses.status_codes}
    told = response.headers.get("goa-error") or []
    assert response.status_code < 500 or (str(response.status_code) in declared and "fault" not in told)


@schemathesis.check
def bad_requests_are_refused(context, response, case):
    """Check that a bad request gets a 4xx (TUS has 412).

    Beside a cursor all parameters but `limit` are ignored, also bad ones.
    """
    if not 400 <= response.status_code < 500 and "page" not in (case.query or {}):
        for name in ("negative_data_rejection", "missing_required_header"):
            CHECKS.get_one(name)(context, response, case)


def known_ids(caller):
    """Return ids of existing things, by the beginning of their path, so that requests get further than 404."""

    def made(path, **more):
        return caller.http.post(path, **more).raise_for_status().json()

    services = [made("/1/services2", json=FOREIGN)["id"] for _ in range(4)]
    ids = {
        "/1/artifacts/{id}": [made("/1/artifacts", content=b"0123456789" * n)["id"] for n in range(4)],
        "/1/services2/{id}": services[:2],
        "/1/services2/{service}": services[2:],
    }
    request = {"service": services[2], "parameters": []}
    ids["/1/orders/{id}"] = [made("/1/orders", json=request)["id"] for _ in range(2)]
    jobs = [made(f"/1/services2/{services[2]}/jobs", json={"n": n})["job-id"] for n in range(2)]
    ids["/1/services2/{service}/jobs/{id}"] = jobs
    ids["/1/aspects/{id}"] = [caller.add("urn:t:entity", {"n": n}) for n in range(4)]
    found = [caller.http.post("/1/queues", json={"name": f"fuzzed{n}"}) for n in range(3)]
    ids["/1/queues/{id}"] = [reply.json()["id"] for reply in found if reply.is_success]
    return {path: found for path, found in ids.items() if found}


def with_ids(document, ids):
    """Return the document with the ids as possible values of its parameters."""

    def some(urns):
        return {"anyOf": [{"enum": [*urns, *(urn.rsplit(":", 1)[-1] for urn in urns)]}, {"type": "string"}]}

    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    begin = path[: path.index("{" + parameter["name"] + "}")] + "{" + parameter["name"] + "}"
                    parameter["schema"] = some(ids[begin]) if begin in ids else parameter["schema"]
                if parameter["name"].lower() == "ivcap-order-id":
                    parameter["schema"] = some(ids["/1/orders/{id}"])
    order = document["paths"]["/1/orders"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    order["properties"]["service"] = some(ids["/1/services2/{id}"])
    return document


def ivcap(home):
    """Return a token, and the document with ids of existing things."""
    caller = home.caller()
    return home.environment["IVCAP_JWT"], with_ids(caller.get("/1/openapi/openapi3.json"), known_ids(caller))


def provena(home):
    """Return a token with every role, and the documents of the seven APIs in one, with ids of existing things."""
    stems = ("entity-registry", "handle", "job-service", "sys-admin")
    claims = {
        "preferred_username": "embedded-user",
        "email": "embedded-user@example.org",
        "realm_access": {"roles": [f"{stem}-{level}" for stem in stems for level in ("read", "write", "admin")]},
        "exp": time.time() + 24 * 3600,
    }
    token = jwt.encode(claims, Key(home.root).private, "RS256")
    merged = {}
    for name, url in home.environment.items():
        if name.startswith("PROVENA_") and name.endswith("_API"):
            # Two APIs may have different models of one name.
            text = home.http.get(f"{url}/openapi.json").text
            document = json.loads(text.replace("#/components/schemas/", f"#/components/schemas/{name}"))
            root = httpx.URL(url).path
            paths = {root + path: each for path, each in document["paths"].items()}
            schemas = {name + each: schema for each, schema in document["components"]["schemas"].items()}
            merged = merged or document | {"paths": {}, "components": document["components"] | {"schemas": {}}}
            merged["paths"] |= paths
            merged["components"]["schemas"] |= schemas
    merged.pop("servers", None)
    return token, some_known(merged, things(home.user(), token))


def things(user, token):
    """Return ids of registry items by what they are used for."""
    record, study = user.world(), user.create("activity/study", title="t", description="d")
    workflow = user.ask(
        "registry", "GET", "/registry/entity/model_run_workflow/fetch", params={"id": record["workflow_template_id"]}
    )
    model, organisation = workflow.json()["item"]["software_id"], user.organisation()
    template = record["inputs"][0]["dataset_template_id"]
    value = {"value_type": "DESC", "value": "v"}
    handle = user.ask("handle", "POST", "/handle/mint", token=token, json=value).json()["id"]
    person = user.person()
    batch = user.ask("prov", "POST", "/model_run/register_batch", json={"records": [record] * 3})
    session = batch.json()["session_id"]
    names = {
        "organisation_id publisher_id requesting_organisation_id": [organisation],
        "study_id": [study],
        "software_id": [model],
        "template_id dataset_template_id": [template],
        "workflow_template_id": [record["workflow_template_id"]],
        "person_id modeller_id data_custodian_id reviewer_id approver_id": [person],
        "session_id": [session],
        "batch_id": [user.job(session)["result"]["batch_id"]],
        "id starting_id": [organisation, study, model, template, record["workflow_template_id"], person, handle],
    }
    return {name: ids for several, ids in names.items() for name in several.split()}


def some_known(schema, ids, name=""):
    """Return the document with ids as possible values of texts with one of these names."""
    if isinstance(schema, list):
        return [some_known(one, ids, name) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and not {"enum", "format"} & set(schema) and name in ids:
        return {"anyOf": [{"type": "string", "enum": ids[name]}, schema]}
    if "in" in schema and "schema" in schema:
        return schema | {"schema": some_known(schema["schema"], ids, schema["name"])}
    # A field that may be null has its type in `anyOf`.
    return {key: some_known(value, ids, name if key == "anyOf" else key) for key, value in schema.items()}


PLATFORMS = {
    "ivcap": (ivcap, LEFT_OUT),
    # As pydantic 1, Provena takes numbers for texts; and the `Allow` of FastAPI names the methods of one route alone.
    "provena": (provena, (*LEFT_OUT, "bad_requests_are_refused", "allow_header_conformance")),
}
"""How a document is got, and the checks that say nothing of it."""


def run(platform, examples, phases, *, seed=None):
    """Return the number of cases, and the failures."""
    prepare, left_out = PLATFORMS[platform]
    with tempfile.TemporaryDirectory() as name, contextlib.closing(Home(Path(name) / "embedded")) as home:
        folder = Path(name)
        token, document = prepare(home.start())
        (folder / "openapi.json").write_text(json.dumps(document))
        options = {
            "--url": home.url,
            "--header": f"Authorization: Bearer {token}",
            "--phases": phases,
            "--max-examples": str(examples),
            "--checks": "all",
            "--exclude-checks": ",".join(left_out),
            "--suppress-health-check": "all",
            "--generation-database": "none",
            "--request-timeout": "120",
            "--report": "json",
            "--report-json-path": str(folder / "report.json"),
            **({} if seed is None else {"--seed": str(seed)}),
        }
        arguments = ["run", str(folder / "openapi.json"), "--continue-on-failure", "--no-color"]
        # A thread that dies leaves operations out, and schemathesis says nothing.
        died = []
        threading.excepthook = died.append
        try:
            status = command.main(
                [*arguments, *(text for pair in options.items() for text in pair)], standalone_mode=False
            )
        except SystemExit as end:
            status = end.code
        report = json.loads((folder / "report.json").read_text())
        home.stop()
        text = home.log.read_text(errors="replace")
    faults = [f"schemathesis ended with {status}"] if status else []
    faults += [f"{each.thread.name} died of {each.exc_value!r}" for each in died]
    faults += re.findall(r"Traceback \(most recent call last\):.*?(?=\n\S|\Z)", text, re.DOTALL)
    return report["test_cases"]["generated"], faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", choices=PLATFORMS, action="append", help="each, unless told")
    parser.add_argument("--examples", type=int, default=100, help="cases per operation and kind of data")
    parser.add_argument("--phases", default="examples,coverage,fuzzing")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    cases, faults = 0, []
    for platform in given.platform or PLATFORMS:
        more, found = run(platform, given.examples, given.phases, seed=given.seed)
        cases, faults = cases + more, faults + found
    print("\n".join(faults))
    print(f"{cases} cases, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
