"""`ivcap-flows local serve` gives all that a client needs to know."""

from __future__ import annotations

import stat
from urllib.parse import urlsplit

import httpx
import pytest
from own_login import renewing
from peers import interpreter
from pydantic import SecretStr

from ivcap_flows.errors import BadRequestError, NotAuthorizedError
from ivcap_flows.loop import run
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.login import token_url
from ivcap_flows.provena.models import Model, Organisation

pytestmark = [pytest.mark.contract]

APIS = ("KEYCLOAK", *(f"{api}_API" for api in ("AUTH", "REGISTRY", "PROV", "JOB", "DATA_STORE", "SEARCH", "HANDLE")))
URLS = {"IVCAP_URL", *(f"PROVENA_{api}" for api in APIS)}
USERS = {f"PROVENA_OFFLINE_TOKEN{user}" for user in ("", "_2", "_UNLINKED", "_READER")}
TOKENS = {"IVCAP_JWT", "IVCAP_JWT_2", "IVCAP_JWT_EXPIRED", *USERS}
OTHERS = {"PROVENA_REALM", "PROVENA_CLIENT_ID"}


def provena(environment: dict[str, str], token: str) -> ProvenaClient:
    apis = ("auth", "registry", "prov")
    endpoints = Endpoints.of(
        realm=environment["PROVENA_REALM"],
        keycloak=environment["PROVENA_KEYCLOAK"],
        jobs=environment["PROVENA_JOB_API"],
        datastore=environment["PROVENA_DATA_STORE_API"],
        **{api: environment[f"PROVENA_{api.upper()}_API"] for api in apis},
    )
    login = renewing(token_url(endpoints.realm), environment["PROVENA_CLIENT_ID"], SecretStr(environment[token]))
    return ProvenaClient(endpoints, login)


def test_all_variables_are_written_and_printed(served):
    """Each has a value; the file, which holds tokens, is its owner's alone; the output has the same lines."""
    environment = served.environment
    assert environment.keys() == URLS | TOKENS | OTHERS
    assert all(environment.values())
    assert len({environment[name] for name in TOKENS}) == len(TOKENS)
    assert {urlsplit(environment[name]).hostname for name in URLS} == {"127.0.0.1"}
    lines = [f"{name}={value}" for name, value in environment.items()]
    assert [line for line in served.printed.splitlines() if line in lines] == lines
    assert stat.S_IMODE(served.env_file.stat().st_mode) == 0o600


def test_the_provena_users_are_what_their_names_say(served):
    """Two with a linked person, one without, one who may only read."""
    url = "https://example.org/model"
    model = Model(display_name="m", name="m", description="d", documentation_url=url, source_url=url)
    refusals = {"_unlinked": BadRequestError, "_reader": NotAuthorizedError}

    async def ask() -> None:
        seen = {}
        for token in sorted(USERS):
            async with provena(served.environment, token) as client:
                name = token.removeprefix("PROVENA_OFFLINE_TOKEN").lower()
                seen[name] = (await client.username(), await client.auth_api.linked_person())
                assert [item async for item in client.registry.list(Organisation)]
                if name in refusals:
                    with pytest.raises(refusals[name]):
                        await client.registry.create(Model, model)
                else:
                    assert (await client.registry.create(Model, model)).item.info.name == "m"
        assert len({username for username, _ in seen.values()}) == 4
        assert seen["_unlinked"][1] is None
        assert None not in (seen[""][1], seen["_2"][1])
        assert seen[""][1] != seen["_2"][1]

    run(ask())


def test_replies_are_not_held_back(served):
    """On a kept connection a reply comes without the 40 ms that Nagle's algorithm and delayed acknowledgements cost."""
    headers = {"Authorization": f"Bearer {served.environment['IVCAP_JWT']}"}
    with httpx.Client(base_url=served.environment["IVCAP_URL"], headers=headers) as client:
        taken = [client.get("/1/services2").elapsed.total_seconds() for _ in range(15)]
    # Held back is every reply but the first; a busy machine delays some.
    assert min(taken[1:]) < 0.03


def test_a_client_that_is_not_installed_is_a_failure_with_the_next_step():
    """No test of this folder is skipped for want of its peer."""
    with pytest.raises(pytest.fail.Exception, match="make peers"):
        interpreter("no-such-client")
