"""`runs` and `show`: what is on record, in words and as JSON."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from ivcap_flows import recorded
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import output
from ivcap_flows.identity import short_id
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.local.services.register import register
from ivcap_flows.tasks import request_job, wait_for_jobs


def run_of(command, flow_name):
    return next(run for run in command("runs", "--json").json if run["flow_name"] == flow_name)


def test_runs_are_listed_newest_first_and_can_be_narrowed(on_record):
    """A killed one is lost though nobody has written that down. The column that names them has the end of their ids,
    since the beginnings are the same minute."""
    runs = on_record("runs", "--json").json
    listed = [("interrupted", "lost", 1), ("spoiled", "failed", 1), ("harvest", "completed", 1)]
    assert [(run["flow_name"], run["outcome"], run["attempts"]) for run in runs] == listed
    _title, columns, *rows = on_record("runs").out.splitlines()
    assert columns.split()[:3] == ["run", "flow", "outcome"]
    assert [row.split()[:3] for row in rows] == [[run["id"][-8:], run["flow_name"], run["outcome"]] for run in runs]
    assert all(run["flow_run_name"] in row for run, row in zip(runs, rows, strict=True))
    assert on_record("runs", "--limit", 2, "--json").json == runs[:2]
    assert on_record("runs", "--flow", "spoiled", "--json").json == runs[1:2]
    assert on_record("runs", "--flow", "nothing").out == "Runs: none\n"


@pytest.mark.parametrize(("zone", "shown", "hours"), [("UTC", "UTC", 0), ("Australia/Brisbane", "UTC+10:00", 10)])
def test_times_have_their_zone(on_record, monkeypatch, zone, shown, hours):
    """It is named once a table, and the times are in it."""
    begun = datetime.fromisoformat(on_record("runs", "--json").json[0]["created_at"])
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        output.zone.cache_clear()
        said = on_record("runs").out
    time.tzset()
    output.zone.cache_clear()
    assert f"begun ({shown})" in said
    assert f"{begun.astimezone(timezone(timedelta(hours=hours))):%Y-%m-%d %H:%M:%S}" in said


def on_terminal(columns, *arguments):
    """What a command prints on a real terminal of this width."""
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


def test_a_terminal_shows_outcomes_in_colour_and_tables_that_fit(on_record, monkeypatch):
    """Nothing is cut: what is too long for its column goes on below."""
    run = run_of(on_record, "harvest")
    listed = on_terminal(80, "runs")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    shown = on_record("show", "harvest").out
    assert "\x1b[32mcompleted" in listed and "\x1b[31mfailed" in listed
    for said, columns in ((listed, 80), (shown, 100)):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        tables = plain[plain.index("Attempts") :] if "Attempts" in plain else plain
        assert max(map(len, tables.splitlines())) <= columns
    assert run["id"][-8:] in listed
    assert len(on_record("orders", "--full").out.splitlines()) < len(on_record("orders").out.splitlines())


def test_a_lost_and_a_failed_run_name_their_causes(on_record):
    """Of the lost one, an order is accepted, the other in doubt, and named by the key that `orders resolve` takes."""
    lost = on_record("show", "latest", "--json").json
    assert (lost["run"]["flow_name"], lost["run"]["outcome"]) == ("interrupted", "lost")
    assert [(a["number"], a["outcome"]) for a in lost["attempts"]] == [(1, "lost")]
    requests = [(e["noun"], e["subject"], e["state"]) for e in lost["effects"]]
    assert requests == [("order", "echo", "done"), ("order", "echo", "sent")]
    doubt = lost["effects"][1]
    assert doubt["urn"] is None and "UnreachableError" in doubt["error"]
    assert short_id(doubt["key"]) in on_record("show", "latest").out

    failed = on_record("show", "spoiled", "--json").json
    causes = [(a["outcome"], a["cause"].partition(":")[0]) for a in failed["attempts"]]
    assert causes == [("failed", "OrderFailedError")]
    assert [(e["state"], e["status"]) for e in failed["effects"]] == [("done", "failed")]
    row = next(line for line in on_record("show", "spoiled").out.splitlines() if "OrderFailedError" in line)
    assert row.split()[:2] == ["1", "failed"] and failed["run"]["parameters"]["message"] in row


def test_the_whole_of_a_run_is_shown(on_record, world):
    """Parameters, process, code, requests, URNs, inputs and outputs with their sha256; nothing of the journal's own
    guard. As text no line is cut, and brackets in a parameter are no markup."""
    shown = on_record("show", "harvest", "--json").json
    assert shown.keys() == {
        *("run", "attempts", "task_runs", "effects", "jobs", "inputs", "outputs", "intermediates", "deliveries")
    }
    assert shown["run"]["parameters"]["source"] == str(world.source)
    assert shown["attempts"][0]["process"]["pid"] > 0 and shown["attempts"][0]["ended_at"]
    effects = {effect["noun"]: effect for effect in shown["effects"]}
    assert effects.keys() == {"upload", "order", "registry item", "dataset"}
    order = effects["order"]
    assert (order["urn"], order["status"]) == (world.made["order"], "succeeded")
    assert order["request"]["parameters"] and order["outcome"]["urn"] == world.made["order"]
    assert not order.keys() & {"token", "fence", "process_id"}
    # The folder that it writes into is no input.
    [source] = shown["inputs"]
    assert source["attributes"]["path"] == str(world.source) and len(source["attributes"]["sha256"]) == 64
    outputs, between = ({record["id"] for record in shown[name]} for name in ("outputs", "intermediates"))
    assert {world.made["series"], world.made["product"]} <= between and world.made["dataset"] in outputs
    assert str(world.downloaded) in [record["attributes"].get("path") for record in shown["outputs"]]

    out = on_record("show", "harvest").out
    assert all(urn in out for urn in world.made.values()) and "note = '[bold]x[/y] :fire:'" in out
    assert {"Attempts", "Requests to the platforms", "Inputs", "Outputs"} <= set(out.splitlines())
    code = next(line for line in out.splitlines() if line.startswith("  code "))
    assert "commit " in code and "Python 3." in code and " packages" in code
    assert "\n  software ivcap-flows" in out


@pytest.mark.long
def test_a_run_with_thousands_of_effects_is_shown_whole(own_record, journal_file):
    """Nothing is left out beyond a page."""
    run = run_of(own_record, "spoiled")["id"]
    with sqlite3.connect(journal_file) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(intents)")]
        others = ", ".join(name for name in columns if name != "key")
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
            f"INSERT INTO intents (key, {others}) SELECT key || '.' || (i + 1), {others} FROM intents, n "
            "WHERE run_id = ?",
            (run,),
        )
    assert len(own_record("show", run, "--json").json["effects"]) == 1201
    assert len(own_record("orders", "--run", run, "--json").json) == 1201


def test_missing_facts_are_told(own_record, journal):
    run = run_of(own_record, "spoiled")["id"]
    journal.runs.count_missing(run, 3)
    assert "3 facts missing" in own_record("runs").out
    assert "3 facts could not be written" in own_record("show", run).out


SERVICE = """
def told(request, job):
    job.event("step", message="half [way]\\nthere")
    job.add_product("told.txt", request["message"].encode(), "text/plain")
    return {"said": request["message"], "more": "x" * 500}
