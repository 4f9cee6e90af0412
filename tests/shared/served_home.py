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
from eventually import until
from other_processes import come_up, stop

from ivcap_flows.local.services.register import register

TERMINAL = {"succeeded", "failed", "error"}


class Home:
    """A directory and the server on it, which a test can start and kill. `command` is what starts it by `python -m`."""

    def __init__(self, root, command=("ivcap_flows.local", "serve", "--quiet")):
        self.root, self.process, self.limit, self._command = root, None, None, command
        self.variables = {"XDG_DATA_HOME": str(root.parent / "data")}
        self.env_file, self.log = (root.parent / f"{root.name}.{ending}" for ending in ("env", "log"))
        self.http = httpx.Client(timeout=60)
        self.callers = [self.http]

    def start(self, *options):
        self.env_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", *self._command, "--dir", str(self.root), "--env-file", str(self.env_file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                preexec_fn=self.limit,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.variables},
            )
        # This is the last file that it writes as it starts.
        come_up(self.process, self.env_file.exists, self.log, 120)
        self.environment = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())
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
            stop(self.process)

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
