"""Long-running services with the REST controller, and services that are registered as aspects."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from eventually import until

from ivcap_flows.cli.local import register
from ivcap_flows.errors import InputError
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services import lambdas
from ivcap_flows.local.services.descriptions import register_description
from ivcap_flows.local.services.hosting import HostFiles, HostPlan
from ivcap_flows.local.services.hosts import Hosts
from ivcap_flows.local.services.mapping import RunnerMapping

SERVER = """
import json, os, sys, threading, time, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

base, known = os.environ["IVCAP_BASE_URL"], {}

def call(path, data, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(base + path, data, headers, method="POST")) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def answer(self, status, body=None, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def later(self, bare):
        self.answer(204, Location="/tool/jobs/" + bare, Retry_Later="0.1", Ivcap_Self_Report_Result="true")

    def do_GET(self):
        bare = self.path.rsplit("/", 1)[-1]
        if self.path == "/is/ready":
            self.answer(200, {})
        elif bare not in known:
            self.answer(404, {})
        elif time.monotonic() < known[bare]:
            self.later(bare)
        else:
            self.answer(200, {"asked": "later"})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        bare = self.headers["job-id"].rsplit(":", 1)[-1]
        print("began", bare, flush=True)
        mode = request["mode"]
        if mode == "later":
            known[bare] = time.monotonic() + 0.3
            self.later(bare)
        elif mode == "pushed":
            known[bare] = time.monotonic() + 3600
            self.later(bare)
            body = json.dumps({"pushed": True}).encode()
            call("/events/" + bare, json.dumps({"name": "pushing"}).encode(), Content_Type="application/json")
            threading.Timer(0.2, call, ("/results/" + bare, body), {"Content_Type": "application/json"}).start()
        elif mode == "forgotten":
            self.later(bare)
        elif mode == "refused":
            self.answer(500, {"message": "not today", "traceback": "..."})
        elif mode == "ends":
            os._exit(3)
        elif mode == "unnamed":
            said = call("/1/aspects?entity=urn:t:e&schema=urn:t:s", b"{}", Content_Type="application/json")
            forward = call("/", b"{}", Ivcap_Forward_Url="http://example.org/")
            self.answer(200, {"said": said, "forward": forward})
        else:
            time.sleep(request.get("seconds", 0))
            while not os.path.exists(request.get("file", "/")):
                time.sleep(0.05)
            self.answer(200, {"pid": os.getpid(), "path": self.path, "timeout": self.headers["timeout"]})

while len(sys.argv) > 1 and not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def description(name, **controller):
    kind = "urn:ivcap:schema.service.rest.1"
    return {
        "$schema": "urn:ivcap:schema.service.2",
        "$id": "#SERVICE_ID#",
        "name": name,
        "description": "A service as its SDK describes it.",
        "policy": "urn:ivcap:policy:ivcap.open.service",
        "parameters": [],
        "controller-schema": kind,
        "controller": {"$schema": kind, "image": "none", "command": ["/none"], **controller},
    }


def enrol(home, document, command=None, folder=None, concurrency=None, **more):
    mapping = RunnerMapping(tuple(command), str(folder or home.root), concurrency) if command else None
    token = home.environment["IVCAP_JWT"]
    return register_description(home.url, token, home.root, document, mapping=mapping, **more)


@pytest.fixture
def rest_service(tmp_path):
    """Return a function that registers the server above with a home, under a name. It starts once the file of its
    argument is there, and answers a request once the file is there that the request names.
    """
    (tmp_path / "server.py").write_text(SERVER)

    def make(home, name="rest", *, arguments=(), **more):
        document = description(name, path="/tool", **{"ready-url": "/is/ready"})
        return enrol(home, document, [sys.executable, "server.py", *arguments], tmp_path, **more)

    return make


def request(caller, service, mode="now", **more):
    reply = caller.call("POST", f"/1/services2/{service}/jobs", 202, json={"mode": mode, **more}).json()
    return f"/1/services2/{service}/jobs/{reply['job-id']}"


def over(job):
    return job["status"] in ("succeeded", "failed", "error")


def job_of_mode(caller, service, mode="now", **more):
    path = request(caller, service, mode, **more)
    return until(lambda: caller.get(path), over)


@pytest.mark.long
def test_a_result_counts_whichever_way_it_comes(first, local_platform, rest_service):
    """A result may be in the reply, at the place that a 204 names, or posted to the sidecar.

    The log is the job's own.
    """
    service = rest_service(local_platform)
    now = job_of_mode(first, service)
    assert now["status"] == "succeeded" and now["result-content"]["path"] == "/tool", now
    assert int(now["result-content"]["timeout"]) > 0
    assert first.call("GET", f"/1/orders/{now['order']}/logs").text == f"began {now['id'].rsplit(':', 1)[-1]}\n"
    assert job_of_mode(first, service, "later")["result-content"] == {"asked": "later"}
    pushed = job_of_mode(first, service, "pushed")
    assert pushed["result-content"] == {"pushed": True}
    assert '"name":"pushing"' in first.call("GET", f"/1/services2/{service}/jobs/{pushed['id']}/events").text


@pytest.mark.long
def test_what_goes_wrong_is_told_as_it_went(first, local_platform, rest_service):
    """A refusal fails the job with its message. A job that the service forgot, or that ended it, is an error."""
    service = rest_service(local_platform)
    refused = job_of_mode(first, service, "refused")
    assert (refused["status"], refused["error-message"]) == ("failed", "not today")
    forgotten = job_of_mode(first, service, "forgotten")
    assert forgotten["status"] == "error" and "no longer knows" in forgotten["error-message"]
    ended = job_of_mode(first, service, "ends")
    assert ended["status"] == "error" and "exit status 3 while it had this job" in ended["error-message"]
    assert job_of_mode(first, service)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([sys.executable, "-c", "raise SystemExit('no model found')"], "Its last output: no model found"),
        (["/no/such/program"], "cannot be started"),
    ],
)
def test_a_service_that_does_not_start_says_why(first, local_platform, command, said):
    """Jobs of a service that does not start are errors with its last output."""
    service = enrol(local_platform, description(f"broken-{said[:2]}"), command)
    job = job_of_mode(first, service)
    assert job["status"] == "error" and said in job["error-message"]


