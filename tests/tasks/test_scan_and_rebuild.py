"""What is on the platform and in no journal: found for reuse, restored into a journal, shown in Prefect."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from ivcap_flows.capture import use_journal
from ivcap_flows.capture.context import journal
from ivcap_flows.cli import main
from ivcap_flows.durable import scan as scanning
from ivcap_flows.durable.rebuild import rebuild
from ivcap_flows.handles import TERMINAL
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import place_order, request_job, wait_for_jobs, wait_for_orders
from ivcap_flows.tasks.orphan_report import KEY, report_orphans


def ago(**time):
    return datetime.now(timezone.utc) - timedelta(**time)


async def by_hand(client, unique):
    """An order as another tool places it: without key, name and aspects; its URN once it has succeeded."""
    service = await client.services.by_name("echo")
    order = await client.orders.place(service.urn, {"message": unique})
    while order.status not in TERMINAL:
        order = await client.orders.read(order.urn)
    return order.urn


def scanned(on_platform, *, write, **options):
    async def ask(client):
        redaction, since = journal().redaction, ago(minutes=5)
        walk = scanning.scan(client, redaction, since=since, service="echo", limit=200, write=write, **options)
        return {one.urn: one.verdict async for one in walk}

    return on_platform(ask)


@pytest.mark.long
def test_what_another_tool_ordered_is_found_after_a_scan(in_flow, effects, on_platform, unique):
    """Listed first and marked on request, once; an equal order is then reused, and its own kind is not marked again."""
    urn = on_platform(lambda client: by_hand(client, unique))
    assert scanned(on_platform, write=False)[urn] == "to be marked"
    first, again = scanned(on_platform, write=True), scanned(on_platform, write=True)
    assert (first[urn], again[urn]) == ("marked", "marked before")
    order = in_flow(lambda: place_order("echo", {"message": unique}, reuse=True))
    assert order.urn == urn and [row.how for row in effects.intents("order")] == ["reused"]


def test_what_is_older_than_the_definition_is_not_marked(on_platform, unique, monkeypatch):
    """Nobody knows what such an order was of."""
    urn = on_platform(lambda client: by_hand(client, unique))

    class Newer(scanning._Services):
        async def of(self, urn):
            record, model = await super().of(urn)
            return record.model_copy(update={"valid_from": datetime.now(timezone.utc)}), model

    monkeypatch.setattr(scanning, "_Services", Newer)
    assert scanned(on_platform, write=True)[urn] == "older than the service's definition"


def test_the_scan_is_a_command(on_platform, ivcap_journal, unique, capsys):
    """It writes nothing unless asked to."""
    urn = on_platform(lambda client: by_hand(client, unique))
    with pytest.raises(SystemExit) as ended:
        main(["reuse", "scan", "--since", ago(minutes=1).isoformat(), "--service", "echo", "--json"])
    [row] = [row for row in json.loads(capsys.readouterr().out) if row["urn"] == urn]
    assert ended.value.code == 0 and row["verdict"] == "to be marked"


def test_a_lost_journal_is_rebuilt(in_flow, effects, on_platform, tmp_path, unique):
    """From the idempotency records alone: an order and a job of scope account with their requests, and they are kept
    then.
    """

    def body():
        order = wait_for_orders([place_order("echo", {"message": unique}, scope="account")])[0]
        return order, wait_for_jobs([request_job("echo", {"message": unique}, scope="account")])[0]

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
    """The idempotency record without an outcome is a doubt, which the next call resolves; no second order."""
    from ivcap_flows.durable.submission import Submission

    async def dies(self, *arguments):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(Submission, "_accept", dies)
        with pytest.raises(RuntimeError):
            in_flow(lambda: place_order("echo", {"message": unique}, scope="account"))
    [row] = effects.intents("order")
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as new:
        on_platform(lambda client: rebuild(client, new))
        assert new.intents.get(row.key).state == "in_doubt"
        with use_journal(new):
            in_flow(lambda: place_order("echo", {"message": unique}, scope="account"))
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
    """The scheduled flow names what a failed flow has left; the flow itself has said at its end that it goes on."""

    def body():
        place_order("sleep", {"seconds": 2})
        raise RuntimeError("the rest is wrong")

    monkeypatch.setenv("IVCAP_FLOWS_EMBEDDED", "1")
    with pytest.raises(RuntimeError):
        in_flow(body)
    [row] = effects.intents("order")
    [said] = [r.getMessage() for r in caplog.records if "cannot cancel" in r.getMessage()]
    assert row.urn in said and "orders --orphans" in said and "failed" in said
    assert report_orphans() == 1
    with get_client(sync_client=True) as client:
        [artifact] = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[KEY])), limit=1)
    [told] = [each for each in json.loads(artifact.data) if each["urn"] == row.urn]
    assert (told["run"], told["of"]) == ("failed", "sleep") and "takes it up" in told["next"]
