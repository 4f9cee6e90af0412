"""Input stays data: it gives no access to the file system, to another account or to a browser's page."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from ivcap_flows import local
from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.register import register
from ivcap_flows.local.service import ServiceJob
from ivcap_flows.local.sidecar import Sidecar

NASTY = [
    "../../escape",
    "..\\..\\escape",
    "/etc/passwd",
    "/tmp/escape",
    "a/../../../escape",
    "%2e%2e/%2e%2e/escape",
    "..",
    "~/escape",
    "C:\\escape",
    "line\nfeed",
    "nul\0byte",
    "\u202eescape",
    "x" * 3000,
]
IN_PATHS = [
    "..%2f..%2fescape",
    "%2e%2e%2f%2e%2e%2fescape",
    "..%5c..%5cescape",
    "%2fetc%2fpasswd",
    "%00",
    "a%00b",
    "a%0d%0aX-Evil:%201",
    "..%252f..%252fescape",
    "urn%3Aivcap%3Aartifact%3A..%2f..%2fescape",
    "x" * 3000,
    "%ff%fe",
    "...",
]
TELLING = """
def tells(request, job):
    job.add_product(request["text"], b"x", request["text"][:200])
    job.event(request["text"])
    job.log(request["text"])
    return {"$schema": "urn:t:" + request["text"], "$id": "urn:t:" + request["text"], "$policy": request["text"]}

def speaks(request, job):
    return job.keep(None, b"x", request["text"], is_result=True) and None

def nests(request, job):
    value = None
    for _ in range(request["depth"]):
        value = [value]
    return value
"""
IN_A_RUN = {"lock", "log", "log.times", "job.json", "events", "started", "work", "products"}
BARE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def b64(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with services that return what they are given."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "setup.cfg").write_text("")
    (folder / "telling_services_of_tests.py").write_text(TELLING)
    return folder


@pytest.fixture
def telling(local_platform, project):
    def make(name, *parameters):
        definition = {"name": name, "entry": f"telling_services_of_tests:{name}", "parameters": list(parameters)}
        return register(local_platform.url, local_platform.environment["IVCAP_JWT"], definition, project / "defs.yaml")

    return make


@pytest.fixture(autouse=True)
def nothing_outside(local_platform):
    """Check after each test that the platforms' folder has only its own names, and that nothing outside has changed."""
    around, ours = (
        local_platform.root.parent,
        (local_platform.root, local_platform.root.parent / "data" / "ivcap-flows"),
    )

    def outside():
        return sorted(str(path) for path in around.rglob("*") if not {path, *path.parents} & set(ours))

    (around / "data").mkdir(exist_ok=True)
    before = outside()
    yield
    assert outside() == before
    for path in (local_platform.root / "blobs").rglob("*"):
        assert BARE.fullmatch(path.name) if path.is_file() else re.fullmatch("[0-9a-f]{2}", path.name), path
    for path in (local_platform.root / "runs").iterdir():
        assert BARE.fullmatch(path.name), path
        assert {inner.name for inner in path.iterdir()} <= IN_A_RUN
        assert all(BARE.fullmatch(inner.name) for inner in (path / "products").glob("*"))
    known = ("ivcap.sqlite", "provena", "server.", "start.lock", "blobs", "runs", "outbox", "hosts", "login")
    assert all(path.name.startswith(known) for path in local_platform.root.iterdir()), list(
        local_platform.root.iterdir()
    )


