"""`sync` without a hand: from a deployment's schedule, and by itself when a run ends."""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import temporary_settings

from ivcap_flows import recorded
from ivcap_flows.journal import Journal
from ivcap_flows.sinks import synchronise
from ivcap_flows.tasks.delivering import KEY, deliver_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_prefect(prefect_settings):
    with temporary_settings(prefect_settings):
        yield


@pytest.fixture
def begun(monkeypatch) -> list[list[str]]:
    """The commands that are started, and are not run."""
    commands: list[list[str]] = []

    class Process:
        def __init__(self, command, **options):
            assert (
                options["start_new_session"] and options["stdin"] == options["stdout"] == synchronise.subprocess.DEVNULL
            )
            commands.append(command)

        def poll(self):
            return 0

    monkeypatch.setattr(synchronise.subprocess, "Popen", Process)
    return commands


@flow
@recorded
def inner() -> int:
    return 1


@flow
@recorded
def outer(fails: bool = False) -> int:
    if fails:
        raise ValueError("spoiled")
    return inner()


def test_a_run_that_ends_is_delivered_by_itself(in_prefect, ivcap_journal, monkeypatch, tmp_path):
    """The flow does not wait for it; the process that delivers is another one, and outlives nothing it is part of."""
    folder = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{folder}")
    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    outer()
    [run] = ivcap_journal.runs.recent()
    end = time.monotonic() + 60
    while not ivcap_journal.deliveries.where(state="delivered"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [file.name for file in folder.glob("*.json")] == [f"{run.id}.{run.journal}.prov.json"]


@pytest.mark.long
def test_each_run_begins_one_sync(in_prefect, ivcap_journal, monkeypatch, begun, tmp_path):
    """One that failed too, a subflow none; and only where it is asked for and there is a sink."""
    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    outer()
    assert begun == []
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{tmp_path}")
    outer()
    with pytest.raises(ValueError, match="spoiled"):
        outer(fails=True)
    assert [command[1:] for command in begun] == [["-m", "ivcap_flows.cli", "sync"]] * 2
    monkeypatch.delenv("IVCAP_FLOWS_SYNC_AT_END")
    outer()
    assert len(begun) == 2


def test_what_cannot_be_started_is_told_and_raises_nothing(monkeypatch, caplog):
    """The next sync does it."""

    def refused(*arguments, **options):
        raise OSError("no more processes")

    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "prov-json:/nowhere")
    monkeypatch.setattr(synchronise.subprocess, "Popen", refused)
    synchronise.begin_sync()
    assert "no more processes" in caplog.text


def test_the_delivery_is_deployed():
    """The shipped deployment names the flow by its module, with a schedule, one at a time."""
    shipped = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [deliver] = [each for each in shipped if each["name"] == "deliver-records"]
    module, _, name = deliver["entrypoint"].partition(":")
    assert getattr(import_module(module), name) is deliver_records
    assert deliver["schedules"]
    assert deliver["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_the_deployed_flow_delivers_and_shows_what_is_left(in_prefect, on_record, journal_file, monkeypatch, tmp_path):
    """It closes the run that lost its process; what is refused is in Prefect's table with its reason, then no more."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{blocked}")
    state = deliver_records(return_state=True)
    assert (state.name, state.type.value, state.result()) == ("DeliveriesPending", "COMPLETED", 2)

    def shown():
        with get_client(sync_client=True) as client:
            [artifact] = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[KEY])), limit=1, sort="CREATED_DESC"
            )
        return json.loads(artifact.data)

    for row in (rows := shown()):
        assert (row["sink"], row["state"]) == (f"prov-json:{blocked}", "pending") and "blocked" in row["reason"]
    assert len(rows) == 2
    blocked.unlink()
    assert deliver_records(again=True) == 0
    assert shown() == [{"sink": "nothing is left"}]
    assert len(list(blocked.iterdir())) == 3
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        assert [run.outcome for run in journal.runs.recent()] == ["lost", "failed", "completed"]