"""


@flow(name="asking")
@recorded
def asking(message):
    jobs = [request_job("cli-told", {"message": message}), request_job("fail", {"message": message})]
    return wait_for_jobs(jobs, raise_on_failure=False, events=True)


def test_a_run_shows_what_its_jobs_came_to(_embedded, ivcap_flows, prefect_api, journal_file, tmp_path):  # noqa: PT019
    """Result, products and events of each; the error of the one that failed. As JSON the result is whole."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "services_of_show_jobs.py").write_text(SERVICE)
    parameters = [{"name": "message", "type": "string"}]
    definition = {"name": "cli-told", "entry": "services_of_show_jobs:told", "parameters": parameters}
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, tmp_path / "services.yaml")
    said = uuid.uuid4().hex
    with Journal.open(f"sqlite:///{journal_file}") as journal, use_journal(journal):
        told, failed = asking(said)

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


@pytest.mark.parametrize(("flow_name", "left"), [("interrupted", 1), ("spoiled", 0)])
def test_a_run_is_given_up(own_record, flow_name, left, journal):
    """It is listed and delivered so, and may be pruned, unless something of it is in doubt: that is named."""
    run = run_of(own_record, flow_name)["id"]
    said = own_record("runs", "abandon", run[-8:])
    assert said.status == 0 and said.out.startswith(f"The run {run[-8:]} of {flow_name} is given up")
    assert said.out.count("orders --orphans") == left
    assert run_of(own_record, flow_name)["outcome"] == "abandoned"
    *_, told = (f.record for f in journal.facts.of_run(run) if f.record.type == "flow-run")
    assert told.attributes["outcome"] == "abandoned"
    own_record("runs", "prune", "--older-than-days", 0)
    assert [each["id"] for each in own_record("runs", "--json").json].count(run) == left


