"""`sync`: what is on record reaches the sinks, late rather than never, and once; also without a hand."""

import json
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from eventually import until
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from ivcap_flows import recorded
from ivcap_flows.sinks import synchronise
from ivcap_flows.tasks.delivering import KEY, deliver_records

ROOT = Path(__file__).parents[2]


LOST = """
$ sync
attempt 1 of run … (interrupted): lost…
No sink is configured; name sinks in IVCAP_FLOWS_SINKS (…).
Sinks: none
$ show latest
…
no. outcome begun (…) ended (…) flow run id process cause
1 lost … is gone …
…
$ sync
No sink is configured; …
Sinks: none
"""


def test_a_lost_attempt_is_written_down(own_record, transcript, monkeypatch):
    """Once: the record then has the outcome, since when, and why. Without sinks nothing is delivered: that is no error,
    and the next step is named. An unknown sink is an error before anything is done."""
    with monkeypatch.context() as patch:
        patch.setenv("IVCAP_FLOWS_SINKS", "ivcap,carrier-pigeon")
        transcript(own_record, "$ sync\nConfigurationError: … 'carrier-pigeon'… prov-json:<folder>…\n[1]")
    transcript(own_record, LOST)


def test_a_platform_that_is_away_holds_up_no_other_sink(own_record, monkeypatch, tmp_path):
    """The error names it, and the runs are delivered to the others."""
    away, folder = "http://127.0.0.1:9", tmp_path / "prov"
    monkeypatch.setenv("IVCAP_URL", away)
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"ivcap, prov-json:{folder}")
    said = own_record("sync", "--json")
    assert said.status == 1 and away in said.err
    assert said.json["unusable"].keys() == {"ivcap"} and away in said.json["unusable"]["ivcap"]
    assert [(s["delivered"], s["pending"], s["dead"]) for s in said.json["sinks"]] == [(3, 0, 0)]
    assert len(list(folder.iterdir())) == 3
    assert "delivered" in own_record("show", "latest").out


def test_what_is_left_is_told_and_tried_again(own_record, monkeypatch, embedded_platform):
    """With its reason, and by exit status 1. `--again` does not wait until the next try is due."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")
    embedded_platform.add_fault(path="^/1/aspects", status=503)
    down = own_record("sync")
    assert down.status == 1 and "pending" in down.out and "503" in down.out
    embedded_platform.clear_faults()
    up = own_record("sync", "--again", "--json")
    assert (up.status, up.json["left"]) == (0, [])


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


def test_a_run_that_ends_is_delivered_by_itself(prefect_api, ivcap_journal, monkeypatch, tmp_path):
    """The flow does not wait for it; the process that delivers is another one, and outlives nothing it is part of."""
    folder = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{folder}")
    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    outer()
    [run] = ivcap_journal.runs.recent()
    until(lambda: ivcap_journal.deliveries.where(state="delivered"))
    assert [file.name for file in folder.glob("*.json")] == [f"{run.id}.{run.journal}.prov.json"]


@pytest.mark.long
def test_each_run_begins_one_sync(prefect_api, ivcap_journal, monkeypatch, tmp_path, caplog):
    """One that failed too, a subflow none; only where it is asked for and there is a sink. What cannot be started is
    told and raises nothing."""
    commands: list[list[str]] = []

    class Process:
        def __init__(self, command, **options):
            assert options["start_new_session"]
            assert options["stdin"] == options["stdout"] == subprocess.DEVNULL
            commands.append(command)

        def poll(self):
            return 0

    def refused(*arguments, **options):
        raise OSError("no more processes")

    # Of this module alone: the code of the flows is described by other programs.
    begun = SimpleNamespace(DEVNULL=subprocess.DEVNULL, Popen=Process)
    monkeypatch.setattr(synchronise, "subprocess", begun)
    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    outer()
    assert commands == []
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{tmp_path}")
    outer()
    with pytest.raises(ValueError, match="spoiled"):
        outer(fails=True)
    assert [command[1:] for command in commands] == [["-m", "ivcap_flows.cli", "sync"]] * 2
    begun.Popen = refused
    synchronise.begin_sync()
    assert "no more processes" in caplog.text
    begun.Popen = Process
    monkeypatch.delenv("IVCAP_FLOWS_SYNC_AT_END")
    outer()
    assert len(commands) == 2


def test_the_deployed_flow_delivers_and_shows_what_is_left(prefect_api, own_record, monkeypatch, tmp_path, journal):
    """It closes the run that lost its process; what is refused is in Prefect's table with its reason, then no more. The
    shipped deployment has a schedule, one at a time."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{blocked}")

    def shown():
        named = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]))
        with get_client(sync_client=True) as client:
            [artifact] = client.read_artifacts(artifact_filter=named, limit=1, sort="CREATED_DESC")
        return json.loads(artifact.data)

    state = deliver_records(return_state=True)
    assert (state.name, state.type.value, state.result()) == ("DeliveriesPending", "COMPLETED", 2)
    rows = shown()
    assert {(row["sink"], row["state"]) for row in rows} == {(f"prov-json:{blocked}", "pending")}
    assert len(rows) == 2 and all("blocked" in row["reason"] for row in rows)
    blocked.unlink()
    assert deliver_records(again=True) == 0
    assert shown() == [{"sink": "nothing is left"}]
    assert len(list(blocked.iterdir())) == 3
    assert [run.outcome for run in journal.runs.recent()] == ["lost", "failed", "completed"]

    shipped = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [deployed] = [each for each in shipped if each["name"] == "deliver-records"]
    module, _, name = deployed["entrypoint"].partition(":")
    assert getattr(import_module(module), name) is deliver_records and deployed["schedules"]
    assert deployed["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
