"""The client of one Provena deployment: the URLs of its APIs, the credentials, and one attribute for each API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ivcap_flows import identity
from ivcap_flows.arguments import texts
from ivcap_flows.errors import ConfigurationError, NotAuthorizedError
from ivcap_flows.http.auth import Auth, claims
from ivcap_flows.http.embedded import ask_embedded
from ivcap_flows.http.pool import Pool
from ivcap_flows.http.server_clock import ServerClock, ServerTime
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api
from ivcap_flows.provena.auth_api import AuthApi
from ivcap_flows.provena.datastore import DataStoreApi
from ivcap_flows.provena.documents import Documents
from ivcap_flows.provena.files import DatasetFiles, opened
from ivcap_flows.provena.jobs import JobsApi
from ivcap_flows.provena.prov import ProvApi
from ivcap_flows.provena.registry import RegistryApi
from ivcap_flows.provena.search import SearchApi

__all__ = ["VISIBILITY_DELAY", "Endpoints", "ProvenaClient"]

VISIBILITY_DELAY: Final = 600.0
"""Seconds after which an accepted request is assumed to be visible: the gateway holds a request for up to 29 s, and job
rows are written late.
"""

_TIMEOUT: Final = 40.0
"""Seconds of silence to allow: the gateway replies within 29 s."""

_PREFIXES: Final = {
    "auth": "auth-api",
    "registry": "registry-api",
    "prov": "prov-api",
    "jobs": "job-api",
    "datastore": "data-api",
    "search": "search",
    "handles": "handle",
}
_SELDOM: Final = frozenset({"search", "handles"})
"""APIs whose URLs may be missing, since registering and reading do not need them."""
_S3_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class Endpoints(BaseModel):
    """Base URLs of Provena's APIs and of the Keycloak realm (`…/realms/<realm>`), without trailing slash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    realm: str = Field(description="URL of the Keycloak realm.")
    auth: str
    registry: str
    prov: str
    jobs: str
    datastore: str
    search: str | None = None
    handles: str | None = None

    @field_validator("*")
    @classmethod
    def _bare(cls, url: str | None) -> str | None:
        return None if url is None else url.strip().rstrip("/")

    @classmethod
    def of(
        cls,
        *,
        domain: str | None = None,
        realm: str | None = None,
        keycloak: str | None = None,
        **overrides: str | None,
    ) -> Endpoints:
        """Return the endpoints of a deployment.

        By default they are `https://<prefix>.<domain>` and `https://auth.<domain>/auth/realms/<realm>`. `keycloak`
        replaces Keycloak's base URL (up to `/auth`). The keywords `auth`, `registry`, `prov`, `jobs`, `datastore`,
        `search` and `handles` (the id-service) replace whole API URLs; without a domain, all but the last two are
        required. Raises ConfigurationError with the names of what is missing.
        """
        if unknown := overrides.keys() - _PREFIXES.keys():
            raise TypeError(f"Provena has no API {', '.join(sorted(unknown))}; it has {', '.join(_PREFIXES)}.")
        base = keycloak or (f"https://auth.{domain}/auth" if domain else None)
        missing = [name for name in _PREFIXES if not (overrides.get(name) or domain or name in _SELDOM)]
        missing += ["keycloak"] if base is None else []
        if missing or base is None:
            raise ConfigurationError(
                f"Where Provena is, is not known: there is no domain, and no URL for {', '.join(missing)}. "
                "Set PROVENA_DOMAIN, or the URL of each.",
                missing=missing,
            )
        if not realm:
            raise ConfigurationError("Provena's Keycloak realm is not known. Set PROVENA_REALM.", missing=["realm"])
        usual = {name: f"https://{prefix}.{domain}" for name, prefix in _PREFIXES.items()} if domain else {}
        given = {name: url for name, url in overrides.items() if url}
        return cls(realm=f"{base.rstrip('/')}/realms/{realm}", **(usual | given))


