"""Credentials that name a context of the `ivcap` command."""

from __future__ import annotations

import pickle

import pytest

from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.ivcap.contexts import config_file

FILE = """version: v1
active-context: dev
contexts:
- name: dev
  url: http://127.0.0.1:9
  host: ivcap.example.org
  account-id: urn:ivcap:account:45a0
  access-token: opaque-s3cret
  access-token-expiry: 2999-01-01T00:00:00Z
"""


@pytest.fixture(autouse=True)
def own_configuration(monkeypatch, tmp_path):
    """The user's configuration folder is the test's own, and has one context."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config_file().parent.mkdir(parents=True)
    config_file().write_text(FILE)


async def test_what_a_context_gives():
    """URL, host, token and account, of which the block holds none; its own `host` and `token` go before. Beside another
    token, which may be another account's, the context's account is not assumed."""
    block = IvcapCredentials(context="active")
    assert "s3cret" not in repr(block) + block.model_dump_json() + str(pickle.dumps(block))
    url, host, auth, account = block._reached()
    assert (url, host, await auth.header()) == ("http://127.0.0.1:9", "ivcap.example.org", "Bearer opaque-s3cret")
    async with block.get_client() as client:
        assert await client.account() == account == "urn:ivcap:account:45a0"
    own = IvcapCredentials(context="dev", token="t", connection={"host": "other.example.org"})
    _, host, auth, account = own._reached()
    assert (host, await auth.header(), account) == ("other.example.org", "Bearer t", None)


def test_a_url_beside_a_context_is_the_contexts_own():
    """A block for one deployment does not send its requests to another, whatever the context has become."""
    assert IvcapCredentials(url="http://127.0.0.1:9/", context="dev")._reached()[0] == "http://127.0.0.1:9"
    with pytest.raises(ConfigurationError, match="'dev' is one of http://127.0.0.1:9.*for https://other.example.org"):
        IvcapCredentials(url="https://other.example.org", context="dev").get_client()


def test_the_file_alone_changes_nothing(monkeypatch):
    """A context is used where it is named, and nowhere else; one that is not there is told."""
    monkeypatch.setenv("IVCAP_URL", "https://ivcap.example.org")
    with pytest.raises(ValueError, match="IVCAP_JWT is not"):
        IvcapCredentials.from_environment()
    with pytest.raises(ConfigurationError, match="no context named 'prod'. It has dev."):
        IvcapCredentials(context="prod").get_client()
