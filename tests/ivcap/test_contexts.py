"""Logins to IVCAP. The file of the `ivcap` command is read, renewed and written back without harm to what else it
holds."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
import threading
import time
from datetime import datetime, timezone
from urllib.parse import parse_qsl

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from eventually import auntil
from pydantic import SecretStr, ValidationError
from starlette.responses import JSONResponse, Response

from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, ProtocolError, UnreachableError
from ivcap_flows.http.oauth import Tokens
from ivcap_flows.http.shared_login import SharedToken
from ivcap_flows.ivcap import authinfo
from ivcap_flows.ivcap.authinfo import provider_at
from ivcap_flows.ivcap.contexts import ContextFile, ContextLogin, config_file

FILE = """version: v1
active-context: prod
contexts:
- api-version: 1
  name: prod
  url: {url}
  account-id: urn:ivcap:account:45a0
  provider-id: urn:ivcap:provider:45a0
  host: ""
  account-name: "123"
  account-nickname: "yes"
  email: a@example.org
  access-token: a-1
  access-token-expiry: 2024-05-01T10:00:00.123456789+10:00
  refresh-token: r-1
- api-version: 1
  name: other
  url: https://other.example.org
  host: other.internal
  access-token: ""
  access-token-expiry: 0001-01-01T00:00:00Z
  refresh-token: ""
future-key:
  kept: as it is
"""


@pytest.fixture
def file(tmp_path, scripted):
    """A file as the command writes it, its active context's token long over."""
    path = tmp_path / "ivcap-cli" / "config.yaml"
    path.parent.mkdir()
    path.write_text(FILE.format(url=scripted.url))
    path.chmod(0o600)
    return ContextFile(path)


def info(url, **changes):
    """Where to log in, as a deployment describes it."""
    given = {
        **{f"{name}-url": f"{url}/idp/{name}" for name in ("login", "token", "code", "jwks")},
        "client-id": "cli-1",
        "audience": "https://api/",
    } | changes
    return {"version": 1, "auth": {"default-provider-id": "p", "providers": {"p": given}}}


def in_yaml(document):
    return Response(yaml.safe_dump(document), media_type="application/yaml")


@pytest.fixture
def provider(scripted):
    """An identity provider beside the platform: each grant gives the next tokens and takes the last refresh token."""
    count = 1

    def grant(call):
        nonlocal count
        if dict(parse_qsl(call.body)).get("refresh_token", f"r-{count}") != f"r-{count}":
            return JSONResponse({"error": "invalid_grant"}, 403)
        count += 1
        return {"access_token": f"a-{count}", "refresh_token": f"r-{count}", "expires_in": 3600}

    scripted.on("GET /1/authinfo.yaml", in_yaml(info(scripted.url)))
    scripted.on("POST /idp/token", grant)
    return scripted


def forms(provider):
    return [dict(parse_qsl(call.body)) for call in provider.to("POST /idp/token")]


def token_of(name, file):
    context = file.read(name)
    return SharedToken(ContextLogin(file, context.name), context)


def tokens_in(file, name="prod"):
    found = file.read(name)
    return [token and token.get_secret_value() for token in (found.access, found.refresh)]


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_context_is_read(file, scripted, monkeypatch, tmp_path):
    """By its name or as the active one; Go's zero time and empty texts are none."""
    found, other = file.read("active"), file.read("other")
    assert (found.name, found.url, found.account, found.host) == (
        "prod",
        scripted.url,
        "urn:ivcap:account:45a0",
        None,
    )
    assert tokens_in(file) == ["a-1", "r-1"] and found.due
    assert found.expires_at == datetime(2024, 5, 1, 0, 0, 0, 123456, timezone.utc).timestamp()
    assert (other.host, other.access, other.refresh, other.expires_at) == ("other.internal", None, None, None)
    assert "a-1" not in repr(found) and "r-1" not in repr(found)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file().parts[-2:] == ("ivcap-cli", "config.yaml")
    assert os.uname().sysname != "Linux" or config_file() == file.path


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "prod", "has no context named 'prod'. Log in by `ivcap-flows login URL`"),
        ("version: v1\ncontexts: []\n", "active", "no active context"),
        ("version: v1\ncontexts: [{name: a, url: 'https://a'}]\n", "b", "no context named 'b'. It has a."),
        ("version: v2\n", "a", "not of version v1"),
        ("- 1\n", "a", "not of version v1"),
        ("version: v1\ncontexts: [{name: a}]\n", "a", "has no url"),
        ("version: v1\nrefresh-token: s3cr3t: x\n", "a", "is no YAML"),
    ],
)
def test_a_context_that_cannot_be_used_is_told(tmp_path, text, name, said):
    """With the file, what it has, and the next step; never with a line of it."""
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as error:
        ContextFile(path).read(name)
    assert str(path) in str(error.value) and "s3cr3t" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__cause__ is None


