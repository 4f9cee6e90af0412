"""How a script that is no flow has ended, by the code with which it leaves."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows.capture import journal

pytestmark = pytest.mark.canary

SCRIPT = """
import sys, threading
from ivcap_flows import recorded

@recorded
def work():
    pass

def main():
    work()
    return 0

"""
ONCE = """
import os, sys, uuid
from ivcap_flows import once

def main():
    print(once("drawn", lambda: str(uuid.uuid4())))
    return int(os.environ["CODE"])

sys.exit(main())
"""
ARGPARSE = "work(); import argparse; argparse.ArgumentParser().parse_args(sys.argv[1:])"
CAUGHT = """
work()
try:
    sys.exit(3)
except SystemExit as error:
    assert error.code == 3
"""
IN_A_THREAD = """
work()
thread = threading.Thread(target=sys.exit, args=(3,))
thread.start()
thread.join()
"""


def run(script: Path, body: str) -> tuple[int, str, str | None]:
    """The code of the process, and how its run stands. An argument of it is no UTF-8, as names of files may be."""
    script.write_text(SCRIPT + body)
    command = [sys.executable, str(script), b"--no-such-option", b"M\xfcnchen"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert "Exception in thread" not in done.stderr
    [run] = journal().runs.recent()
    [attempt] = journal().runs.attempts(run.id)
    assert run.outcome == attempt.outcome and run.flow_name in (script.name, "body")
    assert run.flow_name == "body" or run.parameters == {"arguments": ["--no-such-option", "M\\udcfcnchen"]}
    assert run.missing_facts == 0
    return done.returncode, attempt.outcome, attempt.cause


CLICK = "import click; click.command()(lambda: work() or click.get_current_context().exit(6))([])"
WITH_A_CODE = {
    "import os; work(); sys.exit(os.fsdecode(b'M\\xfcnchen'))": (1, "SystemExit: M\\udcfcnchen"),
    "work(); sys.exit(3)": (3, "SystemExit: 3"),
    CAUGHT + "1 / 0": (1, "ZeroDivisionError: division by zero"),
    "work(); sys.exit(main() != 1)": (1, "SystemExit: True"),
    "work(); exit(4)": (4, "SystemExit: 4"),
    "work(); quit(4)": (4, "SystemExit: 4"),
    ARGPARSE: (2, "SystemExit: 2"),
    CLICK: (6, "SystemExit: 6"),
    CAUGHT + "sys.exit(7)": (7, "SystemExit: 7"),
}
WITHOUT_ONE = [
    CAUGHT,
    "work(); sys.exit(main())",
    "work(); sys.exit()",
    "work(); sys.exit(False)",
    "work(); exit()",
    "work(); import click; click.command()(main)([])",
    "work(); raise SystemExit",
    CAUGHT + "sys.exit(0)",
    IN_A_THREAD,
    "work(); import contextlib\nwith contextlib.suppress(SystemExit): exit(3)",
]


def one_and_more(bodies: Iterable[str]) -> list[Any]:
    """One each time, the others in the long tests."""
    return [pytest.param(body, marks=[pytest.mark.long] * (place > 0)) for place, body in enumerate(bodies)]


@pytest.mark.parametrize("body", one_and_more(WITH_A_CODE))
def test_a_script_that_exits_with_a_code_has_failed(tmp_path, body):
    """Whoever calls `sys.exit`, `exit` or `quit` for it."""
    code, cause = WITH_A_CODE[body]
    assert run(tmp_path / "script.py", body) == (code, "failed", cause)


@pytest.mark.parametrize("body", one_and_more(WITHOUT_ONE))
def test_a_script_that_exits_without_one_has_completed(tmp_path, body):
    """Nor does an exit count that somebody caught, or that ended a thread."""
    assert run(tmp_path / "script.py", body) == (0, "completed", None)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python tells it from 3.12 on")
def test_an_exit_that_is_raised_by_hand(tmp_path):
    """`raise SystemExit(3)` calls nothing that could be watched, so it is known where Python tells of it."""
    assert run(tmp_path / "script.py", "work(); raise SystemExit(3)") == (3, "failed", "SystemExit: 3")


@pytest.mark.parametrize("last", ["1 / 0", "sys.exit(3)"])
def test_an_interactive_session_does_not_fail(last):
    """It goes on after an error, and so the next one begins a run of its own, however this one is left."""
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-i"], input=SCRIPT + f"work()\n{last}\n", capture_output=True, text=True, check=False
        )
    assert [(run.flow_name, run.outcome) for run in journal().runs.recent()] == [("python", "completed")] * 2


def test_the_code_decides_whether_the_same_command_continues_the_run(tmp_path, monkeypatch):
    """Also one of `sys.exit(main())`: what a failed run has placed is kept, what a completed one has is placed anew."""
    script = tmp_path / "script.py"
    script.write_text(ONCE)
    drawn = []
    for code in (1, 0, 0):
        monkeypatch.setenv("CODE", str(code))
        done = subprocess.run(
            [sys.executable, str(script)], env=os.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        drawn.append(done.stdout)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.long
def test_a_flow_that_exits(tmp_path, prefect_server, monkeypatch):
    """It has crashed, as Prefect says, whatever its code."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server["PREFECT_API_URL"])
    body = "from prefect import flow\n@flow\ndef body():\n    work()\n    sys.exit(0)\nbody()"
    assert run(tmp_path / "script.py", body)[1] == "crashed"
