"""`runs` and `show`: what is on record, in words and as JSON."""

import contextlib
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from prefect import flow as prefect_flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from ivcap_flows.cli import output
from ivcap_flows.identity import short_id
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.rows import Park, Wait


@prefect_flow
def harvest():
    """The flow that the parked run is of."""


def run_of(said_runs, flow):
    return next(run for run in said_runs.json if run["flow_name"] == flow)


def test_runs_are_listed_newest_first(on_record):
    """All three with their outcomes; a killed one is lost though nobody has written that down."""
    assert [(r["flow_name"], r["outcome"], r["attempts"]) for r in on_record("runs", "--json").json] == [
        ("interrupted", "lost", 1),
        ("spoiled", "failed", 1),
        ("harvest", "completed", 1),
    ]
    _title, columns, *rows = on_record("runs").out.splitlines()
    assert columns.split()[:3] == ["run", "flow", "outcome"]
    assert [row.split()[1:4] for row in rows] == [
        ["interrupted", "lost", "1"],
        ["spoiled", "failed", "1"],
        ["harvest", "completed", "1"],
    ]


def test_runs_can_be_narrowed(on_record):
    """By number and by flow; of an unknown flow there are none."""
    assert len(on_record("runs", "--limit", 2, "--json").json) == 2
    assert [r["flow_name"] for r in on_record("runs", "--flow", "spoiled", "--json").json] == ["spoiled"]
    assert on_record("runs", "--flow", "nothing").out == "Runs: none\n"


def test_a_journal_without_runs(ivcap_flows, journal_file):
    """There is nothing to list, and no latest run to show."""
    Journal.open(f"sqlite:///{journal_file}").close()
    assert ivcap_flows("runs", "--json").json == []
    said = ivcap_flows("show", "latest")
    assert said.status == 2 and "has no run yet" in said.err


@pytest.mark.parametrize("name", ["id", "beginning", "end", "flow", "flow run", "flow run's name"])
def test_a_run_is_shown_by_each_of_its_names(on_record, name):
    """Its id, the beginning and the end of it, its flow, and the id and the name of its Prefect flow run."""
    run = run_of(on_record("runs", "--json"), "harvest")
    flow_run = on_record("show", run["id"], "--json").json["attempts"][0]["flow_run_id"]
    named = {
        "id": run["id"],
        "beginning": run["id"][:-4],
        "end": run["id"][-8:],
        "flow": "harvest",
        "flow run": flow_run,
        "flow run's name": run["flow_run_name"],
    }[name]
    said = on_record("show", named, "--json")
    assert said.status == 0 and said.json["run"]["id"] == run["id"]
    assert on_record("trace", named, "--json").status == 0


def test_listed_runs_can_be_told_apart_and_found(on_record):
    """The column that names them has the end of their ids, since the beginnings are the same minute."""
    runs = on_record("runs", "--json").json
    _title, _columns, *rows = on_record("runs").out.splitlines()
    assert [row.split()[0] for row in rows] == [run["id"][-8:] for run in runs]
    assert all(run["flow_run_name"] in row for run, row in zip(runs, rows, strict=True))