class ProvenaClient:
    """An asynchronous client. Use it as an async context manager, or call `aclose()`.

    `visibility_delay` is the number of seconds that an accepted request may stay invisible; `platform()` replaces it
    with the server's own value if the server gives one. `documents` saves the file behind a presigned URL; `files`
    transfers the files of a dataset. `trusted_hosts` are hosts that such URLs may name, besides Provena's own and
    Amazon S3's; no token is sent to them. All APIs share one pool.
    """

    def __init__(self, endpoints: Endpoints, auth: Auth, *, trusted_hosts: Collection[str] = ()) -> None:
        self.endpoints = endpoints
        self.visibility_delay = VISIBILITY_DELAY
        self._auth = auth
        self._platform: str | None = None
        self._embedded_s3: str | None = None
        self._asking = asyncio.Lock()
        self._pool = Pool()
        self._clock = ServerClock()
        self.auth_api = AuthApi(self._session(endpoints.auth))
        self.registry = RegistryApi(self._session(endpoints.registry))
        self.prov = ProvApi(self._session(endpoints.prov))
        self.jobs = JobsApi(self._session(endpoints.jobs))
        self.datastore = DataStoreApi(self._session(endpoints.datastore))
        self._search = SearchApi(self._session(endpoints.search)) if endpoints.search else None
        self._ids = Api(self._session(endpoints.handles)) if endpoints.handles else None
        known = filter(None, endpoints.model_dump().values())
        hosts = texts(trusted_hosts, "trusted_hosts", "ProvenaClient")
        self.documents = Documents({*hosts, *(urlsplit(url).hostname or "" for url in known)}, self._pool)

    def __repr__(self) -> str:
        return f"ProvenaClient({self.endpoints.realm!r})"

    async def __aenter__(self) -> ProvenaClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        await self._pool.aclose()

    @property
    def search(self) -> SearchApi:
        """The search API. Raises ConfigurationError if its URL is not known."""
        if self._search is None:
            raise _unknown("search API", "PROVENA_SEARCH_API")
        return self._search

    @property
    def ids(self) -> Api:
        """The id-service, of which only the health is asked. Raises ConfigurationError if its URL is not known."""
        if self._ids is None:
            raise _unknown("id-service", "PROVENA_HANDLE_API")
        return self._ids

    def files(self, id: str, *, write: bool = False) -> AbstractAsyncContextManager[DatasetFiles]:  # noqa: A002
        """Open the files of a dataset to list and download them, and with `write` to upload.

        Use it as `async with client.files(id)`. Temporary S3 keys are requested on entry and again before they expire;
        they are kept in memory only. Raises ConfigurationError without the extra `s3`, NotFoundError for an unknown
        dataset, the errors of `datastore` if it refuses the keys, and InputError for `write` with a dataset whose files
        are stored elsewhere.
        """
        return opened(self.datastore, id, write=write, endpoint=self._s3_endpoint)

    async def platform(self) -> str:
        """Return the id of this Provena: the realm's URL, or the instance id of an embedded platform.

        The instance id stays the same on another port. Raises PlatformError if a server on this machine does not say
        which instance it is.
        """
        async with self._asking:
            if self._platform is None:
                embedded = await ask_embedded(
                    self.endpoints.registry, platform="Provena", pool=self._pool, clock=self._clock
                )
                if embedded is not None:
                    self.visibility_delay, self._embedded_s3 = embedded.visibility_delay, embedded.s3
                self._platform = identity.platform_id(self.endpoints.realm) if embedded is None else embedded.instance
        return self._platform

    @property
    def time(self) -> ServerTime | None:
        """Provena's clock as of the newest reply of any of its APIs; None before the first reply."""
        return self._clock.time

    async def now(self) -> ServerTime | None:
        """Return `time`, after a request if no reply has carried a time yet. None if Provena sends no time."""
        await self.platform()
        if self.time is None:
            url = self.endpoints.registry
            async with Session(url, platform="Provena", pool=self._pool, clock=self._clock) as session:
                await session.request("GET", "/", repeat="idempotent", expect=range(200, 600))
        return self.time

    async def username(self) -> str:
        """Return the caller's name, as in `owner_username` of items and `username` of jobs."""
        name = claims(await self._auth.header()).get("preferred_username")
        if not isinstance(name, str) or not name:
            raise NotAuthorizedError(
                "Provena's token names no user (claim `preferred_username`). Log in with a client of its realm.",
                platform="Provena",
                method=None,
                path=None,
                status=None,
                detail=None,
            )
        return name

    async def email(self) -> str | None:
        """Return the caller's e-mail address, as the token has it. Without one, Provena refuses or fails each write."""
        address = claims(await self._auth.header()).get("email")
        return address if isinstance(address, str) and address else None

    async def _s3_endpoint(self) -> str | None:
        """Return the address of the S3 server; None for Amazon's own.

        An embedded Provena gives its own address. Otherwise AWS's environment variables decide. Raises
        ConfigurationError for an embedded Provena without an S3 server.
        """
        if not (await self.platform()).startswith(identity.EMBEDDED):
            return next(filter(None, map(os.environ.get, _S3_VARIABLES)), None)
        if self._embedded_s3 is None:
            raise ConfigurationError(
                "The embedded Provena keeps no files of datasets by itself. Start an S3 server, and "
                "`ivcap-flows local serve --s3-endpoint URL` with its address."
            )
        return self._embedded_s3

    def _session(self, url: str) -> Session:
        return Session(url, platform="Provena", auth=self._auth, timeout=_TIMEOUT, pool=self._pool, clock=self._clock)


def _unknown(api: str, variable: str) -> ConfigurationError:
    return ConfigurationError(f"Where Provena's {api} is, is not known. Set PROVENA_DOMAIN, or {variable} to its URL.")
