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
SIDECAR = {"IVCAP_BASE_URL": "http://ivcap.local"}
PROVENA = {"PROVENA_DOMAIN": "example.org", "PROVENA_REALM": "rrap", "PROVENA_OFFLINE_TOKEN": "s3cret-offline"}


@pytest.mark.parametrize(
    ("variables", "url", "token"),
    [
        (IVCAP, IVCAP["IVCAP_URL"], "s3cret-jwt"),
        # The order is the official client's.
        (IVCAP | SIDECAR, IVCAP["IVCAP_URL"], "s3cret-jwt"),
        # The sidecar authenticates; a token beside it stays here.
        (SIDECAR | {"IVCAP_JWT": "s3cret"}, "http://ivcap.local", None),
    ],
    ids=["IVCAP", "IVCAP before the sidecar", "the sidecar"],
)
def test_the_real_platforms_are_those_named(variables, url, token):
    """URL and token, domain, realm and token go into the credentials."""
    ivcap = IvcapCredentials.from_environment(Settings(**variables))
    assert ivcap.url == url and ivcap.get_client()
    assert ivcap.connection.in_container == (token is None)
    assert (ivcap.token and ivcap.token.get_secret_value()) == token
    settings = Settings(**variables, **PROVENA, PROVENA_JOB_API="https://jobs.example.org")
    provena = ProvenaCredentials.from_environment(settings)
    assert provena.endpoints().realm == "https://auth.example.org/auth/realms/rrap"
    assert provena.endpoints().jobs == "https://jobs.example.org"
    assert provena.client_id == "automated-access"


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
        credentials.from_environment(Settings(**variables))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(error, ConfigurationError) and isinstance(error, ValueError)
        assert all(name in str(error) for name in names)
        assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("credentials", "variables", "step"),
    [
        (ProvenaCredentials, IVCAP, "PROVENA_DOMAIN"),
        (ProvenaCredentials, SIDECAR, "PROVENA_DOMAIN"),
        (IvcapCredentials, PROVENA, "IVCAP_URL"),
    ],
)
@pytest.mark.parametrize("deployed", [False, True])
def test_where_one_platform_is_real_the_other_is_off(credentials, variables, step, deployed):
    """No toy stands beside a real platform; the error says how to switch it on."""
    with pytest.raises(PlatformOffError, match=step) as caught:
        credentials.from_environment(Settings(**variables), deployed=deployed)
    assert caught.value.platform == step.partition("_")[0].replace("PROVENA", "Provena")


@pytest.mark.parametrize(
    ("credentials", "step"), [(IvcapCredentials, "IVCAP_URL"), (ProvenaCredentials, "PROVENA_DOMAIN")]
)
def test_a_deployed_run_without_platform_stops(credentials, step, tmp_path):
    """A lost variable does not let a production flow succeed on the embedded platforms."""
    with pytest.raises(ConfigurationError, match=f"of this worker names one.*{step}.*IVCAP_FLOWS_EMBEDDED=1"):
        credentials.from_environment(Settings(), deployed=True)
    assert not (tmp_path / "ivcap-artifacts").exists()


def test_nothing_named_means_the_embedded_platforms(tmp_path):
    """Both are those of IVCAP_LOCAL_DIR, one server for both, deployed only when allowed."""

    async def platforms():
        async with ivcap.get_client() as first, provena.get_client() as second:
            assert await second.auth_api.linked_person()
            return [await first.platform(), await second.platform()]

    try:
        ivcap = IvcapCredentials.from_environment()
        provena = ProvenaCredentials.from_environment(Settings(IVCAP_FLOWS_EMBEDDED="1"), deployed=True)
        server = Directory(tmp_path / "ivcap-artifacts").server()
        assert ivcap.url == server["url"] and ivcap.token is not None
        assert asyncio.run(platforms()) == [server["instance"]] * 2
    finally:
        if (server := Directory(tmp_path / "ivcap-artifacts").server()) is not None:
            os.kill(server["pid"], signal.SIGTERM)


def test_tests_reach_the_embedded_platforms_whatever_is_set(monkeypatch, request):
    """The fixture for users' tests takes away the logins that their shell names."""
    for name in ("IVCAP_FLOWS_IVCAP_BLOCK", "IVCAP_FLOWS_PROVENA_BLOCK", "IVCAP_CONTEXT", *SIDECAR, *PROVENA):
        monkeypatch.setenv(name, "prod")
    monkeypatch.setenv("PROVENA_CLIENT_SECRET", "prod")
    request.getfixturevalue("embedded_platform")
    url = os.environ["IVCAP_URL"]
    assert IvcapCredentials.from_environment().url == url
    endpoints = ProvenaCredentials.from_environment().endpoints()
    assert all(value.startswith(url) for value in vars(endpoints).values())
