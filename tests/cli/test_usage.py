"""How the command line is used, and what it says when it is used wrongly."""

import io
import os
import re
import subprocess
import sys

import pytest

import ivcap_flows as package
from ivcap_flows.cli import main
from ivcap_flows.cli.app import app
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity
from ivcap_flows.plain_text import CONTROL_CHARACTERS
from ivcap_flows.provenance import activity, entity, relation


def commands(command=app, words=()):
    """Yield the words of each command, the application's none first."""
    yield words
    for name in command:
        if not name.startswith("-"):
            yield from commands(command[name], (*words, name))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help(ivcap_flows, command):
    """It names the command and its options."""
    said = ivcap_flows(*command, "--help")
    assert said.status == 0 and said.out.startswith(" ".join(["Usage: ivcap-flows", *command]))
    assert "--no-" not in said.out and "--empty-" not in said.out
    words = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", said.out))
    assert words <= {"IvcapCredentials", "ProvenaCredentials", "PostgreSQL"}, (
        "classes of the code mean nothing to a user, blocks in Prefect do"
    )


def test_the_version(ivcap_flows):
    assert ivcap_flows("--version").out == f"{package.__version__}\n"


@pytest.mark.long
def test_a_pipe_gets_whole_lines_without_colours(on_record, world):
    """Whatever the width of the terminal; and a reader that leaves early is no error."""
    command = f"{sys.executable} -m ivcap_flows.cli trace {world.made['product']}"
    environment = {**os.environ, "COLUMNS": "40"}
    whole = subprocess.run(command.split(), env=environment, capture_output=True, text=True, timeout=60)
    assert whole.returncode == 0 and whole.stdout == on_record("trace", world.made["product"]).out
    assert "\x1b" not in whole.stdout and all(urn in whole.stdout for urn in list(world.made.values()))
    piped = ["bash", "-o", "pipefail", "-c", f"{command} | true"]
    early = subprocess.run(piped, env=environment, capture_output=True, text=True, timeout=60)
    assert (early.returncode, early.stderr) == (0, "")


@pytest.fixture
def run_of_an_umlaut(journal_file):
    """A run whose flow has a name that ASCII lacks, and one that is running."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("h\u00e4rvest", "/a.py:f", {}, "r", "r"))
        journal.runs.close_attempt(opened.attempt.id, "completed")
        journal.runs.open_attempt(RunIdentity("running", "/a.py:f", {}, "q", "q"))
        yield


def ended(monkeypatch, command, **streams):
    """The status of a command whose standard streams are other ones; None is a closed one."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as raised:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        main(command.split())
    return raised.value.code


def test_output_that_goes_nowhere(run_of_an_umlaut, monkeypatch, capsys):
    """A closed stream is one that nobody reads, and a full disk is told in one line; nothing ends in a traceback."""
    with open("/dev/full", "w") as first, open("/dev/full", "w") as second, open("/dev/full", "w") as third:
        full = "OSError: Standard output cannot be written: No space left on device."
        for command, streams, status, err in (
            ("runs", {"stdout": None}, 0, ""),
            ("runs abandon q", {"stdin": None}, 2, "InputError: "),
            ("show nope", {"stderr": first}, 2, ""),
            # A program reads the output, so that no error is written there.
            ("show nope", {"stderr": None}, 2, ""),
            ("runs", {"stdout": second}, 1, full),
            ("runs --json", {"stdout": third}, 1, full),
        ):
            assert ended(monkeypatch, command, **streams) == status, command
            out, told = capsys.readouterr()
            assert out == "" and told.startswith(err) and told.count("\n") == bool(err), command


@pytest.mark.long
def test_a_full_disk_is_no_error_of_the_interpreter(run_of_an_umlaut):
    """Which flushes its streams when it ends."""
    command = f"{sys.executable} -m ivcap_flows.cli runs >/dev/full"
    said = subprocess.run(command, shell=True, env={**os.environ}, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1 and re.fullmatch("OSError: Standard output cannot be written[^\n]+\n", said.stderr)


@pytest.mark.parametrize("command", ["runs", "runs --json", "export r"])
def test_output_in_ascii(run_of_an_umlaut, monkeypatch, command):
    """A text is printed with escapes; a document, such as JSON, is UTF-8 everywhere."""
    printed = {}
    for encoding in ("ascii", "utf-8"):
        written = io.BytesIO()
        assert ended(monkeypatch, command, stdout=io.TextIOWrapper(written, encoding=encoding)) == 0
        printed[encoding] = written.getvalue()
    if command == "runs":
        assert b"h\\xe4rvest" in printed["ascii"]
    else:
        assert printed["ascii"] == printed["utf-8"] != b""


def test_commands_that_do_not_need_prefect_do_not_import_it():
    """It takes longer to import than most of them run."""
    code = "import sys, ivcap_flows.cli; print([m for m in ('prefect', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NASTY = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202egpj.exe\u2066\u200f\u061c end"
"""Sets a title, clears the screen, changes the colour, and turns letters round."""


def test_no_text_commands_the_terminal(ivcap_flows, journal):
    """In no table, line or error, and in JSON it is escaped, so that a program reads the very name."""
    opened = journal.runs.open_attempt(RunIdentity(f"flow {NASTY}", "/a.py:f", {"given": NASTY}, "r", "r"))
    asked = {"platform": "p", "account": "a", "scope": "s", "request": {}, "subject": NASTY, "name": NASTY}
    journal.intents.claim(NewIntent(key="k1:1", base_key="k1:1", noun="order", run_id="r", **asked))
    records = [activity("urn:x:order", "order", name=NASTY), entity("urn:x:file", "file", path=NASTY)]
    records.append(relation("wasGeneratedBy", "urn:x:file", "urn:x:order"))
    journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    journal.runs.close_attempt(opened.attempt.id, "failed", NASTY)
    for words in (["runs"], ["show", "r"], ["orders"], ["trace", "urn:x:file"], ["diff", "r", "r"], ["show", NASTY]):
        said, in_json = ivcap_flows(*words), ivcap_flows(*words, "--json")
        told = said.out + said.err + in_json.out + in_json.err
        assert not {character for character in told if ord(character) in CONTROL_CHARACTERS}, words
        assert words[0] == "diff" or "title" in said.out + said.err
    assert ivcap_flows("runs", "--json").json[0]["flow_name"] == f"flow {NASTY}"