def test_a_service_without_a_command_here_names_the_command_to_register_one(first, local_platform):
    """The error of a service with an image only says how to register a command.

    Other controllers are refused at once.
    """
    service = enrol(local_platform, description("image-only"))
    job = job_of_mode(first, service)
    assert job["status"] == "error"
    assert "ivcap-flows local register" in job["error-message"] and "--run" in job["error-message"]
    other = {**description("other"), "controller-schema": "urn:ivcap:schema.service.argo.1"}
    with pytest.raises(InputError, match=r"argo\.1"):
        enrol(local_platform, other, ["true"])


def test_jobs_share_a_process_and_wait_for_their_turn(first, local_platform, rest_service, tmp_path):
    """With a limit of one, jobs of a service run in the order in which they came.

    Another service's job does not wait.
    """
    service = rest_service(local_platform, "narrow", concurrency=1)
    paths = [request(first, service, "now", file=str(tmp_path / "end")) for _ in range(3)]
    try:
        until(lambda: first.get(paths[0])["status"], lambda status: status == "executing")
        aside = first.finished(first.order("echo", message="aside"))
        assert aside["status"] == "succeeded"
        assert first.get(paths[1])["status"] == first.get(paths[2])["status"] == "pending"
    finally:
        (tmp_path / "end").touch()
    jobs = [until(lambda path=path: first.get(path), over) for path in paths]
    assert len({job["result-content"]["pid"] for job in jobs}) == 1
    text = [first.call("GET", f"/1/orders/{job['order']}/logs").text for job in jobs]
    assert text == [f"began {job['id'].rsplit(':', 1)[-1]}\n" for job in jobs], "two of them ran at once"


@pytest.mark.long
def test_a_service_registered_otherwise_starts_anew(first, local_platform, rest_service):
    """Running jobs end with the old process, and later ones get a new process."""
    service = rest_service(local_platform, "changing")
    old = job_of_mode(first, service)["result-content"]["pid"]
    running = request(first, service, "now", seconds=4)
    until(lambda: first.get(running)["status"], lambda status: status == "executing")
    rest_service(local_platform, "changing", arguments=("server.py",))
    new = job_of_mode(first, service)["result-content"]["pid"]
    assert first.get(running)["result-content"]["pid"] == old != new
    until(lambda: psutil.pid_exists(old), lambda there: not there)


def test_a_job_that_waits_begins_as_its_service_is_registered_by_then(first, local_platform, rest_service, tmp_path):
    """One whose command never gets ready can be corrected while jobs wait for it."""
    service = rest_service(local_platform, "corrected", arguments=(str(tmp_path / "never"),))
    waiting = request(first, service)
    until(lambda: hosts_of(local_platform), bool)
    rest_service(local_platform, "corrected")
    assert until(lambda: first.get(waiting), over)["status"] == "succeeded"


