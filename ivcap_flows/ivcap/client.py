"""The client of one IVCAP deployment and account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.http.auth import Auth, claims
from ivcap_flows.http.embedded import ask_embedded
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn, platform_id
from ivcap_flows.ivcap.agents import Agents
from ivcap_flows.ivcap.artifacts import Artifacts
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.collections import Collections
from ivcap_flows.ivcap.jobs import Jobs
from ivcap_flows.ivcap.orders import Orders
from ivcap_flows.ivcap.queues import Queues
from ivcap_flows.ivcap.search import search
from ivcap_flows.ivcap.secrets import Secrets
from ivcap_flows.ivcap.services import Services

if TYPE_CHECKING:
    from ivcap_flows.ivcap.authinfo import Provider

__all__ = ["VISIBILITY_DELAY", "IvcapClient"]

VISIBILITY_DELAY: Final = 120.0
"""Seconds after which a look-up is assumed to see an accepted request: gateways hold requests that long."""


_RECORDS: Final = 50
"""Number of artifacts, and of orders, that are read to find the account."""


class IvcapClient:
    """A client of one deployment: one attribute for each noun of the API, and `search`.

    Close it with `aclose()` or `async with`. Set `in_container` when `url` is that of the sidecar inside an IVCAP
    container (`IVCAP_BASE_URL`): the sidecar adds the credentials, and the client reaches the platform's external URLs
    through it. `secret_manager` is the URL from which secrets are read inside a container. `account` is the URN of the
    account, if a login has given it.
    """

    def __init__(
        self,
        url: str | Session,
        auth: Auth | None = None,
        *,
        in_container: bool = False,
        timeout: float = 30.0,
        budget: float = 60.0,
        secret_manager: str | None = None,
        account: str | None = None,
    ) -> None:
        if isinstance(url, Session):
            self._session = url
        else:
            self._session = Session(
                url,
                platform="IVCAP",
                auth=auth,
                timeout=timeout,
                budget=budget,
                rewrite_hosts=in_container,
            )
        self.aspects = Aspects(self._session)
        self.artifacts = Artifacts(self._session)
        self.collections = Collections(self.aspects)
        self.services = Services(self._session, self.aspects, self.account)
        self.orders = Orders(self._session)
        self.jobs = Jobs(self._session, self.aspects)
        self.agents = Agents(self.aspects, self.services)
        self._manager = (
            None
            if secret_manager is None
            else Session(secret_manager, platform="the secret manager", timeout=timeout, budget=budget)
        )
        self.secrets = Secrets(self._session, self._manager)
        self.queues = Queues(self._session)
        self.visibility_delay = VISIBILITY_DELAY
        """Seconds after which a look-up surely sees an accepted request. `platform()` replaces it with the embedded
        platform's own value.
        """
        self._platform: str | None = None
        self._asking = asyncio.Lock()
        self._account = account
        self._account_name: str | None = None
        """What the token says, once it was read; empty if it says nothing."""

    def __repr__(self) -> str:
        return f"IvcapClient({self._session.base_url!r})"

    async def __aenter__(self) -> IvcapClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.aclose()
        if self._manager is not None:
            await self._manager.aclose()

    @property
    def time(self) -> ServerTime | None:
        """The platform's clock as of the newest reply; None before the first reply."""
        return self._session.clock.time

    async def now(self) -> ServerTime | None:
        """Return `time`, after a request to the platform if no reply has carried a time yet.

        None if the platform sends no time.
        """
        await self.platform()
        if self.time is None:
            of = self._session
            async with Session(of.base_url, platform="IVCAP", budget=of.backoff.budget, clock=of.clock) as session:
                await session.request("GET", "/", repeat="idempotent", expect=range(200, 600))
        return self.time

    def search(self, query: str, *, at_time: datetime | None = None, limit: int | None = None) -> AsyncIterator[Any]:
        """Yield what a Mangle program (a Datalog) derives for its predicate `query`, over all pages.

        `limit` is the total number of items. The program names the aspects to read with `:load_aspect(/name, "schema",
        ["entity", ".path"]).`; they are read as they were at `at_time`. Items are returned as the platform sends them;
        it does not publish their shape.
        """
        return search(self._session, query, at_time=at_time, limit=limit)

    async def platform(self) -> str:
        """Return the platform's id: its normalised URL, or the instance id of an embedded platform.

        The instance id stays the same when the embedded platform starts on another port. Raises PlatformError if a
        server on this machine does not say which instance it is.
        """
        if self._platform is None:
            # Many tasks start at once and need the same answer, so only one of them sends the request.
            async with self._asking:
                if self._platform is None:
                    url, budget = self._session.base_url, self._session.backoff.budget
                    embedded = await ask_embedded(url, platform="IVCAP", budget=budget, clock=self._session.clock)
                    if embedded is not None:
                        self.visibility_delay = embedded.visibility_delay
                    self._platform = platform_id(url) if embedded is None else embedded.instance
        return self._platform

    async def api_version(self) -> str | None:
        """Return the version in the platform's OpenAPI document; None if it has none."""
        reply = await self._session.request("GET", "/1/openapi/openapi3.json", repeat="idempotent")
        body = reply.json()
        info = body.get("info") if isinstance(body, dict) else None
        version = info.get("version") if isinstance(info, dict) else None
        return version if isinstance(version, str) and version else None

    async def provider(self) -> Provider:
        """Return where the platform's users log in. Raises ConfigurationError if it does not say."""
        # Imported here, since only a login and `doctor` need it.
        from ivcap_flows.ivcap.authinfo import discover

        return await discover(self._session)

    async def account(self) -> str:
        """Return the URN of the account that makes the requests.

        It comes from the login, from the token (claim `acc`), or from a record that surely belongs to the account.
        Raises ConfigurationError if none of them names it.
        """
        if self._account is None:
            found = await self._claim("acc") or await self._account_of_records()
            if found is None:
                raise ConfigurationError(
                    "The account cannot be told: the token names none (claim `acc`) and there is no artifact or order "
                    "that is surely of the account. Use the token of a user's login."
                )
            self._account = ivcap_urn("account", found)
        return self._account

    async def account_name(self) -> str | None:
        """Return what a person calls the account (claims `name` or `nickname` of the token), or None."""
        if self._account_name is None:
            self._account_name = await self._claim("name") or await self._claim("nickname") or ""
        return self._account_name or None

    async def _claim(self, name: str) -> str | None:
        found = claims(await self._session.auth.header() if self._session.auth else None).get(name)
        return found if isinstance(found, str) and found else None

    async def _account_of_records(self) -> str | None:
        """Return the account of an artifact or order that surely belongs to this account, or None.

        Open records of other accounts are visible too, so open records do not count. Orders carry no policy (IVCAP
        OpenAPI 0.48), so they count only if all of them name the same account.
        """
        seen: set[str] = set()
        async for listed in self.artifacts.list(limit=_RECORDS):
            known = listed.account and listed.policy
            artifact = listed if known else await self.artifacts.read(listed.urn)
            if artifact.account and not _is_open(artifact.policy):
                if artifact.policy is not None:
                    return artifact.account
                seen.add(artifact.account)
        async for order in self.orders.list(limit=_RECORDS):
            if order.account and not _is_open(order.policy):
                seen.add(order.account)
        return seen.pop() if len(seen) == 1 else None


def _is_open(policy: str | None) -> bool:
    """Return whether everybody can see a record with this policy."""
    return (policy or "").startswith("urn:ivcap:policy:ivcap.open.")
