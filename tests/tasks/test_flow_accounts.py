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
from ivcap_flows.tasks import place_order, run_order, upload_artifact
from ivcap_flows.tasks.provena import linked_person


@pytest.fixture
def second(second_account, unique) -> str:
    """The name under which the second account is saved."""
    second_account.save(name := f"second-{unique[:8]}")
    return name


def accounts(effects) -> list[str]:
    """The accounts that placed orders, in their order."""
    return [row.account for row in sorted(effects.intents("order"), key=lambda row: row.created_at)]


def test_all_tasks_of_a_flow_are_of_its_account(in_flow, effects, unique, second, second_account):
    """Also of Prefect's own flow, and by a block that is not saved; credentials that a task is given come first."""
    mine = IvcapCredentials.from_environment()
    unsaved = IvcapCredentials(url=second_account.url, token=second_account.token)

    def ordered(message: str, ivcap: IvcapCredentials | str | None = None):
        return place_order("echo", {"message": message}), place_order("echo", {"message": message}, credentials=mine)

    for number, (decorated, given) in enumerate([(recorded(ordered), second), (ordered, second), (ordered, unsaved)]):
        flow(decorated)(f"{unique} {number}", given)
    flow(ordered)(unique)
    theirs, ours, *others = accounts(effects)
    assert theirs != ours and others == [theirs, ours] * 2 + [ours]


@pytest.mark.parametrize(
    "runner",
    [
        pytest.param(ThreadPoolTaskRunner, id="threads"),
        # Its process takes seconds to import Prefect.
        pytest.param(ProcessPoolTaskRunner, id="processes", marks=pytest.mark.long),
    ],
)
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
