"""The embedded Provena as one ASGI app, and the environment with which clients find it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fastapi.exception_handlers import http_exception_handler
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ivcap_flows.local.provena.auth import routes as auth
from ivcap_flows.local.provena.auth.state import Groups, Links
from ivcap_flows.local.provena.bucket import Bucket, endpoint_of
from ivcap_flows.local.provena.datastore import routes as datastore
from ivcap_flows.local.provena.datastore.state import Datasets
from ivcap_flows.local.provena.files import Files
from ivcap_flows.local.provena.handles import routes as handles
from ivcap_flows.local.provena.jobs import routes as jobs_api
from ivcap_flows.local.provena.jobs.runner import Runner
from ivcap_flows.local.provena.jobs.state import Befalls, Jobs
from ivcap_flows.local.provena.keycloak.routes import keycloak
from ivcap_flows.local.provena.keycloak.state import OFFLINE_CLIENT, REALM, Key, Realm
from ivcap_flows.local.provena.prov import routes as prov
from ivcap_flows.local.provena.prov.graph import Graph
from ivcap_flows.local.provena.prov.state import ModelRuns
from ivcap_flows.local.provena.registry import routes as registry_api
from ivcap_flows.local.provena.registry.kinds import KINDS
from ivcap_flows.local.provena.registry.state import Registry
from ivcap_flows.local.provena.search import routes as search
from ivcap_flows.local.provena.store import Store
from ivcap_flows.local.provena.users import OTHER, READER, SERVICE_CLIENT, UNLINKED, USER
from ivcap_flows.local.provena.web import Api, Desk
from ivcap_flows.local.refusals import caller_gone

__all__ = ["EmbeddedProvena", "environment", "service_credentials"]

_STORE_FILE: Final = "provena.sqlite"
_MOUNT: Final = "provena"


class EmbeddedProvena:
    """Keycloak and the seven APIs over one directory, to be mounted at `/provena` of `base_url`. Start it on the event
    loop that serves the app.

    The job of an accepted request is visible after `visibility_delay` seconds at the latest. With a `seed`, the ids of
    jobs and batches are derived from it. `befalls` names the fault of a job. `s3` is the address of a
    server for the files of datasets (Bucket). Raises NewerSchemaError for a directory made by a newer version, and
    EmbeddedPlatformError for one that cannot be read. Only one process at a time may have a directory open.

    `apis` makes each API, by the last part of its path, when it is first requested: hundreds of routes would take more
    time than the rest of the start. `jobs` has the job queue.
    """

    def __init__(
        self,
        directory: Path,
        base_url: str,
        visibility_delay: float = 2.0,
        seed: int | None = None,
        befalls: Befalls = lambda sub_type: None,
        s3: str | None = None,
    ) -> None:
        root = f"{base_url.rstrip('/')}/{_MOUNT}"
        directory.mkdir(parents=True, exist_ok=True)
        key = Key(directory)
        self._store = Store(directory / _STORE_FILE, seed)
        files = Files(self._store, key, f"{root}/files")
        self._realm = realm = Realm(key, self._store, f"{root}/keycloak/realms/{REALM}")
        self.jobs = jobs = Jobs(self._store, visibility_delay, befalls)
        registry = Registry(self._store, Links(self._store), Groups(self._store), jobs)
        self._runner = Runner(jobs, self._store)
        desk = Desk(realm, self._store, self._runner.wake)
        runs = ModelRuns(registry, jobs, Graph(self._store), files)
        datasets = Datasets(registry, self._store, Bucket(s3) if s3 else files)
        self.apis: Final[Mapping[str, Callable[[], Api]]] = {
            "auth": functools.cache(lambda: auth.api(desk, registry)),
            "registry": functools.cache(lambda: registry_api.api(desk, registry)),
            "prov": functools.cache(lambda: prov.api(desk, runs)),
            "jobs": functools.cache(lambda: jobs_api.api(desk, jobs)),
            "data": functools.cache(lambda: datastore.api(desk, datasets)),
            "search": functools.cache(lambda: search.api(desk)),
            "handle": functools.cache(lambda: handles.api(desk)),
        }
        with self._store.transaction():
            _seed(registry)
        self.app: ASGIApp = Starlette(
            routes=[
                Mount("/keycloak", keycloak(realm, self._store)),
                *(Mount(f"/{name}", _on_demand(api)) for name, api in self.apis.items()),
                Route("/files/{path:path}", files.read),
            ],
            exception_handlers={
                HTTPException: http_exception_handler,  # type: ignore[dict-item]
                ClientDisconnect: caller_gone,
            },
        )

    async def start(self) -> None:
        """Continue with the jobs of the directory."""
        await self._runner.start()

    async def decide_login(self, user_code: str, account: str, *, deny: bool = False) -> bool:
        """Confirm the login of the device that shows a code, as an account of the realm, or refuse it.

        Return False if no login with that code waits.
        """

        def work() -> bool:
            with self._store.transaction():
                return self._realm.decide(user_code, account, deny=deny)

        return await run_in_threadpool(work)

    async def stop(self) -> None:
        """Stop after the current step and close the state; unfinished jobs continue at the next start."""
        await self._runner.stop()
        self._store.close()


def environment(directory: Path, base_url: str, s3: str | None = None) -> dict[str, str]:
    """Return the variables with which clients find the embedded Provena, including secrets; AWS's own one for `s3`."""
    root = f"{base_url.rstrip('/')}/{_MOUNT}"
    key = Key(directory)
    apis = {
        "AUTH": "auth",
        "REGISTRY": "registry",
        "PROV": "prov",
        "JOB": "jobs",
        "DATA_STORE": "data",
        "SEARCH": "search",
        "HANDLE": "handle",
    }
    return {
        "PROVENA_KEYCLOAK": f"{root}/keycloak",
        "PROVENA_REALM": REALM,
        "PROVENA_CLIENT_ID": OFFLINE_CLIENT,
        "PROVENA_OFFLINE_TOKEN": key.offline_token(USER),
        "PROVENA_OFFLINE_TOKEN_2": key.offline_token(OTHER),
        "PROVENA_OFFLINE_TOKEN_UNLINKED": key.offline_token(UNLINKED),
        "PROVENA_OFFLINE_TOKEN_READER": key.offline_token(READER),
        **({"AWS_ENDPOINT_URL_S3": endpoint_of(s3)} if s3 else {}),
    } | {f"PROVENA_{name}_API": f"{root}/{path}" for name, path in apis.items()}


def service_credentials(directory: Path) -> tuple[str, str]:
    """Return client id and secret of the confidential client, for the client credentials grant."""
    return SERVICE_CLIENT, Key(directory).secret(f"client {SERVICE_CLIENT}")


def _on_demand(api: Callable[[], Api]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await api()(scope, receive, send)

    return app


def _seed(registry: Registry) -> None:
    """On the first start, register and link the two ordinary users, and register one organisation."""
    fresh = registry.links.person_of(USER.username) is None
    for account in (USER, OTHER):
        if registry.links.person_of(account.username) is None:
            person = {
                "display_name": f"{account.first_name} {account.last_name}",
                "user_metadata": None,
                "email": account.email,
                "first_name": account.first_name,
                "last_name": account.last_name,
                "orcid": None,
                "ethics_approved": True,
            }
            registry.links.assign(account.username, registry.add(account.username, KINDS["PERSON"], person).id)
    if fresh:
        name = "Embedded organisation"
        organisation = {"display_name": name, "user_metadata": None, "name": name, "ror": None}
        registry.add(USER.username, KINDS["ORGANISATION"], organisation)
