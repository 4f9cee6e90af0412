"""Drives every operation of a served twin with schemathesis, by the OpenAPI document that the twin gives.

`python tests/local/fuzz.py --examples 100` is `make fuzz`; the tests run a short form. Fails on a broken check (a reply
with a status, media type, header or body that the document does not have, an accepted bad request, a missing 401, a
5xx that is not declared) and on a traceback in the server's log. Prints the number of cases.
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
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.cli import schemathesis as command

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
    "description": "A service that the twin lists but does not run",
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
    """What fails inside is told as a `fault`; any other 5xx is one that the operation declares."""
    declared = {str(status) for status in case.operation.responses.status_codes}
    told = response.headers.get("goa-error") or []
    assert response.status_code < 500 or (str(response.status_code) in declared and "fault" not in told)


@schemathesis.check
def bad_requests_are_refused(context: Any, response: Any, case: Any) -> None:
    """With any 4xx (TUS has 412). Beside a cursor every parameter but `limit` is ignored, so also a bad one."""
    if not 400 <= response.status_code < 500 and "page" not in (case.query or {}):
        for name in ("negative_data_rejection", "missing_required_header"):
            CHECKS.get_one(name)(context, response, case)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """A twin on a free port: its environment, and the file with what it wrote."""
    log, env_file = folder / "log", folder / "env"
    options = ["--dir", str(folder / "twin"), "--env-file", str(env_file)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "ivcap_flows.local", "serve", *options], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 60
        while not env_file.exists() or "PROVENA_PROV_API" not in env_file.read_text():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The twin did not start: {log.read_text()}")
            time.sleep(0.05)
        yield dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line), log
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def known_ids(twin: httpx.Client) -> dict[str, list[str]]:
    """Ids of things that are there, by the path that begins theirs, so that cases get beyond 404."""

    def made(path: str, **more: Any) -> dict[str, Any]:
        reply = twin.post(path, **more)
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
        found = [twin.post(path, json={"name": f"fuzzed{n}"}) for n in range(3)]
        ids[path + "/{id}"] = [reply.json().get("id") or reply.json()["urn"] for reply in found if reply.is_success]
    return {path: found for path, found in ids.items() if found}


def told(document: dict[str, Any], ids: dict[str, list[str]]) -> dict[str, Any]:
    """The document, with the ids among what its parameters may be."""

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


def run(examples: int, phases: str, *, seed: int | None = None) -> tuple[int, list[str]]:
    """The number of cases, and what went wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder) as (environment, log):
            headers = {"Authorization": f"Bearer {environment['IVCAP_JWT']}"}
            with httpx.Client(base_url=environment["IVCAP_URL"], headers=headers, timeout=60) as twin:
                document = told(twin.get("/1/openapi/openapi3.json").json(), known_ids(twin))
            (folder / "openapi.json").write_text(json.dumps(document))
            options = {
                "--url": environment["IVCAP_URL"],
                "--header": f"Authorization: {headers['Authorization']}",
                "--phases": phases,
                "--max-examples": str(examples),
                "--checks": "all",
                "--exclude-checks": ",".join(LEFT_OUT),
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
    parser.add_argument("--examples", type=int, default=100, help="cases per operation and kind of data")
    parser.add_argument("--phases", default="examples,coverage,fuzzing")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    cases, faults = run(given.examples, given.phases, seed=given.seed)
    print("\n".join(faults))
    print(f"{cases} cases, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
