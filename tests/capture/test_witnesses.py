"""Runs whose process was killed, and what other witnesses say of them."""

import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ivcap_flows.capture import (
    journal,
)
from ivcap_flows.handles import Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.flow_run_states import PrefectState, prefect_state
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity
from ivcap_flows.provenance import Graph, relation
from ivcap_flows.secrets import HIDDEN


def opened(root: str = "f1"):
    return journal().runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, root, root))


KILLED = """
import os, signal, sys, time
from prefect import flow, task
from ivcap_flows.capture import recorded, recorder

@task
@recorded
def endless(i: int) -> None:
    time.sleep(0.6)
    os.kill(os.getpid(), signal.SIGKILL)

@flow
@recorded
def doomed() -> None:
    endless(7)

doomed()
"""


@pytest.fixture(scope="module")
def killed(prefect_server, tmp_path_factory) -> Path:
    """The journal that a flow left whose process was killed in a task."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "doomed.py").write_text(KILLED)
    place = folder / "journal.sqlite"
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{place}"}
    done = subprocess.run(
        [sys.executable, str(folder / "doomed.py")], env=environment, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    return place


def copy_of(place: Path, target: Path) -> Journal:
    import sqlite3

    with sqlite3.connect(place) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    shutil.copytree(f"{place}-processes", f"{target}-processes")
    return Journal.open(f"sqlite:///{target}")


def graph_of(there: Journal) -> Graph:
    return Graph(fact.record for fact in there.facts.of_run(there.runs.recent()[0].id))


def test_a_killed_attempt_is_lost_and_last_seen_at_its_beat(killed, tmp_path):
    """The lease tells that the process is gone; the task it was in was written when it began, and ended with it."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: None)
        assert outcome == "lost"
        assert there.runs.recent()[0].outcome == "lost"
        graph = graph_of(there)
        lost = graph.nodes[flows_urn("attempt", attempt.id)]
        assert lost.attributes["outcome"] == "lost"
        assert "last seen" in lost.attributes["cause"]
        [task] = [node for node in graph if node.type == "task-run"]
        assert (task.attributes["outcome"], task.attributes["parameters"]) == ("lost", {"i": 7})
        assert task.ended == max(task.time, lost.ended)
        assert task.attributes["cause"] == "Its process ended before it did."
        assert reconcile(there, lambda flow_run_id: None) == []


def test_what_a_killed_attempt_was_at_ends_though_its_run_goes_on(killed, tmp_path):
    """The next attempt has found it gone when it began; its tasks end with it all the same, and nobody is warned."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [before] = there.runs.attempts(run.id)
        again = RunIdentity(run.flow_name, run.entry_point, run.parameters, before.root_flow_run_id, before.flow_run_id)
        opened = there.runs.open_attempt(again)
        assert (opened.run.id, opened.attempt.number) == (run.id, 2)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: None)
        assert (attempt.id, outcome) == (before.id, "lost")
        [task] = [node for node in graph_of(there) if node.type == "task-run"]
        assert task.attributes["outcome"] == "lost" and task.ended is not None
        assert there.runs.get(run.id).outcome == "running"
        assert reconcile(there, lambda flow_run_id: None) == []


def test_a_killed_attempt_stays_lost_when_its_retry_succeeds(killed, tmp_path):
    """Prefect says of the flow run, which both have, that it completed; of the attempt it has seen nothing."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [before] = there.runs.attempts(run.id)
        again = RunIdentity(run.flow_name, run.entry_point, run.parameters, before.root_flow_run_id, before.flow_run_id)
        opened = there.runs.open_attempt(again)
        there.runs.close_attempt(opened.attempt.id, "completed")
        lost, completed = there.runs.attempts(run.id)
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: PrefectState("completed", None, later))
        assert (attempt.id, outcome) == (before.id, "lost")
        told, last = there.runs.attempts(run.id)
        assert (told.outcome, told.cause, told.newest_at_end) == ("lost", lost.cause, 1)
        assert last == completed and there.runs.get(run.id).outcome == "completed"
        graph = graph_of(there)
        node = graph.nodes[flows_urn("attempt", before.id)]
        [task] = [each for each in graph if each.type == "task-run"]
        assert (node.attributes["outcome"], node.ended) == ("lost", told.ended_at)
        assert task.time <= task.ended == node.ended < completed.started_at
        assert reconcile(there, lambda flow_run_id: PrefectState("completed", None, later)) == []