@pytest.mark.parametrize(("zone", "shown"), [("UTC", "UTC"), ("Australia/Brisbane", "UTC+10:00")])
def test_times_have_their_zone(on_record, monkeypatch, zone, shown):
    """It is named once a table, and the times are in it."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    output.zone.cache_clear()
    try:
        begun = datetime.fromisoformat(on_record("runs", "--json").json[0]["created_at"])
        said = on_record("runs").out
    finally:
        monkeypatch.undo()
        time.tzset()
        output.zone.cache_clear()
    hours = {"UTC": 0, "UTC+10:00": 10}[shown]
    assert f"begun ({shown})" in said
    assert f"{begun.astimezone(timezone(timedelta(hours=hours))):%Y-%m-%d %H:%M:%S}" in said


def on_terminal(columns, *arguments):
    """What a command prints on a terminal of this width."""
    reader, writer = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "ivcap_flows.cli", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL)
    os.close(writer)
    said = b""
    # At its end, Linux gives an error and no empty read.
    with contextlib.suppress(OSError):
        while block := os.read(reader, 65536):
            said += block
    os.close(reader)
    assert process.wait(60) == 0, said
    return said.decode()


def test_a_terminal_shows_outcomes_in_colour_and_tables_that_fit(on_record):
    """Nothing is cut: what is too long for its column goes on below."""
    run = run_of(on_record("runs", "--json"), "harvest")
    listed, shown = on_terminal(80, "runs"), on_terminal(100, "show", "harvest")
    assert "\x1b[32mcompleted" in listed and "\x1b[31mfailed" in listed
    for said, columns in ((listed, 80), (shown, 100)):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        tables = plain[plain.index("Attempts") :] if "Attempts" in plain else plain
        assert max(map(len, tables.splitlines())) <= columns
    assert run["id"][-8:] in listed
    assert len(on_terminal(100, "orders", "--full").splitlines()) < len(on_terminal(100, "orders").splitlines())


def test_an_unknown_run_is_wrong_use(on_record):
    """The error names it and the next step."""
    said = on_record("show", "no-such-run")
    assert said.status == 2
    assert said.err.startswith("InputError: ") and "'no-such-run'" in said.err and "ivcap-flows runs" in said.err


def test_the_latest_run_is_the_lost_one(on_record):
    """Its attempt is lost; one order is accepted, the other in doubt with the reason."""
    shown = on_record("show", "latest", "--json").json
    assert (shown["run"]["flow_name"], shown["run"]["outcome"]) == ("interrupted", "lost")
    assert [(a["number"], a["outcome"]) for a in shown["attempts"]] == [(1, "lost")]
    assert [(e["noun"], e["subject"], e["state"]) for e in shown["effects"]] == [
        ("order", "echo", "done"),
        ("order", "echo", "sent"),
    ]
    assert shown["effects"][1]["urn"] is None and "UnreachableError" in shown["effects"][1]["error"]


def test_a_failed_run_names_its_cause(on_record):
    """The error of the flow, and how the order ended."""
    run = run_of(on_record("runs", "--json"), "spoiled")["id"]
    shown = on_record("show", run, "--json").json
    assert [(a["outcome"], a["cause"].partition(":")[0]) for a in shown["attempts"]] == [("failed", "OrderFailedError")]
    assert [(e["state"], e["status"]) for e in shown["effects"]] == [("done", "failed")]
    row = next(line for line in on_record("show", run).out.splitlines() if "OrderFailedError" in line)
    assert row.split()[:2] == ["1", "failed"] and shown["run"]["parameters"]["message"] in row


def test_the_whole_of_a_run_is_in_its_json(on_record, world):
    """Parameters, process, requests, URNs, inputs and outputs with their sha256; nothing of the journal's own guard."""
    shown = on_record("show", run_of(on_record("runs", "--json"), "harvest")["id"], "--json").json
    assert shown.keys() == {
        "run",
        "attempts",
        "task_runs",
        "effects",
        "jobs",
        "inputs",
        "outputs",
        "intermediates",
        "deliveries",
    }
    assert shown["run"]["parameters"]["source"] == str(world.source)
    assert shown["attempts"][0]["process"]["pid"] > 0 and shown["attempts"][0]["ended_at"]
    effects = {effect["noun"]: effect for effect in shown["effects"]}
    assert effects.keys() == {"upload", "order", "registry item", "dataset"}
    assert (effects["order"]["urn"], effects["order"]["status"]) == (world.made["order"], "succeeded")
    assert effects["order"]["request"]["parameters"] and effects["order"]["outcome"]["urn"] == world.made["order"]
    assert not effects["order"].keys() & {"token", "fence", "process_id"}
    # The folder that it writes into is no input.
    [source] = shown["inputs"]
    assert source["attributes"]["path"] == str(world.source) and len(source["attributes"]["sha256"]) == 64
    outputs, between = ({record["id"] for record in shown[name]} for name in ("outputs", "intermediates"))
    assert {world.made["series"], world.made["product"]} <= between and world.made["dataset"] in outputs
    assert str(world.downloaded) in [record["attributes"].get("path") for record in shown["outputs"]]


def test_a_shown_run_keeps_urns_whole_and_words_as_they_are(on_record, world):
    """No line is cut, and brackets in a parameter are no markup."""
    out = on_record("show", run_of(on_record("runs", "--json"), "harvest")["id"]).out
    assert all(urn in out for urn in world.made.values())
    assert "note = '[bold]x[/y] :fire:'" in out
    for title in ("Attempts", "Requests to the platforms", "Inputs", "Outputs"):
        assert title in out.splitlines()


@pytest.mark.long
def test_a_run_with_thousands_of_effects_is_shown_whole(on_record, journal_file):
    """Nothing is left out beyond a page."""
    import sqlite3

    run = run_of(on_record("runs", "--json"), "spoiled")["id"]
    with sqlite3.connect(journal_file) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(intents)")]
        others = ", ".join(name for name in columns if name != "key")
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
            f"INSERT INTO intents (key, {others}) SELECT key || '.' || (i + 1), {others} FROM intents, n "
            "WHERE run_id = ?",
            (run,),
        )
    assert len(on_record("show", run, "--json").json["effects"]) == 1201
    assert len(on_record("orders", "--run", run, "--json").json) == 1201


def test_missing_facts_are_told(on_record, journal_file):
    """A record that is known to have gaps says so in both commands."""
    run = run_of(on_record("runs", "--json"), "spoiled")["id"]
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        journal.runs.count_missing(run, 3)
    assert "3 facts missing" in on_record("runs").out
    assert "3 facts could not be written" in on_record("show", run).out


def test_what_was_asked_in_one_run_is_named_by_its_key(on_record):
    """`show` prints the key that `orders adopt` takes."""
    shown = on_record("show", "latest", "--json").json
    assert short_id(shown["effects"][1]["key"]) in on_record("show", "latest").out