def test_prune_keeps_what_a_sink_that_was_set_anew_lacks(own_record, monkeypatch, journal):
    """What another platform of the same kind has got counts for nothing; a sink that cannot be used deletes nothing."""
    run = run_of(own_record, "harvest")["id"]
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap")
    told = f"{run}@{journal.facts.last_seq(run)}"
    journal.deliveries.record("ivcap:https://old.example.org", told, "delivered", run_id=run)
    prune = ("runs", "prune", "--older-than-days", 0)
    assert own_record(*prune).status == 0
    assert run in [each["id"] for each in own_record("runs", "--json").json]
    with monkeypatch.context() as away:
        away.setenv("IVCAP_FLOWS_SINKS", "provena:/no/such/workflows.yaml")
        said = own_record(*prune)
        assert said.status == 2 and "/no/such/workflows.yaml" in said.err
    own_record("sync")
    own_record(*prune)
    assert run not in [each["id"] for each in own_record("runs", "--json").json]


def test_a_parked_run_is_given_up_only_with_consent(own_record, journal_file, prefect_api, monkeypatch):
    """What will happen is said first; without a terminal to ask on, `--yes` is needed. Then it does not wake."""
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(asking, name="swift-owl", state=Scheduled(name="Parked"))
        with Journal.open(f"sqlite:///{journal_file}") as journal:
            identity = RunIdentity("harvest", "f.py:harvest", {}, str(flow_run.id), str(flow_run.id), deployed=True)
            opened, now = journal.runs.open_attempt(identity), journal.now()
            waits = [Wait(f"urn:ivcap:order:{n}", "order", "urn:ivcap:service:s", n) for n in ("north", "south")]
            journal.parks.note(
                opened.attempt.id, Park(1, "p", "ada", None, tuple(waits), now, now + timedelta(hours=1))
            )
            journal.runs.close_attempt(opened.attempt.id, "parked")
        run = opened.run.id

        def standing():
            return client.read_flow_run(UUID(run)).state.name, own_record("runs", "--json").json[0]["outcome"]

        said = own_record("runs", "abandon", run)
        assert said.status == 2 and "--yes" in said.err
        assert "is parked: it waits for 2 orders (north, south) and wakes at" in said.err
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question: "n")
        said = own_record("runs", "abandon", run)
        assert said.status == 1 and f"cancels its flow run {run} in Prefect" in said.out
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            said = own_record("runs", "abandon", run, "--yes")
        assert said.status == 1 and "Nothing was changed" in said.err
        assert standing() == ("Parked", "parked")
        assert own_record("runs", "abandon", run, "--yes").status == 0
        assert standing() == ("Cancelled", "abandoned")


def test_a_running_run_is_given_up_only_with_consent_and_a_completed_one_not_at_all(own_record, journal):
    """The process goes on, and nothing continues the run after it."""
    opened = journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "r", "r"))
    said = own_record("runs", "abandon", "r")
    assert said.status == 2 and f"is running in process {os.getpid()}" in said.err and "--yes" in said.err
    assert own_record("runs", "abandon", "r", "--yes").status == 0
    journal.runs.close_attempt(opened.attempt.id, "failed")
    assert journal.runs.get("r").outcome == "abandoned"
    assert journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "s", "s")).run.id == "s"
    completed = next(run["id"] for run in own_record("runs", "--json").json if run["outcome"] == "completed")
    said = own_record("runs", "abandon", completed)
    assert said.status != 0 and completed in said.err and "completed" in said.err
