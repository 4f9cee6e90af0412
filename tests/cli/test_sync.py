"""`sync`: what is on record reaches the sinks, late rather than never, and once."""

import json
import os
import socket

import pytest

from ivcap_flows import loop
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA


@pytest.fixture
def ivcap_sink(on_record, monkeypatch, embedded_platform):
    """IVCAP is the sink, and has no record of the runs yet."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")

    async def retract_all():
        async with IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"])) as client:
            for schema in (RUN_SCHEMA, LINK_SCHEMA):
                for record in [record async for record in client.aspects.list(schema=schema)]:
                    await client.aspects.retract(record.urn)

    loop.run(retract_all())
    embedded_platform.forget_requests()
    return embedded_platform


RECORDS = 3 + 2
"""One for each run, and one for the artifact that a run used and the one that it made."""


def added(embedded):
    """How many aspects were asserted."""
    return len([r for r in embedded.requests("POST", "/1/aspects") if r["status"] == 200])


def test_without_sinks_nothing_is_delivered(on_record):
    """It is no error, and the next step is told."""
    said = on_record("sync")
    assert said.status == 0 and "IVCAP_FLOWS_SINKS" in said.out


def test_a_lost_attempt_is_reconciled(on_record):
    """Once: the record then has the outcome, since when, and why."""
    said = on_record("sync")
    assert "attempt 1 of run" in said.out and "(interrupted): lost" in said.out
    [attempt] = on_record("show", "latest", "--json").json["attempts"]
    assert attempt["outcome"] == "lost" and "is gone" in attempt["cause"] and attempt["ended_at"]
    assert on_record("sync", "--json").json["ended"] == []


def test_a_folder_gets_a_file_per_run(on_record, monkeypatch, tmp_path):
    """All three, the lost one too; a second sync writes nothing."""
    folder = tmp_path / "prov"
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", f"prov-json:{folder}")
    said = on_record("sync", "--json")
    assert said.status == 0
    assert [(s["delivered"], s["pending"], s["dead"]) for s in said.json["sinks"]] == [(3, 0, 0)]
    runs = on_record("runs", "--json").json
    assert {file.name for file in folder.iterdir()} == {f"{run['id']}.{run['journal']}.prov.json" for run in runs}
    for file in folder.iterdir():
        assert json.loads(file.read_text())["activity"]
        file.unlink()
    assert [s["delivered"] for s in on_record("sync", "--json").json["sinks"]] == [0]
    assert list(folder.iterdir()) == []
    assert "delivered" in on_record("show", "latest").out


def test_ivcap_gets_its_records_once(on_record, ivcap_sink):
    """One of each run, and links to it; the second sync finds all delivered and sends nothing."""
    said = on_record("sync", "--json")
    assert (said.status, [s["delivered"] for s in said.json["sinks"]]) == (0, [3])
    assert added(ivcap_sink) == RECORDS
    ivcap_sink.forget_requests()
    assert [s["delivered"] for s in on_record("sync", "--json").json["sinks"]] == [0]
    assert [r for r in ivcap_sink.requests() if r["method"] != "GET"] == []


def test_a_delivery_whose_reply_is_lost_takes_effect_once(on_record, ivcap_sink):
    """The next sync finds the record there."""
    ivcap_sink.add_fault(method="POST", path="^/1/aspects", count=1, drop_reply_after_effect=True)
    first = on_record("sync")
    assert first.status == 1
    second = on_record("sync", "--again", "--json")
    assert second.status == 0 and second.json["left"] == []
    assert added(ivcap_sink) == RECORDS


def test_a_sink_that_fails_gets_it_later(on_record, ivcap_sink):
    """Exit status 1 with the reason; once it is back, all is delivered."""
    ivcap_sink.add_fault(path="^/1/aspects", status=503)
    down = on_record("sync")
    assert down.status == 1 and "pending" in down.out and "503" in down.out
    ivcap_sink.clear_faults()
    up = on_record("sync", "--again", "--json")
    assert (up.status, [s["delivered"] for s in up.json["sinks"]], up.json["left"]) == (0, [3], [])
    assert added(ivcap_sink) == RECORDS


def test_a_platform_that_is_away_does_not_hold_the_others(on_record, monkeypatch, tmp_path):
    """The folder gets its files; the status is 1 and the error names the platform."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with monkeypatch.context() as patch:
            patch.setenv("IVCAP_URL", away)
            patch.setenv("IVCAP_FLOWS_SINKS", f"ivcap, prov-json:{tmp_path / 'prov'}")
            said = on_record("sync", "--json")
    assert said.status == 1 and away in said.err
    assert said.json["unusable"].keys() == {"ivcap"} and away in said.json["unusable"]["ivcap"]
    assert len(list((tmp_path / "prov").iterdir())) == 3


def test_provena_is_a_sink(on_record, monkeypatch):
    """None of the runs has a registration in doubt, so that all count as delivered."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "provena")
    said = on_record("sync", "--json")
    assert (said.status, [s["delivered"] for s in said.json["sinks"]]) == (0, [3])


def test_an_unknown_sink_is_an_error_before_anything_is_done(on_record, monkeypatch):
    """The setting and what it takes are named."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap,carrier-pigeon")
    said = on_record("sync")
    assert said.status == 1 and "'carrier-pigeon'" in said.err and "prov-json:<folder>" in said.err
    monkeypatch.delenv("IVCAP_FLOWS_SINKS")
    assert "interrupted" in on_record("sync").out
