"""`show` for a run with jobs: what each came to, and what it told meanwhile."""

from __future__ import annotations

import uuid

import pytest
from prefect import flow
from prefect.settings import (
    temporary_settings,
)

from ivcap_flows import recorded
from ivcap_flows.capture import use_journal
from ivcap_flows.journal import Journal
from ivcap_flows.local.register import register
from ivcap_flows.tasks import request_job, wait_for_jobs

SERVICE = """
def told(request, job):
    job.event("step", message="half [way]\\nthere")
    job.add_product("told.txt", request["message"].encode(), "text/plain")
    return {"said": request["message"], "more": "x" * 500}
"""


@pytest.fixture
def two_jobs(_embedded, embedded_platform, prefect_settings, journal_file, tmp_path):
    """A run of one job that told something and made something, and one that failed."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "services_of_show_jobs.py").write_text(SERVICE)
    definition = {
        "name": "cli-told",
        "entry": "services_of_show_jobs:told",
        "parameters": [{"name": "message", "type": "string"}],
    }
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, tmp_path / "services.yaml")

    @flow(name="asking")
    @recorded
    def asking(message):
        jobs = [request_job("cli-told", {"message": message}), request_job("fail", {"message": message})]
        return wait_for_jobs(jobs, raise_on_failure=False, events=True)

    with (
        temporary_settings(prefect_settings),
        Journal.open(f"sqlite:///{journal_file}") as journal,
        use_journal(journal),
    ):
        return asking(uuid.uuid4().hex)


def test_a_run_shows_what_its_jobs_came_to(ivcap_flows, two_jobs):
    """Result, products and events of each; the error of the one that failed. As JSON the result is whole."""
    told, failed = two_jobs
    said = told.result["said"]

    shown = {job["urn"]: job for job in ivcap_flows("show", "latest", "--json").json["jobs"]}
    assert shown.keys() == {told.urn, failed.urn}
    whole = shown[told.urn]
    assert whole["result"] == told.result and (whole["service"], whole["status"]) == ("cli-told", "succeeded")
    assert whole["products"] == [{"urn": told.products[0].urn, "name": "told.txt"}]
    [event] = whole["events"]
    assert (event["name"], event["message"]) == ("step", "half [way]\nthere")
    assert said in shown[failed.urn]["error"] and shown[failed.urn]["result"] is None

    lines = ivcap_flows("show", "latest").out.splitlines()
    start = lines.index(f"{told.urn}  cli-told  succeeded")
    result, product, event_line = lines[start + 1 : start + 4]
    assert result.startswith(f'  result  {{"said": "{said}"') and result.endswith("…") and len(result) < 200
    assert product == f"  product  told.txt  {told.products[0].urn}"
    assert event_line.startswith("  event  20") and event_line.endswith("  step  half [way] there")
    assert any(line.startswith("  error  ") and said in line for line in lines)
