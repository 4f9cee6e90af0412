"""`login`: by device code, into the file of the `ivcap` command, from which flows and clients take it."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
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

COMMAND = [sys.executable, "-m", "ivcap_flows.cli", "login"]


@pytest.fixture(autouse=True)
def own_configuration(monkeypatch, tmp_path):
    """The user's configuration folder is the test's own, wherever the system has it."""
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


def log_in(embedded, *arguments, account="first", **answer):
    """Run the command, and answer the code that it shows through the control of the embedded platform."""
    return confirm(
        lambda code: embedded._call("POST", "login", {"user_code": code, "account": account, **answer}), *arguments
    )


def log_in_elsewhere(embedded, *arguments):
    """As `log_in`, in a process of its own."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        shown = process.stdout.readline() + process.stdout.readline()
        code = re.search(r"code (\S+) within \d+ minutes", shown)
        assert code, shown + process.stderr.read()
        embedded._call("POST", "login", {"user_code": code[1], "account": "first"})
        out, err = process.communicate(timeout=60)
    return process.returncode, shown + out, err


def contexts():
    return {context["name"]: context for context in yaml.safe_load(config_file().read_text())["contexts"]}


async def who(credentials):
    async with credentials.get_client() as client:
        async for _ in client.services.list(limit=1):
            break
        return await client.platform(), await client.account()


@pytest.mark.long
def test_a_login_is_used_by_flows_and_renewed(embedded_platform, monkeypatch):
    """Logged in once, the context serves until its refresh token ends; the file is the user's alone, and no token is
    printed."""
    url = os.environ["IVCAP_URL"]
    status, out, err = log_in_elsewhere(embedded_platform, url, "--context", "embedded")
    assert (status, err) == (0, "")
    assert f"Open {url}/login?user_code=" in out and f"Logged in to {url}" in out and "IVCAP_CONTEXT=embedded" in out
    made = contexts()["embedded"]
    assert made["account-id"].startswith("urn:ivcap:account:") and made["refresh-token"]
    assert stat.S_IMODE(config_file().stat().st_mode) == 0o600
    assert not any(made[key] in out for key in ("access-token", "refresh-token"))

    direct = loop.run(who(IvcapCredentials.from_environment()))
    for name in ("IVCAP_URL", "IVCAP_JWT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_CONTEXT", "active")
    by_context = IvcapCredentials.from_environment()
    assert (by_context.context, by_context.url) == ("active", "")
    assert loop.run(who(by_context)) == direct == (direct[0], made["account-id"])

    # The token's time is over: the next client renews it, and the command finds what was renewed.
    past = datetime.now(timezone.utc) - timedelta(minutes=1)
    text = (
        config_file().read_text().replace(made["access-token-expiry"].strftime("%Y-%m-%dT%H:%M:%SZ"), f"{past:%FT%TZ}")
    )
    config_file().write_text(text)
    assert loop.run(who(by_context)) == direct
    renewed = contexts()["embedded"]
    assert renewed["refresh-token"] != made["refresh-token"] and renewed["access-token-expiry"] > past
    assert loop.run(who(IvcapCredentials(context="embedded"))) == direct


@pytest.mark.long
def test_a_second_login_of_a_context(embedded_platform, ivcap_flows):
    """Without a URL it is the active one's, which keeps its name; another URL under a known name is refused."""
    url = os.environ["IVCAP_URL"]
    assert log_in(embedded_platform, url)[0] == 0
    first = contexts()["127.0.0.1"]
    assert log_in(embedded_platform, account="second")[0] == 0
    second = contexts()["127.0.0.1"]
    assert list(contexts()) == ["127.0.0.1"] and second["account-id"] != first["account-id"]
    said = ivcap_flows("login", "https://elsewhere.example.org", "--context", "127.0.0.1")
    assert said.status == 2 and "Give another name with --context" in said.err


def test_a_refused_login_leaves_nothing(embedded_platform):
    """The user's no ends the command with its reason."""
    status, _, err = log_in(embedded_platform, os.environ["IVCAP_URL"], deny=True)
    assert status == 1 and re.fullmatch(r"NotAuthorizedError: The device login was refused: access_denied.*\n", err)
    assert not config_file().exists()


def test_what_cannot_be_logged_in_to(ivcap_flows, embedded_platform):
    """No context yet, a URL that is none, a name that stands for another."""
    assert "has no active context" in ivcap_flows("login").err
    said = ivcap_flows("login", "nonsense")
    assert said.status == 2 and "must be like https://host/path, not 'nonsense'" in said.err
    assert ivcap_flows("login", os.environ["IVCAP_URL"], "--context", "active").status == 2
    embedded_platform.add_fault(method="GET", path="authinfo", status=404)
    assert ivcap_flows("login", os.environ["IVCAP_URL"]).err.startswith("NotFoundError: ")


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