async def test_a_token_is_renewed_once_and_written_back(file, provider):
    """For all who ask, other processes too, since a refresh token may be good for one use only. The rotated one would
    else end the command's own login. All else in the file stays to the letter."""
    before = file.path.read_text().splitlines()
    auth, of_another_process = token_of("prod", file), token_of("active", file)
    started = time.time()
    assert auth.expired_at(started)
    everybody = [(auth, of_another_process)[n % 2].header() for n in range(20)]
    assert await asyncio.gather(*everybody) == ["Bearer a-2"] * 20
    assert forms(provider) == [{"client_id": "cli-1", "grant_type": "refresh_token", "refresh_token": "r-1"}]
    after = file.path.read_text().splitlines()
    assert [old.split(":")[0].strip() for old, new in zip(before, after, strict=True) if old != new] == [
        "access-token",
        "access-token-expiry",
        "refresh-token",
    ]
    assert tokens_in(file) == ["a-2", "r-2"] and started + 3585 < file.read("prod").expires_at < started + 3600
    assert isinstance(yaml.safe_load(file.path.read_text())["contexts"][0]["access-token-expiry"], datetime)
    assert "a-2" not in repr(auth)
    assert await auth.header() == "Bearer a-2"
    assert await asyncio.gather(auth.header(force=True), of_another_process.header(force=True)) == ["Bearer a-3"] * 2
    assert len(forms(provider)) == 2


async def test_a_file_that_others_could_read_is_its_owners_again(file, provider):
    """Whatever mode it had, and whatever is masked: the new tokens are in a new file."""
    file.path.chmod(0o666)
    before = os.umask(0)
    try:
        with file.path.open() as read_by_others:
            await token_of("prod", file).header()
            assert "a-2" not in read_by_others.read()
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600 and "a-2" in file.path.read_text()
    assert [path for path in file.path.parent.iterdir() if path.stat().st_mode & 0o077] == []


async def test_a_login_that_has_ended_or_become_anothers_is_refused(file, provider):
    """A spent refresh token, a context without one, and one of another account since. The file stays as it was."""
    began = token_of("prod", file)
    text = file.path.read_text().replace("r-1", "r-spent")
    file.path.write_text(text)
    with pytest.raises(NotAuthorizedError, match="invalid_grant.*Log in by") as error:
        await token_of("prod", file).header()
    assert "r-spent" not in str(error.value)
    with pytest.raises(NotAuthorizedError, match=r"\(it has no refresh token\)\. Log in by `ivcap-flows login`"):
        await token_of("other", file).header()
    assert file.path.read_text() == text
    file.path.write_text(text.replace("account:45a0", "account:99"))
    with pytest.raises(ConfigurationError, match="another deployment or account"):
        await began.header()
    assert len(forms(provider)) == 1