def test_calls_that_name_no_job_belong_to_the_only_one(first, local_platform, rest_service, tmp_path):
    """A call without a job id belongs to the only running job.

    With two jobs it is refused. Calls to other hosts are not forwarded.
    """
    service = rest_service(local_platform, "anonymous")
    alone = job_of_mode(first, service, "unnamed")
    assert alone["result-content"] == {"said": 200, "forward": 501}
    beside = request(first, service, "now", file=str(tmp_path / "end"))
    try:
        until(lambda: first.get(beside)["status"], lambda status: status == "executing")
        assert job_of_mode(first, service, "unnamed")["result-content"]["said"] == 403
    finally:
        # Without an end of its jobs, the service would outlive the platform.
        (tmp_path / "end").touch()


def hosts_of(home):
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "ivcap_flows.local.services.lambdas" in (one.info["cmdline"] or ()) and str(home.root) in one.info["cmdline"]
    ]


def test_a_killed_host_loses_its_jobs_but_leaves_nothing_behind(local_platform, first, rest_service):
    """The job becomes an error, the service's process is ended, and the next job gets a new one."""
    service = rest_service(local_platform, "killed")
    pid = job_of_mode(first, service)["result-content"]["pid"]
    path = request(first, service, "now", seconds=30)
    until(lambda: first.get(path)["status"], lambda status: status == "executing")
    (host,) = [one for one in hosts_of(local_platform) if pid in [child.pid for child in one.children()]]
    os.kill(host.pid, signal.SIGKILL)
    job = until(lambda: first.get(path), over)
    assert job["status"] == "error" and "killed" in job["error-message"]
    until(lambda: psutil.pid_exists(pid), lambda there: not there)
    assert job_of_mode(first, service)["status"] == "succeeded"


@pytest.mark.parametrize(("ending", "said"), [("kill -9 $$", "by SIGKILL, 3 times"), ("exit 0", "status 0, 3 times")])
def test_a_host_that_never_gets_to_a_job_is_given_up(tmp_path, monkeypatch, ending, said):
    """A host that is killed at each start, such as by a lack of memory, is not started for ever."""
    started = []

    def start(self, plan):
        started.append(subprocess.Popen(["sh", "-c", ending]))
        return started[-1]

    monkeypatch.setattr(HostFiles, "start", start)
    hosts, plan = Hosts(Directory(tmp_path)), HostPlan("urn:ivcap:service:s", "s", ("true",), "/", "/", None)
    for job in ("urn:ivcap:job:1", "urn:ivcap:job:2"):
        started.clear()
        hosts.hand_over(job, plan)
        reason = until(lambda job=job: hosts.look(job, plan), lambda reason: reason is not None or len(started) > 3, 20)
        hosts.begun(job)
        assert said in reason and len(started) == 3


def test_a_host_that_lingers_holds_up_nobody(tmp_path, monkeypatch):
    """Looking at a slow host returns at once, since all other jobs wait for it."""
    lingering = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(HostFiles, "start", lambda self, plan: lingering)
    hosts, plan = Hosts(Directory(tmp_path)), HostPlan("urn:ivcap:service:s", "s", ("true",), "/", "/", None)
    hosts.hand_over("urn:ivcap:job:1", plan)
    ending = threading.Timer(5, lingering.kill)
    ending.start()
    try:
        began = time.monotonic()
        assert hosts.look("urn:ivcap:job:1", plan) is hosts.look("urn:ivcap:job:1", plan) is None
        assert time.monotonic() - began < 4
    finally:
        ending.cancel()
        lingering.kill()
        lingering.wait()


@pytest.mark.long
def test_jobs_in_flight_outlive_the_server_and_the_host_ends_after_them(local_home, rest_service):
    """A job that began before a kill of the server is collected afterwards.

    Without server and jobs the service is stopped.
    """
    caller = local_home.start().caller()
    service = rest_service(local_home)
    path = request(caller, service, "now", seconds=1)
    until(lambda: caller.get(path)["status"], lambda status: status == "executing")
    local_home.kill()
    time.sleep(0.2)
    caller = local_home.start().caller()
    job = until(lambda: caller.get(path), over)
    assert job["status"] == "succeeded", job
    local_home.stop()
    until(lambda: hosts_of(local_home), lambda hosts: hosts == [], 20)
    assert not psutil.pid_exists(job["result-content"]["pid"])


