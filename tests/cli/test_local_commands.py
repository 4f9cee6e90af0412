"""`local`: serving the embedded platforms, registering services, and faults on purpose."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from other_processes import end_at_once

NAMES = {
    *("IVCAP_URL", "IVCAP_JWT", "IVCAP_JWT_2", "IVCAP_JWT_EXPIRED"),
    *("PROVENA_KEYCLOAK", "PROVENA_REALM", "PROVENA_CLIENT_ID", "PROVENA_AUTH_API", "PROVENA_REGISTRY_API"),
    *("PROVENA_PROV_API", "PROVENA_JOB_API", "PROVENA_DATA_STORE_API", "PROVENA_SEARCH_API", "PROVENA_HANDLE_API"),
    *(f"PROVENA_OFFLINE_TOKEN{user}" for user in ("", "_2", "_UNLINKED", "_READER")),
}


def serve(*options):
    command = [sys.executable, "-m", "ivcap_flows.cli", "local", "serve", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGINT])
def test_platforms_are_served_until_a_signal(tmp_path, number):
    """All variables are printed and written; the port answers; a second server is refused; the end is in order."""
    folder, written = tmp_path / "state", tmp_path / "environment"
    server = serve("--port", 0, "--dir", folder, "--env-file", written)
    try:
        printed = [server.stdout.readline() for _ in NAMES]
        environment = dict(line.rstrip("\n").split("=", 1) for line in printed)
        assert environment.keys() == NAMES and all(environment.values())
        assert written.read_text() == "".join(printed)
        with urllib.request.urlopen(f"{environment['IVCAP_URL']}/_embedded", timeout=5) as reply:
            assert reply.status == 200
        if number == signal.SIGTERM:
            second = serve("--port", 0, "--dir", folder)
            out, err = second.communicate(timeout=30)
            assert (second.returncode, out) == (1, "")
            assert re.fullmatch(rf"EmbeddedPlatformError: Another server already serves {folder} [^\n]+\n", err)
            assert str(server.pid) in err and environment["IVCAP_URL"] in err
        server.send_signal(number)
        out, err = server.communicate(timeout=15)
        assert (server.returncode, out, err) == (0, "", "")
        assert not (folder / "server.json").exists()
    finally:
        end_at_once(server)


@pytest.mark.long
def test_platforms_are_served_like_production(tmp_path):
    """The server tells what it is like."""
    server = serve("--port", 0, "--dir", tmp_path / "state", "--like", "production", "--speed", 50)
    try:
        url = server.stdout.readline().rstrip("\n").partition("=")[2]
        with urllib.request.urlopen(f"{url}/_embedded", timeout=5) as reply:
            said = json.loads(reply.read())
        assert (said["like"], said["speed"], said["visibility_delay"]) == ("production", 50, 12)
    finally:
        end_at_once(server)


@pytest.fixture
def embedded_folder(embedded_platform, _embedded):
    """The folder of the platforms that already run."""
    return _embedded.directory


@pytest.fixture
def register(ivcap_flows, tmp_path, embedded_folder):
    """Registers what a file holds: a text, or a mapping as JSON."""

    def run(content, name="service.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ivcap_flows("local", "register", path, "--dir", embedded_folder)

    return run


def of_platform(path):
    headers = {"Authorization": f"Bearer {os.environ['IVCAP_JWT']}"}
    request = urllib.request.Request(f"{os.environ['IVCAP_URL']}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.loads(reply.read())


def services():
    return of_platform("/1/services2?limit=50")["items"]


def test_a_service_registered_again_is_the_same(register):
    """Its URN is printed; the list of services does not change the second time."""
    definition = "name: registered\nentry: somewhere:run\nparameters: [{name: n, type: int}]\n"
    first = register(definition)
    assert first.status == 0 and re.fullmatch(r"urn:ivcap:service:[0-9a-f-]+\n", first.out)
    there = services()
    assert [s["id"] for s in there].count(first.out.strip()) == 1
    assert register(definition).out == first.out
    assert services() == there


def test_several_services_are_registered_at_once(ivcap_flows, tmp_path, embedded_folder):
    """Each file is a service. What goes with one service is refused beside several, and each fault names its file."""
    first, second, bad, many = (tmp_path / f"{name}.yaml" for name in ("first", "second", "bad", "many"))
    for path in (first, second, bad):
        path.write_text(f"name: {path.stem}\nentry: somewhere:run\n")
    bad.write_text(bad.read_text() + "colour: red\n")
    many.write_text("- a list")
    printed, tool = tmp_path / "printed.json", tmp_path / "tool.json"
    printed.write_text(json.dumps(PRINTED))
    tool.write_text("{}")
    into = ("--dir", embedded_folder)
    assert ivcap_flows("local", "register", first, second, *into).out.count("urn:ivcap:service:") == 2
    for words, faults in (
        ([first, second, "--run", "true"], ["register each service alone"]),
        ([], [""]),
        ([first, bad], [str(bad), "colour"]),
        ([many], [str(many), "must be a mapping"]),
        ([printed, "--tool", tool], [str(tool), "fn_schema"]),
        ([tmp_path / "none.yaml"], ["none.yaml"]),
    ):
        said = ivcap_flows("local", "register", *words, *into)
        assert (said.status, said.out) == (2, "") and all(fault in said.err for fault in faults), words


PRINTED = {
    "$schema": "urn:ivcap:schema.service.2",
    "$id": "#SERVICE_ID#",
    "name": "printed",
    "description": "As an SDK prints it.",
    "policy": "urn:ivcap:policy:ivcap.open.service",
    "controller-schema": "urn:ivcap:schema.service.rest.1",
    "controller": {"$schema": "urn:ivcap:schema.service.rest.1", "image": "none", "command": ["/app/main"]},
}
PROXY = {"$schema": "urn:ivcap:schema.controller.service-proxy.1", "image": "#DOCKER_TAG#", "ready-url": "/_healtz"}
"""The controller in the public examples of the lambda kind, which do not state its schema beside it."""


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"controller-schema": None}, "`controller-schema` is missing: urn:ivcap:schema.service.rest.1"),
        ({"controller-schema": None, "controller": PROXY}, "urn:ivcap:schema.controller.service-proxy.1"),
        ({"controller-schema": 7}, "`controller-schema` is missing"),
        ({"controller": None}, "controller is missing or has the wrong type"),
        ({"controller": "python service.py"}, "controller is missing or has the wrong type"),
        ({"parameters": [{"name": "n", "type": "number"}]}, "type of n must be one of"),
        ({"parameters": {"n": "int"}}, "parameters must be a list"),
        ({"request-schema": "many"}, "request-schema must be a JSON schema"),
        ({"policy": "open"}, "policy"),
        ({"name": None}, "no name"),
        ({"$schema": "urn:ivcap:schema.service.3"}, "urn:ivcap:schema.service.3"),
        ({"$schema": "urn:ivcap:schema:service.1"}, "urn:ivcap:schema:service.1"),
        ({"$schema": None, "workflow": {"type": "basic", "basic": {}}}, "ivcap-sdk-service"),
        ({"$id": "urn:ivcap:service:not a/uuid"}, "not a/uuid"),
    ],
)
def test_a_description_that_is_no_service_is_refused(register, changes, fault):
    """No URN is printed and no service is there; the error names the file and the fault."""
    content = {**PRINTED, "name": f"refused {fault}", **changes}
    there = services()
    said = register({name: value for name, value in content.items() if value is not None}, "printed.json")
    assert (said.status, said.out) == (2, "") and "printed.json" in said.err and fault in said.err
    assert services() == there


@pytest.mark.parametrize("schema", ["urn:ivcap:schema.service.2", "urn:ivcap:schema:service.2"])
def test_a_description_in_either_spelling_is_a_service(register, schema):
    """As the SDKs print it, and as the examples of the lambda kind write it by hand: without the `$` of its id."""
    said = register({**PRINTED, "$schema": schema, "$id": None, "id": "#SERVICE_ID#"})
    assert said.status == 0 and said.out.strip() in {service["id"] for service in services()}


@pytest.mark.catches("descriptions unchecked")
def test_the_description_of_another_account_s_service_is_refused(register):
    """Nobody can register a service under a URN that is somebody else's."""
    echo = next(one["id"] for one in services() if one["name"] == "echo")
    before = of_platform(f"/1/services2/{echo}")
    said = register({**PRINTED, "$id": echo}, "printed.json")
    assert (said.status, said.out) == (2, "") and "printed.json" in said.err
    assert of_platform(f"/1/services2/{echo}") == before


def test_faults_are_added_listed_and_cleared(ivcap_flows, embedded_folder):
    """A rule acts until it is cleared; its hits are counted. A malformed one is wrong use, and is not added."""
    faults = ["local", "faults", "--dir", embedded_folder]
    for rule in ("{", "[1]", '{"colour": "red"}', '{"path": "/1"}', '{"status": 7}'):
        assert ivcap_flows(*faults, rule).status == 2
    assert ivcap_flows(*faults).json == []
    added = ivcap_flows(*faults, '{"method": "GET", "path": "^/1/services2", "status": 503}').json
    assert [(rule["path"], rule["status"], rule["hits"]) for rule in added] == [("^/1/services2", 503, 0)]
    with pytest.raises(OSError, match="503"):
        services()
    assert [rule["hits"] for rule in ivcap_flows(*faults).json] == [1]
    assert ivcap_flows(*faults, "--clear").json == []
    assert services()
