"""The parameters `ivcap` and `provena` of a flow: the credentials of all its tasks, wherever these run."""

from __future__ import annotations

import os

import pytest
from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from pydantic import SecretStr

from ivcap_flows import recorded
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.durable import plan
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.tasks import linked_person, place_order, run_order, upload_artifact


@pytest.fixture
def second(second_account, unique) -> str:
    """The name under which the second account is saved."""
    second_account.save(name := f"second-{unique[:8]}")
    return name


def accounts(effects) -> list[str]:
    """The accounts that placed orders, in their order."""
    return [row.account for row in sorted(effects.intents("order"), key=lambda row: row.created_at)]


@pytest.mark.parametrize("decorate", [lambda body: flow(recorded(body)), flow], ids=["recorded", "plain"])
def test_all_tasks_of_a_flow_are_of_its_account(in_flow, effects, unique, second, decorate):
    """Also of Prefect's own flow; credentials that a task is given come first."""
    mine = IvcapCredentials.from_environment()

    @decorate
    def ordered(message: str, ivcap: str | None = None):
        return place_order("echo", {"message": message}), place_order("echo", {"message": message}, credentials=mine)

    ordered(unique, ivcap=second)
    ordered(unique + "again")
    theirs, *others = accounts(effects)
    assert len(set(others)) == 1 and theirs not in others and len(others) == 2


def test_a_block_is_taken_too(in_flow, effects, unique, second_account):
    """It need not be saved."""

    @flow
    def ordered(message: str, ivcap: IvcapCredentials):
        place_order("echo", {"message": message})

    ordered(unique, second_account)
    in_flow(lambda: place_order("echo", {"message": unique}))
    assert len(set(accounts(effects))) == 2


@pytest.mark.parametrize("runner", [ThreadPoolTaskRunner, ProcessPoolTaskRunner], ids=["threads", "processes"])
def test_subflows_and_tasks_elsewhere_are_of_the_account(in_flow, effects, unique, second, runner, monkeypatch):
    """A subflow has that of the outermost flow, unless it is given another."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", effects.journal.url)

    @flow(task_runner=runner(max_workers=1))
    def inner(message: str):
        place_order.submit("echo", {"message": message}).result()

    @flow
    def other(message: str, ivcap: str | None = None):
        place_order("echo", {"message": message})

    @flow
    @recorded
    def outer(message: str, ivcap: str):
        run_order("echo", {"message": message})
        inner(message + "inner")
        other(message + "other")

    outer(unique, second)
    in_flow(lambda: place_order("echo", {"message": unique}))
    *of_second, first = accounts(effects)
    assert len(of_second) == 3 and len(set(of_second)) == 1 and first not in of_second


def test_the_account_of_provena(in_flow, unique):
    """Likewise, by a parameter of its own."""
    token = SecretStr(os.environ["PROVENA_OFFLINE_TOKEN_2"])
    ProvenaCredentials.from_environment().model_copy(update={"offline_token": token}).save(f"other-{unique[:8]}")

    @flow
    def person(provena: str | None = None) -> str:
        return linked_person().urn

    assert person(f"other-{unique[:8]}") != person()


def test_a_block_that_is_not_there_is_named(in_flow, effects, source):
    """It does not fall back to the environment; nor does a plan."""

    @flow
    def uploaded(ivcap: str):
        upload_artifact(source)

    with pytest.raises(ConfigurationError, match="named 'no-such-block'"):
        uploaded("no-such-block")
    with plan(), pytest.raises(ConfigurationError, match="named 'no-such-block'"):
        uploaded("no-such-block")
    assert effects.count("/1/artifacts") == 0
