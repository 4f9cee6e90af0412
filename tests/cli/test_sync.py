"""`sync`: what is on record reaches the sinks, late rather than never, and once; also without a hand."""

import json
import socket
import subprocess
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import temporary_settings

from ivcap_flows import loop, recorded
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA, synchronise
from ivcap_flows.tasks.delivering import KEY, deliver_records

ROOT = Path(__file__).parents[2]
RECORDS = 3 + 2
"""One for each run, and one for the artifact that a run used and the one that it made."""


@pytest.fixture
def ivcap_sink(own_record, monkeypatch, embedded_platform):
    """IVCAP is the sink, and has no record of the runs yet."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")

    async def retract_all():
        async with IvcapCredentials.from_environment().get_client() as client:
            for schema in (RUN_SCHEMA, LINK_SCHEMA):
                for record in [record async for record in client.aspects.list(schema=schema)]:
                    await client.aspects.retract(record.urn)

    loop.run(retract_all())
    embedded_platform.forget_requests()
    return embedded_platform


def added(embedded):
    """How many aspects were asserted."""
    return len([r for r in embedded.requests("POST", "/1/aspects$") if r["status"] == 200])


def delivered(said):
    return [sink["delivered"] for sink in said.json["sinks"]]


def test_a_lost_attempt_is_written_down(own_record, monkeypatch):
    """Once: the record then has the outcome, since when, and why. Without sinks nothing is delivered: that is no error,
    and the next step is told. An unknown sink is an error before anything is done."""
    with monkeypatch.context() as patch:
        patch.setenv("IVCAP_FLOWS_SINKS", "ivcap,carrier-pigeon")
        said = own_record("sync")
    assert said.status == 1 and "'carrier-pigeon'" in said.err and "prov-json:<folder>" in said.err
    said = own_record("sync")
    assert said.status == 0 and "IVCAP_FLOWS_SINKS" in said.out
    assert "attempt 1 of run" in said.out and "(interrupted): lost" in said.out
    [attempt] = own_record("show", "latest", "--json").json["attempts"]
    assert attempt["outcome"] == "lost" and "is gone" in attempt["cause"] and attempt["ended_at"]
    assert own_record("sync", "--json").json["ended"] == []


def test_a_folder_gets_a_file_per_run_once(own_record, monkeypatch, tmp_path):
    """All three, the lost one too. A platform that is away does not hold it up: the error names that."""
    folder = tmp_path / "prov"
    with socket.socket() as taken, monkeypatch.context() as patch:
        taken.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        patch.setenv("IVCAP_URL", away)
        patch.setenv("IVCAP_FLOWS_SINKS", f"ivcap, prov-json:{folder}")
        said = own_record("sync", "--json")
    assert said.status == 1 and away in said.err
    assert said.json["unusable"].keys() == {"ivcap"} and away in said.json["unusable"]["ivcap"]
    assert [(s["delivered"], s["pending"], s["dead"]) for s in said.json["sinks"]] == [(3, 0, 0)]
    runs = own_record("runs", "--json").json
    assert {file.name for file in folder.iterdir()} == {f"{run['id']}.{run['journal']}.prov.json" for run in runs}
    for file in folder.iterdir():
        assert json.loads(file.read_text())["activity"]
        file.unlink()
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{folder}")
    again = own_record("sync", "--json")
    assert (again.status, delivered(again), list(folder.iterdir())) == (0, [0], [])
    assert "delivered" in own_record("show", "latest").out


def test_ivcap_gets_its_records_once(own_record, ivcap_sink):
    """One of each run, and links to it, whatever fails: a sink that is down and a reply that is lost are reasons to try
    again, with status 1. Once all is delivered, nothing is sent."""
    for fault, said_of in (
        ({"path": "^/1/aspects", "status": 503}, "503"),
        ({"method": "POST", "path": "^/1/aspects", "count": 1, "drop_reply_after_effect": True}, "pending"),
    ):
        ivcap_sink.add_fault(**fault)
        down = own_record("sync", "--again")
        assert down.status == 1 and "pending" in down.out and said_of in down.out
        ivcap_sink.clear_faults()
    up = own_record("sync", "--again", "--json")
    assert (up.status, up.json["left"]) == (0, [])
    assert added(ivcap_sink) == RECORDS
    ivcap_sink.forget_requests()
    assert delivered(own_record("sync", "--json")) == [0]
    assert [r for r in ivcap_sink.requests() if r["method"] != "GET"] == []


def test_provena_is_a_sink(own_record, monkeypatch):
    """None of the runs has a registration in doubt, so that all count as delivered."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "provena")
    said = own_record("sync", "--json")
    assert (said.status, delivered(said)) == (0, [3])


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


def test_a_run_that_ends_is_delivered_by_itself(prefect_settings, ivcap_journal, monkeypatch, tmp_path):
    """The flow does not wait for it; the process that delivers is another one, and outlives nothing it is part of."""
    folder = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{folder}")
    monkeypatch.setenv("IVCAP_FLOWS_SYNC_AT_END", "1")
    with temporary_settings(prefect_settings):
        outer()
    [run] = ivcap_journal.runs.recent()
    end = time.monotonic() + 60
    while not ivcap_journal.deliveries.where(state="delivered"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [file.name for file in folder.glob("*.json")] == [f"{run.id}.{run.journal}.prov.json"]


@pytest.mark.long
def test_each_run_begins_one_sync(prefect_settings, ivcap_journal, monkeypatch, tmp_path, caplog):
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
    with temporary_settings(prefect_settings):
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


def test_the_deployed_flow_delivers_and_shows_what_is_left(
    prefect_settings, own_record, monkeypatch, tmp_path, journal
):
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

    with temporary_settings(prefect_settings):
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
