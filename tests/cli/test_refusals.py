"""What the command line refuses, in one line with the next step. A wrong use has exit status 2.

A table holds what is refused without work on a platform. The files of other commands have what needs more than words.
"""

import contextlib
import os
import shlex
import sqlite3

import pytest

USAGE = "--help` says how it is used"
NO_RUN = "has no run 'no-such-run'. `ivcap-flows runs` lists its runs."
NOT_UTF8 = os.fsdecode(b"Mu\xf1oz")

REFUSED = {
    # Words that no command takes.
    "bogus": USAGE,
    "show": USAGE,
    "show a b": USAGE,
    "runs --limit many": USAGE,
    "runs --limit -3": USAGE,
    "runs --bogus": "`ivcap-flows runs --help` says how it is used.",
    "orders --limit 0": USAGE,
    "runs prune --older-than-days 1e9": USAGE,
    "export": USAGE,
    "export latest --format sonnet": USAGE,
    "plan": USAGE,
    # What is not on record, for each command that takes its name.
    "show no-such-run": NO_RUN,
    "diff latest no-such-run": NO_RUN,
    "export no-such-run": NO_RUN,
    "rerun no-such-run": NO_RUN,
    "orders --run no-such-run": NO_RUN,
    "runs abandon no-such-run": NO_RUN,
    "trace no-such-run": "knows no-such-run",
    "trace 102.100.100/1": "knows 102.100.100/1",
    "trace urn:ivcap:artifact:nothing --down": "knows urn:ivcap:artifact:nothing",
    **{f"trace {path}": f"There is no file {path}, and no run" for path in ("a/b.csv", "b.csv", "a/b")},
    **{f"verify {path}": f"There is no file {path}. The journal" for path in ("a/b.csv", "b.csv", "a/b")},
    "orders write-off ffff-no-key": "'ffff-no-key'",
    "orders resolve ffff-no-key --none": "'ffff-no-key'",
    "orders write-off ''": "k1:",
    "orders why-not urn:ivcap:order:unknown": "did not place urn:ivcap:order:unknown",
    **{f"{command} {NOT_UTF8}": "half a surrogate pair" for command in ("show", "trace", "verify", "rerun")},
    # Options that do not go together.
    "orders --orphans --limit 2": "--orphans cannot be combined with --run, --open-only or --limit.",
    "trace latest --mermaid --brief": "Give only one of --html, --open, --mermaid, --brief and --json.",
    "trace latest --html x.html --json": "Give only one of",
    "export latest --format ro-crate": "An RO-Crate is a folder or a zip file: name it with -o.",
    "export latest --terms terms.yaml": "--terms needs --format ro-crate.",
    "doctor --full": "--full belongs to --real.",
    "services --python": "Name the service",
    "login http://x --context active": "A context cannot be named 'active'",
    "login http://x --block x --context y": "Give one of them",
    "login http://x --provena reef": "--provena takes no URL",
    "local serve --speed 2": "--speed needs --like production.",
    # Names and addresses that cannot be such.
    "get urn:ivcap-flows:run:1": "is no URN of IVCAP that can be read",
    "get 102.100.100/1": "is no URN of IVCAP that can be read",
    "login nonsense": "must be like https://host/path, not 'nonsense'",
    "login 'https://[x'": "must be like https://host/path, not 'https://[x'",
    "login https://x:y --block reef": "must be like https://host/path, not 'https://x:y'",
    "login http://x --block Nope!": "only small letters, digits and dashes, unlike 'Nope!'",
    "login --provena Reef!": "only small letters, digits and dashes, unlike 'Reef!'",
    f"services {NOT_UTF8}": "is not UTF-8",
    f"init {NOT_UTF8}": "is not UTF-8, as prefect.yaml must be",
    "init '{{ l }}'": "Prefect would take the braces",
    "local serve --host 0.0.0.0": "not a loopback address",
    "local serve --like test": USAGE,
    "local serve --like production --speed 0": "",
    # Files that are not there, in the way, or not to be written.
    "init": "flow.py exists. Name another folder",
    "init flow.py/below": "",
    "export latest -o none/run": "none/run cannot be written: No such file",
    "export latest --format ro-crate -o none/run": "none/run cannot be written: No such file",
    "export latest --format ro-crate -o crate --terms missing.yaml": "missing.yaml",
    "trace latest --html none/page.html": "The file none/page.html cannot be written",
    "models validate rows.txt": "must end in .csv",
    "models validate none.csv": "There is no file",
    "models validate -rows.csv": "write `./-rows.csv`; another name goes after `--`.",
    "models register rows.csv --out -out.csv": "write `./-out.csv`",
    "local register --x.yaml": "write `./--x.yaml`",
    "models register": "Give a file, or --orders-of",
    "models register rows.csv --orders-of x": "Give either a file",
    "models register rows.csv --in-flight 0": "Must be >= 1",
}
"""The words of a command, and a part of what it says."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two files in it."""
    for name in ("flow.py", "--x.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_used_wrongly(on_record, folder, words):
    """Nothing is done or made."""
    before = set(folder.iterdir())
    said = on_record(*shlex.split(words))
    assert said.status == 2 and REFUSED[words] in said.err
    assert set(folder.iterdir()) == before


MODULE = "flows_that_are_refused"
TEXT = """
from prefect import flow

@flow
def told(month: str, times: int = 1, base: tuple[int, int] = (1981, 2010)):
    raise AssertionError("It has begun.")

plain = 1
"""
REFUSED_FLOWS = {
    f"{MODULE}:plain": "is not a flow",
    f"{MODULE}:missing": "missing",
    "no_such_module:f": "no_such_module:f",
    "no/such/file.py:f": "no/such/file.py:f",
    f"{MODULE}:told": "month",
    **{
        f"{MODULE}:told {given}": fault
        for given, fault in {
            "-p month": "name=value",
            "-p month=1 -p times=often": "times",
            "-p month=1 -p times=1:30": "times=10",
            "-p month=1 -p time=2": "has no parameter time. Did you mean times?",
            "-p month=1 -p base=[": "The value of base is neither JSON nor YAML",
            "-p month=1 -p times=1 -p times=2": "times is given twice",
            f"-p month={NOT_UTF8}": "month has a character that is not UTF-8",
        }.items()
    },
}
"""The flow and its parameters, and a part of what is said of them."""


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("words", REFUSED_FLOWS)
def test_a_flow_that_cannot_begin(ivcap_flows, folder, command, words):
    """What cannot be loaded, and parameters that the flow does not take."""
    (folder / f"{MODULE}.py").write_text(TEXT)
    said = ivcap_flows(command, *shlex.split(words))
    assert said.status == 2 and REFUSED_FLOWS[words] in said.err


@pytest.mark.parametrize(
    "words",
    ["runs", "show latest", "diff latest latest", "export latest", "rerun latest", "orders", "verify latest", "sync"],
)
def test_a_journal_that_is_not_there_is_not_made(ivcap_flows, journal_file, words):
    """A command that reads says so; another answer would be that the journal is empty."""
    said = ivcap_flows(*words.split())
    assert said.status == 2 and f"There is no journal sqlite:///{journal_file}" in said.err
    assert not journal_file.exists()


@pytest.mark.parametrize("words", ["show latest", "trace latest", "verify latest", "export latest", "rerun latest"])
def test_a_journal_without_runs(ivcap_flows, journal, words):
    assert ivcap_flows("runs", "--json").json == []
    said = ivcap_flows(*words.split())
    assert said.status == 2 and "has no run yet" in said.err


def test_a_journal_that_cannot_be_read_is_named(ivcap_flows, journal_file, journal):
    with contextlib.closing(sqlite3.connect(journal_file)) as connection, connection:
        connection.execute("UPDATE journal_info SET version = 'of nobody'")
    said = ivcap_flows("runs")
    assert (said.status, said.out) == (1, "") and str(journal_file) in said.err


def test_a_setting_that_cannot_be_understood_is_named(ivcap_flows, monkeypatch):
    """Without its value, which may be a secret."""
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "plenty")
    said = ivcap_flows("runs")
    assert said.status == 1 and said.err.startswith("ConfigurationError: ") and "IVCAP_FLOWS_MAX_ORDERS" in said.err
    assert "plenty" not in said.err
