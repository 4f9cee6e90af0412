"""Logins of credentials that are not saved: of a user, and of a service account."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl

import jwt
import pytest
import yaml
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.errors import NotAuthorizedError


@pytest.fixture
def provider(scripted):
    """An identity provider whose deployment it is beside; each grant gives the next tokens."""
    given = {
        **{f"{name}-url": f"{scripted.url}/idp/{name}" for name in ("login", "token", "code", "jwks")},
        "client-id": "cli-1",
        "audience": "https://api/",
    }
    document = {"version": 1, "auth": {"providers": {"p": given}}}
    scripted.on("GET /1/authinfo.yaml", Response(yaml.safe_dump(document), media_type="application/yaml"))
    count = 0

    def grant(call):
        nonlocal count
        count += 1
        refresh = {"refresh_token": f"r-{count}"} if "refresh_token" in call.body else {}
        return {"access_token": f"a-{count}", "expires_in": 3600, **refresh}

    scripted.on("POST /idp/token", grant)
    return scripted


def forms(provider):
    return [dict(parse_qsl(call.body)) for call in provider.to("POST /idp/token")]


async def test_a_service_account(provider):
    """By the client's secret, for the deployment's audience. Nothing is used up, so nothing is stored or locked."""
    block = IvcapCredentials(url=provider.url, client_id="robot", client_secret="s3cret")
    auth = block._reached()[2]
    assert [await auth.header(), await auth.header(), await auth.header(force=True)] == [
        "Bearer a-1",
        "Bearer a-1",
        "Bearer a-2",
    ]
    assert forms(provider)[0] == {
        "client_id": "robot",
        "client_secret": "s3cret",
        "grant_type": "client_credentials",
        "audience": "https://api/",
    }
    provider.on("POST /idp/token", JSONResponse({"error": "invalid_client"}, 401))
    with pytest.raises(NotAuthorizedError, match="invalid_client.*Correct the client id") as error:
        await auth.header(force=True)
    assert "s3cret" not in str(error.value) + repr(auth)


async def test_a_refresh_token_that_is_not_saved(provider, caplog):
    """It serves this process; each rotation says that only a saved block can hand the new one on."""
    old = jwt.encode({"exp": time.time() + 5, "iat": time.time() - 3600}, "k" * 32, algorithm="HS256")
    block = IvcapCredentials(url=provider.url, token=old, refresh_token="r-0", client_secret="s3cret")
    auth = block._reached()[2]
    assert [await auth.header(), await auth.header(force=True)] == ["Bearer a-1", "Bearer a-2"]
    assert [form["refresh_token"] for form in forms(provider)] == ["r-0", "r-1"]
    assert forms(provider)[0]["client_secret"] == "s3cret" and forms(provider)[0]["client_id"] == "cli-1"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "only a saved block" in caplog.text and "r-1" not in caplog.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"context": "dev", "refresh_token": "s3cret"}, "A context has its own login"),
        ({"url": "http://sidecar", "connection": {"in_container": True}, "refresh_token": "s3cret"}, "The sidecar"),
        ({"url": "https://a"}, "There is no token"),
        ({"url": "https://a", "client_id": "robot"}, "There is no token"),
        ({"token": "s3cret"}, "need the url"),
        ({"url": "https://a", "client_secret": "s3cret"}, "needs the client_id"),
    ],
)
def test_credentials_that_contradict_themselves(given, said):
    """Refused when they are made, without the secret."""
    with pytest.raises(ValidationError, match=said) as error:
        IvcapCredentials(**given)
    assert "s3cret" not in str(error.value)
