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
from eventually import until

from ivcap_flows import local
from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.uncalled import OPERATIONS as UNCALLED
from ivcap_flows.local.services.job import ServiceJob
from ivcap_flows.local.services.sidecar import Sidecar

ESCAPES = [
    *("../../escape", "..\\..\\escape", "/etc/passwd", "/tmp/escape", "a/../../../escape", "%2e%2e/%2e%2e/escape"),
    *("..", "~/escape", "C:\\escape", "line\nfeed", "nul\0byte", "\u202eescape", "x" * 3000),
]
IN_PATHS = [
    *("..%2f..%2fescape", "%2e%2e%2f%2e%2e%2fescape", "..%5c..%5cescape", "%2fetc%2fpasswd", "%00", "a%00b"),
    *("a%0d%0aX-Evil:%201", "..%252f..%252fescape", "urn%3Aivcap%3Aartifact%3A..%2f..%2fescape", "x" * 3000),
    *("%ff%fe", "..."),
]
OUTSIDE = [
    *("/../../etc/passwd", "/1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//../etc/passwd", "/1/\\..\\x"),
    *("/_embedded/../1/artifacts", "/_embedded/%2e%2e/1", "/_embedded/faults/..%2f..", "/provena/files/../../x"),
]
IN_A_RUN = {"lock", "log", "log.times", "job.json", "events", "started", "work", "products"}
BARE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TEXT = {"name": "text", "type": "string"}


def b64(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(autouse=True)
def nothing_outside(local_platform):
    """Check after each test that the platforms' folder has only its own names, and that nothing outside has changed."""
    around, root = local_platform.root.parent, local_platform.root
    ours = {root, around / "data" / "ivcap-flows"}

    def outside():
        return sorted(str(path) for path in around.rglob("*") if not {path, *path.parents} & ours)

    (around / "data").mkdir(exist_ok=True)
    before = outside()
    yield
    assert outside() == before
    for path in (root / "blobs").rglob("*"):
        assert BARE.fullmatch(path.name) if path.is_file() else re.fullmatch("[0-9a-f]{2}", path.name), path
    for path in (root / "runs").iterdir():
        assert BARE.fullmatch(path.name), path
        assert {inner.name for inner in path.iterdir()} <= IN_A_RUN
        assert all(BARE.fullmatch(inner.name) for inner in (path / "products").glob("*"))
    known = ("ivcap.sqlite", "provena", "server.", "start.lock", "blobs", "runs", "outbox", "services", "login")
    assert [path.name for path in root.iterdir() if not path.name.startswith(known)] == []


@pytest.mark.parametrize("text", [ESCAPES[0], *(pytest.param(each, marks=pytest.mark.long) for each in ESCAPES[1:])])
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
    ):
        assert first.http.post(path, json=body).status_code in (200, 201, 204, 400, 422), path
    for path in ("/1/artifacts", "/1/aspects", "/1/packages/list", "/1/secrets/list"):
        for param in ("filter", "page", "order-by", "entity", "tag", "content-path", "offset"):
            assert first.http.get(path, params={param: text}).status_code < 500, (path, param)


def answer(home, *head, body=b"", length=None):
    """Return the status and the complete reply to a request whose lines are sent unchanged."""
    address = urlsplit(home.url)
    length = len(body) if length is None else length
    lines = "\r\n".join([*head, "Connection: close", f"Content-Length: {length}", "", ""])
    with closing(socket.create_connection((address.hostname, address.port), 60)) as connection:
        connection.sendall(lines.encode("latin-1") + body)
        reply = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
    return int(reply.split(" ", 2)[1]), reply


def raw(home, method, path, **more):
    """Return the status of a request of the first account whose path is sent unchanged."""
    token = f"Authorization: Bearer {home.environment['IVCAP_JWT']}"
    status, reply = answer(home, f"{method} {path} HTTP/1.1", f"Host: {urlsplit(home.url).netloc}", token, **more)
    assert "root:" not in reply and "\r\nX-Evil" not in reply
    return status


