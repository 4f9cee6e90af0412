"""A Provena of scripted replies, and an embedded one with what a model run needs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from pydantic import SecretStr
from registration_rows import Items, make_items
from scripted_server import ScriptedServer, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ivcap_flows.http.auth import Auth
from ivcap_flows.http.oauth import RefreshingToken
from ivcap_flows.local import provena
from ivcap_flows.local.provena.keycloak.state import Key
from ivcap_flows.local.provena.users import ADMIN
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.login import client_credentials, token_url


class ScriptedProvena(ScriptedServer):
    """Its realm gives a token for each grant, which is kept in `grants`."""

    def forget(self) -> None:
        super().forget()
        self.grants: list[dict[str, str]] = []

    @staticmethod
    def refusal(detail: Any, status: int, *, challenge: bool = False) -> Response:
        """An error reply of an API; with `challenge` it concerns the token."""
        return JSONResponse({"detail": detail}, status, {"WWW-Authenticate": "Bearer"} if challenge else None)

    @property
    def endpoints(self) -> Endpoints:
        apis = {name: f"{self.url}/{name}/" for name in ("auth", "registry", "prov", "jobs", "datastore", "search")}
        return Endpoints.of(realm="test", keycloak=f"{self.url}/keycloak", **apis)

    @property
    def auth(self) -> Auth:
        url = token_url(self.endpoints.realm)
        return RefreshingToken(url, "automated-access", refresh_token=SecretStr("offline"))

    async def answer(self, request: Request) -> Response:
        if not request.url.path.endswith("/protocol/openid-connect/token"):
            return await super().answer(request)
        form = dict(parse_qsl((await request.body()).decode()))
        self.grants.append(form)
        if form.get("refresh_token") == "revoked":
            return JSONResponse({"error": "invalid_grant", "error_description": "Offline session not active"}, 400)
        claims = {"preferred_username": "ada", "exp": time.time() + 300, "n": len(self.grants)}
        token = jwt.encode(claims, "a-key-of-this-test-and-of-nothing-else", "HS256")
        return JSONResponse({"access_token": token, "expires_in": 300})


@pytest.fixture(scope="session")
def scripted_provena() -> Iterator[ScriptedProvena]:
    server = ScriptedProvena()
    with server.running():
        yield server


@pytest.fixture
def scripted(scripted_provena: ScriptedProvena) -> ScriptedProvena:
    """The scripted Provena, with nothing scripted."""
    scripted_provena.forget()
    return scripted_provena


@pytest.fixture
async def client(scripted: ScriptedProvena) -> AsyncIterator[ProvenaClient]:
    """A client of the scripted Provena, logged in by an offline token."""
    async with ProvenaClient(scripted.endpoints, scripted.auth) as made:
        yield made


@dataclass
class Embedded:
    """The embedded Provena and the environment under which it is found."""

    environment: dict[str, str]
    service: tuple[str, str]
    items: Items | None = None

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
        url, name = token_url(self.endpoints.realm), self.environment["PROVENA_CLIENT_ID"]
        token = SecretStr(self.environment[user])
        return ProvenaClient(self.endpoints, RefreshingToken(url, name, refresh_token=token))

    def robot(self) -> ProvenaClient:
        """A client of the service account."""
        name, secret = self.service
        return ProvenaClient(self.endpoints, client_credentials(self.endpoints.realm, name, SecretStr(secret)))


@pytest.fixture(scope="session")
def embedded_provena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One embedded Provena for all tests; they make their own items, but for those of the `world`."""
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


@pytest.fixture
async def user(embedded_provena: Embedded) -> AsyncIterator[ProvenaClient]:
    async with embedded_provena.client() as client:
        yield client


@pytest.fixture
async def world(embedded_provena: Embedded, user: ProvenaClient) -> Items:
    """What model runs need, made once. No test changes it."""
    if embedded_provena.items is None:
        embedded_provena.items = await make_items(user)
    return embedded_provena.items
