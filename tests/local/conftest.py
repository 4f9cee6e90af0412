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
from eventually import until

from ivcap_flows.local.services.register import register

TERMINAL = {"succeeded", "failed", "error"}


class Home:
    """A directory and the server on it, which a test can start and kill."""

    def __init__(self, root):
        self.root, self.process, self.limit = root, None, None
        self.variables = {"XDG_DATA_HOME": str(root.parent / "data")}
        self.log = root.parent / f"{root.name}.log"
        self.http = httpx.Client(timeout=60)
        self.callers = [self.http]

    def start(self, *options):
        env_file = self.root.parent / f"{self.root.name}.env"
        env_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ivcap_flows.local", "serve", "--dir", str(self.root), "--quiet"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--env-file", str(env_file), *options],
                preexec_fn=self.limit,
                stderr=log,
                env={**os.environ, **self.variables},
            )
        end = time.monotonic() + 90
        while not env_file.exists() or not (self.root / "server.json").exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        self.environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        self.url = self.environment["IVCAP_URL"]
        self.realm = f"{self.environment['PROVENA_KEYCLOAK']}/realms/{self.environment['PROVENA_REALM']}"
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
        """The IVCAP of this server as one account sees it."""
        made = Caller(self.url, self.environment[token])
        self.callers.append(made.http)
        return made

    def user(self, token="PROVENA_OFFLINE_TOKEN"):
        """The Provena of this server as one user sees it."""
        return User(self, self.environment["PROVENA_CLIENT_ID"], self.environment[token])

    def control(self):
        return httpx.Client(base_url=self.url + "/_embedded", headers={"X-Embedded-Control": self.known()["control"]})

    def register(self, definition, folder):
        return register(self.url, self.environment["IVCAP_JWT"], definition, folder / "definition.yaml")

    def runners(self):
        """Return the process ids of the living runners of this directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = process.cmdline()
                if "ivcap_flows.local.services.runner" in command and str(self.root) in command:
                    found.append(process.pid)
        return found

    def close(self):
        # A server that ends waits for open connections.
        for caller in self.callers:
            caller.close()
        self.stop()
        for pid in self.runners():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Caller:
    """An account of IVCAP."""

    def __init__(self, url, token):
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
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

    def executing(self, order):
        return until(lambda: self.get(f"/1/orders/{order['id']}"), lambda o: o["status"] == "executing")

    def job_of(self, order):
        items = self.get(f"/1/services2/{order['service']}/jobs", params={"limit": 50})["items"]
        (urn,) = [item["id"] for item in items if item["order"] == order["id"]]
        return self.get(f"/1/services2/{order['service']}/jobs/{urn}")

    def log_of(self, order):
        return self.call("GET", f"/1/orders/{order['id']}/logs").text

    def add(self, entity, content, schema="urn:t:schema.1", **params):
        query = {"entity": entity, "schema": schema, **params}
        return self.call("POST", "/1/aspects", params=query, json=content).json()["id"]

    def aspects(self, **params):
        return self.get("/1/aspects", params={"include-content": "true", "limit": 50, **params})["items"]


class User:
    """A user of Provena's seven APIs, each by its short name: `ask("registry", "GET", path, ...)`."""

    def __init__(self, home, client, refresh):
        self.home, self.http = home, home.http
        self._form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": refresh}
        self._token, self._until = "", 0.0

    @property
    def token(self):
        """Return an access token that is valid for some time, since a session of tests outlives one."""
        if time.monotonic() > self._until:
            reply = self.http.post(f"{self.home.realm}/protocol/openid-connect/token", data=self._form)
            self._token = reply.raise_for_status().json()["access_token"]
            self._until = time.monotonic() + 120
        return self._token

    def renew(self):
        """Get another token for the next request, since the clock was set."""
        self._until = 0.0

    def ask(self, api, method, path, token=None, **more):
        headers = {"Authorization": f"Bearer {token or self.token}"}
        url = self.home.environment[f"PROVENA_{api.upper()}_API"]
        return self.http.request(method, url + path, headers=headers, **more)

    def create(self, kind, **info):
        reply = self.ask("registry", "POST", f"/registry/{kind}/create", json={"display_name": "test"} | info)
        body = reply.raise_for_status().json()
        assert body["status"]["success"], body
        return body["created_item"]["id"]

    def organisation(self, name="o"):
        return self.create("agent/organisation", name=name)

    def mint(self, organisation):
        reply = self.ask("data_store", "POST", "/register/mint-dataset", json=collection(organisation))
        return reply.raise_for_status().json()["handle"]

    def person(self):
        return self.ask("auth", "GET", "/link/user/lookup").json()["person_id"]

    def register(self, record):
        reply = self.ask("prov", "POST", "/model_run/register", json=record)
        return reply.raise_for_status().json()["session_id"]

    def row(self, session):
        return self.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session})

    def job(self, session):
        """Wait for the end of a job."""
        reply = until(
            lambda: self.row(session),
            lambda reply: reply.status_code == 200 and reply.json()["job"]["status"] in ("SUCCEEDED", "FAILED"),
        )
        return reply.json()["job"]

    def lodged(self, record):
        """Register a model run, and return its id."""
        return self.job(self.register(record))["result"]["record"]["id"]

    def world(self):
        """Return a valid ModelRunRecord and everything that it names."""
        organisation, url = self.organisation(), "https://example.org/"
        model = self.create("entity/model", name="m", description="d", documentation_url=url, source_url=url)
        taken, made = self.create("entity/dataset_template"), self.create("entity/dataset_template")
        ends = {"input_templates": [{"template_id": taken}], "output_templates": [{"template_id": made}]}
        workflow = self.create("entity/model_run_workflow", software_id=model, **ends)

        def filled(template):
            dataset = self.mint(organisation)
            return [{"dataset_template_id": template, "dataset_id": dataset, "dataset_type": "DATA_STORE"}]

        return {
            "workflow_template_id": workflow,
            "inputs": filled(taken),
            "outputs": filled(made),
            "display_name": "run",
            "description": "d",
            "associations": {"modeller_id": self.person()},
            "start_time": 1,
            "end_time": 2,
        }


