"""What Prefect shows of a wait: a progress artifact for a long one, and one table of all work of a run."""

from __future__ import annotations

import json
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from ivcap_flows import loop
from ivcap_flows.tasks import place_order, progress, request_job, wait_for_jobs, wait_for_orders


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.1)
    monkeypatch.setattr(progress, "_away_until", 0.0)


async def shown(run):
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        )
        return {kind: [each for each in found if each.type == kind] for kind in ("progress", "table")}


@pytest.mark.long
def test_a_run_shows_its_waits_and_all_of_its_work_in_one_table(in_flow, unique, monkeypatch):
    """Two waits write one table, at the end, and in between not more often than the interval."""
    told = []
    ashow = progress.ashow

    async def counted(artifact, known):
        told.append((artifact.kind, known is None))
        return await ashow(artifact, known)

    monkeypatch.setattr(progress, "ashow", counted)

    def body():
        orders = [place_order("sleep", {"seconds": 2.5}, name="nap"), place_order("echo", {"message": unique})]
        ended = wait_for_orders(orders)
        time.sleep(1.1)
        [job] = wait_for_jobs([request_job("echo", {"message": unique})])
        return flow_run.id, [*ended, job]

    run, work = in_flow(body)
    urns = [each.urn for each in work]
    found = loop.run(shown(run))
    [table] = found["table"]
    rows = json.loads(table.data) if isinstance(table.data, str) else table.data
    assert [row.get("order") or row["job"] for row in rows] == urns
    assert {row["status"] for row in rows} == {"succeeded"}
    assert [row["ended (UTC)"] for row in rows] == [f"{each.finished_at:%Y-%m-%d %H:%M:%S}" for each in work]
    assert [row["name"] for row in rows] == ["nap", "echo", None]
    bars = found["progress"]
    assert {(each.data, each.key) for each in bars} == {(100, None)}
    assert len({each.task_run_id for each in bars} - {None}) == len(bars) <= 2
    assert told.count(("table", True)) == 1 and told.count(("progress", True)) == len(bars) and len(told) <= 8


def test_a_prefect_that_does_not_answer_fails_no_wait(in_flow, unique, monkeypatch):
    """A Prefect server that does not answer is asked once, and then not for a while. The wait continues."""
    asked = []

    async def broken(*_):
        asked.append(1)
        raise OSError("no route to host")

    monkeypatch.setattr(progress, "ashow", broken)

    def body():
        return [wait_for_jobs([request_job("echo", {"message": f"{unique}{i}"})])[0].status for i in range(2)]

    assert in_flow(body) == ["succeeded", "succeeded"] and asked == [1]


def test_outside_of_a_flow_nobody_is_told(embedded_platform, ivcap_journal, unique, monkeypatch):
    """Outside of a flow no artifact is written, since there is no run to show it in."""
    told = []

    async def counted(*_):
        told.append(1)

    monkeypatch.setattr(progress, "ashow", counted)
    [job] = wait_for_jobs.fn([request_job.fn("echo", {"message": unique})])
    assert job.succeeded and not told