@pytest.mark.parametrize("text", [*NASTY[:2], *(pytest.param(text, marks=pytest.mark.long) for text in NASTY[2:])])
def test_a_name_or_urn_is_never_a_place(first, text):
    """Every free text in a header or field is stored unchanged or refused. Its bytes are stored under a UUID."""
    headers = {"X-Name": b64(text), "X-Content-Type": quote(text), "X-Collection": f"urn:x:{quote(text)}"}
    headers |= {"Ivcap-Job-Id": quote(text), "Upload-Metadata": f"filename {b64(text)}", "X-Content-Length": "3"}
    artifact = first.call("POST", "/1/artifacts", 201, headers=headers).json()
    first.patch(artifact, b"abc", 0)
    assert first.bytes_of(artifact["id"]) == b"abc" and first.get(f"/1/artifacts/{artifact['id']}")["name"] == text
    urn = first.add(f"urn:x:{text}"[:1900], {"t": text, text: 1}, schema=f"urn:s:{text}"[:1900])
    assert first.get(f"/1/aspects/{urn}")["entity"] == f"urn:x:{text}"[:1900]
    service = {"name": text, "description": text, "tags": [text], "controller-schema": text, "controller": {"a": text}}
    made = first.call("POST", "/1/services2", 201, json=service).json()
    assert made["name"] == text and BARE.search(made["id"])
    first.call("POST", "/1/services2", 422, json=service | {"id": f"{text}/"})
    order = {"service": first.service("echo"), "parameters": [{"name": "message", "value": text}]}
    placed = first.call("POST", "/1/orders", 200, json=order | {"name": text, "tags": [text]}).json()
    assert first.finished(placed)["status"] == "succeeded"
    for path, body in (
        ("/1/queues", {"name": text}),
        ("/1/secrets", {"secret-name": text, "secret-value": text, "expiry-time": 0}),
        ("/1/project", {"name": text, "properties": {"details": text}}),
    ):
        assert first.http.post(path, json=body).status_code in (200, 201, 204, 400, 422), path
    for path in ("/1/artifacts", "/1/aspects", "/1/packages/list", "/1/secrets/list"):
        for param in ("filter", "page", "order-by", "entity", "tag", "content-path", "offset"):
            assert first.http.get(path, params={param: text}).status_code < 500, (path, param)


def raw(embedded, method, path, headers=(), body=b""):
    """Return the status of a request whose path is sent unchanged."""
    address = urlsplit(embedded.url)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", "Connection: close", *headers]
    token = f"Authorization: Bearer {embedded.environment['IVCAP_JWT']}"
    head = "\r\n".join([*lines, token, f"Content-Length: {len(body)}", "", ""]).encode("latin-1")
    with closing(socket.create_connection((address.hostname, address.port), 20)) as connection:
        connection.sendall(head + body)
        reply = b""
        while part := connection.recv(65536):
            reply += part
    assert b"root:" not in reply and b"\r\nX-Evil" not in reply
    return int(reply.split(b" ", 2)[1])


def routes(embedded):
    """Return method, path and whether it is public, for each route of IVCAP."""
    found = httpx.get(f"{embedded.url}/1/openapi/openapi3.json").json()
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation["security"] == []


def test_no_path_leads_out(local_platform):
    """Every disguised path in an id, in each route, is a client error."""
    tried = [(method, path) for method, path, _ in routes(local_platform) if "{" in path]
    assert len(tried) > 30
    for method, path in tried:
        for text in IN_PATHS:
            status = raw(local_platform, method, re.sub("{[a-z]+}", text, path), body=b"{}")
            assert 400 <= status < 500, (method, path, text, status)
    for path in (
        "/../../etc/passwd",
        "/1/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//../etc/passwd",
        "/1/\\..\\x",
    ):
        assert raw(local_platform, "GET", path) == 404
    for path in (
        "/_embedded/../1/artifacts",
        "/_embedded/%2e%2e/1",
        "/_embedded/faults/..%2f..",
        "/provena/files/../../x",
    ):
        assert raw(local_platform, "GET", path) in (401, 403, 404)