def collection(organisation):
    """Return a valid CollectionFormat of an organisation."""
    approvals = ("ethics_registration", "ethics_access", "indigenous_knowledge", "export_controls")
    return {
        "associations": {"organisation_id": organisation},
        "approvals": {name: {} for name in approvals},
        "dataset_info": {
            "name": "n",
            "description": "d",
            "access_info": {"reposited": True},
            "publisher_id": organisation,
            "created_date": {"relevant": False},
            "published_date": {"relevant": False},
            "license": "https://creativecommons.org/licenses/by/4.0/",
        },
    }


@pytest.fixture(scope="session")
def a_collection():
    return collection


@pytest.fixture
def local_home(tmp_path):
    """A directory without a server. `start()` starts one."""
    home = Home(tmp_path / "embedded")
    yield home
    home.close()


TOKENS = (
    *("IVCAP_JWT", "IVCAP_ACCESS_TOKEN", "PROVENA_OFFLINE_TOKEN", "PROVENA_CLIENT_SECRET", "PREFECT_API_KEY"),
    *("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "OPENLINEAGE_API_KEY"),
    *("PREFECT_CLIENT_CUSTOM_HEADERS", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
)
"""Variables of the user's that no service may see."""


@pytest.fixture(scope="session")
def local_platform(tmp_path_factory):
    """A server that the tests of this room share, started by a user with tokens."""
    home = Home(tmp_path_factory.mktemp("home") / "embedded")
    home.variables |= {name: f"s3cret-{name}" for name in (*TOKENS, "ORDINARY")}
    home.start()
    yield home
    home.close()


@pytest.fixture
def control(local_platform):
    """The control API of the shared server. After the test the clock, the faults and the speed are as before."""
    with local_platform.control() as client:
        client.delete("/log")
        yield client
        for path in ("/faults", "/like", "/clock"):
            client.delete(path)


@pytest.fixture(scope="session")
def first(local_platform):
    return local_platform.caller()


@pytest.fixture(scope="session")
def second(local_platform):
    return local_platform.caller("IVCAP_JWT_2")


@pytest.fixture(scope="session")
def ada(local_platform):
    """The first user of Provena, who is linked to a person."""
    return local_platform.user()


@pytest.fixture(scope="session")
def ben(local_platform):
    """The second user of Provena."""
    return local_platform.user("PROVENA_OFFLINE_TOKEN_2")


@pytest.fixture(scope="session")
def admin(local_platform):
    """The account of Provena with every role. It gets its token by the device grant."""
    client, base = {"client_id": "admin-tools"}, f"{local_platform.realm}/protocol/openid-connect"
    code = local_platform.http.post(f"{base}/auth/device", data=client).json()
    answer = {"user_code": code["user_code"], "account": "embedded-admin", "answer": "allow"}
    local_platform.http.post(code["verification_uri"], data=answer).raise_for_status()
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code["device_code"]}
    refresh = local_platform.http.post(f"{base}/token", data=client | poll).json()["refresh_token"]
    return User(local_platform, "admin-tools", refresh)


@pytest.fixture(scope="session")
def record(ada):
    """A valid ModelRunRecord."""
    return ada.world()


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

def says(request, job):
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

def sees(request, job):
    import os
    return [name for name, value in os.environ.items() if "s3cret-" in value]
"""


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory):
    """A project with the services above."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "setup.cfg").write_text("")
    (folder / "local_services_of_tests.py").write_text(SERVICES)
    return folder


@pytest.fixture
def register_service(local_platform, service_folder):
    """Register a service above under its own name."""

    def make(name, *parameters, module="local_services_of_tests", home=local_platform):
        definition = {"name": name, "entry": f"{module}:{name}", "parameters": list(parameters)}
        return home.register(definition, service_folder)

    return make


@pytest.fixture
def command_of(tmp_path):
    """Register a program, given as text, as a service of a home."""

    def make(home, name, program, *parameters):
        (tmp_path / f"{name}.py").write_text(program)
        command = [sys.executable, str(tmp_path / f"{name}.py")]
        return home.register({"name": name, "command": command, "parameters": list(parameters)}, tmp_path)

    return make
