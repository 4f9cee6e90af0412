"""Drives every operation of a served embedded platform with schemathesis, by the OpenAPI documents that the embedded
platform gives.

`python tests/local/fuzz.py --examples 100` is `make fuzz`; the tests run a short form for each platform. Fails on a
broken check (a reply with a status, media type, header or body that the document does not have, an accepted bad
request, a missing 401, a 5xx that is not declared) and on a traceback in the server's log. Prints the number of cases.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.cli import schemathesis as command

from ivcap_flows.local.provena.keycloak.state import Key

LEFT_OUT: Final = (
    # Whether a filter, a cursor, a JSON path, an order or a program is a good one is more than a JSON schema can say.
    "positive_data_acceptance",
    # It takes the declared 501, 504, 507 and a job's own 500 for faults; `only_declared_server_errors` does not.
    "not_a_server_error",
    # In their place `bad_requests_are_refused`.
    "negative_data_rejection",
    "missing_required_header",
)
CHUNK: Final = "application/offset+octet-stream"
FOREIGN: Final = {
    "name": "not for here",
    "description": "A service that the embedded platform lists but does not run",
    "controller-schema": "urn:ivcap:schema.service.rest.1",
    "controller": {"image": "x"},
    "parameters": [],
}


@schemathesis.serializer(CHUNK)
def as_bytes(context: Any, value: Any) -> bytes:
    data: bytes = schemathesis.transport.serialization.serialize_binary(value)
    return data


@schemathesis.check
def only_declared_server_errors(context: Any, response: Any, case: Any) -> None:
    """Check that an internal error has the name `fault`, and that the operation declares any other 5xx."""
    declared = {str(status) for status in case.operation.responses.status_codes}
    told = response.headers.get("goa-error") or []
    assert response.status_code < 500 or (str(response.status_code) in declared and "fault" not in told)


@schemathesis.check
def bad_requests_are_refused(context: Any, response: Any, case: Any) -> None:
    """Check that a bad request gets a 4xx (TUS has 412).

    Beside a cursor all parameters but `limit` are ignored, also bad ones.
    """
    if not 400 <= response.status_code < 500 and "page" not in (case.query or {}):
        for name in ("negative_data_rejection", "missing_required_header"):
            CHECKS.get_one(name)(context, response, case)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Serve an embedded platform on a free port. Give its environment and the file with its log."""
    log, env_file = folder / "log", folder / "env"
    options = ["--dir", str(folder / "embedded"), "--env-file", str(env_file)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "ivcap_flows.local", "serve", *options], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 60
        while not env_file.exists() or "PROVENA_PROV_API" not in env_file.read_text():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The embedded platform did not start: {log.read_text()}")
            time.sleep(0.05)
        yield dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line), log
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def known_ids(embedded: httpx.Client) -> dict[str, list[str]]:
    """Return ids of existing things, by the beginning of their path, so that requests get further than 404."""

    def made(path: str, **more: Any) -> dict[str, Any]:
        reply = embedded.post(path, **more)
        reply.raise_for_status()
        body: dict[str, Any] = reply.json()
        return body

    services = [made("/1/services2", json=FOREIGN)["id"] for _ in range(4)]
    ids = {
        "/1/artifacts/{id}": [made("/1/artifacts", content=b"0123456789" * n)["id"] for n in range(4)],
        "/1/services2/{id}": services[:2],
        "/1/services2/{service}": services[2:],
        "/1/services/{id}": services[:2],
    }
    request = {"service": services[2], "parameters": []}
    ids["/1/orders/{id}"] = [made("/1/orders", json=request)["id"] for _ in range(2)]
    jobs = [made(f"/1/services2/{services[2]}/jobs", json={"n": n})["job-id"] for n in range(2)]
    ids["/1/services2/{service}/jobs/{id}"] = jobs
    pair = {"entity": "urn:t:entity", "schema": "urn:t:schema"}
    ids["/1/aspects/{id}"] = [made("/1/aspects", params=pair, json={"n": n})["id"] for n in range(4)]
    ids["/1/metadata/{id}"] = ids["/1/aspects/{id}"]
    for path in ("/1/queues", "/1/project"):
        found = [embedded.post(path, json={"name": f"fuzzed{n}"}) for n in range(3)]
        ids[path + "/{id}"] = [reply.json().get("id") or reply.json()["urn"] for reply in found if reply.is_success]
    return {path: found for path, found in ids.items() if found}


def told(document: dict[str, Any], ids: dict[str, list[str]]) -> dict[str, Any]:
    """Return the document with the ids as possible values of its parameters."""

    def some(urns: list[str]) -> dict[str, Any]:
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


def ivcap(environment: dict[str, str], folder: Path) -> tuple[str, dict[str, Any]]:
    """Return a token, and the document with ids of existing things."""
    token = environment["IVCAP_JWT"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=environment["IVCAP_URL"], headers=headers, timeout=60) as embedded:
        return token, told(embedded.get("/1/openapi/openapi3.json").json(), known_ids(embedded))


