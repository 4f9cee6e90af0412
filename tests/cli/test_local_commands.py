"""`local`: serving the embedded platforms, registering services, and faults on purpose."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

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
        server.kill()
        server.wait(5)


def test_only_this_machine_is_served(ivcap_flows, tmp_path):
    """An address that others reach is wrong use."""
    said = ivcap_flows("local", "serve", "--host", "0.0.0.0", "--port", 0, "--dir", tmp_path / "state")
    assert said.status == 2 and "not a loopback address" in said.err
    assert not (tmp_path / "state").exists()


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
        server.kill()
        server.wait(5)


@pytest.mark.parametrize("options", [["--speed", 2], ["--like", "test"], ["--like", "production", "--speed", 0]])
def test_what_they_cannot_be_like_is_wrong_use(ivcap_flows, tmp_path, options):
    """Nothing is served."""
    assert ivcap_flows("local", "serve", "--port", 0, "--dir", tmp_path / "state", *options).status == 2
    assert not (tmp_path / "state").exists()


@pytest.fixture
def embedded_folder(embedded_platform, _embedded):
    """The folder of the platforms that already run."""
    return _embedded.directory


@pytest.fixture
def definition(tmp_path, embedded_folder):
    """Writes a definition and gives the command that registers it."""
    path = tmp_path / "service.yaml"

    def write(text):
        path.write_text(text)
        return ["local", "register", path, "--dir", embedded_folder]

    return write


def services():
    """What the platform lists."""
    url = f"{os.environ['IVCAP_URL']}/1/services2?limit=50"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['IVCAP_JWT']}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.loads(reply.read())["items"]


def test_a_service_registered_again_is_the_same(ivcap_flows, definition):
    """Its URN is printed; the list of services does not change the second time."""
    command = definition("name: registered\nentry: somewhere:run\nparameters: [{name: n, type: int}]\n")
    first = ivcap_flows(*command)
    assert first.status == 0 and re.fullmatch(r"urn:ivcap:service:[0-9a-f-]+\n", first.out)
    there = services()
    assert [s["id"] for s in there].count(first.out.strip()) == 1
    assert ivcap_flows(*command).out == first.out
    assert services() == there


def test_several_services_are_registered_at_once(ivcap_flows, tmp_path, embedded_folder):
    """Each file is a service, and what goes with one service is refused beside several."""
    paths = [tmp_path / f"{name}.yaml" for name in ("first", "second")]
    for path in paths:
        path.write_text(f"name: {path.stem}\nentry: somewhere:run\n")
    assert ivcap_flows("local", "register", *paths, "--dir", embedded_folder).out.count("urn:ivcap:service:") == 2
    said = ivcap_flows("local", "register", *paths, "--dir", embedded_folder, "--run", "true")
    assert said.status == 2 and "register each service alone" in said.err
    assert ivcap_flows("local", "register", "--dir", embedded_folder).status == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- a list", "must be a mapping"),
        ("name: [", "neither YAML nor JSON"),
        ("entry: a:b", "needs a name"),
        ("name: x", "either an entry or a command"),
        ("name: x\nentry: a:b\ncolour: red", "colour"),
        ("name: x\nentry: a:b\nparameters: many", "malformed"),
    ],
    ids=["list", "no-yaml", "no-name", "no-entry", "unknown-field", "parameters"],
)
def test_a_malformed_definition_is_wrong_use(ivcap_flows, definition, text, fault):
    """The error says what is wrong."""
    said = ivcap_flows(*definition(text))
    assert said.status == 2 and fault in said.err


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
def test_a_description_that_is_no_service_is_refused(ivcap_flows, tmp_path, embedded_folder, changes, fault):
    """No URN is printed and no service is there; the error names the file and the fault."""
    file = tmp_path / "printed.json"
    content = {**PRINTED, "name": f"refused {fault}", **changes}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    there = services()
    said = ivcap_flows("local", "register", file, "--dir", embedded_folder)
    assert (said.status, said.out) == (2, "") and str(file) in said.err and fault in said.err
    assert services() == there


@pytest.mark.parametrize("schema", ["urn:ivcap:schema.service.2", "urn:ivcap:schema:service.2"])
def test_a_description_in_either_spelling_is_a_service(ivcap_flows, tmp_path, embedded_folder, schema):
    """As the SDKs print it, and as the examples of the lambda kind write it by hand: without the `$` of its id."""
    file = tmp_path / "printed.json"
    file.write_text(json.dumps({**PRINTED, "$schema": schema, "$id": None, "id": "#SERVICE_ID#"}))
    said = ivcap_flows("local", "register", file, "--dir", embedded_folder)
    assert said.status == 0 and said.out.strip() in {service["id"] for service in services()}


@pytest.mark.catches("descriptions unchecked")
def test_the_description_of_another_account_s_service_is_refused(ivcap_flows, tmp_path, embedded_folder):
    """Nobody can register a service under a URN that is somebody else's."""
    echo = next(one["id"] for one in services() if one["name"] == "echo")
    file = tmp_path / "printed.json"
    file.write_text(json.dumps({**PRINTED, "$id": echo}))
    options = {"url": f"{os.environ['IVCAP_URL']}/1/services2/{echo}"}
    request = urllib.request.Request(**options, headers={"Authorization": f"Bearer {os.environ['IVCAP_JWT']}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        before = reply.read()
    said = ivcap_flows("local", "register", file, "--dir", embedded_folder)
    assert (said.status, said.out) == (2, "") and str(file) in said.err
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.read() == before


def test_each_fault_of_several_files_names_its_file(ivcap_flows, tmp_path, embedded_folder):
    """Also that of a file whose definition is written by hand, or of a description of requests."""
    good, bad, tool = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "tool.json"
    good.write_text("name: good\nentry: somewhere:run\n")
    bad.write_text("name: bad\nentry: somewhere:run\ncolour: red\n")
    said = ivcap_flows("local", "register", good, bad, "--dir", embedded_folder)
    assert said.status == 2 and str(bad) in said.err and "colour" in said.err
    tool.write_text("{}")
    (tmp_path / "printed.json").write_text(json.dumps(PRINTED))
    printed = ["local", "register", tmp_path / "printed.json", "--dir", embedded_folder]
    said = ivcap_flows(*printed, "--tool", tool)
    assert (said.status, said.out) == (2, "") and str(tool) in said.err and "fn_schema" in said.err


def test_a_definition_that_is_not_there_is_wrong_use(ivcap_flows, tmp_path, embedded_folder):
    """The error names the file."""
    said = ivcap_flows("local", "register", tmp_path / "none.yaml", "--dir", embedded_folder)
    assert said.status == 2 and "none.yaml" in said.err


def test_faults_are_added_listed_and_cleared(ivcap_flows, embedded_folder):
    """A rule acts until it is cleared; its hits are counted."""
    faults = ["local", "faults", "--dir", embedded_folder]
    assert ivcap_flows(*faults).json == []
    added = ivcap_flows(*faults, '{"method": "GET", "path": "^/1/services2", "status": 503}').json
    assert [(rule["path"], rule["status"], rule["hits"]) for rule in added] == [("^/1/services2", 503, 0)]
    with pytest.raises(OSError, match="503"):
        services()
    assert [rule["hits"] for rule in ivcap_flows(*faults).json] == [1]
    assert ivcap_flows(*faults, "--clear").json == []
    assert services()


@pytest.mark.parametrize("rule", ["{", "[1]", '{"colour": "red"}', '{"path": "/1"}', '{"status": 7}'])
def test_a_malformed_fault_is_wrong_use(ivcap_flows, rule, embedded_folder):
    """No rule is added."""
    assert ivcap_flows("local", "faults", rule, "--dir", embedded_folder).status == 2
    assert ivcap_flows("local", "faults", "--dir", embedded_folder).json == []
