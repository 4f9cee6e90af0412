"""A small Provena of scripted replies, behind a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs

import jwt
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ivcap_flows import handles
from ivcap_flows.local import provena
from ivcap_flows.local.provena.keycloak.state import Key
from ivcap_flows.local.provena.users import ADMIN
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.login import offline_token
from ivcap_flows.provena.models import (
    Annotations,
    Associations,
    DatasetTemplate,
    Deferred,
    Model,
    ModelRunRecord,
    Organisation,
    TemplatedDataset,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import Terms, collection_format


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Answer = Callable[[Seen], Response] | Response


@dataclass
class Scripted:
    """Answers by method and path; a list is used up to its last. Every request is kept in `seen`."""

    url: str = ""
    token_life: float = 300.0
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    grants: list[dict[str, str]] = field(default_factory=list)
    form_routes: set[str] = field(default_factory=set)

    def on(self, route: str, *answers: Answer | dict[str, Any]) -> None:
        """Script a route such as `GET /prov/x`; a dict is a 200 with that JSON."""
        self.answers[route] = [JSONResponse(a) if isinstance(a, dict) else a for a in answers]

    def sent(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if f"{seen.method} {seen.path}" == route]

    @staticmethod
    def refusal(detail: Any, status: int, *, challenge: bool = False) -> Response:
        """An error reply of an API; with `challenge` it concerns the token."""
        return JSONResponse({"detail": detail}, status, {"WWW-Authenticate": "Bearer"} if challenge else None)

    @property
    def endpoints(self) -> Endpoints:
        apis = {name: f"{self.url}/{name}/" for name in ("auth", "registry", "prov", "jobs", "datastore", "search")}
        return Endpoints.of(realm="test", keycloak=f"{self.url}/keycloak", **apis)

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if path.endswith("/protocol/openid-connect/token"):
            return self._grant(form)
        seen = Seen(
            request.method,
            path,
            dict(request.query_params),
            {name.lower(): value for name, value in request.headers.items()} | {"x-peer": str(request.client)},
            form if f"{request.method} {path}" in self.form_routes else json.loads(body) if body else None,
        )
        self.seen.append(seen)
        script = self.answers.get(f"{seen.method} {path}")
        if not script:
            return JSONResponse({"detail": "Not Found"}, 404)
        answer = script.pop(0) if len(script) > 1 else script[0]
        return answer if isinstance(answer, Response) else answer(seen)

    def _grant(self, form: dict[str, str]) -> Response:
        self.grants.append(form)
        if form.get("refresh_token") == "revoked":
            return JSONResponse({"error": "invalid_grant", "error_description": "Offline session not active"}, 400)
        claims = {"preferred_username": "ada", "exp": time.time() + self.token_life, "n": len(self.grants)}
        token = jwt.encode(claims, "a-key-of-this-test-and-of-nothing-else", "HS256")
        return JSONResponse({"access_token": token, "expires_in": self.token_life})


@pytest.fixture(scope="module")
def scripted_provena() -> Iterator[Scripted]:
    """One server for the tests of a file; each takes it empty as `scripted`."""
    scripted = Scripted()

    def make(url: str) -> Starlette:
        scripted.url = url
        return Starlette(routes=[Route("/{path:path}", scripted.answer, methods=["GET", "POST", "PUT", "DELETE"])])

    with serving(make):
        yield scripted


@pytest.fixture
def scripted(scripted_provena: Scripted) -> Scripted:
    """The scripted Provena without any answer yet."""
    vars(scripted_provena).update(vars(Scripted(url=scripted_provena.url)))
    return scripted_provena


@pytest.fixture
async def client(scripted: Scripted) -> AsyncIterator[ProvenaClient]:
    """A client of the scripted Provena, logged in by an offline token."""
    endpoints = scripted.endpoints
    auth = offline_token(endpoints.realm, "automated-access", SecretStr("offline"))
    async with ProvenaClient(endpoints, auth) as made:
        yield made


@dataclass
class Embedded:
    """The embedded Provena and the environment under which it is found."""

    environment: dict[str, str]
    service: tuple[str, str]

    @property
    def endpoints(self) -> Endpoints:
        names = {"auth": "AUTH", "registry": "REGISTRY", "prov": "PROV", "jobs": "JOB", "datastore": "DATA_STORE"}
        names |= {"search": "SEARCH", "handles": "HANDLE"}
        return Endpoints.of(
            realm=self.environment["PROVENA_REALM"],
            keycloak=self.environment["PROVENA_KEYCLOAK"],
            **{name: self.environment[f"PROVENA_{api}_API"] for name, api in names.items()},
        )

    def client(self, user: str = "PROVENA_OFFLINE_TOKEN") -> ProvenaClient:
        """A client of the user whose offline token has that name."""
        token = SecretStr(self.environment[user])
        return ProvenaClient(
            self.endpoints, offline_token(self.endpoints.realm, self.environment["PROVENA_CLIENT_ID"], token)
        )


@contextmanager
def serving(make: Callable[[str], Any], *, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The URL, on a random port, of the app that `make` gives for it; a thread serves it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(make(url), log_level="warning", log_config=None, lifespan=lifespan))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield url
        server.should_exit = True
        thread.join(5)


@pytest.fixture(scope="module")
def embedded_provena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One embedded Provena for the tests of a file; they make their own items."""
    directory = tmp_path_factory.mktemp("provena")
    told = {"instance": "urn:ivcap-flows:embedded:of-this-test", "visibility_delay": 2.0}

    def make(url: str) -> Starlette:
        embedded = provena.create_app(directory, url, 2.0)

        @asynccontextmanager
        async def running(app: Starlette) -> AsyncIterator[None]:
            await embedded.start()
            yield
            await embedded.stop()

        routes = [Route("/_embedded", lambda request: JSONResponse(told)), Mount("/provena", app=embedded.app)]
        return Starlette(routes=routes, lifespan=running)

    with serving(make, lifespan="on") as url:
        environment = provena.environment(directory, url) | {"ADMIN": Key(directory).offline_token(ADMIN)}
        yield Embedded(environment, provena.service_credentials(directory))


