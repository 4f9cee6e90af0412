"""Runs on record: flows are run once, on the session's platforms. Commands that read share their journal."""

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkouts import git
from modules import load
from prefect.settings import (
    temporary_settings,
)

from ivcap_flows.capture import use_journal
from ivcap_flows.cli import main
from ivcap_flows.errors import OrderFailedError
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.journal import Journal
from ivcap_flows.local import PlatformControl

HERE = Path(__file__).parent


UPPER = """
def run(request, job):
    job.add_product("upper.csv", job.read_artifact(request["series"]).upper(), "text/csv")
"""


@dataclass(frozen=True)
class World:
    """What was run, once for all tests. `made` is what the flow `harvest` returned, of the file `flows`."""

    flows: Path
    journal: Path
    source: Path
    downloaded: Path
    made: dict[str, str]


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def world(_embedded, serve, prefect_server, prefect_settings, tmp_path_factory):
    """A run that completed, one whose order failed, and one whose process was killed with an order in doubt."""
    path = tmp_path_factory.mktemp("project") / "recorded_flows.py"
    shutil.copy(HERE / path.name, path)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "flows"]):
        git(path.parent, *arguments)
    folder = tmp_path_factory.mktemp("world")
    serve("cli-upper", UPPER, [{"name": "series", "type": "artifact"}])
    source, unique = folder / "series.csv", uuid.uuid4().hex
    source.write_text(f"year,jan\n1950,{unique}\n", encoding="utf-8")
    # Beside the folder that a flow is given: what lies in that is recorded.
    journal_file = tmp_path_factory.mktemp("journal") / "world.sqlite"
    url = f"sqlite:///{journal_file}"
    flows, control = load(path), PlatformControl(_embedded)
    with pytest.MonkeyPatch.context() as patch, temporary_settings(prefect_settings), Journal.open(url) as journal:
        for name, value in _embedded.environment.items():
            patch.setenv(name, value)
        with use_journal(journal):
            made = flows.harvest(str(source), str(folder))
            with pytest.raises(OrderFailedError):
                flows.spoiled(unique)
        control.clear_faults()
        # A delay of nothing is a fault that does nothing: the first order gets its reply.
        control.add_fault(method="POST", path="^/1/orders$", count=1, delay=0.0)
        control.add_fault(method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True)
        child = subprocess.run(
            [sys.executable, str(path), unique],
            env={**os.environ, **prefect_server, **_embedded.environment, "IVCAP_FLOWS_JOURNAL": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        control.clear_faults()
        assert child.returncode == -signal.SIGKILL, child.stderr
    return World(path, journal_file, source, folder / "upper.csv", made)


@pytest.fixture(autouse=True)
def quick_clients(short_backoff):
    """What a test breaks is mended at once, or stays so."""


@pytest.fixture(scope="session")
def names(world):
    """What the runs on record left, by its name in a transcript.

    `accepted` and `doubt` are the keys of the lost run's orders. A run is its flow's name, or its short id.
    """
    with Journal.open(f"sqlite:///{world.journal}") as journal:
        runs = {run.flow_name: run.id for run in journal.runs.recent()}
        accepted, doubt = journal.intents.where(run_id=runs["interrupted"])
    keys = {"accepted": short_id(accepted.key), "doubt": short_id(doubt.key), "echo": accepted.urn}
    return {**world.made, **keys, **{name: short_run(run) for name, run in runs.items()}}


def pattern(text: str) -> str:
    """The regular expression of what a command says. `…` stands for anything in a line, and alone for any lines. A
    space stands for any number of them."""
    lines = []
    for line in text.splitlines():
        words = re.sub(r"( [+])?…( [+])?", ".*", " +".join(map(re.escape, line.split())))
        lines.append(r"(?:.*\n)*" if line == "…" else f" *{words} *\n")
    return "".join(lines)


@pytest.fixture
def transcript(request):
    """`transcript(on_record, text)` runs each command of a text, and compares what it says with the lines below it.

    A command is a line such as `$ runs --limit 2`. Below it are its output, its error and, unless that is 0, its exit
    status, as `[1]`. `{doubt}` is one of the names that are given, or else of `names`.
    """

    def value(name: str, given: dict[str, object]) -> str:
        return str(given[name] if name in given else request.getfixturevalue("names")[name])

    def compare(command, text: str, **given: object) -> None:
        text = re.sub(r"\{(\w+)\}", lambda found: value(found[1], given), text.strip("\n") + "\n")
        assert text.startswith("$ ")
        for words, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            said = command(*shlex.split(words))
            heard = said.out + said.err + (f"[{said.status}]\n" if said.status else "")
            if not re.fullmatch(pattern(expected), heard):
                pytest.fail(f"$ {words}\n{heard}\nThis was to come:\n{expected}")

    return compare


def contents(journal: Path) -> list[str]:
    """All that a journal holds, but for when a process was last heard of: one that has it open goes on telling that."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        heartbeat = re.compile(r"(INTO \"processes\" .*),\d+(,[^,]*\);)")
        return [heartbeat.sub(r"\1\2", line) for line in connection.iterdump()]


@pytest.fixture
def journal_file(tmp_path):
    """Where the journal is that the commands of a test read; there is none yet."""
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(journal_file):
    """That journal, opened; of a test with `own_record`, to be named after that."""
    with Journal.open(f"sqlite:///{journal_file}") as opened:
        yield opened


@pytest.fixture
def ivcap_flows(capsys, embedded_platform):
    """`ivcap_flows("show", "latest")` runs a command in this process; what goes wrong is one line on standard error.

    Only `run`, `sync`, `models`, `doctor` and what decides, moves, upgrades or prunes write to the journal, and none
    prints a token, or a value with `s3cret` in it.
    """

    def run(*arguments: object) -> Said:
        words = [str(argument) for argument in arguments]
        journal = Path(os.environ["IVCAP_FLOWS_JOURNAL"].removeprefix("sqlite:///"))
        before = contents(journal) if journal.exists() else None
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = Said(ended.value.code, *capsys.readouterr())
        assert isinstance(said.status, int)
        if said.status == 2:
            assert said.out == ""
        # A trace may lack what a platform has.
        if said.status == 2 or (said.err and words[0] != "trace"):
            # A flow that is planned may print.
            own = said.err.splitlines(keepends=True)[-1] if words[0] == "plan" else said.err
            assert re.fullmatch(r"\w+Error: [^\n]+\n", own), said.err
        decides = {"abandon", "adopt", "write-off", "--urn", "--none", "prune", "move", "upgrade"} & set(words)
        if before is not None and words[0] not in ("run", "sync", "models", "doctor") and not decides:
            assert contents(journal) == before
        tokens = [value for name, value in os.environ.items() if "JWT" in name or "TOKEN" in name]
        assert not any(token in said.out + said.err for token in [*tokens, "s3cret"])
        return said

    return run


@pytest.fixture
def without_logs():
    """Of a flow that a command runs in this process, the output is its own, without Prefect's log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def on_record(world, ivcap_flows, monkeypatch):
    """The command line on the journal with the three runs, for commands that only read."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{world.journal}")
    return ivcap_flows


@pytest.fixture
def own_record(world, journal_file, ivcap_flows):
    """The command line on a copy of that journal, for what changes it."""
    with (
        contextlib.closing(sqlite3.connect(world.journal)) as source,
        contextlib.closing(sqlite3.connect(journal_file)) as copy,
    ):
        source.backup(copy)
    # The very files: a lock on a copy says nothing.
    shutil.copytree(f"{world.journal}-processes", f"{journal_file}-processes", copy_function=os.link)
    return ivcap_flows
