"""`login`: by device code, into the file of the `ivcap` command, from which flows and clients take it."""

import asyncio
import io
import json
import os
import re
import stat
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.cli import main
from ivcap_flows.errors import InputError
from ivcap_flows.ivcap.contexts import config_file

NO_PREFECT = {PREFECT_API_URL: "http://127.0.0.1:9/api"}


@pytest.fixture(autouse=True)
def own_configuration(monkeypatch, tmp_path):
    """The user's configuration folder is the test's own, wherever the system has it; and who waits for the user's
    answer, which is given at once, asks for it at once."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


class Shown(io.StringIO):
    """What a command prints; the code that it shows is answered at once."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.codes = answer, []

    def write(self, text):
        written = super().write(text)
        if not self.codes and (code := re.search(r"code (\S+) within \d+ minutes", self.getvalue())):
            self.codes.append(code[1])
            self.answer(code[1])
        return written


def confirm(answer, *arguments):
    """Run the command in this process: how it ended, and what it wrote."""
    out, err = Shown(answer), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["login", *arguments])
    assert out.codes, out.getvalue() + err.getvalue()
    return ended.value.code, out.getvalue(), err.getvalue()


def answer_of(embedded, account="first", **answer):
    return lambda code: embedded._call("POST", "login", {"user_code": code, "account": account, **answer})


def contexts():
    return {context["name"]: context for context in yaml.safe_load(config_file().read_text())["contexts"]}


async def who(credentials):
    async with credentials.get_client() as client:
        async for _ in client.services.list(limit=1):
            break
        return await client.platform(), await client.account()


async def user_of(credentials):
    async with credentials.get_client() as client:
        assert await client.auth_api.linked_person()
        return await client.username()


@pytest.mark.long
def test_a_login_is_used_by_flows_and_renewed(embedded_platform, ivcap_flows, monkeypatch):
    """Logged in once, the context serves until its refresh token ends; the file is the user's alone, and no token is
    printed. A second login without a URL renews the active context."""
    url = os.environ["IVCAP_URL"]
    status, out, err = confirm(answer_of(embedded_platform), url, "--context", "embedded")
    assert (status, err) == (0, "")
    assert f"Open {url}/login?user_code=" in out and f"Logged in to {url}" in out and "IVCAP_CONTEXT=embedded" in out
    made = contexts()["embedded"]
    assert made["account-id"].startswith("urn:ivcap:account:") and made["refresh-token"]
    assert stat.S_IMODE(config_file().stat().st_mode) == 0o600
    assert not any(made[key] in out for key in ("access-token", "refresh-token"))

    direct = loop.run(who(IvcapCredentials.from_environment()))
    with monkeypatch.context() as patch:
        for name in ("IVCAP_URL", "IVCAP_JWT"):
            patch.delenv(name)
        patch.setenv("IVCAP_CONTEXT", "active")
        by_context = IvcapCredentials.from_environment()
        assert (by_context.context, by_context.url) == ("active", "")
        assert loop.run(who(by_context)) == direct == (direct[0], made["account-id"])
        # The token's time is over: the next client renews it, and the command finds what was renewed.
        past = datetime.now(timezone.utc) - timedelta(minutes=1)
        expiry = made["access-token-expiry"].strftime("%Y-%m-%dT%H:%M:%SZ")
        config_file().write_text(config_file().read_text().replace(expiry, f"{past:%FT%TZ}"))
        assert loop.run(who(by_context)) == direct
        renewed = contexts()["embedded"]
        assert renewed["refresh-token"] != made["refresh-token"] and renewed["access-token-expiry"] > past
        assert loop.run(who(IvcapCredentials(context="embedded"))) == direct

    assert confirm(answer_of(embedded_platform, "second"))[0] == 0
    assert list(contexts()) == ["embedded"] and contexts()["embedded"]["account-id"] != made["account-id"]
    said = ivcap_flows("login", "https://elsewhere.example.org", "--context", "embedded")
    assert said.status == 2 and "Give another name with --context" in said.err


def test_what_cannot_be_logged_in_to(ivcap_flows, embedded_platform, monkeypatch):
    """The user's no, no context yet, a deployment or settings that do not say where to log in. Nothing is left."""
    url = os.environ["IVCAP_URL"]
    status, _, err = confirm(answer_of(embedded_platform, deny=True), url)
    assert status == 1 and re.fullmatch(r"NotAuthorizedError: The device login was refused: access_denied.*\n", err)
    assert "has no active context" in ivcap_flows("login").err
    embedded_platform.add_fault(method="GET", path="authinfo", status=404)
    assert ivcap_flows("login", url).err.startswith("NotFoundError: ")
    for name in [name for name in os.environ if name.startswith("PROVENA_")]:
        monkeypatch.delenv(name)
    assert "Set PROVENA_DOMAIN and PROVENA_REALM" in ivcap_flows("login", "--provena", "reef").err
    assert not config_file().exists()
    # Before the user confirms what could not be stored.
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text("version: [")
    embedded_platform.forget_requests()
    assert "is no YAML. Mend it" in ivcap_flows("login", url).err and not embedded_platform.requests()


@pytest.mark.parametrize("beside", [{"IVCAP_URL": "https://x"}, {"IVCAP_JWT": "t"}, {"IVCAP_BASE_URL": "http://x"}])
def test_a_context_is_named_alone(monkeypatch, beside):
    """Two places at once are refused, rather than that one silently goes before."""
    monkeypatch.setenv("IVCAP_CONTEXT", "prod")
    for name, value in beside.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"IVCAP_CONTEXT and {next(iter(beside))} are set") as error:
        IvcapCredentials.from_environment()
    assert not isinstance(error.value, InputError)
    for wrong in ({}, {"context": "prod", "connection": {"in_container": True}}):
        with pytest.raises(ValueError, match="context"):
            IvcapCredentials(**wrong)


