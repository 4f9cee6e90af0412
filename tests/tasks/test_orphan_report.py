"""Orders that nobody waits for, shown in Prefect."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from ivcap_flows import loop
from ivcap_flows.capture import use_journal
from ivcap_flows.identity import INTENT_SCHEMA
from ivcap_flows.tasks import place_order, request_job
from ivcap_flows.tasks.orphan_report import KEY, report_orphans
from ivcap_flows.work.orphans import elsewhere

OPEN_METADATA = "urn:ivcap:policy:ivcap.open.metadata"


def test_the_report_is_deployed():
    """The shipped deployment names the flow by its module."""
    root = Path(__file__).parents[2]
    shipped = yaml.safe_load((root / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [report] = [each for each in shipped if each["name"] == "report-orphans"]
    module, _, name = report["entrypoint"].partition(":")
    assert getattr(import_module(module), name) is report_orphans
    assert report["concurrency_limit"]["collision_strategy"] == "ENQUEUE" and report["schedules"]


def test_what_others_opened_to_all_is_no_orphan(in_script, effects, other_journal, on_platform, second_account):
    """Of running orders and jobs that this journal does not know, those of the own account are listed."""

    def asked(**options):
        return [start("sleep", {"seconds": 20}, **options).urn for start in (place_order, request_job)]

    async def open_records():
        async with second_account.get_client() as client:
            for urn in theirs:
                await client.aspects.add(urn, INTENT_SCHEMA, {"urn": urn}, policy=OPEN_METADATA)
            status = {"status": "executing", "service-id": (await client.services.by_name("sleep")).urn}
            await client.aspects.add(theirs[1], "urn:ivcap:schema:job.2", status, policy=OPEN_METADATA)

    with use_journal(other_journal):
        ours = in_script(asked)
        policy = "urn:ivcap:policy:ivcap.open.service"
        theirs = in_script(lambda: asked(credentials=second_account, policy=policy))
    loop.run(open_records())
    listed = {orphan.urn for orphan in on_platform(lambda client: elsewhere(client, effects.journal))}
    assert set(ours) <= listed and not listed & set(theirs)


def test_the_orphans_are_a_table_in_prefect(in_flow, effects, unique, monkeypatch, caplog):
    """The scheduled flow lists the orphans of a failed flow, whose own warning has named them at its end; while IVCAP
    is away, too."""

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
    told = newest_table(row.urn)
    assert (told["run"], told["of"]) == ("failed", "sleep") and "takes it up" in told["next"]
    effects.embedded.add_fault(path="^/1/", status=503)
    assert report_orphans() == 1 and newest_table(row.urn)["status"] == "unknown"
    assert "could not be asked" in caplog.text


def newest_table(urn: str) -> dict[str, str]:
    """The row of an order in the newest table."""
    with get_client(sync_client=True) as client:
        [artifact] = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[KEY])), limit=1, sort="CREATED_DESC"
        )
    [told] = [each for each in json.loads(artifact.data) if each["urn"] == urn]
    return told
