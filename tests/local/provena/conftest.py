"""A running embedded Provena, and a user who calls it over a socket."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ivcap_flows.local.provena import environment

SERVE = Path(__file__).with_name("serve.py")
Json = Any


class Provena:
    """A server process over a directory. `kill` is `kill -9`; `start` may follow it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(timeout=20)
        self.env: dict[str, str] = {}

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVE), str(self.directory)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        url = self.process.stdout.readline().strip()
        assert url, "the server did not start"
        self.env = environment(self.directory, url)

    def kill(self) -> None:
        assert self.process and self.process.stdout
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def realm(self) -> str:
        return f"{self.env['PROVENA_KEYCLOAK']}/realms/{self.env['PROVENA_REALM']}"

    def user(self, token: str = "PROVENA_OFFLINE_TOKEN") -> Someone:
        return Someone(self, self.env["PROVENA_CLIENT_ID"], self.env[token])

    def access(self, client: str, refresh: str) -> str:
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": refresh}
        reply = self.http.post(f"{self.realm()}/protocol/openid-connect/token", data=form)
        token: str = reply.raise_for_status().json()["access_token"]
        return token


class Someone:
    """A user of the seven APIs, each by its short name: `ask("registry", "GET", path, ...)`."""

    def __init__(self, provena: Provena, client: str, refresh: str) -> None:
        self._provena, self._client, self._refresh = provena, client, refresh
        self.env, self.http = provena.env, provena.http
        self._token, self._until = "", 0.0

    @property
    def token(self) -> str:
        """Return an access token that is valid for some time, since a session of tests outlives one."""
        if time.monotonic() > self._until:
            self._token = self._provena.access(self._client, self._refresh)
            self._until = time.monotonic() + 120
        return self._token

    def ask(self, api: str, method: str, path: str, **more: Json) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.http.request(method, self.env[f"PROVENA_{api.upper()}_API"] + path, headers=headers, **more)

    def create(self, kind: str, **info: Json) -> Json:
        reply = self.ask("registry", "POST", f"/registry/{kind}/create", json={"display_name": "test"} | info)
        body = reply.raise_for_status().json()
        assert body["status"]["success"], body
        return body["created_item"]["id"]

    def mint(self, organisation: str) -> Json:
        reply = self.ask("data_store", "POST", "/register/mint-dataset", json=collection(organisation))
        return reply.raise_for_status().json()["handle"]

    def job(self, session: str, patience: float = 10) -> Json:
        until = time.monotonic() + patience
        while time.monotonic() < until:
            reply = self.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session})
            if reply.status_code == 200 and reply.json()["job"]["status"] in ("SUCCEEDED", "FAILED"):
                return reply.json()["job"]
            time.sleep(0.02)
        raise AssertionError(f"job {session} did not end")

    def world(self) -> Json:
        """Return a valid ModelRunRecord and everything that it names."""
        person = self.ask("auth", "GET", "/link/user/lookup").json()["person_id"]
        organisation = self.create("agent/organisation", name="test")
        url = "https://example.org/"
        model = self.create("entity/model", name="m", description="d", documentation_url=url, source_url=url)
        taken, made = self.create("entity/dataset_template"), self.create("entity/dataset_template")
        workflow = self.create(
            "entity/model_run_workflow",
            software_id=model,
            input_templates=[{"template_id": taken}],
            output_templates=[{"template_id": made}],
        )
        ends = {
            end: [
                {"dataset_template_id": template, "dataset_id": self.mint(organisation), "dataset_type": "DATA_STORE"}
            ]
            for end, template in (("inputs", taken), ("outputs", made))
        }
        return {
            "workflow_template_id": workflow,
            **ends,
            "display_name": "run",
            "description": "d",
            "associations": {"modeller_id": person},
            "start_time": 1,
            "end_time": 2,
        }


def collection(organisation: str) -> Json:
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


@contextmanager
def running(directory: Path) -> Iterator[Provena]:
    server = Provena(directory)
    server.start()
    try:
        yield server
    finally:
        server.http.close()
        if server.process and server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="session")
def provena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provena]:
    """A server that most tests share."""
    with running(tmp_path_factory.mktemp("provena")) as server:
        yield server


@pytest.fixture
def own_provena(tmp_path: Path) -> Iterator[Provena]:
    """A server of the test's own, which the test may kill and start again."""
    with running(tmp_path / "embedded") as server:
        yield server


@pytest.fixture(scope="session")
def ada(provena: Provena) -> Someone:
    """The first user, who is linked to a person."""
    return provena.user()


@pytest.fixture(scope="session")
def record(ada: Someone) -> Json:
    """A valid ModelRunRecord."""
    return ada.world()


@pytest.fixture(scope="session")
def admin(provena: Provena) -> Someone:
    """The account with every role. It gets its token by the device grant."""
    start = {"client_id": "admin-tools"}
    base = f"{provena.realm()}/protocol/openid-connect"
    code = provena.http.post(f"{base}/auth/device", data=start).json()
    answer = {"user_code": code["user_code"], "account": "embedded-admin", "answer": "allow"}
    provena.http.post(code["verification_uri"], data=answer).raise_for_status()
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": code["device_code"]}
    refresh = provena.http.post(f"{base}/token", data=start | poll).json()["refresh_token"]
    return Someone(provena, "admin-tools", refresh)


@pytest.fixture(scope="session")
def a_collection() -> Callable[[str], Json]:
    """Return a function that makes a valid CollectionFormat of an organisation."""
    return collection


@pytest.fixture
def a_provena_user() -> Iterator[Callable[[Any], Someone]]:
    """Return a function that gives the first user of a server of both platforms, which has faults and options."""
    http = httpx.Client(timeout=20)

    def user(home: Any) -> Someone:
        here = Provena(home.root)
        here.http.close()
        here.env, here.http = home.environment, http
        return here.user()

    yield user
    http.close()


@pytest.fixture
def served_ada(local_platform: Any, a_provena_user: Callable[[Any], Someone]) -> Someone:
    """The first user of the embedded platform that the tests of a module share."""
    return a_provena_user(local_platform)