def test_a_token_in_the_place_of_the_contexts_own(monkeypatch, embedded_platform):
    """IVCAP_ACCESS_TOKEN goes before, as for the `ivcap` command; the file is not touched then."""
    url, token = os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"]
    config_file().parent.mkdir(parents=True)
    config_file().write_text(f"version: v1\ncontexts: [{{name: plain, url: '{url}'}}]\n")
    before = config_file().read_text()
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_CONTEXT", "plain")
    monkeypatch.setenv("IVCAP_ACCESS_TOKEN", token)
    assert loop.run(who(IvcapCredentials.from_environment()))[1].startswith("urn:ivcap:account:")
    assert config_file().read_text() == before


def test_a_login_to_ivcap_is_kept_in_a_block(embedded_platform, ivcap_flows, prefect_api):
    """With a refresh token, and the rest of an existing block stays; another deployment under its name is refused."""
    url = os.environ["IVCAP_URL"]
    status, out, err = confirm(answer_of(embedded_platform), url, "--block", "kept-login")
    assert (status, err) == (0, "") and 'credentials="kept-login"' in out
    first = IvcapCredentials.load("kept-login")
    assert first.url == url and first.refresh_token is not None
    assert not any(secret.get_secret_value() in out for secret in (first.token, first.refresh_token))
    assert loop.run(who(first))[1].startswith("urn:ivcap:account:")

    first.connection.trusted_hosts = ["files.example.org"]
    first.save("kept-login", overwrite=True)
    assert confirm(answer_of(embedded_platform, "second"), "--block", "kept-login")[0] == 0
    second = IvcapCredentials.load("kept-login")
    assert second.refresh_token != first.refresh_token and second.connection.trusted_hosts == ["files.example.org"]
    assert loop.run(who(second))[1] != loop.run(who(first))[1]

    other = ivcap_flows("login", "https://elsewhere.example.org", "--block", "kept-login")
    assert other.status == 2 and f"belongs to {url}" in other.err
    assert "Give the URL" in ivcap_flows("login", "--block", "not-there-yet").err
    IvcapCredentials.delete("kept-login")
    assert not config_file().exists()


@pytest.fixture
def allow(embedded_platform, monkeypatch):
    """Confirms the codes that the login to Provena shows, and notes them."""
    monkeypatch.delenv("PROVENA_OFFLINE_TOKEN")

    def confirm_code(code):
        confirm_code.codes.append(code)
        answer = urlencode({"user_code": code, "account": "embedded-user-2", "answer": "allow"}).encode()
        urlopen(f"{os.environ['PROVENA_KEYCLOAK']}/realms/{os.environ['PROVENA_REALM']}/device", answer).close()

    confirm_code.codes = []
    return confirm_code


def test_a_token_that_prefect_does_not_take_is_kept(allow, ivcap_flows, prefect_api, monkeypatch):
    """In a file of the user alone, which the next login of that name stores in the block and removes, without asking
    again."""
    save = ProvenaCredentials.asave

    async def fail(self, *arguments, **options):
        raise RuntimeError(f"down {self.offline_token.get_secret_value()}")

    monkeypatch.setattr(ProvenaCredentials, "asave", fail)
    status, out, err = confirm(allow, "--provena", "kept")
    kept = Path(re.search(r"kept in (\S+), ", err)[1])
    token = json.loads(kept.read_text())["offline_token"]
    assert status == 1 and "ivcap-flows login --provena kept" in err
    assert token not in out + err
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE(kept.parent.stat().st_mode)) == (0o600, 0o700)

    again = ivcap_flows("login", "--provena", "kept")
    assert again.status == 1 and kept.exists() and token not in again.out + again.err
    monkeypatch.setattr(ProvenaCredentials, "asave", save)
    said = ivcap_flows("login", "--provena", "kept")
    assert said.status == 0 and not kept.exists() and 'credentials="kept"' in said.out
    assert token not in said.out and len(allow.codes) == 1
    block = ProvenaCredentials.load("kept")
    assert block.offline_token.get_secret_value() == token
    assert loop.run(user_of(block)) == "embedded-user-2"
    status, out, err = confirm(allow, "--provena", "kept")
    assert (status, err) == (0, "") and "as embedded-user-2." in out and 'credentials="kept"' in out
    assert ProvenaCredentials.load("kept").offline_token.get_secret_value() not in out
    ProvenaCredentials.delete("kept")


def test_a_login_whose_process_is_killed_while_it_saves_is_kept(allow, ivcap_flows, prefect_api, monkeypatch, tmp_path):
    """The token is in the file before Prefect is asked. Where Prefect cannot be reached at all, no code is shown."""
    with temporary_settings(NO_PREFECT):
        said = ivcap_flows("login", "--provena", "killed")
    assert said.status == 1 and "confirm the code" not in said.out
    assert "Prefect" in said.err and "PREFECT_API_URL" in said.err
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    async def die(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProvenaCredentials, "asave", die)
    with redirect_stdout(Shown(allow)), pytest.raises((SystemExit, KeyboardInterrupt)):
        main(["login", "--provena", "killed"])
    assert len(list((tmp_path / "data").rglob("killed*.json"))) == 1
