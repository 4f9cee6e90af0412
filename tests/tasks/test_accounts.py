"""Credentials as a block, by a block's name or from the environment.

Two accounts in one flow.
"""

from __future__ import annotations

import os

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow

from ivcap_flows import recorded
from ivcap_flows.errors import (
    ConfigurationError,
    ForbiddenError,
    ForeignHandleError,
    NotFoundError,
)
from ivcap_flows.provenance import Graph
from ivcap_flows.tasks import (
    download_artifact,
    get_artifact,
    get_order,
    place_order,
    request_job,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)


def test_two_accounts_in_one_flow(in_script, effects, source, unique, second_account, ivcap_journal):
    """Each account has its own upload and order of equal requests, and its own wait; the record names both."""

    def body():
        uploads = [upload_artifact(source), upload_artifact(source, credentials=second_account)]
        orders = [
            place_order("echo", {"message": unique}),
            place_order("echo", {"message": unique}, credentials=second_account),
        ]
        return uploads, wait_for_orders(orders[:1]), wait_for_orders(orders[1:], credentials=second_account)

    uploads, [mine], [theirs] = in_script(body)
    assert len({each.urn for each in uploads}) == 2
    assert mine.urn != theirs.urn and mine.succeeded and theirs.succeeded
    assert len({intent.account for intent in effects.intents("order")}) == 2
    assert effects.count("/1/orders") == effects.count("/1/artifacts") == 2
    graph = Graph(fact.record for fact in ivcap_journal.facts.of_run(ivcap_journal.runs.get("latest").id))
    names = {id_: node.attributes["name"] for id_, node in graph.nodes.items() if id_.startswith("urn:ivcap:account:")}
    assert len(names) == 2 and all(names.values())


def test_what_the_other_account_may_not_see(in_script, source, tmp_path, unique, second_account, soon_missing):
    """Another account's artifact and order are refused once, as the platform refuses them, without retries. The error
    of a wait names both accounts and the next step, also where only the journal knows whose it is; it is no bare 404.
    """

    def body():
        series = upload_artifact(source)
        order, job = place_order("echo", {"message": unique}), request_job("echo", {"message": unique})
        for look in (
            lambda: get_artifact(series.urn, credentials=second_account),
            lambda: download_artifact(series, tmp_path / "back.csv", credentials=second_account),
            lambda: get_order(order.urn, credentials=second_account),
        ):
            with pytest.raises((NotFoundError, ForbiddenError)) as refused:
                look()
            assert not refused.value.retryable
        for wait, work in ((wait_for_orders, order), (wait_for_orders, order.urn), (wait_for_jobs, job)):
            with pytest.raises(ForeignHandleError, match="is of the account urn:ivcap:account:") as caught:
                wait([work], credentials=second_account)
            assert str(work) in str(caught.value) and caught.value.handle_account != caught.value.account

    in_script(body)
    assert not (tmp_path / "back.csv").exists()


def test_a_stored_block_by_its_name(in_script, unique, second_account):
    """The name of a stored block works like the block. An unknown name is an error that says how to store one."""
    name = f"second-{unique[:8]}"
    second_account.save(name)

    def body():
        one = place_order("echo", {"message": unique}, credentials=name)
        return one, place_order("echo", {"message": unique}, credentials=second_account)

    one, same = in_script(body)
    assert one.urn == same.urn
    with pytest.raises(ConfigurationError, match=r"named 'no-such-block'. Save one by"):
        in_script(lambda: place_order("echo", {"message": unique}, credentials="no-such-block"))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_deployed_run_that_lost_its_url(
    embedded_platform, ivcap_journal, embedded_directory, unique, monkeypatch, allowed
):
    """A deployed run without IVCAP_URL stops. It uses the embedded platform only if that is allowed."""
    for name in list(os.environ):
        if name.startswith(("IVCAP_", "PROVENA_")) and not name.startswith("IVCAP_FLOWS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(embedded_directory.root))
    if allowed:
        monkeypatch.setenv("IVCAP_FLOWS_EMBEDDED", "1")

    @flow
    @recorded
    def deployed():
        return place_order("echo", {"message": unique})

    with get_client(sync_client=True) as client:
        id_ = client.create_deployment(client.create_flow(deployed), name=unique)
        run = client.create_flow_run_from_deployment(id_)
    if allowed:
        assert run_flow(deployed, flow_run=run).service_name == "echo"
        return
    with pytest.raises(ConfigurationError, match="of this worker names one.*IVCAP_URL.*IVCAP_FLOWS_EMBEDDED=1"):
        run_flow(deployed, flow_run=run)
    assert embedded_platform.requests() == []
