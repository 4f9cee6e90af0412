"""How the command line is used, and what it says when it is used wrongly."""

import os
import re
import subprocess
import sys

import pytest

import ivcap_flows as package
from ivcap_flows.cli.app import app
from ivcap_flows.journal import Journal, RunIdentity


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
    assert words <= {"IvcapCredentials", "ProvenaCredentials"}, (
        "classes of the code mean nothing to a user, blocks in Prefect do"
    )


def test_the_version_is_told(ivcap_flows):
    """The package's own."""
    assert ivcap_flows("--version").out.strip() == package.__version__


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
    """Exit status 2 and one line on standard error, which says where the usage is."""
    said = ivcap_flows(*arguments)
    assert said.status == 2
    assert "--help` says how it is used" in said.err


def test_a_setting_that_cannot_be_understood_is_named(ivcap_flows, monkeypatch):
    """Without its value, which may be a secret."""
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


def shell(command, **environment):
    """Run a command line of the shell, in which `ivcap-flows` is the package's."""
    words = command.replace("ivcap-flows", f"{sys.executable} -m ivcap_flows.cli", 1)
    environment = {**os.environ, **environment}
    return subprocess.run(words, shell=True, env=environment, capture_output=True, timeout=60)


@pytest.fixture
def run_of_an_umlaut(journal_file):
    """A run whose flow has a name that ASCII lacks."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("h\u00e4rvest", "/a.py:f", {}, "r", "r"))
        journal.runs.close_attempt(opened.attempt.id, "completed")
        journal.runs.open_attempt(RunIdentity("running", "/a.py:f", {}, "q", "q"))
        yield {"IVCAP_FLOWS_JOURNAL": f"sqlite:///{journal_file}"}


@pytest.mark.parametrize(
    ("command", "status", "err"),
    [
        ("ivcap-flows runs >&-", 0, ""),
        ("ivcap-flows runs --json >&-", 0, ""),
        ("ivcap-flows --help >&-", 0, ""),
        ("ivcap-flows runs abandon q <&-", 2, "InputError: "),
        ("ivcap-flows show nope >&- 2>&-", 2, ""),
        ("ivcap-flows show nope 2>/dev/full", 2, ""),
        ("ivcap-flows runs >/dev/full", 1, "OSError: Standard output cannot be written: No space left on device.\n"),
        ("ivcap-flows runs --json >/dev/full", 1, "OSError: Standard output cannot be written: No space"),
        ("ivcap-flows --version >/dev/full", 1, "OSError: Standard output cannot be written: No space"),
    ],
)
def test_output_that_goes_nowhere(run_of_an_umlaut, command, status, err):
    """A closed stream is one that nobody reads, and a full disk is told in one line; nothing ends in a traceback."""
    said = shell(command, **run_of_an_umlaut)
    assert (said.returncode, said.stdout) == (status, b"") and said.stderr.decode().startswith(err)
    assert said.stderr.count(b"\n") == bool(err)


def test_an_error_is_not_written_to_standard_output(run_of_an_umlaut):
    """Where standard error is closed, since a program reads the output."""
    assert (shell("ivcap-flows show nope 2>&-", **run_of_an_umlaut).stdout) == b""


@pytest.mark.parametrize("command", ["runs", "runs --json", "show r", "export r", "export r --format turtle"])
def test_output_in_ascii(run_of_an_umlaut, command):
    """A text is printed with escapes; a document, such as JSON, is UTF-8 everywhere."""
    said = shell(f"ivcap-flows {command}", PYTHONIOENCODING="ascii", **run_of_an_umlaut)
    assert (said.returncode, said.stderr) == (0, b"")
    if command in ("runs", "show r"):
        assert b"h\\xe4rvest" in said.stdout
    else:
        assert said.stdout == shell(f"ivcap-flows {command}", PYTHONIOENCODING="utf-8", **run_of_an_umlaut).stdout


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


def test_a_name_that_no_journal_holds_is_wrong_use(on_record):
    """A byte that is no UTF-8, as the command line decodes it."""
    for command in ("show", "trace", "verify", "rerun"):
        said = on_record(command, "Mu\udcf1oz")
        assert said.status == 2 and "half a surrogate pair" in said.err


@pytest.mark.parametrize("path", ["data/nope.csv", "nope.csv", "data/nope"])
def test_a_path_without_a_file_is_said_to_be_one(on_record, path):
    """It is no run, nor a thing that is not on record."""
    for command in ("verify", "trace"):
        said = on_record(command, path)
        assert said.status == 2 and f"There is no file {path}" in said.err
    said = on_record("trace", "102.100.100/1")
    assert said.status == 2 and "knows 102.100.100/1" in said.err