def test_a_run_shows_which_code_ran_where_and_for_whom(on_record):
    """The commit, Python and the number of packages; the account and the package's own version."""
    out = on_record("show", run_of(on_record("runs", "--json"), "harvest")["id"]).out
    code = next(line for line in out.splitlines() if line.startswith("  code "))
    assert "commit " in code and "Python 3." in code and " packages" in code
    assert any(line.startswith("  software ivcap-flows") for line in out.splitlines())


@pytest.mark.parametrize(("flow", "left"), [("interrupted", 1), ("spoiled", 0)])
def test_a_run_is_given_up(on_record, journal_file, flow, left):
    """It is listed and delivered so, and may be pruned, unless something of it is in doubt: that is named."""
    run = run_of(on_record("runs", "--json"), flow)["id"]
    said = on_record("runs", "abandon", run[-8:])
    assert said.status == 0 and said.out.startswith(f"The run {run[-8:]} of {flow} is given up")
    assert said.out.count("orders --orphans") == left
    assert run_of(on_record("runs", "--json"), flow)["outcome"] == "abandoned"
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        *_, told = (f.record for f in journal.facts.of_run(run) if f.record.type == "flow-run")
        assert told.attributes["outcome"] == "abandoned"
    on_record("runs", "prune", "--older-than-days", 0)
    assert [each["id"] for each in on_record("runs", "--json").json].count(run) == left


def test_prune_keeps_what_a_sink_that_was_set_anew_lacks(on_record, journal_file, monkeypatch):
    """What another platform of the same kind has got counts for nothing; a sink that cannot be used deletes nothing."""
    run = run_of(on_record("runs", "--json"), "harvest")["id"]
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        told = f"{run}@{journal.facts.last_seq(run)}"
        journal.deliveries.record("ivcap:https://old.example.org", told, "delivered", run_id=run)
    assert on_record("runs", "prune", "--older-than-days", 0).status == 0
    assert [each["id"] for each in on_record("runs", "--json").json].count(run) == 1
    with monkeypatch.context() as away:
        away.setenv("IVCAP_FLOWS_SINKS", "provena:/no/such/workflows.yaml")
        said = on_record("runs", "prune", "--older-than-days", 0)
        assert said.status == 2 and "/no/such/workflows.yaml" in said.err
    on_record("sync")
    on_record("runs", "prune", "--older-than-days", 0)
    assert [each["id"] for each in on_record("runs", "--json").json].count(run) == 0


@pytest.fixture
def parked(on_record, journal_file, prefect_settings):
    """The journal's row of a run that is parked, in Prefect, too."""
    with temporary_settings(prefect_settings), get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(harvest, name="swift-owl", state=Scheduled(name="Parked"))
        with Journal.open(f"sqlite:///{journal_file}") as journal:
            identity = RunIdentity("harvest", "f.py:harvest", {}, str(flow_run.id), str(flow_run.id), deployed=True)
            opened, now = journal.runs.open_attempt(identity), journal.now()
            waits = [Wait(f"urn:ivcap:order:{n}", "order", "urn:ivcap:service:s", n) for n in ("north", "south")]
            journal.parks.note(opened.attempt.id, Park(1, "p", None, tuple(waits), now, now + timedelta(hours=1)))
            journal.runs.close_attempt(opened.attempt.id, "parked")
        yield opened.run


def state_of(flow_run):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run)).state.name


def test_a_parked_run_is_given_up_only_with_consent(on_record, parked, monkeypatch):
    """What will happen is said first; without a terminal to ask on, `--yes` is needed. Then it does not wake."""
    said = on_record("runs", "abandon", parked.id)
    assert said.status == 2 and "--yes" in said.err
    assert "is parked: it waits for 2 orders (north, south) and wakes at" in said.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    said = on_record("runs", "abandon", parked.id)
    assert said.status == 1 and f"cancels its flow run {parked.id} in Prefect" in said.out
    assert state_of(parked.id) == "Parked" and on_record("runs", "--json").json[0]["outcome"] == "parked"
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        said = on_record("runs", "abandon", parked.id, "--yes")
    assert said.status == 1 and "Nothing was changed" in said.err
    assert on_record("runs", "--json").json[0]["outcome"] == "parked"
    assert on_record("runs", "abandon", parked.id, "--yes").status == 0
    assert state_of(parked.id) == "Cancelled" and on_record("runs", "--json").json[0]["outcome"] == "abandoned"


def test_a_running_run_is_given_up_only_with_consent(on_record, journal_file):
    """Its process goes on, and nothing continues the run after it."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "r", "r"))
        said = on_record("runs", "abandon", "r")
        assert said.status == 2 and f"is running in process {os.getpid()}" in said.err and "--yes" in said.err
        assert on_record("runs", "abandon", "r", "--yes").status == 0
        journal.runs.close_attempt(opened.attempt.id, "failed")
        assert journal.runs.get("r").outcome == "abandoned"
        assert journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "s", "s")).run.id == "s"


def test_a_completed_run_is_not_given_up(on_record):
    """There is nothing to continue; the error names the run."""
    run = run_of(on_record("runs", "--json"), "harvest")["id"]
    said = on_record("runs", "abandon", run)
    assert said.status != 0 and run in said.err and "completed" in said.err
