"""The logins of the `ivcap` command: its file is read, renewed and written back without harm to what else it holds."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from urllib.parse import parse_qsl

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, ProtocolError, UnreachableError
from ivcap_flows.http.auth import Auth
from ivcap_flows.http.oauth import Tokens
from ivcap_flows.http.session import Session
from ivcap_flows.http.shared_login import SharedToken
from ivcap_flows.ivcap import authinfo, contexts
from ivcap_flows.ivcap.authinfo import discover
from ivcap_flows.ivcap.contexts import ContextFile, ContextLogin, config_file

ACCOUNT = "urn:ivcap:account:45a0"
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
  access-token: {access}
  access-token-expiry: {expiry}
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
    path.write_text(FILE.format(url=scripted.url, access="a-1", expiry="2024-05-01T10:00:00.123456789+10:00"))
    path.chmod(0o600)
    return ContextFile(path)


@pytest.fixture
def provider(scripted):
    """An identity provider beside the platform: each renewal gives the next tokens and takes the last refresh token."""
    count = 1

    def renew(call):
        nonlocal count
        form = dict(parse_qsl(call.body))
        if form.get("refresh_token") != f"r-{count}":
            return JSONResponse({"error": "invalid_grant"}, 403)
        count += 1
        return {"access_token": f"a-{count}", "refresh_token": f"r-{count}", "expires_in": 3600}

    scripted.on("GET /1/authinfo.yaml", info(scripted.url))
    scripted.on("POST /idp/token", renew)
    return scripted


def token_of(name, file):
    context = file.read(name)
    return SharedToken(ContextLogin(file, context.name), context)


def info(url, **changes):
    given = {
        "login-url": f"{url}/idp/authorize",
        "token-url": f"{url}/idp/token",
        "code-url": f"{url}/idp/code",
        "jwks-url": f"{url}/idp/keys",
        "client-id": "cli-1",
        "audience": "https://api/",
    } | changes
    document = {"version": 1, "auth": {"default-provider-id": "p", "providers": {"p": given}}}
    return Response(yaml.safe_dump(document), media_type="application/yaml")


def test_the_file_lies_where_the_command_keeps_it(monkeypatch, tmp_path):
    """In the user's configuration folder, under the command's name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file().parts[-2:] == ("ivcap-cli", "config.yaml")
    assert os.name != "posix" or os.uname().sysname != "Linux" or config_file().is_relative_to(tmp_path)


def test_a_context_is_read(file, scripted):
    """By its name or as the active one; Go's zero time and empty texts are none."""
    found = file.read("active")
    assert (found.name, found.url, found.account, found.host) == ("prod", scripted.url, ACCOUNT, None)
    assert found.access == SecretStr("a-1") and found.refresh == SecretStr("r-1") and found.due
    assert found.expires_at == datetime(2024, 5, 1, 0, 0, 0, 123456, timezone.utc).timestamp()
    other = file.read("other")
    assert (other.host, other.access, other.refresh, other.expires_at) == ("other.internal", None, None, None)
    assert "a-1" not in repr(found) and "r-1" not in repr(found)


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
    assert str(path) in str(error.value)
    assert error.value.__suppress_context__ or error.value.__cause__ is None
    assert "s3cr3t" not in str(error.value)


