"""Effects that only the platform knows: idempotency records restored into a journal, and orphans shown in Prefect."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from ivcap_flows.capture import use_journal
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import place_order, request_job, wait_for_jobs, wait_for_orders
from ivcap_flows.tasks.orphan_report import KEY, report_orphans
from ivcap_flows.work.rebuild import rebuild


def test_a_lost_journal_is_rebuilt(in_flow, effects, on_platform, tmp_path, unique):
    """An order and a job of scope account are restored from the idempotency records alone, and are kept afterwards."""

    def body():
        order = wait_for_orders([place_order("echo", {"message": unique}, once_per="account")])[0]
        return order, wait_for_jobs([request_job("echo", {"message": unique}, once_per="account")])[0]

    order, job = in_flow(body)
    lost = {row.key: row for noun in ("order", "job") for row in effects.intents(noun)}
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as new:
        first = on_platform(lambda client: rebuild(client, new))
        again = on_platform(lambda client: rebuild(client, new))
        assert first["restored"] >= 2 and (again["restored"], again["known"]) == (0, first["restored"] + first["known"])
        for key, row in lost.items():
            found = new.intents.get(key)
            same = ("urn", "request", "scope", "subject", "definition", "generation", "discriminator", "created_at")
            assert all(getattr(found, name) == getattr(row, name) for name in same)
            assert (found.state, found.how, found.matched_by) == ("accepted", "adopted", "key")
        with use_journal(new):
            assert [work.urn for work in in_flow(body)] == [order.urn, job.urn]
    assert effects.count("/1/orders") == 1


def test_an_order_in_flight_is_rebuilt_as_a_doubt(in_flow, effects, on_platform, tmp_path, unique, monkeypatch):
    """An idempotency record without an outcome is restored as a doubt.

    The next call resolves it and places no second order.
    """
    from ivcap_flows.durable.submission import Submission

    async def dies(self, *arguments):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(Submission, "_accept", dies)
        with pytest.raises(RuntimeError):
            in_flow(lambda: place_order("echo", {"message": unique}, once_per="account"))
    [row] = effects.intents("order")
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as new:
        on_platform(lambda client: rebuild(client, new))
        assert new.intents.get(row.key).state == "in_doubt"
        with use_journal(new):
            in_flow(lambda: place_order("echo", {"message": unique}, once_per="account"))
        assert new.intents.get(row.key).how == "adopted"
    assert effects.count("/1/orders") == 1


def test_the_report_is_deployed():
    """The shipped deployment names the flow by its module."""
    root = Path(__file__).parents[2]
    shipped = yaml.safe_load((root / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [report] = [each for each in shipped if each["name"] == "report-orphans"]
    module, _, name = report["entrypoint"].partition(":")
    assert getattr(import_module(module), name) is report_orphans
    assert report["concurrency_limit"]["collision_strategy"] == "ENQUEUE" and report["schedules"]


def test_the_orphans_are_a_table_in_prefect(in_flow, effects, unique, monkeypatch, caplog):
    """The scheduled flow lists the orphans of a failed flow, whose own warning has named them at its end."""

    def body():
        place_order("sleep", {"seconds": 2})
        raise RuntimeError("the rest is wrong")

    monkeypatch.setenv("IVCAP_FLOWS_EMBEDDED", "1")
    with pytest.raises(RuntimeError):
        in_flow(body)
    [row] = effects.intents("order")
    [said] = [r.getMessage() for r in caplog.records if "cannot cancel" in r.getMessage()]
    assert row.urn in said and "orders --orphans" in said and "failed" in said
    state = report_orphans(return_state=True)
    assert (state.name, state.type.value) == ("OrphansFound", "COMPLETED")
    assert report_orphans() == state.result() == 1
    with get_client(sync_client=True) as client:
        [artifact] = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[KEY])), limit=1, sort="CREATED_DESC"
        )
    [told] = [each for each in json.loads(artifact.data) if each["urn"] == row.urn]
    assert (told["run"], told["of"]) == ("failed", "sleep") and "takes it up" in told["next"]