def test_a_login_to_provena_is_kept_in_a_block(embedded_platform, prefect_server, monkeypatch):
    """Confirmed by device code, the offline token is in the named block alone, from which flows take it."""
    monkeypatch.delenv("PROVENA_OFFLINE_TOKEN")
    realm = f"{os.environ['PROVENA_KEYCLOAK']}/realms/{os.environ['PROVENA_REALM']}"

    def allow(code):
        answer = urlencode({"user_code": code, "account": "embedded-user-2", "answer": "allow"}).encode()
        urlopen(f"{realm}/device", answer).close()

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        status, out, err = confirm(allow, "--provena", "reef")
    assert (status, err) == (0, "")
    assert f"Logged in to {realm} as embedded-user-2." in out
    assert 'credentials="reef"' in out
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        block = ProvenaCredentials.load("reef")
        assert block.offline_token.get_secret_value() not in out
        assert loop.run(user_of(block)) == "embedded-user-2"
        ProvenaCredentials.delete("reef")


@pytest.fixture
def answered(embedded_platform, monkeypatch):
    """Confirms the codes that the login to Provena shows, and notes them."""
    monkeypatch.delenv("PROVENA_OFFLINE_TOKEN")
    realm = f"{os.environ['PROVENA_KEYCLOAK']}/realms/{os.environ['PROVENA_REALM']}"
    codes = []

    def allow(code):
        codes.append(code)
        answer = urlencode({"user_code": code, "account": "embedded-user-2", "answer": "allow"}).encode()
        urlopen(f"{realm}/device", answer).close()

    allow.codes = codes
    return allow


def test_nobody_logs_in_to_provena_in_vain(ivcap_flows, embedded_platform, monkeypatch):
    """Where Prefect, which is to keep the token, cannot be reached, no code is shown."""
    monkeypatch.delenv("PROVENA_OFFLINE_TOKEN")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        said = ivcap_flows("login", "--provena", "reef")
    assert said.status == 1 and "confirm the code" not in said.out
    assert "Prefect" in said.err and "PREFECT_API_URL" in said.err


def test_a_token_that_prefect_does_not_take_is_kept(answered, ivcap_flows, prefect_server, monkeypatch):
    """In a file of the user alone, which the next login of that name stores and removes, without asking again."""
    save = ProvenaCredentials.asave

    async def fail(self, *arguments, **options):
        raise RuntimeError(f"down {self.offline_token.get_secret_value()}")

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        monkeypatch.setattr(ProvenaCredentials, "asave", fail)
        status, out, err = confirm(answered, "--provena", "kept")
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
        assert len(answered.codes) == 1
        block = ProvenaCredentials.load("kept")
        assert block.offline_token.get_secret_value() == token
        assert loop.run(user_of(block)) == "embedded-user-2"
        ProvenaCredentials.delete("kept")


def test_a_login_whose_process_is_killed_while_it_saves_is_kept(answered, prefect_server, monkeypatch, tmp_path):
    """The token is in the file before Prefect is asked, and no longer once Prefect has it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    async def die(self, *arguments, **options):
        raise KeyboardInterrupt

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        monkeypatch.setattr(ProvenaCredentials, "asave", die)
        out, err = Shown(answered), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises((SystemExit, KeyboardInterrupt)):
            main(["login", "--provena", "killed"])
    assert len(list((tmp_path / "data").rglob("killed*.json"))) == 1


def test_a_login_to_ivcap_is_kept_in_a_block(embedded_platform, ivcap_flows, prefect_server, monkeypatch):
    """With a refresh token, and the rest of an existing block stays; another deployment under its name is refused."""
    url = os.environ["IVCAP_URL"]
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        status, out, err = log_in(embedded_platform, url, "--block", "kept-login")
        assert (status, err) == (0, "") and 'credentials="kept-login"' in out
        first = IvcapCredentials.load("kept-login")
        assert first.url == url and first.refresh_token is not None
        assert not any(secret.get_secret_value() in out for secret in (first.token, first.refresh_token))
        assert loop.run(who(first))[1].startswith("urn:ivcap:account:")

        first.connection.trusted_hosts = ["files.example.org"]
        first.save("kept-login", overwrite=True)
        assert log_in(embedded_platform, "--block", "kept-login", account="second")[0] == 0
        second = IvcapCredentials.load("kept-login")
        assert second.refresh_token != first.refresh_token and second.connection.trusted_hosts == ["files.example.org"]
        assert loop.run(who(second))[1] != loop.run(who(first))[1]

        other = ivcap_flows("login", "https://elsewhere.example.org", "--block", "kept-login")
        assert other.status == 2 and f"belongs to {url}" in other.err
        assert "Give the URL" in ivcap_flows("login", "--block", "not-there-yet").err
        IvcapCredentials.delete("kept-login")
    assert ivcap_flows("login", url, "--block", "x", "--context", "y").status == 2
    assert ivcap_flows("login", url, "--block", "Nope!").status == 2
    assert not config_file().exists()


async def user_of(credentials):
    async with credentials.get_client() as client:
        assert await client.auth_api.linked_person()
        return await client.username()


def test_a_login_to_provena_that_cannot_be(ivcap_flows, monkeypatch):
    """It needs to know where Provena is, and what the block is called; nothing of IVCAP goes with it."""
    for name in [name for name in os.environ if name.startswith("PROVENA_")]:
        monkeypatch.delenv(name)

    assert "Set PROVENA_DOMAIN and PROVENA_REALM" in ivcap_flows("login", "--provena", "reef").err
    assert ivcap_flows("login", "--provena", "Reef!").status == 2
    assert ivcap_flows("login", "https://develop.ivcap.net", "--provena", "reef").status == 2