@pytest.mark.parametrize(
    "text",
    [
        NASTY[0],
        "text/plain\r\nX-Evil: 1",
        *(pytest.param(text, marks=pytest.mark.long) for text in (*NASTY[1:6], "ünï→", "")),
    ],
)
def test_what_a_service_says_is_never_a_place_or_a_header(first, telling, text):
    """This holds for names and media types of products, `$schema`, `$id` and `$policy` of a result, events and log
    lines."""
    order = first.finished(first.order(telling("tells", {"name": "text", "type": "string"}), text=text))
    assert order["status"] == "succeeded", first.job_of(order)
    (product,) = first.get(f"/1/orders/{order['id']}/products")["items"]
    assert BARE.search(product["id"])
    assert first.get(f"/1/artifacts/{product['id']}").get("name", "") == text
    job = first.job_of(order)
    for path in (f"/1/artifacts/{product['id']}/blob", f"/1/services2/{job['service']}/jobs/{job['id']}/output"):
        reply = first.call("GET", path)
        assert reply.headers["Content-Type"].isascii() and "X-Evil" not in reply.headers
    spoken = first.finished(first.order(telling("speaks", {"name": "text", "type": "string"}), text=text))
    job = first.job_of(spoken)
    reply = first.call("GET", f"/1/services2/{job['service']}/jobs/{job['id']}/output")
    assert reply.content == b"x" and "X-Evil" not in reply.headers


def test_every_route_wants_its_token(local_platform):
    """All routes that are not described as public answer 401 without a token, or with a wrong or expired one."""
    wrong = ["", "Bearer", "Bearer x.y.z", f"Bearer {local_platform.environment['IVCAP_JWT_EXPIRED']}"]
    wrong += [
        "Basic eDp5",
        f"Bearer {local_platform.environment['IVCAP_JWT']}x",
        f"Bearer {local_platform.known()['control']}",
    ]
    private = [(method, path) for method, path, public in routes(local_platform) if not public]
    assert {path for _, path, public in routes(local_platform) if public} == {
        "/1/openapi/openapi3.json",
        "/1/authinfo.yaml",
    }
    assert len(private) > 50
    with httpx.Client(base_url=local_platform.url) as nobody:
        for method, path in private:
            for header in wrong:
                reply = nobody.request(method, re.sub("{[a-z]+}", "x", path), headers={"Authorization": header})
                assert reply.status_code == 401, (method, path, header[:9])
        for path in ("/_embedded/faults", "/_embedded/log", "/_embedded/clock", "/_embedded/login"):
            for method in ("GET", "POST", "DELETE"):
                assert nobody.request(method, path).status_code in (401, 404)


def test_every_route_of_provena_wants_its_token(local_platform):
    """The same for Provena, except health, the description of an API, and what Provena serves to all."""
    open_to_all = set()
    with httpx.Client() as nobody:
        for name, url in local_platform.environment.items():
            if not re.fullmatch("PROVENA_(AUTH|REGISTRY|PROV|JOB|DATA_STORE|SEARCH|HANDLE)_API", name):
                continue
            for path, operations in nobody.get(f"{url}/openapi.json").json()["paths"].items():
                for method in operations:
                    if nobody.request(method, url + re.sub("{[a-z_]+}", "x", path)).status_code != 401:
                        open_to_all.add(path)
    assert open_to_all <= {"/", "/check-access/public"}


