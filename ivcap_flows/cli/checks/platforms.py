"""The platforms that the environment names: whether they answer, and what was made twice or left unfinished there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows import loop
from ivcap_flows.cli.checks import Wrong
from ivcap_flows.cli.output import moment
from ivcap_flows.cli.platform import in_time, ivcap, provena
from ivcap_flows.cli.records import read_journal
from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.http.auth import expiry
from ivcap_flows.settings import Settings
from ivcap_flows.work.duplicates import Duplicate, duplicates_on_ivcap, note_duplicates
from ivcap_flows.work.unfinished_uploads import unfinished_uploads
from ivcap_flows.work.unlisted_records import unlisted_records

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["TIMEOUT", "check_ivcap", "check_provena", "ivcap_account", "not_renewed", "provena_user"]

TIMEOUT: Final = 15.0
"""Seconds that a platform gets to answer."""
_SEARCH_TIMEOUT: Final = 60.0


def check_ivcap() -> list[str]:
    """Say which IVCAP answers to whom, when its token ends, and what is unfinished or was made twice there."""
    settings = Settings.current()

    async def account() -> str:
        return await ivcap_account(await ivcap(), _embedded())

    found = [in_time("IVCAP", account(), TIMEOUT)]
    if settings.ivcap_jwt is not None and settings.ivcap_url is not None:
        token = settings.ivcap_jwt.get_secret_value()
        found.append(f"IVCAP_JWT {not_renewed(token, f'{settings.ivcap_url} --block NAME')}")
    return [*found, *_search(_left_on_ivcap())]


def check_provena() -> list[str]:
    """Say which Provena answers to whom, and what was made twice there."""

    async def user() -> str:
        return await provena_user(await provena(), _embedded())

    return [in_time("Provena", user(), TIMEOUT), *_search(_made_twice_on_provena())]


async def ivcap_account(client: IvcapClient, place: str = "") -> str:
    """Return the platform and the account that a client reaches it with, after a request that needs a login."""
    async for _ in client.services.list(limit=1):
        break
    return f"{await client.platform()}{place} as {await client.account()}"


async def provena_user(client: ProvenaClient, place: str = "") -> str:
    """Return the platform and the user that a client reaches it with, and whether registrations are possible."""
    person = await client.auth_api.linked_person()
    linked = f"linked to person {person}" if person else "not linked to a person, which most registrations need"
    return f"{await client.platform()}{place} as {await client.username()}, {linked}"


def not_renewed(token: str, login: str) -> str:
    """Return when a token ends that nothing renews, and what to do for deployments."""
    end = expiry(token)
    when = "an unknown time" if end is None else moment(datetime.fromtimestamp(end, timezone.utc))
    return f"ends at {when} and is not renewed, which is for trying out; log in by `ivcap-flows login {login}`"


def _embedded() -> str:
    folder = Settings.current().embedded_in
    return "" if folder is None else f", embedded in {folder},"


def _search(search: Coroutine[Any, Any, list[str]]) -> list[str]:
    """Run a search, which reads many records. One that fails or takes too long says so, and nothing is wrong then."""
    what = "the search for what was left unfinished or made twice"
    try:
        return loop.run(asyncio.wait_for(search, _SEARCH_TIMEOUT))
    except asyncio.TimeoutError:
        return [f"{what} took more than {_SEARCH_TIMEOUT:g} s; try again later"]
    except IvcapFlowsError as error:
        return [f"{what} failed: {error}"]


async def _left_on_ivcap() -> list[str]:
    client = await ivcap()
    with read_journal() as journal:
        unfinished = [upload async for upload in unfinished_uploads(client, journal)]
        unlisted = [said async for said in unlisted_records(client, journal)]
        return [
            *unfinished,
            *unlisted,
            *await journal.ask(_noted, journal, *await duplicates_on_ivcap(client, journal)),
        ]


async def _made_twice_on_provena() -> list[str]:
    from ivcap_flows.registration.duplicates import duplicates_in_provena

    client = await provena()
    with read_journal() as journal:
        return await journal.ask(_noted, journal, *await duplicates_in_provena(client, journal))


def _noted(journal: Journal, found: list[Duplicate], looked_at: str) -> list[str]:
    note_duplicates(journal, found)
    searched = f"searched for what was made twice among {looked_at}; older ones were not read"
    return [*map(Wrong, map(str, found)), searched]
