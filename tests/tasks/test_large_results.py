"""A job's result may have 64 MiB. The journal keeps no such thing: the platform has it, and it is read there again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutants import mutate

from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Job
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.register import register
from ivcap_flows.tasks import request_job, wait_for_jobs

SERVICE = """
def large(request, job):
    job.event("step", message="half way", more="xy" * 100_000)
    return {"message": request["message"], "more": "xy" * 1_000_000}
"""
NAME = "tasks-large"


@pytest.fixture(scope="module")
def large(_embedded: EmbeddedPlatform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a service whose jobs have a result of 2 MB, and an event of 200 kB."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "setup.cfg").touch()
    (folder / "services_of_large_results.py").write_text(SERVICE)
    definition = {
        "name": NAME,
        "entry": "services_of_large_results:large",
        "parameters": [{"name": "message", "type": "string"}],
    }
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, folder / "services.yaml")
    return NAME


def waited_twice(in_flow: Callable[..., Any], effects: Any, on_platform: Callable[..., Any], message: str) -> None:
    """Wait for a job, fail, and continue the run. Look for its result in the journal and on the platform."""
    seen: list[Job] = []

    def body() -> None:
        asked = request_job(NAME, {"message": message})
        seen.append(asked)
        if len(seen) == 1:
            seen.extend(wait_for_jobs([asked], events=True))
            raise RuntimeError("again")

    in_flow(body, retries=1)
    first, ended, kept = seen
    assert not first.done and ended.result == {"message": message, "more": "xy" * 1_000_000}
    assert len(str(ended.events[0].data)) > 200_000
    assert (kept.urn, kept.result) == (ended.urn, ended.result)

    database = Path(effects.journal.url.removeprefix("sqlite:///"))
    assert not any(
        b"xy" * 1_000 in path.read_bytes() for path in database.parent.glob(f"{database.name}*") if path.is_file()
    )
    [intent] = effects.intents("job")
    assert len(intent.outcome["result_sha256"]) == 64 and intent.outcome["result"] is None

    async def record(client: Any) -> Any:
        return await IdempotencyRecords(client.aspects, await client.account()).read(intent.key)

    assert "xy" * 1_000 not in str(on_platform(record))


@pytest.mark.mutant(None)
def test_a_long_result_is_kept_on_the_platform_alone(in_flow, effects, on_platform, large, unique):
    """The wait returns all of it, and so does the same request in the next try, as with a short one."""
    waited_twice(in_flow, effects, on_platform, unique)


def test_a_call_that_waits_to_be_recorded_holds_no_result():
    """No record has it, and thousands of calls may wait."""
    job = Job(urn="urn:ivcap:job:1", platform="p", service="s", result=["large"])
    look = ValueScan()
    look.at("jobs", [job])
    assert look.handles == [("jobs", job.model_copy(update={"result": None}))] and job.result == ["large"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.mutant(name)) for name in ("whole results kept", "result not read again")],
)
def test_builds_that_keep_or_lose_a_long_result_are_found(
    in_flow, effects, on_platform, large, unique, monkeypatch, name
):
    """The test fails on builds that write the result into the journal, and that return the job without it."""
    mutate(name, monkeypatch.setattr)
    with pytest.raises(AssertionError):
        waited_twice(in_flow, effects, on_platform, unique)
