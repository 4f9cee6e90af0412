"""`ivcap-flows journal move`: what it prints, and that a run which the journal has continues at the new place."""

import re
import shlex

import psycopg
import pytest

from ivcap_flows.errors import InputError
from ivcap_flows.journal import Journal, RunIdentity, schema
from ivcap_flows.notebook import trace

TABLES = [table.name for table in schema.metadata.sorted_tables if table.name not in ("journal_info", "redaction_keys")]


@pytest.fixture
def new_url(postgresql_server):
    """The URL of an empty database."""
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS moved_to")
        connection.execute("CREATE DATABASE moved_to")
    return postgresql_server.format("moved_to")


@pytest.fixture
def old_url(tmp_path):
    """The URL of a journal without content."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    Journal.open(url).close()
    return url


def test_a_journal_moves_there_and_back(ivcap_flows, old_url, new_url, tmp_path, monkeypatch):
    """The rows of each table are printed, or are JSON. A command on the old place says where the journal is."""
    with Journal.open(old_url) as journal:
        opened = journal.runs.open_attempt(RunIdentity("monthly", "f.py:monthly", {}, "1", "1"))
        journal.runs.close_attempt(opened.attempt.id, "completed")
    told = ivcap_flows("journal", "move", old_url, new_url)
    assert told.status == 0, told
    lines = [line.split() for line in told.out.splitlines()]
    assert {line[0]: line[1] for line in lines if line[0] in TABLES} == {
        name: "1" if name in ("processes", "runs", "attempts") else "0" for name in TABLES
    }
    assert f"{old_url} is closed. Name the new place in IVCAP_FLOWS_JOURNAL" in told.out
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", old_url)
    for command in (("runs",), ("doctor",)):
        refused = ivcap_flows(*command)
        assert refused.status == 1 and "was moved to postgresql://" in refused.out + refused.err
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", new_url)
    assert "monthly" in ivcap_flows("runs").out
    back = f"sqlite:///{tmp_path / 'back.sqlite'}"
    told = ivcap_flows("journal", "move", new_url, back, "--json")
    assert told.status == 0, told
    assert told.json["target"] == back and told.json["rows"] | {"runs": 1} == told.json["rows"]
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", back)
    assert "monthly" in ivcap_flows("runs").out


def test_a_journal_whose_name_ends_with_a_blank_moves_to_the_name_that_settings_give(
    ivcap_flows, tmp_path, monkeypatch
):
    """The command of the refusal is the next step."""
    there = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    with Journal.open(f"{there} ") as journal:
        opened = journal.runs.open_attempt(RunIdentity("monthly", "f.py:monthly", {}, "1", "1"))
        journal.runs.close_attempt(opened.attempt.id, "completed")
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"{there} ")
    refused = ivcap_flows("runs")
    step = re.search("`ivcap-flows (journal move .*)`", refused.err)
    assert refused.status == 1 and step is not None
    assert ivcap_flows(*shlex.split(step[1])).status == 0
    assert "monthly" in ivcap_flows("runs").out


REFUSED = """
$ journal move {gone} {there}
InputError: There is no journal …
[2]
$ journal move {old} {there}
InputError: … is not empty…
[2]
"""


def test_what_is_refused(ivcap_flows, transcript, old_url, tmp_path):
    """In one line with the next step; wrong values have exit status 2."""
    there, gone = f"sqlite:///{tmp_path / 'there.sqlite'}", f"sqlite:///{tmp_path / 'gone.sqlite'}"
    Journal.open(there).close()
    transcript(ivcap_flows, REFUSED, gone=gone, there=there, old=old_url)
    assert not (tmp_path / "gone.sqlite").exists()
    with Journal.open(old_url) as journal:
        journal.runs.open_attempt(RunIdentity("monthly", "f.py:monthly", {}, "1", "1"))
        transcript(ivcap_flows, f"$ journal move {old_url} {gone}\n… Start the command again when it has ended…\n[1]")
    assert not (tmp_path / "gone.sqlite").exists()


READING = (
    "runs",
    "show latest",
    "doctor",
    "trace latest",
    "models validate {rows}",
    "models resolve {rows}",
    "plan {flow}",
)

PLANNED = """
from prefect import flow

from ivcap_flows.tasks.ivcap import place_order

@flow
def asks():
    place_order("echo", {"message": "planned"})
"""


@pytest.mark.catches("a reader makes the journal")
def test_a_command_that_only_reads_makes_no_journal(ivcap_flows, old_url, new_url, tmp_path, monkeypatch):
    """A database on a server is as empty afterwards as before, so a journal can be moved into it."""
    rows, flow = tmp_path / "rows.jsonl", tmp_path / "planned.py"
    rows.write_text("{}\n")
    flow.write_text(PLANNED)
    place = tmp_path / "none.sqlite"
    for url in (f"sqlite:///{place}", new_url):
        monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", url)
        for words in READING:
            said = ivcap_flows(*words.format(rows=rows, flow=f"{flow}:asks").split())
            assert "Traceback" not in said.err and ("order" in said.out or not words.startswith("plan")), said
            assert words != "doctor" or "does not exist yet" in said.out, said
        with pytest.raises(InputError, match="No run in the journal .*(none.sqlite|moved_to.*) knows urn:x"):
            trace("urn:x")
    assert not place.exists()
    assert ivcap_flows("journal", "move", old_url, new_url).status == 0
