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
from ivcap_flows.cli import output
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.provenance import entity
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import request_job, wait_for_jobs


def run_of(command, flow_name):
    return next(run for run in command("runs", "--json").json if run["flow_name"] == flow_name)


LISTED = {
    "newest first, by the end of their ids": """
$ runs
Runs
run flow outcome attempts begun (…) flow run
{interrupted} interrupted lost 1 …
{spoiled} spoiled failed 1 …
{harvest} harvest completed 1 …
""",
    "only the newest": """
$ runs --limit 2
Runs
run …
{interrupted} …
{spoiled} …
""",
    "only those of a flow": """
$ runs --flow spoiled
Runs
run …
{spoiled} …
$ runs --flow nothing
Runs: none
""",
}
"""A killed run is lost though nobody has written that down. The beginnings of the ids are the same minute."""


@pytest.mark.parametrize("runs", LISTED)
def test_runs_are_listed(on_record, transcript, runs):
    transcript(on_record, LISTED[runs])


def test_a_list_of_runs_names_their_flow_runs(on_record):
    runs, out = on_record("runs", "--json").json, on_record("runs").out
    assert [run["attempts"] for run in runs] == [1, 1, 1] and all(run["flow_run_name"] in out for run in runs)


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


SHOWN = {
    "lost, with an order that is accepted and one in doubt": """
$ show latest
run …{interrupted} interrupted lost (…/recorded_flows.py:interrupted)
message = '…'
…
Attempts
no. outcome begun (…) flow run id process
1 lost …
Task runs
…
Requests to the platforms
what of state how urn asked (…) key given
order echo done sent {echo} … {accepted} message=…
order echo in doubt UnreachableError: … {doubt} message=… again
Inputs: none
Outputs: none
Intermediate results: none
""",
    "failed, with the cause": """
$ show spoiled
run …{spoiled} spoiled failed (…)
…
Attempts
no. outcome begun (…) ended (…) flow run id process cause
1 failed … OrderFailedError: …
Task runs
…
Requests to the platforms
what of state how urn asked (…) key given
order fail failed sent …
…
""",
    "whole, without the folder among the inputs": """
$ show harvest
run …{harvest} harvest completed (…/recorded_flows.py:harvest)
note = '[bold]x[/y] :fire:'
source = '{source}'
folder = …
software ivcap-flows
…
code recorded_flows.py, commit …, Python 3.… on …, … packages
…
Attempts
no. outcome begun (…) ended (…) flow run id process
1 completed …
Task runs
name outcome begun (…) ended (…)
upload series.csv completed …
…
Requests to the platforms
what of state how urn asked (…) key given
upload series.csv done sent {series} …
order cli-upper succeeded sent {order} … series={series}
registry item Example done sent …
dataset upper.csv done sent {dataset} …
Inputs
type name sha256 id
file {source} …
Outputs
type name sha256 id
file {downloaded} …
…
dataset upper.csv {dataset}
…
Intermediate results
type name sha256 id
artifact series.csv … {series}
artifact upper.csv {product}
""",
}
"""What is shown of a run, in words. No line is cut, and brackets in a parameter are no markup."""


@pytest.mark.parametrize("run", SHOWN)
def test_a_run_is_shown(on_record, transcript, world, run):
    transcript(on_record, SHOWN[run], source=world.source, downloaded=world.downloaded)


def test_code_of_a_flow_and_a_subflow_in_one_file_is_told_once(own_record, journal):
    run = journal.runs.get("spoiled").id
    codes = [entity(f"urn:ivcap-flows:code:{name}", "code", name=name, file="both.py") for name in ("outer", "inner")]
    journal.facts.append([Fact(code, run) for code in codes])
    assert own_record("show", run).out.count("code both.py, under no version control") == 1


def test_programs_get_all_but_what_is_the_journals_own(on_record, world):
    """As JSON."""
    shown = on_record("show", "harvest", "--json").json
    assert shown.keys() == {
        *("run", "attempts", "task_runs", "effects", "jobs", "inputs", "outputs", "intermediates", "deliveries")
    }
    [attempt] = shown["attempts"]
    assert attempt["process"]["pid"] > 0 and attempt["ended_at"]
    order = next(effect for effect in shown["effects"] if effect["noun"] == "order")
    assert order["request"]["parameters"] and order["outcome"]["urn"] == world.made["order"]
    assert not order.keys() & {"token", "fence", "process_id"}


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


def test_missing_facts_are_told(own_record, transcript, journal):
    journal.runs.count_missing(journal.runs.get("spoiled").id, 3)
    told = """
$ runs --flow spoiled
Runs
run flow outcome attempts begun (…) flow run record
{spoiled} … 3 facts missing
$ show spoiled
run …
The record is incomplete: 3 facts could not be written.
…
"""
    transcript(own_record, told)