async def test_a_token_is_renewed_and_written_back(file, provider):
    """The rotated refresh token would else end the command's own login. All else stays to the letter."""
    before = file.path.read_text()
    auth = token_of("prod", file)
    assert isinstance(auth, Auth) and auth.expired_at(time.time())
    started = time.time()
    assert await asyncio.gather(*(auth.header() for _ in range(20))) == ["Bearer a-2"] * 20
    [renewal] = provider.to("POST /idp/token")
    assert dict(parse_qsl(renewal.body)) == {
        "client_id": "cli-1",
        "grant_type": "refresh_token",
        "refresh_token": "r-1",
    }

    lines = dict(enumerate(file.path.read_text().splitlines()))
    changed = {n: line for n, line in enumerate(before.splitlines()) if lines[n] != line}
    assert [line.split(":")[0].strip() for line in changed.values()] == [
        "access-token",
        "access-token-expiry",
        "refresh-token",
    ]
    assert len(lines) == len(before.splitlines())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    found = file.read("prod")
    assert (found.access, found.refresh) == (SecretStr("a-2"), SecretStr("r-2"))
    assert started + 3585 < found.expires_at < started + 3600
    assert isinstance(yaml.safe_load(file.path.read_text())["contexts"][0]["access-token-expiry"], datetime)
    assert "a-2" not in repr(auth)

    assert await auth.header() == "Bearer a-2"
    assert await auth.header(force=True) == "Bearer a-3"
    assert len(provider.to("POST /idp/token")) == 2


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


async def test_processes_share_one_renewal(file, provider):
    """Who comes second finds what the first one wrote, since a refresh token may be good for one use only."""
    first, second = token_of("prod", file), token_of("active", file)
    assert set(await asyncio.gather(first.header(), second.header())) == {"Bearer a-2"}
    assert len(provider.to("POST /idp/token")) == 1
    assert await asyncio.gather(first.header(force=True), second.header(force=True)) == ["Bearer a-3"] * 2
    assert len(provider.to("POST /idp/token")) == 2


async def test_a_login_that_has_ended_says_so(file, provider):
    """A spent refresh token, and a context without one; the file is left as it was."""
    text = file.path.read_text().replace("r-1", "r-spent")
    file.path.write_text(text)
    with pytest.raises(NotAuthorizedError, match="invalid_grant.*Log in by") as error:
        await token_of("prod", file).header()
    assert "r-spent" not in str(error.value)
    with pytest.raises(NotAuthorizedError, match=r"\(it has no refresh token\)\. Log in by `ivcap-flows login`"):
        await token_of("other", file).header()
    assert file.path.read_text() == text


async def test_a_context_that_becomes_another_accounts_is_refused(file, provider):
    """A run that began as one account does not go on as another."""
    auth = token_of("prod", file)
    file.path.write_text(file.path.read_text().replace("account:45a0", "account:99"))
    with pytest.raises(ConfigurationError, match="another deployment or account"):
        await auth.header()
    assert provider.to("POST /idp/token") == []