@pytest.mark.long
def test_a_job_that_waits_for_its_service_outlives_the_server(local_home, rest_service, tmp_path):
    """A service that is slow to start is started once and gets the job once, however long the server is away."""
    caller = local_home.start().caller()
    service = rest_service(local_home, arguments=("may-start",))
    path = request(caller, service)
    started = until(lambda: hosts_of(local_home))
    local_home.kill()
    time.sleep(lambdas._ALONE + 1)
    caller = local_home.start().caller()
    (tmp_path / "may-start").touch()
    job = until(lambda: caller.get(path), over)
    assert job["status"] == "succeeded", job
    assert caller.call("GET", f"/1/orders/{job['order']}/logs").text.count("began") == 1
    assert job_of_mode(caller, service)["result-content"]["pid"] == job["result-content"]["pid"]
    assert hosts_of(local_home) == started


def test_a_job_that_is_passed_on_twice_runs_once(first, local_platform, rest_service, tmp_path):
    """As by a platform that starts while the service takes the job."""
    service = rest_service(local_platform, name="twice")
    path = request(first, service, file=str(tmp_path / "end"))
    try:
        job = until(lambda: first.get(path), lambda job: job["status"] == "executing")
        files = HostFiles.of(Directory(local_platform.root), service)
        files.hand_over(job["id"])
        until(files.waiting, lambda waiting: waiting == [])
    finally:
        (tmp_path / "end").touch()
    job = until(lambda: first.get(path), over)
    assert job["status"] == "succeeded", job
    assert first.call("GET", f"/1/orders/{job['order']}/logs").text.count("began") == 1


def test_an_aspect_that_describes_a_service_is_one(first, second, local_platform):
    """An aspect with a description is a service while it is valid: listed, read, changed and ended with it, in its own
    account."""
    urn = enrol(local_platform, {**description("by-aspect"), "request-schema": {"type": "object", "required": ["n"]}})
    service = first.get(f"/1/services2/{urn}")
    assert service["name"] == "by-aspect" and service["status"] == "active" and service["parameters"] == []
    assert second.service("by-aspect") == urn, "its policy opens it"
    (tool,) = first.aspects(entity=urn, schema="urn:sd-core:schema.ai-tool.1")
    assert tool["content"]["fn_schema"]["required"] == ["n"]

    changed = {**description("by-aspect"), "description": "changed", "tags": ["t"]}
    assert enrol(local_platform, changed) == urn
    assert first.get(f"/1/services2/{urn}")["description"] == "changed"
    query = {"entity": urn, "schema": "urn:ivcap:schema.service.2"}
    second.call("POST", "/1/aspects", params=query, json={**changed, "description": "foreign"})
    first.call("POST", "/1/aspects", params={**query, "entity": "urn:ivcap:service:half"}, json={"name": "half"})
    first.call("GET", "/1/services2/urn:ivcap:service:half", 404)
    assert first.get(f"/1/services2/{urn}")["description"] == "changed"

    (aspect,) = [one for one in first.aspects(**query) if one["content"]["description"] == "changed"]
    first.call("DELETE", f"/1/aspects/{aspect['id']}", 204)
    assert first.get(f"/1/services2/{urn}")["status"] == "inactive"
    first.call("POST", f"/1/services2/{urn}/jobs", 404, json={})
    assert enrol(local_platform, changed) == urn
    assert first.get(f"/1/services2/{urn}")["status"] == "active"


def test_a_description_with_a_urn_keeps_it(first, local_platform):
    """The URN that the SDK's Makefile sets is kept, and is the entity of both aspects."""
    urn = "urn:ivcap:service:0a1b2c3d-0000-4000-8000-000000000000"
    tool = {"$schema": "urn:sd-core:schema.ai-tool.1", "name": "t", "service-id": "#SERVICE_ID#", "fn_schema": {}}
    assert enrol(local_platform, {**description("named"), "$id": urn}, tool=tool) == urn
    (kept,) = first.aspects(entity=urn, schema="urn:sd-core:schema.ai-tool.1")
    assert kept["content"] == {**tool, "service-id": urn}
    assert first.get(f"/1/services2/{urn}")["id"] == urn


def test_options_for_a_description_are_refused_elsewhere(tmp_path):
    """A definition cannot be registered with options for descriptions, which need a valid command."""
    own, printed = tmp_path / "own.yaml", tmp_path / "printed.json"
    own.write_text("name: x\nentry: a:b\n")
    printed.write_text(json.dumps(description("x")))
    for path, options, said in (
        (own, {"run": "true"}, "already says"),
        (printed, {"cwd": tmp_path}, "need --run"),
        (printed, {"run": "'open"}, "not a command line"),
        (printed, {"run": " "}, "empty"),
        (printed, {"run": "true", "tool": tmp_path / "none.json"}, "none.json"),
    ):
        with pytest.raises(InputError, match=said):
            register(path, directory=tmp_path / "embedded", **options)
    assert not (tmp_path / "embedded").exists()