def routes(home):
    """Return method, path and whether it is public, for each route of IVCAP."""
    found = httpx.get(f"{home.url}/1/openapi/openapi3.json").json()
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation["security"] == []


def test_no_path_leads_out(local_platform):
    """Every disguised path in an id, in each route, is a client error. An operation with one answer gives that."""
    one_answer = {(operation.method, operation.path) for operation in UNCALLED}
    tried = [(method, path) for method, path, _ in routes(local_platform) if "{" in path]
    assert len(tried) > 30
    for method, path in tried:
        for text in IN_PATHS:
            status = raw(local_platform, method, re.sub("{[a-z]+}", text, path), body=b"{}")
            known = status == 501 and (method, path) in one_answer
            assert known or 400 <= status < 500, (method, path, text, status)
    assert [path for path in OUTSIDE if raw(local_platform, "GET", path) not in (401, 403, 404)] == []


@pytest.mark.parametrize(
    "text",
    ["text/plain\r\nX-Evil: 1", *(pytest.param(each, marks=pytest.mark.long) for each in (*ESCAPES[:6], "ünï→", ""))],
)
def test_what_a_service_says_is_never_a_place_or_a_header(first, register_service, text):
    """This holds for names and media types of products, `$schema`, `$id` and `$policy` of a result, events and log
    lines."""
    order = first.finished(first.order(register_service("says", TEXT), text=text))
    assert order["status"] == "succeeded", first.job_of(order)
    (product,) = first.get(f"/1/orders/{order['id']}/products")["items"]
    assert BARE.search(product["id"])
    assert first.get(f"/1/artifacts/{product['id']}").get("name", "") == text
    job = first.job_of(order)
    for path in (f"/1/artifacts/{product['id']}/blob", f"/1/services2/{job['service']}/jobs/{job['id']}/output"):
        reply = first.call("GET", path)
        assert reply.headers["Content-Type"].isascii() and "X-Evil" not in reply.headers
    job = first.job_of(first.finished(first.order(register_service("speaks", TEXT), text=text)))
    reply = first.call("GET", f"/1/services2/{job['service']}/jobs/{job['id']}/output")
    assert reply.content == b"x" and "X-Evil" not in reply.headers


def test_every_route_wants_its_token(local_platform):
    """All routes that are not described as public answer 401 without a token, or with a wrong or expired one."""
    token, expired = local_platform.environment["IVCAP_JWT"], local_platform.environment["IVCAP_JWT_EXPIRED"]
    wrong = ["", "Bearer", "Bearer x.y.z", "Basic eDp5", f"Bearer {expired}", f"Bearer {token}x"]
    wrong.append(f"Bearer {local_platform.known()['control']}")
    public = {path for _, path, public in routes(local_platform) if public}
    private = [(method, path) for method, path, public in routes(local_platform) if not public]
    assert public == {"/1/openapi/openapi3.json", "/1/authinfo.yaml"} and len(private) > 50
    with httpx.Client(base_url=local_platform.url, timeout=60) as nobody:
        for method, path in private:
            for header in wrong:
                reply = nobody.request(method, re.sub("{[a-z]+}", "x", path), headers={"Authorization": header})
                assert reply.status_code == 401, (method, path, header[:9])
        for path in ("/_embedded/faults", "/_embedded/log", "/_embedded/clock", "/_embedded/login"):
            for method in ("GET", "POST", "DELETE"):
                for header in ("", f"Bearer {token}"):
                    reply = nobody.request(method, path, headers={"Authorization": header})
                    assert reply.status_code in (401, 404), (method, path)


def test_every_route_of_provena_wants_its_token(local_platform):
    """The same for Provena, except health, the description of an API, and what Provena serves to all."""
    open_to_all = set()
    with httpx.Client(timeout=60) as nobody:
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