async def test_a_cancelled_renewal_is_not_lost(file, provider):
    """What the provider has granted reaches the file, though nobody waits any more."""

    gone = threading.Event()
    provider.on("GET /1/authinfo.yaml", lambda _: info(provider.url) if gone.wait(10) else Response(status_code=500))
    auth = token_of("prod", file)
    waiting = asyncio.create_task(auth.header())
    while not provider.to("GET /1/authinfo.yaml"):
        await asyncio.sleep(0.005)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gone.set()
    deadline = time.monotonic() + 10
    while file.read("prod").refresh != SecretStr("r-2"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert await auth.header() == "Bearer a-2"


@pytest.mark.parametrize("failing", [(os, "fsync"), (tempfile, "mkstemp")])
async def test_a_renewal_that_cannot_be_written_is_kept(file, provider, monkeypatch, caplog, failing):
    """With a full disk the old refresh token is spent all the same: this process goes on, and writes the next one."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = file.path.read_text()
    auth = token_of("prod", file)
    with monkeypatch.context() as patch:
        patch.setattr(*failing, full)
        assert await auth.header() == await auth.header() == "Bearer a-2"
    assert file.path.read_text() == before and sorted(file.path.parent.iterdir())[0] == file.path
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in warning and "a-2" not in caplog.text and "r-2" not in caplog.text
    assert await auth.header(force=True) == "Bearer a-3"
    assert (file.read("prod").access, file.read("prod").refresh) == (SecretStr("a-3"), SecretStr("r-3"))


async def test_a_login_meanwhile_goes_before_what_could_not_be_written(file, provider, monkeypatch):
    """Tokens that another process has put into the file are newer than those that are held."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    auth = token_of("prod", file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        await auth.header()
    file.write("prod", Tokens(SecretStr("b-1"), SecretStr("s-1"), None, time.time() + 3600), {})
    assert await auth.header(force=True) == "Bearer b-1"


def test_a_login_leaves_nothing_of_the_tokens_before(file):
    """They may be another user's; a renewal without a new refresh token keeps the one that it was made with."""
    file.write("prod", Tokens(SecretStr("a-2")))
    found = file.read("prod")
    assert (found.refresh, found.expires_at) == (SecretStr("r-1"), None)
    file.write("prod", Tokens(SecretStr("b-1")), {"email": "b@example.org"})
    found = file.read("prod")
    assert (found.access, found.refresh, found.expires_at) == (SecretStr("b-1"), None, None)
    assert "r-1" not in file.path.read_text()


async def test_a_folder_that_cannot_be_written_is_named_before_a_token_is_spent(tmp_path):
    """The lock comes first, and its failure is one of the configuration."""
    path = tmp_path / "config.yaml"
    path.with_name("config.yaml.ivcap-flows.lock").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be used: Is a directory"):
        async with ContextFile(path).locked():
            pass


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from ivcap_flows.ivcap.contexts import ContextFile

async def hold():
    async with ContextFile(Path(sys.argv[1])).locked():
        print("held", flush=True)
        time.sleep(60)

asyncio.run(hold())
"""


async def test_who_renews_the_login_is_named_and_not_waited_for_without_end(file, monkeypatch, caplog):
    """After three seconds in the log, and at the limit in an error after which a wait goes on."""
    monkeypatch.setattr(contexts, "LONGEST_WAIT", 3.5)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(file.path)], stdout=subprocess.PIPE)
    try:
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        with pytest.raises(UnreachableError, match=f"process {holder.pid} of this machine") as error:
            async with file.locked():
                pass
    finally:
        holder.kill()
        holder.wait()
    assert error.value.retryable and f"process {holder.pid} of this machine" in caplog.text
    async with file.locked():
        pass


def test_a_first_login_makes_the_file(tmp_path):
    """With one context, which is the active one; a second beside it is not. A link stays a link."""
    real = tmp_path / "elsewhere" / "config.yaml"
    real.parent.mkdir()
    path = tmp_path / "config.yaml"
    path.symlink_to(real)
    file = ContextFile(path)
    tokens = Tokens(SecretStr("a"), SecretStr("r"), None, time.time() + 100)
    file.write("one", tokens, {"url": "https://one", "account-name": "no"})
    file.write("two", Tokens(SecretStr("b")), {"url": "https://two"})
    loaded = yaml.safe_load(path.read_text())
    assert path.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert (loaded["version"], loaded["active-context"]) == ("v1", "one")
    assert [context["name"] for context in loaded["contexts"]] == ["one", "two"]
    assert loaded["contexts"][0]["account-name"] == "no"
    assert file.read("two").access == SecretStr("b") and not file.read("two").due


async def test_a_deployment_tells_where_to_log_in(scripted):
    """The default provider, or the only one where none is the default."""
    scripted.on("GET /1/authinfo.yaml", info(scripted.url))
    async with Session(scripted.url, platform="IVCAP") as session:
        assert (await discover(session)).token_url == f"{scripted.url}/idp/token"
        only = {
            "version": 1,
            "auth": {"providers": {"x": yaml.safe_load(info(scripted.url).body)["auth"]["providers"]["p"]}},
        }
        scripted.on("GET /1/authinfo.yaml", Response(yaml.safe_dump(only)))
        assert (await discover(session)).client_id == "cli-1"


@pytest.mark.parametrize(
    ("document", "error", "said"),
    [
        ({"version": 2}, ConfigurationError, "in version 2, and only 1 is known. Update"),
        ({"version": 1}, ConfigurationError, "names no identity provider"),
        ({"version": 1, "auth": {"default-provider-id": "q", "providers": {"p": {}}}}, ConfigurationError, "'q' among"),
        ([1], ProtocolError, "is no mapping"),
        ({"audience": ""}, ConfigurationError, "without a usable audience"),
        ({"token-url": "nonsense", "jwks-url": None}, ConfigurationError, "without a usable jwks-url, token-url"),
    ],
)
async def test_a_login_that_cannot_be_used_is_told(scripted, document, error, said):
    """A version or a provider that is not understood is not guessed at."""
    changed = isinstance(document, dict) and "version" not in document
    scripted.on(
        "GET /1/authinfo.yaml", info(scripted.url, **document) if changed else Response(yaml.safe_dump(document))
    )
    async with Session(scripted.url, platform="IVCAP") as session:
        with pytest.raises(error, match=said):
            await discover(session)


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "version: 2026-99-99", "a: !!python/object/apply:os.getcwd []"],
    ids=["deep", "no date", "an object"],
)
async def test_a_description_that_is_no_plain_yaml_is_a_violation(scripted, text):
    """Whatever a deployment sends, it neither breaks the reader nor runs code."""
    scripted.on("GET /1/authinfo.yaml", Response(text))
    async with Session(scripted.url, platform="IVCAP") as session:
        with pytest.raises(ProtocolError, match="is no YAML"):
            await discover(session)


def test_tokens_do_not_leave_https():
    """A deployment on https that names a token endpoint on http is refused."""
    given = yaml.safe_load(info("http://idp").body)["auth"]["providers"]["p"]
    with pytest.raises(ConfigurationError, match="code-url, jwks-url, login-url, token-url"):
        authinfo._checked(given, "https://api.example.org")


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def keys(**more):
    found = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    return {"keys": [found | {"kid": "k1", "alg": "RS256", "use": "sig"} | more]}


def id_token(key=KEY, algorithm="RS256", kid="k1", **claims):
    given = {"acc": "45a0", "aud": "cli-1", "exp": time.time() + 60, **claims}
    return SecretStr(jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid}))


async def claimed(scripted, token):
    scripted.on("GET /1/authinfo.yaml", info(scripted.url))
    scripted.on("GET /idp/keys", keys())
    async with Session(scripted.url, platform="IVCAP") as session:
        return await (await discover(session)).claims(token)


async def test_an_id_token_is_verified(scripted):
    """By the provider's key, for this client."""
    assert (await claimed(scripted, id_token()))["acc"] == "45a0"


@pytest.mark.parametrize(
    "token",
    [
        id_token(OTHER),
        id_token(kid="k2"),
        id_token(aud="someone-else"),
        id_token(exp=time.time() - 60),
        id_token("k" * 32, "HS256"),
        SecretStr(jwt.encode({"acc": "x", "aud": "cli-1"}, None, algorithm="none")),
        SecretStr("nonsense"),
    ],
    ids=["other key", "unknown key", "other client", "expired", "shared secret", "unsigned", "nonsense"],
)
async def test_a_forged_id_token_is_refused(scripted, token):
    """Whatever is not signed by the provider for this client says nothing about who logged in."""
    with pytest.raises(NotAuthorizedError, match="does not hold against the keys"):
        await claimed(scripted, token)


async def test_an_id_token_that_is_not_valid_yet_is_looked_at_again(scripted, monkeypatch):
    """The provider's clock may be ahead: after three seconds, and not for ever."""
    monkeypatch.setattr(authinfo, "NOT_YET", 0.3)
    assert await claimed(scripted, id_token(nbf=time.time() + 1))
    with pytest.raises(NotAuthorizedError, match="not yet valid"):
        await claimed(scripted, id_token(nbf=time.time() + 100, exp=time.time() + 200))
