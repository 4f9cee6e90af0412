"""An embedded Provena with what a model run needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from own_login import renewing
from pydantic import SecretStr
from registration_rows import Items, make_items
from scripted_server import serving
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from ivcap_flows.local import provena
from ivcap_flows.local.provena.keycloak.state import Key
from ivcap_flows.local.provena.users import ADMIN
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.login import token_url


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
        return ProvenaClient(self.endpoints, renewing(url, name, token))

    def robot(self) -> ProvenaClient:
        """A client of the service account."""
        name, secret = self.service
        return ProvenaClient(
            self.endpoints, renewing(token_url(self.endpoints.realm), name, client_secret=SecretStr(secret))
        )


@pytest.fixture(scope="session")
def embedded_provena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One embedded Provena for all tests; they make their own items, but for the `run_items`."""
    directory = tmp_path_factory.mktemp("provena")
    told = {"instance": "urn:ivcap-flows:embedded:of-this-test", "visibility_delay": 2.0}

    def make(url: str) -> Starlette:
        embedded = provena.EmbeddedProvena(directory, url)

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
async def run_items(embedded_provena: Embedded, user: ProvenaClient) -> Items:
    """What model runs need, made once. No test changes it."""
    if embedded_provena.items is None:
        embedded_provena.items = await make_items(user)
    return embedded_provena.items
