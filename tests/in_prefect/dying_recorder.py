"""Records what a run does in processes that are killed: `[what, journal, commits]` on each line of input.

A process is killed after so many commits; with 0 it is not, but `doomed` kills itself. For each line, the status of the
process is printed. It is forked from this one, which has no threads: a fork of a process with threads may inherit a
lock that nobody in it releases.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ivcap_flows.capture import use_journal
from ivcap_flows.capture.attempts import open_attempt
from ivcap_flows.capture.calls import Call
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.flow_run_states import PrefectState
from ivcap_flows.in_prefect.reconcile import abandon, reconcile
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.store import Store


def doomed(journal: Journal) -> None:
    """Open the attempt of a flow run, begin a task of it, and be killed."""
    flow_run = str(uuid.uuid4())
    with use_journal(journal) as recorder:
        opened = open_attempt(RunIdentity("doomed", "doomed.py:doomed", {}, flow_run, flow_run), None, "doomed")
        ids = opened.run.id, opened.attempt.id, flows_urn("attempt", opened.attempt.id)
        recorder.put(Call(flows_urn("task-run", "7"), "task-run", "endless", *ids, parameters={"i": 7}))
        recorder.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def do(what: str, journal: Journal) -> None:
    """Give up the run `f1`, record Prefect's word on it, or end an attempt of it; one that is lost does not end."""
    if what == "doomed":
        doomed(journal)
    elif what == "abandon":
        run = journal.runs.get("f1")
        assert run is not None
        abandon(journal, run)
    elif what == "reconcile":
        reconcile(journal, lambda flow_run_id: PrefectState("cancelled", "by Ada", None))
    else:
        attempt = journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1")).attempt
        if what != "lost":
            journal.runs.close_attempt(attempt.id, what)


def die_after(commits: int) -> None:
    write, left = Store.write, commits

    @contextmanager
    def write_and_die(store: Store) -> Iterator[Any]:
        nonlocal left
        with write(store) as connection:
            yield connection
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.write = write_and_die


for line in sys.stdin:
    what, place, commits = json.loads(line)
    process = os.fork()
    if process == 0:
        failed = True
        try:
            die_after(commits)
            do(what, Journal.open(f"sqlite:///{place}"))
            failed = False
        finally:
            os._exit(failed)
    print(os.waitpid(process, 0)[1], flush=True)