SERVICE = """
def run(request, job):
    job.event("step", message="half [way]\\nthere")
    job.add_product("told.txt", request["message"].encode(), "text/plain")
    return {"said": request["message"], "more": "x" * 500}
"""


@flow(name="asking")
@recorded
def asking(message):
    jobs = [request_job("cli-told", {"message": message}), request_job("fail", {"message": message})]
    return wait_for_jobs(jobs, raise_on_failure=False, events=True)


def test_a_run_shows_what_its_jobs_came_to(serve, ivcap_flows, transcript, prefect_api, ivcap_journal):
    """Result, products and events of each; the error of the one that failed. As JSON the result is whole."""
    serve("cli-told", SERVICE, [{"name": "message", "type": "string"}])
    said = uuid.uuid4().hex
    told, failed = asking(said)
    shown = """
$ show latest
…
{told} cli-told succeeded
result {"said": "{said}", "more": "xx…x…
product told.txt {product}
event 20… step half [way] there
…
$ show latest
…
{failed} fail failed
error …{said}…
…
"""
    transcript(ivcap_flows, shown, told=told.urn, failed=failed.urn, said=said, product=told.products[0].urn)
    assert all(len(line) < 200 for line in ivcap_flows("show", "latest").out.splitlines() if "  result  " in line)
    jobs = {job["urn"]: job for job in ivcap_flows("show", "latest", "--json").json["jobs"]}
    assert jobs.keys() == {told.urn, failed.urn} and jobs[failed.urn]["result"] is None
    assert jobs[told.urn]["result"] == told.result and jobs[told.urn]["events"][0]["message"] == "half [way]\nthere"


GIVEN_UP = {
    "with an order in doubt, which keeps it on record": """
$ runs abandon {interrupted}
The run {interrupted} of interrupted is given up: … order {accepted}, order {doubt}; see `ivcap-flows orders --orphans`.
$ runs prune --older-than-days 0
…
$ runs --flow interrupted
Runs
run …
{interrupted} interrupted abandoned …
""",
    "with nothing in doubt, and pruned": """
$ runs abandon {spoiled}
The run {spoiled} of spoiled is given up: it is not continued, and may be pruned.
$ runs --flow spoiled
Runs
run …
{spoiled} spoiled abandoned …
$ runs prune --older-than-days 0
…
$ runs --flow spoiled
Runs: none
""",
}


@pytest.mark.parametrize("run", GIVEN_UP)
def test_a_run_is_given_up(own_record, transcript, run):
    transcript(own_record, GIVEN_UP[run])


def test_that_a_run_is_given_up_is_in_its_record(own_record, journal):
    """So that traces show it and sinks deliver it. The run failed when it did."""
    run = journal.runs.get("spoiled").id

    def in_record():
        return run_graph(journal, run).nodes[flows_urn("run", run)]

    failed = in_record()
    own_record("runs", "abandon", "spoiled")
    now = in_record()
    assert (failed.attributes["outcome"], now.attributes["outcome"]) == ("failed", "abandoned")
    assert now.attributes["cause"] == "Given up by the user."
    assert timedelta() <= now.ended - failed.ended < timedelta(seconds=1)


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


def test_a_running_run_is_given_up_only_with_consent_and_a_completed_one_not_at_all(own_record, transcript, journal):
    """The process goes on, and nothing continues the run after it."""
    opened = journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "r", "r"))
    given_up = """
$ runs abandon r
InputError: … is running in process {process}… --yes.
[2]
$ runs abandon r --yes
…
The run r of harvest is given up: …
$ runs abandon {harvest}
… {harvest} … completed …
[1]
"""
    transcript(own_record, given_up, process=os.getpid())
    journal.runs.close_attempt(opened.attempt.id, "failed")
    assert journal.runs.get("r").outcome == "abandoned"
    assert journal.runs.open_attempt(RunIdentity("harvest", "f.py:harvest", {}, "s", "s")).run.id == "s"


def test_a_background_task_is_named_as_one(own_record, transcript, journal):
    """No command runs it, and nothing in Prefect retries it by a click."""
    background = RunIdentity("asks", "questions.py:asks", {}, "b", "b", deployed=True)
    journal.runs.close_attempt(journal.runs.open_attempt(background).attempt.id, "failed")
    said = """
$ runs --flow asks
Runs
run flow outcome attempts begun (…)
b asks (background task) failed 1 …
$ show b
run b asks failed (background task, questions.py:asks)
…
$ rerun b
InputError: … background task asks, which no command runs. Send it anew, by `asks.delay(...)`, to a task worker …
[2]
$ runs abandon b
The run b of asks is given up: … Its task run, delivered again, would continue it all the same.
"""
    transcript(own_record, said)
