"""Saved blocks renew their login, one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.blocks.prefect_lock import prefect_lock
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, UnreachableError
from ivcap_flows.ivcap.authinfo import provider_at

pytestmark = pytest.mark.canary

NAME = "rotating"


@pytest.fixture
def saved(embedded_platform, prefect_api, monkeypatch):
    """Logs in to the embedded platform, and saves the login as a block; its access tokens live as long as asked for."""

    def log_in(lifetime=3600.0):
        def confirm(verification):
            answer = {"user_code": verification.code, "account": "first", "lifetime": lifetime}
            embedded_platform._call("POST", "login", answer)
            # By its clock, the second is over after which it may be asked whether the user has confirmed.
            embedded_platform.advance_clock(2)

        async def tokens():
            pause = asyncio.sleep
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "sleep", lambda _: pause(0))
                return await (await provider_at(os.environ["IVCAP_URL"])).login(confirm).tokens()

        granted = loop.run(tokens())
        block = IvcapCredentials(
            url=os.environ["IVCAP_URL"],
            token=granted.access,
            refresh_token=granted.refresh,
            connection={"trusted_hosts": ["a.example"]},
        )
        block.save(NAME, overwrite=True)
        embedded_platform.forget_requests()
        return IvcapCredentials.load(NAME)

    yield log_in
    with contextlib.suppress(ValueError):
        IvcapCredentials.delete(NAME)


async def use(block):
    """Make a request, as a task does."""
    client = await ivcap_client(block, deployed=False)
    async for _ in client.services.list(limit=1):
        break
    return await client.account()


def renewal(block):
    """The block's access token, which renews itself."""
    return block._reached()[2]


def grants(embedded_platform):
    return [request["status"] for request in embedded_platform.requests("POST", "/login/token")]


PROCESS = """
import sys, time
from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials

block = IvcapCredentials.load("rotating")
print("ready", flush=True)
sys.stdin.readline()

async def go_on():
    seen, end = set(), time.monotonic() + 90
    async with block.get_client() as client:
        while len(seen) < 4 and time.monotonic() < end:
            async for _ in client.services.list(limit=1):
                break
            seen.add(await client._session.auth.header())
    print(len(seen), flush=True)

loop.run(go_on())
"""


@pytest.mark.long
def test_two_processes_use_no_refresh_token_twice(saved, embedded_platform, prefect_server):
    """Each has its own copy of one block. The provider ends the login at the second use of a refresh token; both
    processes go on over several renewals, and the block ends with a login that is good."""
    # Longer than a request takes on a busy machine: one whose token expires on its way twice is refused.
    saved(lifetime=6)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS], env={**os.environ, **prefect_server}, text=True, **pipes)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out) == (0, "4\n"), err
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert set(grants(embedded_platform)) == {200}
    assert loop.run(use(IvcapCredentials.load(NAME))).startswith("urn:ivcap:account:")


def test_a_renewal_is_written_to_the_block(saved, embedded_platform):
    """The new tokens take the place of the old ones; all else stays, also the client, which goes by block and account.
    Another copy uses them without a request, and renews by them the next time."""
    before = saved()
    client = loop.run(ivcap_client(before, deployed=False))
    tokens, seen = [renewal(IvcapCredentials.load(NAME)) for _ in range(2)], [before.token]
    for number, (first, second) in enumerate([tokens, tokens[::-1]], start=1):
        # Tokens of one second are equal.
        embedded_platform.advance_clock(2)
        fresh = loop.run(first.header(force=True))
        assert loop.run(second.header(force=True)) == fresh and grants(embedded_platform) == [200] * number
        after = IvcapCredentials.load(NAME)
        assert f"Bearer {after.token.get_secret_value()}" == fresh and after.token not in seen
        seen.append(after.token)
    assert after.refresh_token != before.refresh_token and after.connection.trusted_hosts == ["a.example"]
    assert fresh.split()[1] not in repr(tokens) + repr(after)
    assert loop.run(ivcap_client(NAME, deployed=False)) is client


def test_a_login_that_is_over_is_told(saved, embedded_platform):
    """With the block, the reason and the next step, without the token. The flow goes on until its token ends; one that
    began as one account does not go on as another."""
    block = saved()
    revoked = block.model_copy(update={"refresh_token": SecretStr("s3cret-revoked")})
    other = IvcapCredentials(url=block.url, token=os.environ["IVCAP_JWT_2"], refresh_token="r")
    for put, error, words in (
        (revoked, NotAuthorizedError, f"block '{NAME}'.*invalid_grant.*login --block {NAME}"),
        (other, ConfigurationError, "another deployment or account"),
        (None, ConfigurationError, f"block '{NAME}'.*was deleted.*login --block {NAME}"),
    ):
        if put is None:
            IvcapCredentials.delete(NAME)
        else:
            put.save(NAME, overwrite=True)
        assert loop.run(use(block))
        with pytest.raises(error, match=words) as caught:
            loop.run(renewal(block).header(force=True))
        assert "s3cret" not in str(caught.value)