async def test_a_cancelled_renewal_is_not_lost(file, provider):
    """What the provider has granted reaches the file, though nobody waits any more."""
    gone = threading.Event()
    provider.on("GET /1/authinfo.yaml", lambda _: gone.wait(10) and in_yaml(info(provider.url)))
    auth = token_of("prod", file)
    waiting = asyncio.create_task(auth.header())
    await auntil(lambda: provider.to("GET /1/authinfo.yaml"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gone.set()
    await auntil(lambda: tokens_in(file) == ["a-2", "r-2"])
    assert await auth.header() == "Bearer a-2"


@pytest.mark.parametrize("failing", [(os, "fsync"), (tempfile, "mkstemp")])
async def test_a_renewal_that_cannot_be_written_is_kept(file, provider, monkeypatch, caplog, failing):
    """With a full disk the old refresh token is spent all the same: this process goes on, and writes the next one. A
    login of another process meanwhile goes before it."""
    before = file.path.read_text()
    auth = token_of("prod", file)
    with monkeypatch.context() as patch:
        patch.setattr(*failing, full)
        assert await auth.header() == await auth.header() == "Bearer a-2"
    assert file.path.read_text() == before and sorted(file.path.parent.iterdir())[0] == file.path
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in warning and "a-2" not in caplog.text and "r-2" not in caplog.text
    assert await auth.header(force=True) == "Bearer a-3" and tokens_in(file) == ["a-3", "r-3"]
    with monkeypatch.context() as patch:
        patch.setattr(*failing, full)
        await auth.header(force=True)
    file.write("prod", Tokens(SecretStr("b-1"), SecretStr("s-1"), None, time.time() + 3600), {})
    assert await auth.header(force=True) == "Bearer b-1"


def test_a_login_makes_the_file_and_leaves_nothing_of_the_tokens_before(file, tmp_path):
    """Those may be another user's; a renewal without a new refresh token keeps the one that it was made with. The first
    context of a file becomes the active one, and a link stays a link."""
    file.write("prod", Tokens(SecretStr("a-2")))
    assert tokens_in(file) == ["a-2", "r-1"] and file.read("prod").expires_at is None
    file.write("prod", Tokens(SecretStr("b-1")), {"email": "b@example.org"})
    assert tokens_in(file) == ["b-1", None] and "r-1" not in file.path.read_text()

    real = tmp_path / "elsewhere" / "config.yaml"
    real.parent.mkdir()
    new = ContextFile(tmp_path / "config.yaml")
    new.path.symlink_to(real)
    tokens = Tokens(SecretStr("a"), SecretStr("r"), None, time.time() + 100)
    new.write("one", tokens, {"url": "https://one", "account-name": "no"})
    new.write("two", Tokens(SecretStr("b")), {"url": "https://two"})
    loaded = yaml.safe_load(real.read_text())
    assert new.path.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert (loaded["version"], loaded["active-context"], loaded["contexts"][0]["account-name"]) == ("v1", "one", "no")
    assert [context["name"] for context in loaded["contexts"]] == ["one", "two"]
    assert tokens_in(new, "two") == ["b", None] and not new.read("two").due


async def test_who_renews_the_login_is_named_and_not_waited_for_without_end(file, caplog):
    """First in the log, then in an error after which a wait goes on. A lock that cannot be made is named too."""
    here = f"process {os.getpid()} of this machine"
    async with file.locked():
        with pytest.raises(UnreachableError, match=here) as error:
            async with ContextFile(file.path, longest_wait=0.4).locked():
                pass
    assert error.value.retryable and here in caplog.text
    file.path.with_name("config.yaml.ivcap-flows.lock").unlink()
    file.path.with_name("config.yaml.ivcap-flows.lock").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be used: Is a directory"):
        async with file.locked():
            pass


async def test_a_deployment_tells_where_to_log_in(provider):
    """The default provider, or the only one where none is the default."""
    assert (await provider_at(provider.url)).token_url == f"{provider.url}/idp/token"
    document = info(provider.url)
    del document["auth"]["default-provider-id"]
    provider.on("GET /1/authinfo.yaml", in_yaml(document))
    assert (await provider_at(provider.url)).client_id == "cli-1"


@pytest.mark.parametrize(
    ("document", "error", "said"),
    [
        ({"version": 2}, ConfigurationError, "in version 2, and only 1 is known. Update"),
        ({"version": 1}, ConfigurationError, "names no identity provider"),
        ({"version": 1, "auth": {"default-provider-id": "q", "providers": {"p": {}}}}, ConfigurationError, "'q' among"),
        (info("http://idp", audience=""), ConfigurationError, "without a usable audience"),
        (
            info("http://idp", **{"token-url": "nonsense", "jwks-url": None}),
            ConfigurationError,
            "without a usable jwks-url, token-url",
        ),
        ([1], ProtocolError, "is no mapping"),
        ("[" * 2000, ProtocolError, "is no YAML"),
        ("version: 2026-99-99", ProtocolError, "is no YAML"),
        ("a: !!python/object/apply:os.getcwd []", ProtocolError, "is no YAML"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
async def test_a_description_that_cannot_be_used_is_told(scripted, document, error, said):
    """A version or a provider that is not understood is not guessed at, and what is no plain YAML runs no code."""
    scripted.on("GET /1/authinfo.yaml", Response(document) if isinstance(document, str) else in_yaml(document))
    with pytest.raises(error, match=said):
        await provider_at(scripted.url)


def test_tokens_do_not_leave_https():
    """A deployment on https that names a token endpoint on http is refused."""
    given = info("http://idp")["auth"]["providers"]["p"]
    with pytest.raises(ConfigurationError, match="code-url, jwks-url, login-url, token-url"):
        authinfo._checked(given, "https://api.example.org")


KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


def id_token(key=KEY, algorithm="RS256", kid="k1", **claims):
    given = {"acc": "45a0", "aud": "cli-1", "exp": time.time() + 60, **claims}
    return SecretStr(jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid}))


@pytest.fixture
async def claims_of(provider):
    """Verifies an ID token against the keys of the provider."""
    key = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    provider.on("GET /idp/jwks", {"keys": [key | {"kid": "k1", "alg": "RS256", "use": "sig"}]})
    return (await provider_at(provider.url)).claims


FORGED = {
    "other key": id_token(OTHER),
    "unknown key": id_token(kid="k2"),
    "other client": id_token(aud="someone-else"),
    "expired": id_token(exp=time.time() - 60),
    "shared secret": id_token("k" * 32, "HS256"),
    "unsigned": SecretStr(jwt.encode({"acc": "x", "aud": "cli-1"}, None, algorithm="none")),
    "nonsense": SecretStr("nonsense"),
}


@pytest.mark.parametrize("token", FORGED)
async def test_a_forged_id_token_is_refused(claims_of, token):
    """Whatever is not signed by the provider for this client says nothing about who logged in."""
    with pytest.raises(NotAuthorizedError, match="does not hold against the keys"):
        await claims_of(FORGED[token])


async def test_an_id_token_is_verified_also_if_the_providers_clock_is_ahead(claims_of, monkeypatch):
    """It is looked at again after three seconds, and not for ever."""
    monkeypatch.setattr(authinfo, "NOT_YET", 0.3)
    assert (await claims_of(id_token()))["acc"] == "45a0"
    assert await claims_of(id_token(nbf=time.time() + 1))
    with pytest.raises(NotAuthorizedError, match="not yet valid"):
        await claims_of(id_token(nbf=time.time() + 100, exp=time.time() + 200))


async def test_a_service_account_logs_in_by_its_secret(provider):
    """For the deployment's audience. Nothing is used up, so nothing is stored or locked."""
    auth = IvcapCredentials(url=provider.url, client_id="robot", client_secret="s3cret")._reached()[2]
    assert [await auth.header() for _ in range(2)] == ["Bearer a-2"] * 2
    assert await auth.header(force=True) == "Bearer a-3"
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


async def test_a_refresh_token_that_is_not_saved_serves_this_process(provider, caplog):
    """Each rotation says that only a saved block can hand the new one on."""
    old = jwt.encode({"exp": time.time() + 5, "iat": time.time() - 3600}, "k" * 32, algorithm="HS256")
    block = IvcapCredentials(url=provider.url, token=old, refresh_token="r-1", client_secret="s3cret")
    auth = block._reached()[2]
    assert [await auth.header(), await auth.header(force=True)] == ["Bearer a-2", "Bearer a-3"]
    assert [(form["refresh_token"], form["client_id"]) for form in forms(provider)] == [
        ("r-1", "cli-1"),
        ("r-2", "cli-1"),
    ]
    assert forms(provider)[0]["client_secret"] == "s3cret"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "only a saved block" in caplog.text and "r-2" not in caplog.text


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
