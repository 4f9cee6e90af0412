"""What others named or said does nothing to the terminal that shows it."""

from __future__ import annotations

import json

import pytest

from ivcap_flows.cli import output
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity
from ivcap_flows.provenance import activity, entity, relation

NASTY = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202egpj.exe\u2066 end"
"""Sets a title, clears the screen, changes the colour, and turns letters round."""


@pytest.fixture
def nasty_run(journal_file):
    """A run, an order and its result that are named so."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity(f"flow {NASTY}", "/a.py:f", {"given": NASTY}, "r", "r"))
        asked = {"platform": "p", "account": "a", "scope": "s", "request": {}, "subject": NASTY, "name": NASTY}
        journal.intents.claim(NewIntent(key="k1:1", base_key="k1:1", noun="order", run_id="r", **asked))
        records = [activity("urn:x:order", "order", name=NASTY), entity("urn:x:file", "file", path=NASTY)]
        records.append(relation("wasGeneratedBy", "urn:x:file", "urn:x:order"))
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
        journal.runs.close_attempt(opened.attempt.id, "failed", NASTY)
    return opened.run.id


def commands_in(text):
    return sorted({character for character in text if ord(character) in output._CONTROL_CHARACTERS})


@pytest.mark.parametrize("words", ["runs", "show r", "orders", "trace urn:x:file", "diff r r"])
def test_no_text_commands_the_terminal(ivcap_flows, nasty_run, words):
    """In no table or line, and in JSON they are escaped, so that a program reads the very name."""
    arguments = words.split()
    said = ivcap_flows(*arguments)
    assert said.status == 0 and commands_in(said.out + said.err) == []
    if arguments[0] != "diff":
        assert "title" in said.out
    said = ivcap_flows(*arguments, "--json")
    assert commands_in(said.out) == [] and json.loads(said.out) is not None
    if arguments[0] == "runs":
        assert json.loads(said.out)[0]["flow_name"] == f"flow {NASTY}"


def test_an_error_commands_the_terminal_as_little(ivcap_flows, nasty_run):
    """It quotes what was asked for."""
    said = ivcap_flows("show", NASTY)
    assert said.status == 2 and commands_in(said.out + said.err) == [] and "title" in said.err
