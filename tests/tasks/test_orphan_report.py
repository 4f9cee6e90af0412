"""Orders that nobody waits for, shown in Prefect."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from ivcap_flows.tasks import place_order
from ivcap_flows.tasks.orphan_report import KEY, report_orphans


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
