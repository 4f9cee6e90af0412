"""Ends of runs that are recorded for others: a kill in between leaves no end that the sinks do not get."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.flow_run_states import PrefectState
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Journal

SCRIPT = """
import os, signal, sys
from contextlib import contextmanager
from ivcap_flows.in_prefect.flow_run_states import PrefectState
from ivcap_flows.in_prefect.reconcile import abandon, reconcile
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.store import Store

what, place, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
write = Store.write

@contextmanager
def write_and_die(self):
    global left
    with write(self) as connection:
        yield connection
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Store.write = write_and_die
journal = Journal.open(place)
if what in ("parked", "failed", "lost"):
    opened = journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1"))
    if what != "lost":
        journal.runs.close_attempt(opened.attempt.id, what)
elif what == "abandon":
    abandon(journal, journal.runs.get("f1"))
else:
    reconcile(journal, lambda flow_run_id: PrefectState("cancelled", "by Ada", None))
os._exit(0)
"""


def killed(what: str, place: str, commits: int) -> bool:
    """Do it in a process that is killed right after so many commits. Return whether it was."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, what, place, str(commits)], check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def told(journal: Journal) -> object:
    """The outcome of the run by its facts."""
    records = [fact.record for fact in journal.facts.of_run("f1")]
    said = [each.attributes.get("outcome") for each in records if each.id == flows_urn("run", "f1")]
    return next((outcome for outcome in reversed(said) if outcome), None)


@pytest.mark.parametrize("before", ["parked", "lost"])
def test_an_end_that_prefect_tells_is_recorded_after_any_kill(tmp_path: Path, before: str) -> None:
    """Whatever was written of it before the kill, the next pass has it as a fact, and the pass after that nothing."""
    commits, more = 0, True
    while more:
        commits += 1
        place = f"sqlite:///{tmp_path / f'{commits}.sqlite'}"
        assert not killed(before, place, 0)
        more = killed("reconcile", place, commits)
        with Journal.open(place) as journal:
            reconcile(journal, lambda flow_run_id: PrefectState("cancelled", "by Ada", None))
            assert (journal.runs.get("f1").outcome, told(journal)) == ("cancelled", "cancelled")
            assert reconcile(journal, lambda flow_run_id: PrefectState("cancelled", "by Ada", None)) == []
    assert commits > 1


def test_a_run_is_given_up_and_told_so_or_neither(tmp_path: Path) -> None:
    """Whenever the command is killed."""
    commits, more = 0, True
    while more:
        commits += 1
        place = f"sqlite:///{tmp_path / f'{commits}.sqlite'}"
        assert not killed("failed", place, 0)
        more = killed("abandon", place, commits)
        with Journal.open(place) as journal:
            assert (journal.runs.get("f1").outcome == "dropped") == (told(journal) == "dropped")
    assert commits > 1