def test_it_listens_on_this_machine_alone(local_platform):
    """No socket of the server has an address that other machines can reach."""
    process = psutil.Process(local_platform.known()["pid"])
    listening = [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert listening and set(listening) == {"127.0.0.1"}
    assert local_platform.root.stat().st_mode & 0o077 == 0
    for path in (local_platform.root / "server.json", local_platform.root.parent / "embedded.env"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example:80", 421),
        ("Host", "localhost.evil.example", 421),
        ("Host", "evil.example#127.0.0.1", 421),
        ("Host", "10.0.0.1", 421),
        ("Host", "[2001:db8::1]:80", 421),
        ("Host", "0.0.0.0", 421),
        ("Host", "", 421),
        ("Host", "[::1].evil.example", 421),
        ("Host", "127.0.0.1:80.evil.example", 421),
        ("Origin", "http://[", 403),
        ("Sec-Fetch-Site", "Cross-Site", 403),
        ("Origin", "http://evil.example", 403),
        ("Origin", "https://127.0.0.1.evil.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Host", "localhost:1", 200),
        ("Host", "LOCALHOST.", 200),
        ("Host", "embedded.localhost", 200),
        ("Host", "127.0.0.2:80", 200),
        ("Host", "[::1]:80", 200),
        ("Origin", "http://localhost:3000", 200),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
    ],
)
def test_a_page_of_another_site_drives_nothing(local_platform, first, header, value, status):
    """A foreign host name (DNS rebinding) or origin is refused everywhere, also on public routes."""
    paths = ["/1/artifacts", "/1/authinfo.yaml", "/_embedded", "/_embedded/faults", "/provena/registry/", "/nothing"]
    for path in paths:
        reply = first.http.get(path, headers={header: value, "X-Embedded-Control": local_platform.known()["control"]})
        assert reply.status_code == (status if path != "/nothing" or status != 200 else 404), path
        assert "Access-Control-Allow-Origin" not in reply.headers
    realm = (
        f"/provena/keycloak/realms/{local_platform.environment['PROVENA_REALM']}/protocol/openid-connect/auth/device"
    )
    form = {"client_id": local_platform.environment["PROVENA_CLIENT_ID"]}
    assert first.http.post(realm, data=form, headers={header: value}).status_code == status


def answer(embedded, *head, body=b""):
    """Return the complete reply to a request whose lines are sent unchanged."""
    address = urlsplit(embedded.url)
    lines = "\r\n".join([*head, "Connection: close", f"Content-Length: {len(body)}", "", ""])
    with closing(socket.create_connection((address.hostname, address.port), 20)) as connection:
        connection.sendall(lines.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_an_absolute_target_names_a_host_as_well(local_platform):
    """A foreign name in the target is refused, whatever Host says, and the other way round."""
    for target, host, status in (
        ("http://evil.example/1/authinfo.yaml", "127.0.0.1", 421),
        ("http://127.0.0.1/1/authinfo.yaml", "evil.example", 421),
        ("http://u@127.0.0.1/1/authinfo.yaml", "127.0.0.1", 421),
        ("http://127.0.0.1/1/authinfo.yaml", "127.0.0.1", 200),
    ):
        assert answer(local_platform, f"GET {target} HTTP/1.1", f"Host: {host}").startswith(f"HTTP/1.1 {status} ")


def test_headers_of_proxies_are_not_believed(local_platform):
    """They neither pass for this machine's name nor appear in the addresses that the server gives out."""
    forwarded = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example")
    told = answer(local_platform, "GET /1/authinfo.yaml HTTP/1.1", "Host: 127.0.0.1", *forwarded)
    assert told.startswith("HTTP/1.1 200 ") and "evil" not in told and "https:" not in told
    passed = ("X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1")
    told = answer(local_platform, "GET /1/authinfo.yaml HTTP/1.1", "Host: evil.example", *passed)
    assert told.startswith("HTTP/1.1 421 ")


def test_a_browser_asks_in_vain_for_a_foreign_page(local_platform):
    """A preflight of another origin is refused, and so is a form that needs none, on every kind of path."""
    page = ("Host: 127.0.0.1", "Origin: http://evil.example")
    wanted = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    for path in ("/1/aspects", "/login", "/_embedded/login", "/provena/registry/registry/agent/person/create"):
        asked = answer(local_platform, f"OPTIONS {path} HTTP/1.1", *page, *wanted)
        posted = answer(local_platform, f"POST {path} HTTP/1.1", *page, "Content-Type: text/plain", body=b'{"a": 1}')
        for told in (asked, posted):
            assert told.startswith("HTTP/1.1 403 ") and "access-control-allow" not in told.lower(), path


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("Host", "evil.example", 421), ("Origin", "http://evil.example", 403), ("Sec-Fetch-Site", "cross-site", 403)],
)
def test_a_page_of_another_site_gets_nothing_from_a_sidecar(tmp_path, header, value, status):
    """A sidecar refuses pages of other sites, since it acts with the token of its job."""
    job, folder = f"urn:ivcap:job:{uuid.uuid4()}", Directory(tmp_path)
    ticket = {"job": job, "request": {}, "token": "secret"}
    with Sidecar(folder) as sidecar:
        sidecar.seat(ticket, ServiceJob(folder, job=job, order="", service="", account=""))
        refused = httpx.get(f"{sidecar.url}/next_job", headers={header: value})
        assert refused.status_code == status and "authorization" not in refused.headers
        assert httpx.get(f"{sidecar.url}/next_job").json()["id"] == job
        sidecar.shutdown()