def test_what_a_killed_attempt_ordered_is_its_own(killed, tmp_path):
    """Though it was killed before it could say so; what has a cause on record keeps that one."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [run] = there.runs.recent()
        [attempt] = there.runs.attempts(run.id)
        for urn in ("urn:ivcap:order:1", "urn:ivcap:order:2"):
            told = {"platform": "p", "account": "a", "scope": f"run:{run.id}", "noun": "order", "request": urn}
            wanted = NewIntent(key=urn, base_key=urn, run_id=run.id, attempt_id=attempt.id, **told)
            intent = there.intents.mark_sent(there.intents.claim(wanted).intent)
            order = Order(urn=urn, platform="p", service="urn:ivcap:service:1", status="pending")
            there.intents.settle(intent, urn=urn, outcome=order.model_dump(mode="json"), how="sent")
        known = relation("wasStartedBy", "urn:ivcap:order:2", flows_urn("call", "x"))
        there.facts.append([Fact(known, run.id, attempt.id)])
        reconcile(there, lambda flow_run_id: None)
        links = {(link.source, link.target) for link in graph_of(there).whole().relations.values()}
        own = flows_urn("attempt", attempt.id)
        assert ("urn:ivcap:order:1", own) in links and ("urn:ivcap:order:2", own) not in links
        assert (own, flows_urn("run", run.id)) in links


def test_prefects_word_goes_before_the_lease(killed, tmp_path):
    """Where Prefect's API knows a final state, that is the outcome, with its message, and without a secret in it."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        since = datetime.now(timezone.utc)
        word = PrefectState("crashed", "killed at https://ada:t0ken-t0ken@example.org", since)
        [(attempt, outcome)] = reconcile(there, lambda flow_run_id: word)
        assert outcome == there.runs.recent()[0].outcome == "crashed"
        graph = graph_of(there)
        node, run = (graph.nodes[flows_urn(*of)] for of in (("attempt", attempt.id), ("run", attempt.run_id)))
        assert node.attributes["cause"] == run.attributes["cause"] == f"killed at https://{HIDDEN}@example.org"
        told = there.runs.attempt(attempt.id)
        assert (told.cause, told.ended_at) == (node.attributes["cause"], node.ended)
        # Prefect has heard of the run's end; of the process the journal has heard last.
        assert node.ended < since == run.ended
        assert {n.attributes["outcome"] for n in graph_of(there) if n.type == "task-run"} == {"crashed"}


def test_prefects_api_is_asked_and_may_be_silent(killed, prefect_server, tmp_path):
    """A running state says nothing, a final one its outcome; a server that is not there says nothing either."""
    import uuid

    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Cancelled

    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        [attempt] = there.runs.attempts(there.runs.recent()[0].id)
    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        assert prefect_state(attempt.flow_run_id) is None
        assert prefect_state(str(uuid.uuid4())) is None
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(attempt.flow_run_id, Cancelled(message="enough"), force=True)
        said = prefect_state(attempt.flow_run_id)
        assert (said.outcome, said.cause) == ("cancelled", "enough")
    with temporary_settings({PREFECT_API_URL: None}):
        assert prefect_state(attempt.flow_run_id) is None


HEARD = """
import os, signal, sys
from prefect import flow
from ivcap_flows import recorded
from ivcap_flows.journal.runs import Runs

close = Runs.close_attempt

def die(self, *args, **options):
    close(self, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1:] == ["dies"]:
    Runs.close_attempt = die

@flow
@recorded
def short() -> None:
    pass

short()
"""


@pytest.mark.long
def test_a_run_that_prefect_has_not_heard_to_end_is_continued(prefect_server, tmp_path):
    """Killed between the flow's last line and Prefect's Completed, it is taken up again; once Completed, it is not."""
    (tmp_path / "short.py").write_text(HEARD)
    place = tmp_path / "short.sqlite"
    environment = {**prefect_server, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{place}"}

    def run(*arguments: str) -> int:
        command = [sys.executable, str(tmp_path / "short.py"), *arguments]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    assert run("dies") == -signal.SIGKILL
    with copy_of(place, tmp_path / "first.sqlite") as there:
        assert [each.outcome for each in there.runs.recent()] == ["completed"]
    assert run() == 0
    with copy_of(place, tmp_path / "second.sqlite") as there:
        [again] = there.runs.recent()
        assert [each.outcome for each in there.runs.attempts(again.id)] == ["lost", "completed"]
        told = [
            node.attributes for node in graph_of(there) if node.type == "attempt" and node.attributes["number"] == 1
        ]
        assert [each["cause"] for each in told] == ["Its process ended before it reported its end to Prefect."]
    assert run() == 0
    with copy_of(place, tmp_path / "third.sqlite") as there:
        assert len(there.runs.recent()) == 2


def test_a_cancelled_run_is_told_from_a_crashed_one():
    """An attempt that was ended by a signal has the outcome that Prefect knows, and is asked for once."""
    attempt = opened().attempt
    journal().runs.close_attempt(attempt.id, "crashed", "TerminationSignal: 15")
    assert reconcile(journal(), lambda flow_run_id: None) == []
    [(_, outcome)] = reconcile(journal(), lambda flow_run_id: PrefectState("cancelled", "by Ada", None))
    assert outcome == journal().runs.recent()[0].outcome == "cancelled"
    assert reconcile(journal(), lambda flow_run_id: PrefectState("crashed", None, None)) == []


def test_a_live_attempt_is_left_alone():
    """What this very process runs is not reconciled."""
    attempt = opened()
    assert reconcile(journal(), lambda flow_run_id: PrefectState("crashed", None, None)) == []
    assert journal().runs.attempt(attempt.attempt.id).outcome == "running"