FOREIGN_HOSTS = [
    *("evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "evil.example#127.0.0.1", "10.0.0.1"),
    *("[2001:db8::1]:80", "0.0.0.0", "", "[::1].evil.example", "127.0.0.1:80.evil.example"),
]
OWN_HOSTS = ["localhost:1", "LOCALHOST.", "embedded.localhost", "127.0.0.2:80", "[::1]:80"]
FOREIGN_PAGES = [
    *({"Origin": each} for each in ("http://[", "http://evil.example", "https://127.0.0.1.evil.example", "null")),
    *({"Sec-Fetch-Site": each} for each in ("Cross-Site", "cross-site")),
]
OWN_PAGES = [{"Origin": "http://localhost:3000"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


@pytest.mark.parametrize(
    ("status", "cases"),
    [
        pytest.param(421, [{"Host": each} for each in FOREIGN_HOSTS], id="foreign hosts"),
        pytest.param(403, FOREIGN_PAGES, id="foreign pages"),
        pytest.param(200, [{"Host": each} for each in OWN_HOSTS] + OWN_PAGES, id="own hosts and pages"),
    ],
)
def test_a_page_of_another_site_drives_nothing(local_platform, first, status, cases):
    """A foreign host name (DNS rebinding) or origin is refused everywhere, also on public routes."""
    token = {"X-Embedded-Control": local_platform.known()["control"]}
    paths = ["/1/artifacts", "/1/authinfo.yaml", "/_embedded", "/_embedded/faults", "/provena/registry/", "/nothing"]
    form = {"client_id": local_platform.environment["PROVENA_CLIENT_ID"]}
    for headers in cases:
        for path in paths:
            reply = first.http.get(path, headers=token | headers)
            expected = 404 if path == "/nothing" and status == 200 else status
            assert reply.status_code == expected, (path, headers)
            assert "Access-Control-Allow-Origin" not in reply.headers
        device = f"{local_platform.realm}/protocol/openid-connect/auth/device"
        assert first.http.post(device, data=form, headers=headers).status_code == status, headers


def test_an_absolute_target_names_a_host_as_well(local_platform):
    """A foreign name in the target is refused, whatever Host says, and the other way round."""
    for target, host, status in (
        ("http://evil.example/1/authinfo.yaml", "127.0.0.1", 421),
        ("http://127.0.0.1/1/authinfo.yaml", "evil.example", 421),
        ("http://u@127.0.0.1/1/authinfo.yaml", "127.0.0.1", 421),
        ("http://127.0.0.1/1/authinfo.yaml", "127.0.0.1", 200),
    ):
        assert answer(local_platform, f"GET {target} HTTP/1.1", f"Host: {host}")[0] == status


def test_headers_of_proxies_are_not_believed(local_platform):
    """They neither pass for this machine's name nor appear in the addresses that the server gives out."""
    forwarded = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example")
    status, reply = answer(local_platform, "GET /1/authinfo.yaml HTTP/1.1", "Host: 127.0.0.1", *forwarded)
    assert status == 200 and "evil" not in reply and "https:" not in reply
    passed = ("X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1")
    assert answer(local_platform, "GET /1/authinfo.yaml HTTP/1.1", "Host: evil.example", *passed)[0] == 421


def test_a_browser_asks_in_vain_for_a_foreign_page(local_platform):
    """A preflight of another origin is refused, and so is a form that needs none, on every kind of path."""
    page = ("Host: 127.0.0.1", "Origin: http://evil.example")
    wanted = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    for path in ("/1/aspects", "/login", "/_embedded/login", "/provena/registry/registry/agent/person/create"):
        asked = answer(local_platform, f"OPTIONS {path} HTTP/1.1", *page, *wanted)
        posted = answer(local_platform, f"POST {path} HTTP/1.1", *page, "Content-Type: text/plain", body=b'{"a": 1}')
        for status, reply in (asked, posted):
            assert status == 403 and "access-control-allow" not in reply.lower(), path


@pytest.fixture
def sidecar(tmp_path):
    """A sidecar that has one job, and the job's URN."""
    job, folder = f"urn:ivcap:job:{uuid.uuid4()}", Directory(tmp_path)
    with Sidecar(folder) as made:
        ticket = {"job": job, "request": {}, "token": "secret"}
        made.seat(ticket, ServiceJob(folder, job=job, order="", service="", account=""))
        yield made, job
        made.shutdown()


def test_a_page_of_another_site_gets_nothing_from_a_sidecar(sidecar):
    """A sidecar refuses pages of other sites, since it acts with the token of its job."""
    server, job = sidecar
    for header, value, status in (
        ("Host", "evil.example", 421),
        ("Origin", "http://evil.example", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
    ):
        refused = httpx.get(f"{server.url}/next_job", headers={header: value})
        assert refused.status_code == status and "authorization" not in refused.headers
    assert httpx.get(f"{server.url}/next_job").json()["id"] == job


AS_NOBODY = """
import encodings.idna, os, sys, urllib.error, urllib.request
os.setuid(65534)
try: print(urllib.request.urlopen(sys.argv[1]).status)
except urllib.error.HTTPError as error: print(error.code)
"""


@pytest.mark.skipif(os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can be another user")
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_other_users_of_the_machine_get_nothing_from_a_sidecar(sidecar, system, monkeypatch):
    """A sidecar refuses other users of the machine, since it acts with the token of its job."""
    server, job = sidecar
    monkeypatch.setattr(sys, "platform", system)
    command = [sys.executable, "-c", AS_NOBODY, f"{server.url}/next_job"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
    with httpx.Client() as own:
        assert [own.get(f"{server.url}/next_job").json().get("id") for _ in range(2)] == [job, None]


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
    person = "/provena/registry/registry/agent/person/create"
    assert raw(local_platform, "POST", "/1/aspects?entity=urn:x:y&schema=urn:x:s", length=65 << 20) == 413
    assert raw(local_platform, "POST", person, length=11 << 20) == 413
    control = {"X-Embedded-Control": local_platform.known()["control"]}
    for path, size in (("/_embedded/faults", 2), (person, 11)):
        reply = first.http.post(path, content=iter([b"x" * 65536] * 16 * size), headers=control)
        assert reply.status_code == 413 and reply.json()["message"]


def test_json_is_bounded_in_depth(first, ada, register_service):
    """JSON that is nested too deeply is a 400 on both platforms, since every list and filter would read it again."""
    params = {"entity": "urn:t:deep", "schema": "urn:t:deep.1"}
    registry = f"{ada.home.environment['PROVENA_PROV_API']}/model_run/register"
    for depth in (201, 990, 100_000):
        content = b'{"a":' * depth + b"1" + b"}" * depth
        first.call("POST", "/1/aspects", 400, params=params, content=content)
        first.call("POST", "/1/orders", 400, content=b"[" * depth)
        # FastAPI, as on the real server, reads the body before it asks who sends it.
        assert httpx.post(registry, content=content).status_code == 400
    content = b'{"a":' * 199 + b"1" + b"}" * 199
    first.call("POST", "/1/aspects", params=params, content=content)
    page = first.get("/1/aspects", params=params | {"order-by": "a", "content-path": "$.a", "include-content": "true"})
    assert json.dumps(page["items"][0]["content"], separators=(",", ":")).encode() == content
    service = register_service("nests", {"name": "depth", "type": "int"})
    for depth in (100, 900):
        first.job_of(first.finished(first.order(service, depth=str(depth))))


HALF_SENT = [
    *("/1/aspects?entity=urn:t:e&schema=urn:t:s", "/provena/registry/registry/entity/model/create"),
    *("/provena/keycloak/realms/{PROVENA_REALM}/protocol/openid-connect/token", "/_embedded/clock"),
]


def test_a_caller_that_disconnects_while_it_sends_is_no_fault_of_the_server(local_platform, control):
    """Whatever was requested, nothing is written to the server's log, and no answer counts as a failure."""
    home, before = local_platform, local_platform.log.read_text()
    address = urlsplit(home.url)
    credentials = (f"Authorization: Bearer {home.environment['IVCAP_JWT']}", "Content-Type: application/json")
    for path in HALF_SENT:
        target = f"POST {path.format(**home.environment)} HTTP/1.1"
        known = f"X-Embedded-Control: {home.known()['control']}"
        head = [target, f"Host: {address.netloc}", "Content-Length: 100", *credentials, known, "", "{"]
        with closing(socket.create_connection((address.hostname, address.port), 5)) as connection:
            connection.sendall("\r\n".join(head).encode())
    asked = until(
        lambda: [one for one in control.get("/log").json()["requests"] if one["method"] == "POST"],
        lambda found: len(found) == len(HALF_SENT) - 1 and all(one["status"] is not None for one in found),
    )
    assert home.log.read_text() == before
    assert [one["status"] for one in asked] == [499] * len(asked)


def open_to_others(root):
    """Return what another user could read or change below a folder."""
    found = []
    for path in root.iterdir():
        if path.lstat().st_mode & 0o077:
            found += [path, *(open_to_others(path) if path.is_dir() else [])]
    return found


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


def assert_no_token_is_logged(embedded):
    """Only the file for its user has a token, not the log of a server started on demand or any other file."""
    tokens = {name: value for name, value in embedded.environment.items() if "JWT" in name or "TOKEN" in name}
    assert len(tokens) >= 6
    secrets = {**tokens, "control": embedded.control, "made up": f"made-up-{uuid.uuid4()}"}
    with httpx.Client(base_url=embedded.url) as caller:
        for token in secrets.values():
            for path in ("/1/artifacts", f"/1/artifacts/{token}", "/provena/registry/check-access/check-read-access"):
                caller.get(path, headers={"Authorization": f"Bearer {token}", "X-Embedded-Control": token})
        control = {"X-Embedded-Control": embedded.control}
        caller.post("/_embedded/faults", json={"path": "", "storage_full": True}, headers=control)
        caller.post("/1/artifacts", headers={"Authorization": f"Bearer {embedded.environment['IVCAP_JWT']}"})
        caller.post("/provena/jobs/jobs/admin/launch", headers={"Authorization": "Bearer x"}, content=b"{")
    for path in embedded.directory.rglob("*"):
        if path.is_file() and path.name != "server.json":
            content = path.read_bytes()
            assert not [name for name, token in secrets.items() if token.encode() in content], path


def test_a_folder_that_others_may_enter_gives_them_nothing(tmp_path, monkeypatch):
    """Where nothing is masked, they can still read no file in it, new or old. No token is in a log, and none is sent to
    who takes the port of the killed server, though it tells the same public facts. A server of the folder is started,
    under the same instance, which takes the same tokens.
    """
    root = tmp_path / "embedded"
    root.mkdir()
    before = os.umask(0)
    try:
        root.chmod(0o777)
        one = local.ensure(root)
        with monkeypatch.context() as patch:
            patch.delattr(subprocess, "Popen")
            assert local.ensure(root).url == one.url
        assert one.environment["IVCAP_JWT"] not in repr(one) and one.control not in repr(one)
        assert_no_token_is_logged(one)
        assert open_to_others(root) == []
        server = psutil.Process(json.loads((root / "server.json").read_text())["pid"])
        server.kill()
        server.wait(60)
        # As an earlier version, or a careless user, may have left them.
        root.chmod(0o777)
        for path in root.iterdir():
            path.chmod(0o777 if path.is_dir() else 0o666)
        port = urlsplit(one.url).port
        with (tmp_path / "said").open("wb") as said:
            squatter = subprocess.Popen([sys.executable, "-c", SQUATTER, str(port), one.instance], stdout=said)
        try:
            for _ in range(600):
                with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 20)):
                    break
                time.sleep(0.1)
            two = local.ensure(root)
        finally:
            squatter.kill()
            squatter.wait()
        assert two.url != one.url and two.instance == one.instance
        said = (tmp_path / "said").read_text()
        assert "/_embedded" in said and "Authorization" not in said and one.control not in said
        token = {"Authorization": f"Bearer {one.environment['IVCAP_JWT']}", "X-Content-Length": "1"}
        assert httpx.post(f"{two.url}/1/artifacts", headers=token).status_code == 201
        assert open_to_others(root) == []
        two.end()
    finally:
        os.umask(before)


def test_a_service_gets_none_of_the_users_tokens(first, register_service):
    """It runs with the environment in which the server was started, without the variables that have tokens."""
    order = first.finished(first.order(register_service("sees")))
    assert first.job_of(order)["result-content"] == ["ORDINARY"]


PRIVATE = "urn:t:belongs-to-first"


@pytest.fixture
def belongings(first):
    """Return one thing of each noun that an account has, as the paths that read, and the requests that change it."""
    artifact = first.upload(b"mine")["id"]
    order = first.finished(first.order("echo", message="mine"))
    job = first.job_of(order)
    service = {"name": "mine", "description": "mine", "controller-schema": "urn:x:1", "controller": {}}
    service = first.call("POST", "/1/services2", 201, json=service).json()["id"]
    aspect = first.add(PRIVATE, {"n": 1})
    queue = first.call("POST", "/1/queues", 201, json={"name": f"mine-{uuid.uuid4()}"}).json()["id"]
    first.call("POST", f"/1/queues/{queue}/messages", params={"schema": "urn:t:m"}, json={"n": 1})
    name = f"mine-{uuid.uuid4()}"
    first.call("POST", "/1/secrets", 204, json={"secret-name": name, "secret-value": "v", "expiry-time": 0})

    def paths(base, *parts):
        return [base + part for part in ("", *parts)]

    def changes(path, *methods):
        return [(method, path) for method in methods]

    blob, at_job = f"/1/artifacts/{artifact}/blob", f"/1/services2/{order['service']}/jobs/{job['id']}"
    at_queue, at_service = f"/1/queues/{queue}", f"/1/services2/{service}"
    return {
        artifact: ([f"/1/artifacts/{artifact}", blob], changes(blob, "PATCH")),
        order["id"]: (paths(f"/1/orders/{order['id']}", "/products", "/metadata", "/logs", "/top"), []),
        job["id"]: (paths(at_job, "/output", "/events?max-wait-time=1"), []),
        aspect: ([f"/1/aspects/{aspect}"], changes(f"/1/aspects/{aspect}", "DELETE")),
        service: (paths(at_service, "/jobs"), changes(at_service, "PUT", "DELETE")),
        queue: (paths(at_queue, "/messages"), [("POST", f"{at_queue}/messages"), ("DELETE", at_queue)]),
        name: ([f"/1/secrets?secret-name={name}"], []),
    }


LISTS = ["artifacts", "orders", "aspects", "services2", "queues", "secrets/list"]
NEWEST = {"limit": 50, "order-desc": "true"}


def test_an_account_has_no_sight_of_anothers_things(first, second, belongings):
    """For every noun, another account gets 404 for reading, changing and ending, and no list, filter or search shows
    it."""
    body = {"name": "taken", "description": "d", "controller-schema": "urn:x:1", "controller": {}}
    chunk = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    more = {
        "PATCH": {"headers": chunk, "content": b""},
        **{method: {"json": body, "params": {"schema": "urn:t:m"}} for method in ("PUT", "POST")},
    }
    for urn, (reads, changes) in belongings.items():
        for method, path in [*(("GET", path) for path in reads), *changes]:
            assert second.http.request(method, path, **more.get(method, {})).status_code == 404, (method, path)
        if urn.startswith("urn:"):
            assert second.aspects(entity=urn) == []
    lists = [f"/1/{name}" for name in LISTS] + [f"/1/services2/{first.service('echo')}/jobs"]
    for path in lists:
        assert not [urn for urn in belongings if urn in second.call("GET", path, params=NEWEST).text], path
    listed = " ".join(first.call("GET", path, params=NEWEST).text for path in lists)
    assert [urn for urn in belongings if urn not in listed] == []
    program = f':load_aspect(/p, "urn:t:schema.1", ["entity"]).\nquery("{PRIVATE}") :- p("{PRIVATE}").'
    for caller, items in ((first, [PRIVATE]), (second, [])):
        reply = caller.call("POST", "/1/search", content=program, headers={"Content-Type": "application/json"})
        assert reply.json()["items"] == items
    for path in [path for reads, _ in belongings.values() for path in reads]:
        assert first.http.get(path).status_code in (200, 204), path


def test_a_cursor_of_one_account_shows_another_nothing(first, second):
    """A cursor says where a list continues, not who may read it."""
    for number in range(3):
        first.add("urn:t:paged", {"n": number})
    page = first.get("/1/aspects", params={"entity": "urn:t:paged", "limit": 1})
    (cursor,) = [link["href"].partition("page=")[2] for link in page["links"] if link["rel"] == "next"]
    assert second.get("/1/aspects", params={"page": cursor})["items"] == []
    assert len(first.get("/1/aspects", params={"page": cursor})["items"]) == 2


def test_an_open_policy_lets_others_read_but_not_write(first, second, register_service):
    """What is open is read by all and changed by its account."""
    artifact = first.create(4, **{"X-Policy": "urn:ivcap:policy:ivcap.open.artifact"})
    first.patch(artifact, b"op", 0)
    second.patch(artifact, b"en", 2, 403)
    first.patch(artifact, b"en", 2)
    assert second.bytes_of(artifact["id"]) == b"open"
    aspect = first.add("urn:t:open-policy", {"n": 1}, policy="urn:ivcap:policy:ivcap.open.metadata")
    assert [item["id"] for item in second.aspects(entity="urn:t:open-policy")] == [aspect]
    second.call("DELETE", f"/1/aspects/{aspect}", 403)
    queue = {"name": "open", "policy": "urn:ivcap:policy:ivcap.open.queue"}
    queue = first.call("POST", "/1/queues", 201, json=queue).json()["id"]
    assert second.get(f"/1/queues/{queue}")["name"] == "open"
    second.call("GET", f"/1/queues/{queue}/messages", 403)
    second.call("DELETE", f"/1/queues/{queue}", 403)
    service = register_service("shows")
    record = second.get(f"/1/services2/{service}")
    second.call("PUT", f"/1/services2/{service}", 403, json=record)
    second.call("DELETE", f"/1/services2/{service}", 403)
    for policy in ("open", "urn:x:policy"):
        reply = first.call("POST", "/1/artifacts", 422, headers={"X-Content-Length": "1", "X-Policy": policy})
        assert reply.json()["name"] == "X-Policy"


def test_what_an_account_replaces_or_names_is_its_own(first, second):
    """A PUT does not retract another account's aspects. Two accounts may use one name for a secret and a queue."""
    pair = {"entity": "urn:t:both", "schema": "urn:t:s"}
    for caller in (first, second):
        for n in (1, 2):
            caller.call("PUT", "/1/aspects", params=pair, json={"n": n})
        secret = {"secret-name": "both", "secret-value": caller.url + str(id(caller)), "expiry-time": 0}
        caller.call("POST", "/1/secrets", 204, json=secret)
        caller.call("POST", "/1/queues", 201, json={"name": "both"})
    for caller in (first, second):
        assert [item["content"] for item in caller.aspects(**pair)] == [{"n": 2}]
        secret = caller.get("/1/secrets", params={"secret-name": "both"})
        assert secret["secret-value"] == caller.url + str(id(caller))


def test_a_service_cannot_read_what_its_order_may_not(first, second, register_service):
    """A job has the rights of the account that ordered it."""
    service = register_service("reads", {"name": "a", "type": "artifact"})
    mine = first.upload(b"secret")
    assert first.finished(first.order(service, a=mine["id"]))["status"] == "succeeded"
    order = second.finished(second.order(service, a=mine["id"]))
    assert order["status"] == "failed"
    assert "may not read" in second.job_of(order)["error-message"]