@dataclass
class World:
    """A workflow with all that a model run of it needs."""

    person: str
    organisation: str
    model: str
    template_in: str
    template_out: str
    workflow: str

    @property
    def terms(self) -> Terms:
        return Terms(
            organisation_id=self.organisation,
            publisher_id=self.organisation,
            license="https://creativecommons.org/licenses/by/4.0/",
            approvals=Approvals(),
        )

    async def minted(self, client: ProvenaClient) -> tuple[str, str]:
        """A dataset for a new artifact: its handle and the artifact's URN."""
        urn = f"urn:ivcap:artifact:{uuid.uuid4()}"
        artifact = handles.Artifact(urn=urn, platform="p", name="series.csv", media_type="text/csv")
        return (await client.datastore.mint(collection_format(artifact, self.terms))).handle, urn

    def record(self, source: str, result: str, **over: object) -> ModelRunRecord:
        now = int(time.time())
        values = {
            "workflow_template_id": self.workflow,
            "inputs": [
                TemplatedDataset(dataset_template_id=self.template_in, dataset_id=source, resources={"forcing": "f.nc"})
            ],
            "outputs": [TemplatedDataset(dataset_template_id=self.template_out, dataset_id=result)],
            "annotations": {"cfg": uuid.uuid4().hex},
            "display_name": "a run",
            "description": "of a model",
            "associations": Associations(modeller_id=self.person, requesting_organisation_id=self.organisation),
            "start_time": now - 60,
            "end_time": now,
        }
        return ModelRunRecord.model_validate(values | over)


@pytest.fixture
async def user(embedded_provena: Embedded) -> AsyncIterator[ProvenaClient]:
    async with embedded_provena.client() as client:
        yield client


@pytest.fixture
async def world(user: ProvenaClient) -> World:
    person = await user.auth_api.linked_person()
    assert person is not None
    organisation = await user.registry.create(Organisation, Organisation(display_name="Org", name="Org"))
    model = await user.registry.create(
        "MODEL",
        Model(
            display_name="M",
            name="M",
            description="d",
            documentation_url="https://example.org/d",
            source_url="https://example.org/s",
        ),
    )
    forcing = Deferred(key="forcing", description="f", usage_type="FORCING_DATA")
    template_in = await user.registry.create(
        DatasetTemplate, DatasetTemplate(display_name="in", deferred_resources=[forcing])
    )
    template_out = await user.registry.create(DatasetTemplate, DatasetTemplate(display_name="out"))
    workflow = await user.registry.create(
        WorkflowTemplate,
        WorkflowTemplate(
            display_name="wf",
            software_id=model.item.id,
            input_templates=[TemplateUse(template_id=template_in.item.id)],
            output_templates=[TemplateUse(template_id=template_out.item.id)],
            annotations=Annotations(required=["cfg"]),
        ),
    )
    return World(
        person, organisation.item.id, model.item.id, template_in.item.id, template_out.item.id, workflow.item.id
    )