def refusing(monkeypatch, *statuses):
    """Have Prefect answer these to the next changes of a block; 0 is a change that is made. Return what is left."""
    left, update = list(statuses), PrefectClient.update_block_document

    async def answer(self, *arguments, **options):
        status = left.pop(0) if left else 0
        if not status:
            return await update(self, *arguments, **options)
        request = httpx.Request("PATCH", "http://prefect")
        raise PrefectHTTPStatusError("no", request=request, response=httpx.Response(status, request=request))

    monkeypatch.setattr(PrefectClient, "update_block_document", answer)
    return left


@pytest.mark.catches("block not checked")
@pytest.mark.parametrize(("status", "error"), [(403, ConfigurationError), (503, UnreachableError)])
def test_a_block_that_cannot_be_changed_spends_no_token(saved, embedded_platform, monkeypatch, status, error):
    """The block is changed once before the provider is asked. So nobody is logged out, and the next renewal works."""
    auth = renewal(saved())
    refusing(monkeypatch, status)
    with contextlib.suppress(ConfigurationError, UnreachableError):
        loop.run(auth.header(force=True))
    assert grants(embedded_platform) == []
    refusing(monkeypatch, status)
    with pytest.raises(error, match="Prefect"):
        loop.run(auth.header(force=True))
    fresh = loop.run(auth.header(force=True))
    assert f"Bearer {IvcapCredentials.load(NAME).token.get_secret_value()}" == fresh


def test_a_renewed_login_is_written_until_it_is_written(saved, embedded_platform, monkeypatch, caplog):
    """Prefect fails after the grant: the lock is kept meanwhile, and nobody else spends the old refresh token."""
    block, other = saved(), IvcapCredentials.load(NAME)
    auths = [renewal(each) for each in (block, other)]
    embedded_platform.advance_clock(2)
    left = refusing(monkeypatch, 0, 503, 503)

    async def both():
        return await asyncio.gather(*(auth.header(force=True) for auth in auths))

    first, second = loop.run(both())
    assert left == [] and first == second
    assert f"Bearer {IvcapCredentials.load(NAME).token.get_secret_value()}" == first
    assert grants(embedded_platform) == [200] and "log in again" not in caplog.text


def test_without_prefect_nothing_is_spent(saved, embedded_platform):
    """A login that could not be stored is not asked for."""
    auth, nowhere = renewal(saved()), "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(UnreachableError, match=f"Prefect at {nowhere}"):
        loop.run(auth.header(force=True))
    assert grants(embedded_platform) == []


def test_an_offline_token_that_rotates_is_stored(embedded_platform, prefect_api):
    """Keycloak replaces it at each renewal, and the new one is stored, since a realm may revoke the old one. The client
    stays the same, and with it its limits."""
    ProvenaCredentials.from_environment().save(NAME, overwrite=True)
    client = loop.run(provena_client(ProvenaCredentials.load(NAME), deployed=False))
    tokens = {ProvenaCredentials.load(NAME).offline_token}
    for _ in range(2):
        loop.run(ProvenaCredentials.load(NAME).get_client()._auth.header())
        tokens.add(ProvenaCredentials.load(NAME).offline_token)
    assert len(tokens) == 3
    assert loop.run(provena_client(ProvenaCredentials.load(NAME), deployed=False)) is client
    ProvenaCredentials.delete(NAME)


def test_an_offline_token_of_the_environment_is_renewed_without_a_warning(embedded_platform, caplog):
    """The old one stays valid in Provena's realm, so no other process has to log in again."""
    headers = [loop.run(ProvenaCredentials.from_environment().get_client()._auth.header()) for _ in range(2)]
    assert len(set(headers)) == 2
    assert not [record for record in caplog.records if record.name.startswith("ivcap_flows")]


def test_the_lock_of_a_killed_process_is_taken_over(prefect_api):
    """By one of those who wait, after they have seen it held for as long as a holder may hold it."""
    name, began, inside, most = "ivcap-flows-test-lock", time.monotonic(), 0, 0

    async def wait():
        nonlocal inside, most
        async with prefect_lock(name, gone=2.0):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.1)
            inside -= 1

    async def all_wait():
        async with get_client() as client:
            await client.create_variable(VariableCreate(name=name, value="of a process that was killed"))
            await asyncio.gather(*(wait() for _ in range(3)))
            return await client.read_variable_by_name(name)

    assert loop.run(all_wait()) is None
    assert most == 1 and time.monotonic() - began >= 2.0