@pytest.mark.skipif(os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can be another user")
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_other_users_of_the_machine_get_nothing_from_a_sidecar(tmp_path, system, monkeypatch):
    """A sidecar refuses other users of the machine, since it acts with the token of its job."""
    monkeypatch.setattr(sys, "platform", system)
    folder, job = Directory(tmp_path), "urn:ivcap:job:j"
    ticket = {"job": job, "token": "t", "request": {}}
    ask = (
        "import encodings.idna, os, sys, urllib.error, urllib.request\n"
        "os.setuid(65534)\n"
        "try: print(urllib.request.urlopen(sys.argv[1]).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    with Sidecar(folder) as sidecar:
        sidecar.seat(ticket, ServiceJob(folder, job=job, order="", service="", account=""))
        command = [sys.executable, "-c", ask, f"{sidecar.url}/next_job"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
        with httpx.Client() as own:
            assert [own.get(f"{sidecar.url}/next_job").json().get("id") for _ in range(2)] == [job, None]
        sidecar.shutdown()


def test_heads_are_bounded(local_platform, first):
    """Oversized headers get 431, an oversized target 414, and a head that never ends is cut off."""
    assert first.http.get("/1/artifacts", headers={"X-Padding": "x" * 70_000}).status_code == 431
    many = {f"X-{number}": "x" * 100 for number in range(700)}
    assert first.http.get("/1/artifacts", headers=many).status_code == 431
    assert first.http.get("/1/artifacts", params={"filter": "x" * 20_000}).status_code == 414
    address = urlsplit(local_platform.url)
    with closing(socket.create_connection((address.hostname, address.port), 20)) as endless:
        endless.sendall(b"GET / HTTP/1.1\r\nX-Padding: ")
        with pytest.raises(OSError):
            for _ in range(1000):
                endless.sendall(b"x" * 65536)
    first.get("/1/artifacts")


def test_bodies_are_bounded(local_platform, first):
    """An oversized body gets 413, before it is read if its length is known, or else while it is read."""
    control = {"X-Embedded-Control": local_platform.known()["control"]}
    assert raw_length(local_platform, "/1/aspects?entity=urn:x:y&schema=urn:x:s", 65 * 1024 * 1024) == 413
    assert raw_length(local_platform, "/provena/registry/registry/agent/person/create", 11 * 1024 * 1024) == 413
    for path, size in (("/_embedded/faults", 2), ("/provena/registry/registry/agent/person/create", 11)):
        reply = first.http.post(path, content=iter([b"x" * 65536] * 16 * size), headers=control)
        assert reply.status_code == 413 and reply.json()["message"]


def raw_length(embedded, path, size):
    """Return the status of a request that announces so many bytes and sends none."""
    address = urlsplit(embedded.url)
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {size}\r\n"
    with closing(socket.create_connection((address.hostname, address.port), 20)) as connection:
        connection.sendall(f"{head}Authorization: Bearer {embedded.environment['IVCAP_JWT']}\r\n\r\n".encode())
        return int(connection.recv(65536).split(b" ", 2)[1])


def test_json_is_bounded_in_depth(local_platform, first, telling):
    """JSON that is nested too deeply is a 400 on both platforms, since every list and filter would read it again."""
    params = {"entity": "urn:t:deep", "schema": "urn:t:deep.1"}
    for depth in (201, 990, 100_000):
        content = b'{"a":' * depth + b"1" + b"}" * depth
        first.call("POST", "/1/aspects", 400, params=params, content=content)
        first.call("POST", "/1/orders", 400, content=b"[" * depth)
        registry = f"{local_platform.environment['PROVENA_PROV_API']}/model_run/register"
        # FastAPI, as on the real server, reads the body before it asks who sends it.
        assert httpx.post(registry, content=content).status_code == 400
    content = b'{"a":' * 199 + b"1" + b"}" * 199
    first.call("POST", "/1/aspects", params=params, content=content)
    page = first.get("/1/aspects", params=params | {"order-by": "a", "content-path": "$.a", "include-content": "true"})
    assert json.dumps(page["items"][0]["content"], separators=(",", ":")).encode() == content
    for depth in (100, 900):
        order = first.finished(first.order(telling("nests", {"name": "depth", "type": "int"}), depth=str(depth)))
        first.job_of(order)
    assert first.finished(first.order("echo", message="still here"))["status"] == "succeeded"


def test_no_token_is_in_a_file_that_is_a_log(tmp_path, monkeypatch):
    """Only the file for its user has a token, not the log of a server started on demand or any other file."""
    monkeypatch.setattr("ivcap_flows.local.ondemand.IDLE", 4.0)
    embedded = local.ensure(tmp_path / "embedded")
    tokens = {name: value for name, value in embedded.environment.items() if "JWT" in name or "TOKEN" in name}
    assert len(tokens) >= 6
    secrets = {**tokens, "control": embedded.control, "made up": f"made-up-{uuid.uuid4()}"}
    with httpx.Client(base_url=embedded.url) as caller:
        for token in secrets.values():
            for path in ("/1/artifacts", f"/1/artifacts/{token}", "/provena/registry/check-access/check-read-access"):
                caller.get(path, headers={"Authorization": f"Bearer {token}", "X-Embedded-Control": token})
        caller.post(
            "/_embedded/faults",
            json={"path": "", "storage_full": True},
            headers={"X-Embedded-Control": embedded.control},
        )
        caller.post("/1/artifacts", headers={"Authorization": f"Bearer {embedded.environment['IVCAP_JWT']}"})
        caller.post("/provena/jobs/jobs/admin/launch", headers={"Authorization": "Bearer x"}, content=b"{")
    for path in embedded.directory.rglob("*"):
        if path.is_file() and path.name != "server.json":
            content = path.read_bytes()
            assert not [name for name, token in secrets.items() if token.encode() in content], path
    psutil.Process(json.loads((embedded.directory / "server.json").read_text())["pid"]).terminate()


def open_to_others(root):
    """Return what another user could read or change below a folder."""
    found = []
    for path in root.iterdir():
        if path.lstat().st_mode & 0o077:
            found += [path, *(open_to_others(path) if path.is_dir() else [])]
    return found


def test_the_state_is_its_owners_in_a_folder_that_is_not(tmp_path):
    """Where others may enter the folder and nothing is masked, they can still read no file in it, new or old.

    Its database has the secret that tokens are signed with.
    """
    root = tmp_path / "embedded"
    root.mkdir()
    before = os.umask(0)
    try:
        for _ in range(2):
            root.chmod(0o777)
            embedded = local.ensure(root)
            with httpx.Client(base_url=embedded.url) as caller:
                token = {"Authorization": f"Bearer {embedded.environment['IVCAP_JWT']}", "X-Content-Length": "1"}
                assert caller.post("/1/artifacts", headers=token).status_code == 201
            assert open_to_others(root) == []
            psutil.Process(json.loads((root / "server.json").read_text())["pid"]).kill()
            # As an earlier version, or a careless user, may have left them.
            for path in root.iterdir():
                path.chmod(0o777 if path.is_dir() else 0o666)
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's files")
@pytest.mark.parametrize("planted", ["server.json", "ivcap.sqlite", "services"])
def test_a_folder_that_another_user_filled_is_refused(tmp_path, local_platform, planted):
    """Even if a server answers that knows the control token, as the one that another user runs for their folder does.

    A record could name a command of theirs, and their server would get what flows upload.
    """
    root = tmp_path / "ivcap-artifacts"
    root.mkdir()
    place = root / planted
    if planted == "services":
        place.mkdir()
    elif planted == "server.json":
        place.write_bytes((local_platform.root / planted).read_bytes())
        assert local.ensure(root).url == local_platform.url
    else:
        place.touch()
    os.chown(place, 65534, 65534)
    with pytest.raises(EmbeddedPlatformError, match=f"{planted} in it belongs to another user.*IVCAP_LOCAL_DIR"):
        local.ensure(root)


SQUATTER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"instance": sys.argv[2], "proof": ""}).encode()
        print(self.path, self.headers, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_who_takes_the_port_of_a_killed_server_gets_no_token(tmp_path):
    """It may tell the same public facts, and does not know the control token. A server of the folder is started."""
    one = local.ensure(tmp_path / "embedded")
    server = psutil.Process(json.loads((one.directory / "server.json").read_text())["pid"])
    server.kill()
    server.wait(60)
    port = str(urlsplit(one.url).port)
    with (tmp_path / "said").open("wb") as said:
        squatter = subprocess.Popen([sys.executable, "-c", SQUATTER, port, one.instance], stdout=said)
    try:
        for _ in range(600):
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", int(port)), 20)):
                break
            time.sleep(0.1)
        two = local.ensure(one.directory)
        assert two.url != one.url and two.instance == one.instance
        said = (tmp_path / "said").read_text()
        assert "/_embedded" in said and "Authorization" not in said and one.control not in said
        two.end()
    finally:
        squatter.kill()
        squatter.wait()


def test_a_service_gets_none_of_the_users_tokens(local_home, project):
    """It runs with the environment in which the server was started, without the variables that have tokens."""
    names = ["IVCAP_JWT", "IVCAP_ACCESS_TOKEN", "PROVENA_OFFLINE_TOKEN", "PROVENA_CLIENT_SECRET"]
    names += ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "OPENLINEAGE_API_KEY"]
    names += ["PREFECT_SERVER_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"]
    names += ["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    local_home.variables |= {name: f"s3cret-{name}" for name in names} | {"ORDINARY": "s3cret-ordinary"}
    caller = local_home.start().caller()
    (project / "environment_of_tests.py").write_text(
        "import os\ndef seen(request, job):\n    return [n for n, v in os.environ.items() if 's3cret-' in v]\n"
    )
    definition = {"name": "seen", "entry": "environment_of_tests:seen", "parameters": []}
    service = register(local_home.url, local_home.environment["IVCAP_JWT"], definition, project / "defs.yaml")
    job = caller.job_of(caller.finished(caller.order(service)))
    assert job["result-content"] == ["ORDINARY"]


PRIVATE = "urn:t:belongs-to-first"


@pytest.fixture
def belongings(first, local_platform):
    """Return one thing of each noun that an account has, as the paths that read, change and end it."""
    artifact = first.upload(b"mine")["id"]
    order = first.finished(first.order("echo", message="mine"))
    job = first.job_of(order)
    service = {"name": "mine", "description": "mine", "controller-schema": "urn:x:1", "controller": {}}
    service = first.call("POST", "/1/services2", 201, json=service).json()["id"]
    aspect = first.add(PRIVATE, {"n": 1})
    queue = first.call("POST", "/1/queues", 201, json={"name": f"mine-{uuid.uuid4()}"}).json()["id"]
    first.call("POST", f"/1/queues/{queue}/messages", params={"schema": "urn:t:m"}, json={"n": 1})
    project = first.call("POST", "/1/project", json={"name": "mine alone"}).json()["urn"]
    name = f"mine-{uuid.uuid4()}"
    first.call("POST", "/1/secrets", 204, json={"secret-name": name, "secret-value": "v", "expiry-time": 0})
    at_job = f"/1/services2/{order['service']}/jobs/{job['id']}"
    return {
        "artifact": (artifact, [f"/1/artifacts/{artifact}"], []),
        "blob": (artifact, [f"/1/artifacts/{artifact}/blob"], [("PATCH", f"/1/artifacts/{artifact}/blob")]),
        "order": (
            order["id"],
            [f"/1/orders/{order['id']}{part}" for part in ("", "/products", "/metadata", "/logs", "/top")],
            [],
        ),
        "job": (job["id"], [f"{at_job}{part}" for part in ("", "/output", "/events?max-wait-time=1")], []),
        "aspect": (aspect, [f"/1/aspects/{aspect}", f"/1/metadata/{aspect}"], [("DELETE", f"/1/aspects/{aspect}")]),
        "service": (
            service,
            [f"/1/services2/{service}", f"/1/services2/{service}/jobs"],
            [(method, f"/1/services2/{service}") for method in ("PUT", "DELETE")],
        ),
        "queue": (
            queue,
            [f"/1/queues/{queue}", f"/1/queues/{queue}/messages"],
            [("POST", f"/1/queues/{queue}/messages"), ("DELETE", f"/1/queues/{queue}")],
        ),
        "secret": (name, [f"/1/secrets?secret-name={name}"], []),
        "project": (
            project,
            [f"/1/project/{project}{part}" for part in ("", "/account", "/members")],
            [("PUT", f"/1/project/{project}"), ("DELETE", f"/1/project/{project}")],
        ),
    }


LISTS = ["artifacts", "orders", "aspects", "services2", "services", "queues", "project", "secrets/list", "metadata"]


def test_an_account_has_no_sight_of_anothers_things(first, second, belongings):
    """For every noun, another account gets 404 for reading, changing and ending, and no list, filter or search shows
    it."""
    for noun, (_, reads, changes) in belongings.items():
        for path in reads:
            assert second.http.get(path).status_code == 404, (noun, path)
        for method, path in changes:
            headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
            body = {"name": "taken", "description": "d", "controller-schema": "urn:x:1", "controller": {}}
            more = {"headers": headers, "content": b""} if method == "PATCH" else {}
            more = {"json": body, "params": {"schema": "urn:t:m"}} if method in ("PUT", "POST") else more
            assert second.http.request(method, path, **more).status_code == 404, (noun, method, path)
    mine = {urn for urn, _, _ in belongings.values()}
    lists = [f"/1/{name}" for name in LISTS] + [f"/1/services2/{first.service('echo')}/jobs"]
    for path in lists:
        assert not [urn for urn in mine if urn in second.call("GET", path, params={"limit": 50}).text], path
    listed = " ".join(first.call("GET", path, params={"limit": 50}).text for path in lists)
    assert [urn for urn in mine if urn not in listed] == []
    program = f':load_aspect(/p, "urn:t:schema.1", ["entity"]).\nquery(E) :- p(E), E = "{PRIVATE}".'
    for caller, items in ((first, [PRIVATE]), (second, [])):
        reply = caller.call("POST", "/1/search", content=program, headers={"Content-Type": "application/json"})
        assert reply.json()["items"] == items
    for noun, (_, reads, _) in belongings.items():
        for path in reads:
            assert first.http.get(path).status_code in (200, 204), (noun, path)


def test_a_cursor_of_one_account_shows_another_nothing(first, second):
    """A cursor says where a list continues, not who may read it."""
    for number in range(3):
        first.add("urn:t:paged", {"n": number})
    page = first.get("/1/aspects", params={"entity": "urn:t:paged", "limit": 1})
    (cursor,) = [link["href"].partition("page=")[2] for link in page["links"] if link["rel"] == "next"]
    assert second.get("/1/aspects", params={"page": cursor})["items"] == []
    assert len(first.get("/1/aspects", params={"page": cursor})["items"]) == 2
