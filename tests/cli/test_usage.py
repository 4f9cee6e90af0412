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


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["show"],
        ["show", "a", "b"],
        ["runs", "--limit", "many"],
        ["runs", "--limit", "-3"],
        ["runs", "--bogus"],
        ["export"],
        ["plan"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_in_one_line(ivcap_flows, arguments):
    """The line says where the usage is."""
    said = ivcap_flows(*arguments)
    assert said.status == 2 and "--help` says how it is used" in said.err


def test_a_setting_that_cannot_be_understood_is_named(ivcap_flows, monkeypatch):
    """Without its value, which may be a secret."""
    assert ivcap_flows("--version").out.strip() == package.__version__
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "plenty")
    said = ivcap_flows("runs")
    assert said.status == 1 and said.err.startswith("ConfigurationError: ") and "IVCAP_FLOWS_MAX_ORDERS" in said.err
    assert "plenty" not in said.err


@pytest.mark.long
def test_a_journal_that_cannot_be_read_is_named(ivcap_flows, journal_file):
    """Exit status 1, with the next step."""
    journal_file.write_bytes(b"no database " * 100)
    environment = {**os.environ, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{journal_file}"}
    command = [sys.executable, "-m", "ivcap_flows.cli", "runs"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"JournalError: [^\n]*{journal_file}[^\n]+\n", ended.stderr)


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


@pytest.mark.parametrize(
    "words", ["models validate -rows.csv", "local register --x.yaml", "models register rows.csv --out -out.csv"]
)
def test_a_name_with_a_leading_dash_is_no_option(ivcap_flows, tmp_path, monkeypatch, words):
    """The error says how such a name is written; a plain mistake in an option is told without that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "--x.yaml").touch()
    name = words.split()[-1]
    said = ivcap_flows(*words.split())
    assert said.status == 2 and f"`./{name}`" in said.err and "`--`" in said.err
    assert "`./" not in ivcap_flows("runs", "--bogus").err


def test_commands_that_do_not_need_prefect_do_not_import_it():
    """It takes longer to import than most of them run."""
    code = "import sys, ivcap_flows.cli; print([m for m in ('prefect', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_not_there_is_not_made(ivcap_flows, journal_file):
    """A command that reads says that the journal is not there; another would say that it is empty."""
    for command in (["runs"], ["verify", "latest"], ["orders"], ["sync"]):
        said = ivcap_flows(*command)
        assert said.status == 2 and f"There is no journal sqlite:///{journal_file}" in said.err
    assert "There is no file nope." in ivcap_flows("verify", "nope").err
    assert not journal_file.exists()


def test_what_is_no_run_and_no_file_is_named_for_what_it_looks_like(on_record):
    """A path, an id, and a name with a byte that is no UTF-8, as the command line decodes it."""
    for path in ("data/nope.csv", "nope.csv", "data/nope"):
        for command in ("verify", "trace"):
            said = on_record(command, path)
            assert said.status == 2 and f"There is no file {path}" in said.err
    said = on_record("trace", "102.100.100/1")
    assert said.status == 2 and "knows 102.100.100/1" in said.err
    for command in ("show", "trace", "verify", "rerun"):
        said = on_record(command, "Mu\udcf1oz")
        assert said.status == 2 and "half a surrogate pair" in said.err


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
