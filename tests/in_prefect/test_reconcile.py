"""Ends of runs that their processes did not record: of killed, cancelled and parked ones; and kills while they are."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from on_record import last_graph
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Running

from ivcap_flows.errors import JournalError
from ivcap_flows.handles import Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.end_of_run import tell_of_live_orders
from ivcap_flows.in_prefect.flow_run_states import PrefectState, ended_flow_runs, prefect_state, prefect_states
from ivcap_flows.in_prefect.reconcile import reconcile
from ivcap_flows.journal import Fact, Journal, NewIntent, RunIdentity
from ivcap_flows.provenance import Graph, relation
from ivcap_flows.secrets import HIDDEN
from ivcap_flows.sinks import Delivery, drain, run_graph

pytestmark = pytest.mark.canary


def says(outcome: str, since: datetime | None = None, message: str = "by Ada"):
    """Prefect's word on any flow run."""
    return lambda flow_run_id: PrefectState(outcome, message, since)


def silent(flow_run_id: str) -> None:
    """Prefect says nothing."""


@pytest.fixture(scope="module")
def killed_while():
    """Do something in a journal, in a process that is killed right after so many commits; whether it was."""
    command = [sys.executable, str(Path(__file__).with_name("dying_recorder.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as recorder:

        def does(what: str, place: Path, *, commits: int = 0) -> bool:
            print(json.dumps([what, str(place), commits]), file=recorder.stdin, flush=True)
            ended = int(recorder.stdout.readline())
            assert ended in (0, signal.SIGKILL)
            return ended != 0

        yield does


@pytest.fixture(scope="module")
def killed(killed_while, tmp_path_factory):
    """The journal that a flow left whose process was killed in a task."""
    place = tmp_path_factory.mktemp("killed") / "journal.sqlite"
    assert killed_while("doomed", place)
    return place


@contextmanager
def copy_of(place: Path, target: Path) -> Iterator[Journal]:
    with sqlite3.connect(place) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    # The very files: a lock on a copy says nothing.
    shutil.copytree(f"{place}-processes", f"{target}-processes", copy_function=os.link)
    with Journal.open(f"sqlite:///{target}") as there:
        yield there


@pytest.fixture
def left(killed, tmp_path):
    """A copy of what the killed flow left."""
    with copy_of(killed, tmp_path / "copy.sqlite") as there:
        yield there


def task_of(graph: Graph):
    [task] = [node for node in graph if node.type == "task-run"]
    return task


def next_attempt(there: Journal):
    """The attempts of the newest run: the one before, and one that has begun now."""
    [run] = there.runs.recent()
    [before] = there.runs.attempts(run.id)
    again = RunIdentity(run.flow_name, run.entry_point, run.parameters, before.root_flow_run_id, before.flow_run_id)
    return before, there.runs.open_attempt(again)


def test_a_killed_attempt_is_lost_and_last_seen_at_its_beat(left):
    """The lease tells that the process is gone; the task it was in was written when it began, and ended with it."""
    [(attempt, outcome)] = reconcile(left, silent)
    assert outcome == left.runs.recent()[0].outcome == "lost"
    graph = last_graph(left)
    lost, task = graph.nodes[flows_urn("attempt", attempt.id)], task_of(graph)
    assert lost.attributes["outcome"] == "lost"
    assert "last seen" in lost.attributes["cause"]
    assert (task.attributes["outcome"], task.attributes["parameters"]) == ("lost", {"i": 7})
    assert task.ended == max(task.time, lost.ended)
    assert task.attributes["cause"] == "Its process ended before it did."
    assert reconcile(left, silent) == []


def test_what_a_killed_attempt_was_at_ends_though_its_run_goes_on(left):
    """The next attempt has found it gone when it began; its tasks end with it all the same, and nobody is warned."""
    before, opened = next_attempt(left)
    assert (opened.run.id, opened.attempt.number) == (before.run_id, 2)
    [(attempt, outcome)] = reconcile(left, silent)
    assert (attempt.id, outcome) == (before.id, "lost")
    task = task_of(last_graph(left))
    assert task.attributes["outcome"] == "lost" and task.ended is not None
    assert left.runs.get(before.run_id).outcome == "running"
    assert reconcile(left, silent) == []


def test_a_killed_attempt_stays_lost_when_its_retry_succeeds(left):
    """Prefect says of the flow run, which both have, that it completed; of the attempt it has seen nothing."""
    before, opened = next_attempt(left)
    left.runs.close_attempt(opened.attempt.id, "completed")
    lost, completed = left.runs.attempts(before.run_id)
    word = says("completed", datetime.now(timezone.utc) + timedelta(hours=1))
    [(attempt, outcome)] = reconcile(left, word)
    assert (attempt.id, outcome) == (before.id, "lost")
    told, last = left.runs.attempts(before.run_id)
    assert (told.outcome, told.cause, told.newest_at_end) == ("lost", lost.cause, 1)
    assert last == completed and left.runs.get(before.run_id).outcome == "completed"
    graph = last_graph(left)
    node, task = graph.nodes[flows_urn("attempt", before.id)], task_of(graph)
    assert (node.attributes["outcome"], node.ended) == ("lost", told.ended_at)
    assert task.time <= task.ended == node.ended < completed.started_at
    assert reconcile(left, word) == []


def test_what_a_killed_attempt_ordered_is_its_own(left):
    """Though it was killed before it could say so; what has a cause on record keeps that one."""
    [run] = left.runs.recent()
    [attempt] = left.runs.attempts(run.id)
    for urn in ("urn:ivcap:order:1", "urn:ivcap:order:2"):
        told = {"platform": "p", "account": "a", "scope": f"run:{run.id}", "noun": "order", "request": urn}
        wanted = NewIntent(key=urn, base_key=urn, run_id=run.id, attempt_id=attempt.id, **told)
        intent = left.intents.mark_sent(left.intents.claim(wanted).intent)
        order = Order(urn=urn, platform="p", service="urn:ivcap:service:1", status="pending")
        left.intents.settle(intent, urn=urn, outcome=order.model_dump(mode="json"), how="sent")
    known = relation("wasStartedBy", "urn:ivcap:order:2", flows_urn("call", "x"))
    left.facts.append([Fact(known, run.id, attempt.id)])
    reconcile(left, silent)
    links = {(link.source, link.target) for link in last_graph(left).whole().relations.values()}
    own = flows_urn("attempt", attempt.id)
    assert ("urn:ivcap:order:1", own) in links and ("urn:ivcap:order:2", own) not in links
    assert (own, flows_urn("run", run.id)) in links


def test_prefects_word_goes_before_the_lease(left):
    """Where Prefect's API knows a final state, that is the outcome, with its message, and without a secret in it."""
    since = datetime.now(timezone.utc)
    word = says("crashed", since, "killed at https://ada:t0ken-t0ken@example.org")
    [(attempt, outcome)] = reconcile(left, word)
    assert outcome == left.runs.recent()[0].outcome == "crashed"
    graph = last_graph(left)
    node, run = (graph.nodes[flows_urn(*of)] for of in (("attempt", attempt.id), ("run", attempt.run_id)))
    assert node.attributes["cause"] == run.attributes["cause"] == f"killed at https://{HIDDEN}@example.org"
    told = left.runs.attempt(attempt.id)
    assert (told.cause, told.ended_at) == (node.attributes["cause"], node.ended)
    # Prefect has heard of the run's end; of the process the journal has heard last.
    assert node.ended < since == run.ended
    assert task_of(graph).attributes["outcome"] == "crashed"


def test_prefects_api_is_asked_and_may_be_silent(prefect_api):
    """A running state says nothing, a final one its outcome; a server that is not there says nothing either."""

    @flow
    def running() -> None:
        pass

    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(running, state=Running()).id
        assert prefect_state(str(flow_run)) is None
        assert prefect_state(str(uuid.uuid4())) is None
        client.set_flow_run_state(flow_run, Cancelled(message="enough"), force=True)
        said = prefect_state(str(flow_run))
        assert (said.outcome, said.cause) == ("cancelled", "enough")
    with temporary_settings({PREFECT_API_URL: None}):
        assert prefect_state(str(flow_run)) is None


def test_a_refusal_of_prefects_is_told_and_ends_the_asking(prefect_api, monkeypatch, caplog):
    """The next flow run would get the same answer, perhaps after as long."""
    asked = []

    def refused(self, flow_run_id):
        asked.append(flow_run_id)
        httpx.Response(403, request=httpx.Request("GET", "http://prefect.test/api")).raise_for_status()

    monkeypatch.setattr(SyncPrefectClient, "read_flow_run", refused)
    states = prefect_states()
    assert [states(str(uuid.uuid4())) for _ in range(3)] == [None] * 3 and len(asked) == 1
    assert ended_flow_runs([str(uuid.uuid4()) for _ in range(3)]) == set() and len(asked) == 2
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2 and all("403" in each and "the journal's word counts" in each for each in told)


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
        attempts = [node.attributes for node in last_graph(there) if node.type == "attempt"]
        [cause] = [each["cause"] for each in attempts if each["number"] == 1]
        assert cause == "Its process ended before it reported its end to Prefect."
    assert run() == 0
    with copy_of(place, tmp_path / "third.sqlite") as there:
        assert len(there.runs.recent()) == 2


def begun(journal: Journal):
    return journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "f1", "f1")).attempt


@pytest.fixture
def parked(ivcap_journal):
    """An attempt that parked."""
    attempt = begun(ivcap_journal)
    ivcap_journal.runs.close_attempt(attempt.id, "parked")
    return ivcap_journal.runs.attempt(attempt.id)


def test_a_cancelled_run_is_told_from_a_crashed_one_and_a_live_one_left_alone(ivcap_journal):
    """An attempt that was ended by a signal has the outcome that Prefect knows, and is asked for once."""
    attempt = begun(ivcap_journal)
    assert reconcile(ivcap_journal, says("crashed")) == []
    assert ivcap_journal.runs.attempt(attempt.id).outcome == "running"
    ivcap_journal.runs.close_attempt(attempt.id, "crashed", "TerminationSignal: 15")
    assert reconcile(ivcap_journal, silent) == []
    [(_, outcome)] = reconcile(ivcap_journal, says("cancelled"))
    assert outcome == ivcap_journal.runs.recent()[0].outcome == "cancelled"
    assert reconcile(ivcap_journal, says("crashed")) == []


def test_a_parked_run_that_was_cancelled_is_closed(ivcap_journal, parked):
    """Once, when Prefect says, with its word in the record, which sinks that had it parked get. One that waits stays
    parked, and the attempt itself had ended before.
    """
    got = []

    class Sink:
        name = "s"

        async def deliver(self, run, graph):
            got.append(run.outcome)
            return Delivery("delivered")

    assert reconcile(ivcap_journal, silent) == []
    assert reconcile(ivcap_journal, says("parked")) == []
    drain(ivcap_journal, [Sink()])
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    [(closed, outcome)] = reconcile(ivcap_journal, says("cancelled", tomorrow))
    assert (closed.id, outcome, ivcap_journal.runs.get("f1").outcome) == (parked.id, "cancelled", "cancelled")
    nodes = run_graph(ivcap_journal, "f1").nodes
    run, attempt = nodes[flows_urn("run", "f1")], nodes[flows_urn("attempt", parked.id)]
    assert (run.attributes["outcome"], run.attributes["cause"], run.ended) == ("cancelled", "by Ada", tomorrow)
    row = ivcap_journal.runs.attempt(parked.id)
    assert (row.outcome, row.ended_at) == (attempt.attributes["outcome"], attempt.ended) == ("parked", parked.ended_at)
    assert reconcile(ivcap_journal, says("cancelled")) == []
    drain(ivcap_journal, [Sink()])
    assert got[-1] == "cancelled"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_run_that_was_woken_is_left_alone(ivcap_journal, parked, when):
    """Its new attempt, which began before Prefect was asked or while it was, decides how it ends."""

    def wakes(flow_run_id: str) -> PrefectState:
        begun(ivcap_journal)
        return PrefectState("cancelled", "by Ada", None)

    if when == "before":
        begun(ivcap_journal)
    assert reconcile(ivcap_journal, says("crashed") if when == "before" else wakes) == []
    assert ivcap_journal.runs.get("f1").outcome == "running"


def told(journal: Journal) -> object:
    """The outcome of the run by its facts."""
    records = [fact.record for fact in journal.facts.of_run("f1")]
    said = [each.attributes.get("outcome") for each in records if each.id == flows_urn("run", "f1")]
    return next((outcome for outcome in reversed(said) if outcome), None)


@pytest.mark.parametrize(
    ("before", "what"), [("parked", "reconcile"), ("lost", "reconcile"), ("failed", "abandon")], ids=str
)
def test_an_end_is_recorded_whenever_who_records_it_is_killed(killed_while, tmp_path, before, what):
    """Whatever was written of Prefect's word before the kill, the next pass has it as a fact, and the pass after that
    nothing. A run is given up and told so, or neither.
    """
    commits, more = 0, True
    while more:
        commits += 1
        place = tmp_path / f"{commits}.sqlite"
        assert not killed_while(before, place)
        more = killed_while(what, place, commits=commits)
        with Journal.open(f"sqlite:///{place}") as journal:
            if what == "abandon":
                assert (journal.runs.get("f1").outcome == "abandoned") == (told(journal) == "abandoned")
                continue
            reconcile(journal, says("cancelled"))
            assert (journal.runs.get("f1").outcome, told(journal)) == ("cancelled", "cancelled")
            assert reconcile(journal, says("cancelled")) == []
    assert commits > 1
    if what == "abandon":
        with Journal.open(f"sqlite:///{place}") as journal:
            assert told(journal) == "abandoned"


def test_what_a_failed_run_is_still_requesting_is_in_no_doubt(ivcap_journal, caplog):
    """The log says so, as long as the process that sends it lives."""
    opened = ivcap_journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r"))
    new = NewIntent("k1:a", "k1:a", "order", "p", "a", "account", {}, run_id=opened.run.id, subject="tides")
    sent = ivcap_journal.intents.mark_sent(ivcap_journal.intents.claim(new).intent)
    tell_of_live_orders(ivcap_journal, opened.run.id, "failed")
    assert "being requested (tides)" in caplog.text and "in doubt" not in caplog.text
    ivcap_journal.intents.release(sent, "lost")
    tell_of_live_orders(ivcap_journal, opened.run.id, "failed")
    assert "in doubt (tides)" in caplog.text


def test_a_journal_that_goes_away_fails_no_run(ivcap_journal, caplog, monkeypatch):
    """What it leaves on the platform is not known then, and the log says so."""
    opened = ivcap_journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r"))
    new = NewIntent("k1:a", "k1:a", "order", "p", "a", "account", {}, run_id=opened.run.id, subject="tides")
    ivcap_journal.intents.mark_sent(ivcap_journal.intents.claim(new).intent)

    def away(row):
        raise JournalError("The journal is away.")

    monkeypatch.setattr(ivcap_journal.intents, "held", away)
    tell_of_live_orders(ivcap_journal, opened.run.id, "failed")
    assert "It is not known which orders and jobs" in caplog.text
