"""Which platforms the environment means."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal

import pytest

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.errors import ConfigurationError, PlatformOffError
from ivcap_flows.local.directory import Directory
from ivcap_flows.settings import Settings

pytestmark = pytest.mark.canary

IVCAP = {"IVCAP_URL": "https://ivcap.example.org", "IVCAP_JWT": "s3cret-jwt"}
PROVENA = {"PROVENA_DOMAIN": "example.org", "PROVENA_REALM": "rrap", "PROVENA_OFFLINE_TOKEN": "s3cret-offline"}


def named(variables: dict[str, str]) -> Settings:
    """Settings as the test's clean environment with these variables would give them."""
    return Settings(**variables)


def test_the_real_platforms_are_those_named():
    """URL and token, domain, realm and token go into the credentials."""
    settings = named(IVCAP | PROVENA | {"PROVENA_JOB_API": "https://jobs.example.org"})

    ivcap = IvcapCredentials.from_environment(settings)
    provena = ProvenaCredentials.from_environment(settings)

    assert (ivcap.url, ivcap.connection.in_container) == ("https://ivcap.example.org", False)
    assert ivcap.token is not None
    assert ivcap.token.get_secret_value() == "s3cret-jwt"
    assert provena.endpoints().realm == "https://auth.example.org/auth/realms/rrap"
    assert provena.endpoints().jobs == "https://jobs.example.org"
    assert provena.client_id == "automated-access"


def test_inside_a_container_no_token_is_sent():
    """IVCAP_BASE_URL alone is the sidecar, which authenticates; a token beside it stays here."""
    found = IvcapCredentials.from_environment(named({"IVCAP_BASE_URL": "http://ivcap.local", "IVCAP_JWT": "s3cret"}))

    assert (found.url, found.token, found.connection.in_container) == ("http://ivcap.local", None, True)
    assert found.get_client()


def test_ivcap_url_goes_before_the_sidecar():
    """The order is the official client's."""
    found = IvcapCredentials.from_environment(named(IVCAP | {"IVCAP_BASE_URL": "http://ivcap.local"}))

    assert (found.url, found.connection.in_container) == ("https://ivcap.example.org", False)


@pytest.mark.parametrize(
    ("credentials", "variables", "names"),
    [
        (IvcapCredentials, {"IVCAP_JWT": "s3cret"}, ["IVCAP_JWT", "IVCAP_URL"]),
        (ProvenaCredentials, {"IVCAP_JWT": "s3cret"}, ["IVCAP_JWT", "IVCAP_URL"]),
        (IvcapCredentials, {"IVCAP_URL": "https://ivcap.example.org"}, ["IVCAP_JWT"]),
        (ProvenaCredentials, {"PROVENA_OFFLINE_TOKEN": "s3cret"}, ["PROVENA_DOMAIN"]),
        (IvcapCredentials, {"PROVENA_OFFLINE_TOKEN": "s3cret"}, ["PROVENA_DOMAIN"]),
        (ProvenaCredentials, {"PROVENA_DOMAIN": "example.org", "PROVENA_REALM": "r"}, ["PROVENA_OFFLINE_TOKEN"]),
        (ProvenaCredentials, PROVENA | {"PROVENA_REALM": ""}, ["PROVENA_REALM"]),
    ],
)
def test_half_a_configuration_is_a_value_error(credentials, variables, names):
    """It is a ConfigurationError as well, names the variables, holds no token and survives pickling."""
    with pytest.raises(ValueError, match=names[0]) as caught:
        credentials.from_environment(named(variables))

    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert isinstance(error, ConfigurationError)
        assert isinstance(error, ValueError)
        assert all(name in str(error) for name in names)
        assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("credentials", "variables", "platform", "step"),
    [
        (ProvenaCredentials, IVCAP, "Provena", "PROVENA_DOMAIN"),
        (ProvenaCredentials, {"IVCAP_BASE_URL": "http://ivcap.local"}, "Provena", "PROVENA_DOMAIN"),
        (IvcapCredentials, PROVENA, "IVCAP", "IVCAP_URL"),
    ],
)
@pytest.mark.parametrize("deployed", [False, True])
def test_where_one_platform_is_real_the_other_is_off(credentials, variables, platform, step, deployed):
    """No toy stands beside a real platform; the error says how to switch it on."""
    with pytest.raises(PlatformOffError) as caught:
        credentials.from_environment(named(variables), deployed=deployed)

    assert caught.value.platform == platform
    assert step in str(caught.value)


@pytest.mark.parametrize("credentials", [IvcapCredentials, ProvenaCredentials])
def test_a_deployed_run_without_platform_stops(credentials, tmp_path):
    """A lost variable does not let a production flow succeed on the embedded platforms."""
    with pytest.raises(ConfigurationError, match="nor IVCAP_URL is set on this worker") as caught:
        credentials.from_environment(named({}), deployed=True)

    assert "IVCAP_FLOWS_EMBEDDED=1" in str(caught.value)
    assert not (tmp_path / "ivcap-artifacts").exists()


async def both_platforms(ivcap: IvcapCredentials, provena: ProvenaCredentials) -> list[str]:
    async with ivcap.get_client() as first, provena.get_client() as second:
        assert await second.auth_api.linked_person()
        return [await first.platform(), await second.platform()]


def test_nothing_named_means_the_embedded_platforms(tmp_path):
    """Both are those of IVCAP_LOCAL_DIR, one server for both, deployed only when allowed."""
    try:
        ivcap = IvcapCredentials.from_environment()
        provena = ProvenaCredentials.from_environment(named({"IVCAP_FLOWS_EMBEDDED": "1"}), deployed=True)

        server = Directory(tmp_path / "ivcap-artifacts").server()
        assert server is not None
        assert ivcap.url == server["url"]
        assert ivcap.token is not None
        assert provena.endpoints().registry.startswith(server["url"])
        assert asyncio.run(both_platforms(ivcap, provena)) == [server["instance"]] * 2
    finally:
        server = Directory(tmp_path / "ivcap-artifacts").server()
        if server is not None:
            os.kill(server["pid"], signal.SIGTERM)
