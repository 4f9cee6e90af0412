"""A server of the embedded platforms as a process of its own, and its clients."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import psutil
import pytest

TERMINAL = {"succeeded", "failed", "error"}


class Home:
    """A directory and the server on it, which a test can start and kill."""

    def __init__(self, root):
        self.root, self.process, self.limit, self.callers = root, None, None, []
        self.variables = {"XDG_DATA_HOME": str(root.parent / "data")}

    def start(self, *options):
        env_file = self.root.parent / f"{self.root.name}.env"
        env_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ivcap_flows.local", "serve", "--dir", str(self.root), "--quiet"]
        if self.process is not None:
            self.process.stderr.close()
        self.process = subprocess.Popen(
            [*command, "--env-file", str(env_file), *options],
            preexec_fn=self.limit,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.variables},
        )
        end = time.monotonic() + 20
        while not env_file.exists() or not (self.root / "server.json").exists():
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        self.environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.url = self.environment["IVCAP_URL"]
        return self

    def known(self):
        return json.loads((self.root / "server.json").read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def caller(self, token="IVCAP_JWT"):
        self.callers.append(Caller(self.url, self.environment[token]))
        return self.callers[-1]

    def control(self):
        return httpx.Client(base_url=self.url + "/_embedded", headers={"X-Embedded-Control": self.known()["control"]})

    def runners(self, job=""):
        """Return the process ids of the living runners of this directory."""
        return [process.pid for process in psutil.process_iter() if self._runs(process, job)]

    def _runs(self, process, job):
        with suppress(psutil.Error):
            command = process.cmdline()
            return "ivcap_flows.local.runner" in command and str(self.root) in command and job in command[-1]
        return False

    def end_runners(self):
        for pid in self.runners():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self):
        self.stop()
        self.end_runners()
        if self.process is not None:
            self.process.stderr.close()
        for caller in self.callers:
            caller.http.close()


class Caller:
    """The server as one account sees it."""

    def __init__(self, url, token):
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        self.url = url

    def call(self, method, path, status=200, **more):
        reply = self.http.request(method, path, **more)
        assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        return reply

    def get(self, path, **more):
        return self.call("GET", path, **more).json()

    def create(self, size, **headers):
        return self.call("POST", "/1/artifacts", 201, headers={"X-Content-Length": str(size), **headers}).json()

    def patch(self, artifact, data, at, status=204):
        headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
        return self.call("PATCH", f"/1/artifacts/{artifact['id']}/blob", status, content=data, headers=headers)

    def offset(self, artifact):
        return int(self.call("HEAD", f"/1/artifacts/{artifact['id']}/blob").headers["Upload-Offset"])

    def upload(self, data, **headers):
        artifact = self.create(len(data), **headers)
        self.patch(artifact, data, 0)
        return artifact

    def bytes_of(self, urn):
        return self.call("GET", f"/1/artifacts/{urn}/blob").content

    def service(self, name):
        (item,) = self.get("/1/services2", params={"filter": f"name == '{name}'"})["items"]
        return item["id"]

    def order(self, service, status=200, **parameters):
        values = [{"name": name, "value": value} for name, value in parameters.items()]
        service = service if service.startswith("urn:") else self.service(service)
        return self.call("POST", "/1/orders", status, json={"service": service, "parameters": values}).json()

    def finished(self, order):
        return until(lambda: self.get(f"/1/orders/{order['id']}"), lambda o: o["status"] in TERMINAL)

    def job_of(self, order):
        items = self.get(f"/1/services2/{order['service']}/jobs", params={"limit": 50})["items"]
        (urn,) = [item["id"] for item in items if item["order"] == order["id"]]
        return self.get(f"/1/services2/{order['service']}/jobs/{urn}")

    def add(self, entity, content, schema="urn:t:schema.1", **params):
        query = {"entity": entity, "schema": schema, **params}
        return self.call("POST", "/1/aspects", params=query, json=content).json()["id"]

    def aspects(self, **params):
        return self.get("/1/aspects", params={"include-content": "true", "limit": 50, **params})["items"]


def until(read, done, seconds=60):
    end = time.monotonic() + seconds
    while not done(value := read()):
        assert time.monotonic() < end, f"gave up; last: {str(value)[:300]}"
        time.sleep(0.03)
    return value


@pytest.fixture
def eventually():
    """Read until a condition holds."""
    return until


@pytest.fixture
def local_home(tmp_path):
    """A directory without a server. `start()` starts one."""
    home = Home(tmp_path / "embedded")
    yield home
    home.close()


@pytest.fixture(scope="module")
def local_platform(tmp_path_factory):
    """A server that the tests of a module share."""
    home = Home(tmp_path_factory.mktemp("home") / "embedded").start()
    yield home
    home.close()


@pytest.fixture
def first(local_platform):
    return local_platform.caller()


@pytest.fixture
def second(local_platform):
    return local_platform.caller("IVCAP_JWT_2")


SERVICES = """
def shows(request, job):
    return request

def produces(request, job):
    job.log("said by the service")
    one = job.add_product("one.txt", request["text"].encode(), "text/plain")
    job.add_product("empty.bin", b"")
    return {"one": one, "again": job.read_artifact(one).decode()}

def many(request, job):
    for n in range(request["count"]):
        job.add_product(f"p{n}", b"x")
    return {}

def reads(request, job):
    return {"size": len(job.read_artifact(request["a"]))}

def breaks(request, job):
    raise ValueError("it broke")

def text(request, job):
    return "plain"

def raw(request, job):
    return b"\\x00\\xff"

def redirects(request, job):
    policy = "urn:ivcap:policy:ivcap.open.metadata"
    return {"$schema": "urn:t:schema:cached.1", "$id": "urn:t:cache", "$policy": policy, "value": 7}

def tells(request, job):
    job.event("one", step=1)
    job.event("two", step=2)
    return {}
"""


@pytest.fixture
def register_service(local_platform, tmp_path):
    """Register a function of the module above under its own name."""
    from ivcap_flows.local.register import register

    folder = local_platform.root.parent / "project"
    folder.mkdir(exist_ok=True)
    (folder / "setup.cfg").write_text("")
    (folder / "local_services_of_tests.py").write_text(SERVICES)

    def make(name, parameters, module="local_services_of_tests"):
        definition = {"name": name, "entry": f"{module}:{name}", "parameters": parameters}
        return register(local_platform.url, local_platform.environment["IVCAP_JWT"], definition, folder / "defs.yaml")

    return make