def provena(environment: dict[str, str], folder: Path) -> tuple[str, dict[str, Any]]:
    """Return a token with every role, and the documents of the seven APIs in one, with ids of existing things."""
    stems = ("entity-registry", "handle", "job-service", "sys-admin")
    claims = {
        "preferred_username": "embedded-user",
        "email": "embedded-user@example.org",
        "realm_access": {"roles": [f"{stem}-{level}" for stem in stems for level in ("read", "write", "admin")]},
        "exp": time.time() + 24 * 3600,
    }
    token = jwt.encode(claims, Key(folder / "embedded").private, "RS256")
    merged: dict[str, Any] = {}
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60) as embedded:
        ids = things(embedded, environment)
        for name, url in environment.items():
            if name.startswith("PROVENA_") and name.endswith("_API"):
                document = embedded.get(f"{url}/openapi.json").json()
                root = httpx.URL(url).path
                paths = {root + path: each for path, each in document["paths"].items()}
                # Two APIs may have different models of one name.
                apart = json.dumps({"paths": paths, "components": document["components"]})
                apart = apart.replace("#/components/schemas/", f"#/components/schemas/{name}")
                document |= json.loads(apart)
                schemas = document["components"]["schemas"]
                document["components"]["schemas"] = {name + each: schema for each, schema in schemas.items()}
                merged = merged or document | {"paths": {}}
                merged["paths"] |= document["paths"]
                merged["components"]["schemas"] |= document["components"]["schemas"]
    merged.pop("servers", None)
    return token, some_known(merged, ids)


def things(embedded: httpx.Client, environment: dict[str, str]) -> dict[str, list[str]]:
    """Return ids of registry items by what they are used for."""

    def made(path: str, **info: Any) -> str:
        url = f"{environment['PROVENA_REGISTRY_API']}/registry/{path}/create"
        reply = embedded.post(url, json={"display_name": "fuzzed", **info}).raise_for_status().json()
        identifier: str = reply["created_item"]["id"]
        return identifier

    page = "https://example.org/"
    organisation, study = made("agent/organisation", name="o"), made("activity/study", title="t", description="d")
    model = made("entity/model", name="m", description="d", documentation_url=page, source_url=page)
    key = {"key": "k", "description": "d", "usage_type": "GENERAL_DATA", "optional": True}
    template = made("entity/dataset_template", deferred_resources=[key])
    ends = {"input_templates": [{"template_id": template, "optional": True}]}
    workflow = made("entity/model_run_workflow", software_id=model, **ends)
    person = embedded.get(f"{environment['PROVENA_AUTH_API']}/link/user/lookup").json()["person_id"]
    handle = embedded.post(
        f"{environment['PROVENA_HANDLE_API']}/handle/mint", json={"value_type": "DESC", "value": "v"}
    )
    people = {"modeller_id": person}
    run = {"workflow_template_id": workflow, "inputs": [], "outputs": [], "display_name": "r", "description": "d"}
    records = {"records": [run | {"associations": people, "start_time": 1, "end_time": 2}] * 3}
    session = embedded.post(f"{environment['PROVENA_PROV_API']}/model_run/register_batch", json=records).json()[
        "session_id"
    ]
    job: dict[str, Any] = {}
    while job.get("status") != "SUCCEEDED":
        time.sleep(0.2)
        found = embedded.get(f"{environment['PROVENA_JOB_API']}/jobs/user/fetch", params={"session_id": session}).json()
        job = found.get("job", {})
    names = {
        "organisation_id publisher_id requesting_organisation_id": [organisation],
        "study_id": [study],
        "software_id": [model],
        "template_id dataset_template_id": [template],
        "workflow_template_id": [workflow],
        "person_id modeller_id data_custodian_id reviewer_id approver_id": [person],
        "session_id": [session],
        "batch_id": [job["result"]["batch_id"]],
        "id starting_id": [organisation, study, model, template, workflow, person, handle.json()["id"]],
    }
    return {name: ids for several, ids in names.items() for name in several.split()}


def some_known(schema: Any, ids: dict[str, list[str]], name: str = "") -> Any:
    """Return the document with ids as possible values of texts with one of these names."""
    if isinstance(schema, list):
        return [some_known(one, ids, name) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and not {"enum", "format"} & set(schema) and name in ids:
        return {"anyOf": [{"type": "string", "enum": ids[name]}, schema]}
    if "in" in schema and "schema" in schema:
        return schema | {"schema": some_known(schema["schema"], ids, schema["name"])}
    return {key: some_known(value, ids, key) for key, value in schema.items()}


PLATFORMS: Final = {"ivcap": (ivcap, LEFT_OUT), "provena": (provena, (*LEFT_OUT, "bad_requests_are_refused"))}
"""How a document is got, and the checks that say nothing of it: Provena, as pydantic 1, takes numbers for texts."""


def run(platform: str, examples: int, phases: str, *, seed: int | None = None) -> tuple[int, list[str]]:
    """Return the number of cases, and the failures."""
    prepare, left_out = PLATFORMS[platform]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder) as (environment, log):
            token, document = prepare(environment, folder)
            (folder / "openapi.json").write_text(json.dumps(document))
            options = {
                "--url": environment["IVCAP_URL"],
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
            arguments = [text for pair in options.items() for text in pair]
            try:
                status = command.main(
                    ["run", str(folder / "openapi.json"), "--continue-on-failure", "--no-color", *arguments],
                    standalone_mode=False,
                )
            except SystemExit as end:
                status = end.code
        report = json.loads((folder / "report.json").read_text())
        text = log.read_text(errors="replace")
    faults = [f"schemathesis ended with {status}"] if status else []
    faults += re.findall(r"Traceback \(most recent call last\):.*?(?=\n\S|\Z)", text, re.DOTALL)
    return report["test_cases"]["generated"], faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", choices=PLATFORMS, action="append", help="each, unless told")
    parser.add_argument("--examples", type=int, default=100, help="cases per operation and kind of data")
    parser.add_argument("--phases", default="examples,coverage,fuzzing")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    cases, faults = 0, list[str]()
    for platform in given.platform or PLATFORMS:
        more, found = run(platform, given.examples, given.phases, seed=given.seed)
        cases, faults = cases + more, faults + found
    print("\n".join(faults))
    print(f"{cases} cases, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
