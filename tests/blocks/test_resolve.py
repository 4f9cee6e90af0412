"""From what a task was given to the client that it shares."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.blocks.resolve import MOST, ivcap_client, provena_client, resolve
from ivcap_flows.errors import ConfigurationError, PlatformOffError
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.settings import Settings

pytestmark = pytest.mark.canary

PROVENA = ProvenaCredentials(domain="example.org", realm="r", offline_token="s3cret-one")


def credentials(token: str = "s3cret-one") -> IvcapCredentials:
    return IvcapCredentials(url="https://ivcap.example.org", token=token)


def client(given, *, deployed: bool = False) -> IvcapClient:
    return loop.run(ivcap_client(given, deployed=deployed))


def test_equal_credentials_share_a_client():
    """One client for one platform, account and token, on one loop, since connections belong to the loop that made
    them."""
    first = client(credentials())
    assert client(credentials(), deployed=True) is first
    assert client(credentials("s3cret-two")) is not first
    assert asyncio.run(ivcap_client(credentials(), deployed=False)) is not first
    assert loop.run(provena_client(PROVENA, deployed=False)) is loop.run(provena_client(PROVENA, deployed=False))
    with pytest.raises(ConfigurationError, match="IvcapCredentials or its name, not ProvenaCredentials"):
        client(PROVENA)


def test_clients_of_logins_that_nobody_uses_any_more_are_let_go():
    """A worker whose token is renewed each hour meets thousands. The client in use is kept."""

    def clients() -> int:
        gc.collect()
        return sum(isinstance(each, IvcapClient) for each in gc.get_objects())

    before, used = clients(), client(credentials())
    for number in range(2 * MOST):
        client(credentials(f"s3cret-{number}"))
        assert client(credentials()) is used
    assert clients() - before <= MOST


def test_nothing_given_means_the_environment(monkeypatch):
    """The environment is read at each call, so that a change of it shows."""
    monkeypatch.setenv("IVCAP_URL", "https://one.example.org")
    monkeypatch.setenv("IVCAP_JWT", "s3cret-one")
    first = client(None, deployed=True)
    monkeypatch.setenv("IVCAP_URL", "https://two.example.org")
    assert repr(client(None, deployed=True)) != repr(first)
    with pytest.raises(PlatformOffError):
        loop.run(provena_client(None, deployed=True))


def test_who_asks_at_once_is_answered_at_once(monkeypatch):
    """Tasks that begin together start the embedded platform once; another environment is another question."""
    started = []

    def slowly(settings, *, deployed):
        started.append(settings.ivcap_local_dir.name)
        time.sleep(0.1)
        return IvcapCredentials(url="http://127.0.0.1:9", token="t")

    async def together():
        first = [asyncio.ensure_future(resolve(IvcapCredentials, None, deployed=False)) for _ in range(5)]
        await asyncio.sleep(0.02)
        monkeypatch.setenv("IVCAP_LOCAL_DIR", "two")
        return [*await asyncio.gather(*first), await resolve(IvcapCredentials, None, deployed=False)]

    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", "one")
    monkeypatch.setattr(IvcapCredentials, "from_environment", slowly)
    found = loop.run(together())
    assert started == ["one", "two"]
    assert len({id(one) for one in found[:5]}) == 1 and found[5] is not found[0]


def test_a_block_is_found_by_its_name(prefect_api):
    """A stored block comes back with its secret; an unknown name tells the next step, and one that is wrong its fault
    without its secret."""
    credentials().save("of-this-test")
    found = loop.run(resolve(IvcapCredentials, "of-this-test", deployed=True))
    assert found.token.get_secret_value() == "s3cret-one" and found.connection.trusted_hosts == []
    assert client("of-this-test", deployed=True) is client("of-this-test", deployed=True)
    with pytest.raises(ConfigurationError, match=r"named 'nowhere'\. Save one by"):
        client("nowhere", deployed=True)
    spoiled = credentials()
    spoiled.url = ""
    spoiled.save("spoiled-by-this-test")
    with pytest.raises(ConfigurationError, match="named 'spoiled-by-this-test' cannot be used.*need the url") as error:
        client("spoiled-by-this-test", deployed=True)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("block", "given"), [(ProvenaCredentials, {"client_secret": "s3cret"}), (IvcapCredentials, {"token": "s3cret"})]
)
def test_a_fault_in_credentials_shows_none_of_them(block, given):
    """pydantic tells of what was given by default, and the text of an error is logged and recorded."""
    with pytest.raises(ValidationError) as error:
        block(**given)
    assert "s3cret" not in str(error.value) + repr(error.value)


@pytest.mark.long
def test_clients_are_closed_at_the_end_of_the_process():
    """The process closes what it opened and does not linger."""
    script = """
from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.blocks.resolve import ivcap_client

client = loop.run(ivcap_client(IvcapCredentials(url="http://127.0.0.1:9", token="t"), deployed=False))
close = client.aclose

async def aclose():
    await close()
    print("closed", flush=True)

client.aclose = aclose
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (["closed"], "")
