"""Which flow run continues which logical run, and how a killed process is recognised."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.journal import AttemptRow, Fact, Journal, NewIntent, OpenedAttempt, Outcome, RunIdentity, schema
from ivcap_flows.journal.processes import SILENT_SECONDS
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import entity

FORK = multiprocessing.get_context("fork")


def identity(flow_run: str, parameters: dict[str, Any] | None = None, root: str | None = None) -> RunIdentity:
    return RunIdentity("el-nino", "el_nino.py:el_nino", parameters or {"base": 1981}, root or flow_run, flow_run)


def _open_and_stay(url: str, who: RunIdentity, ready: Any) -> None:
    journal = Journal.open(url)
    ready.send(journal.runs.open_attempt(who).attempt.id)
    time.sleep(60)


Opener = Callable[[RunIdentity], tuple[str, Callable[[], None]]]


def _kill(pid: int) -> None:
    """Kill a child without waiting for it. Its entry stays in the process table until its parent waits."""
    os.kill(pid, signal.SIGKILL)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


@pytest.fixture
def in_child(journal_url: str, journal: Journal) -> Iterator[Opener]:
    """Opens an attempt in another process; gives its id and a function that kills the process."""
    children = []

    def start(who: RunIdentity) -> tuple[str, Callable[[], None]]:
        ours, theirs = FORK.Pipe()
        child = FORK.Process(target=_open_and_stay, args=(journal_url, who, theirs), daemon=True)
        child.start()
        children.append(child)
        return ours.recv(), lambda: _kill(child.pid or 0)

    yield start
    for child in children:
        child.kill()
        child.join()


def test_same_root_flow_run_continues_its_run(journal: Journal) -> None:
    """Rule (a): a retry of one flow run is the next attempt, deployed or not, also with `fresh`."""
    for who in (identity("1"), replace(identity("2"), deployed=True, deployment_id="d")):
        first = journal.runs.open_attempt(who)
        journal.runs.close_attempt(first.attempt.id, "failed", "boom")
        second = journal.runs.open_attempt(who, fresh=True)
        assert (second.run.id, second.attempt.number, second.joined) == (first.run.id, 2, True)
        assert second.run.outcome == "running"


def test_killed_script_is_continued(journal: Journal, in_child: Opener) -> None:
    """Rule (b): after kill -9 the same command joins the run; the dead attempt is lost, with when it was last seen."""
    attempt_id, kill = in_child(identity("1"))
    kill()
    assert not journal.runs.alive(journal.runs.attempt(attempt_id))
    opened = journal.runs.open_attempt(identity("2"))
    lost, now = journal.runs.attempts(opened.run.id)
    assert (opened.joined, now.number, lost.id) == (True, 2, attempt_id)
    assert lost.outcome == "lost"
    assert "last seen" in (lost.cause or "")


def test_live_script_is_not_joined(journal: Journal, in_child: Opener) -> None:
    """Rule (b): while the earlier process lives, the same command is work of its own."""
    attempt_id, kill = in_child(identity("1"))
    assert journal.runs.alive(journal.runs.attempt(attempt_id))
    second = journal.runs.open_attempt(identity("2"))
    assert second.joined is False
    kill()
    third = journal.runs.open_attempt(identity("3"))
    assert third.run.id == journal.runs.attempt(attempt_id).run_id


def test_ended_run_of_a_live_process_is_continued(journal: Journal, in_child: Opener) -> None:
    """Rule (b): a failed run is continued although its process lives, such as a notebook or a script that hangs."""
    attempt_id, _ = in_child(identity("1"))
    journal.runs.close_attempt(attempt_id, "crashed", "KeyboardInterrupt")
    second = journal.runs.open_attempt(identity("2"))
    assert (second.joined, second.attempt.number) == (True, 2)
    assert second.run.id == journal.runs.attempt(attempt_id).run_id


def test_failed_run_of_a_gone_process_is_continued(journal: Journal, in_child: Opener) -> None:
    """Rule (b): a failed run is continued. A completed or abandoned one is not."""
    for outcome, joins in (("failed", True), ("cancelled", True), ("completed", False), ("abandoned", False)):
        who = identity(outcome, {"outcome": outcome})
        attempt_id, kill = in_child(who)
        run_id = journal.runs.attempt(attempt_id).run_id
        if outcome != "abandoned":
            journal.runs.close_attempt(attempt_id, outcome)  # type: ignore[arg-type]
        kill()
        if outcome == "abandoned":
            journal.runs.abandon(run_id)
        again = replace(who, flow_run_id="again" + outcome, root_flow_run_id="again" + outcome)
        assert (journal.runs.continued(again) is not None) is joins, outcome
        assert journal.runs.open_attempt(again).joined is joins, outcome


@pytest.mark.parametrize(
    ("change", "fresh"),
    [
        ({}, True),
        ({"deployed": True}, False),
        ({"parameters": {"base": 1991}}, False),
        ({"entry_point": "other.py:el_nino"}, False),
        ({"flow_name": "la-nina"}, False),
        ({"code": "flows/el_nino.py:el_nino"}, False),
        ({"parameters_sha256": "unlike any"}, False),
    ],
)
def test_what_is_not_the_same_command(journal: Journal, in_child: Opener, change: dict[str, Any], fresh: bool) -> None:
    """`fresh`, a deployment, other parameters, another entry point and another flow begin a new run."""
    _, kill = in_child(identity("1"))
    kill()
    assert journal.runs.open_attempt(replace(identity("2"), **change), fresh=fresh).joined is False


def test_a_run_goes_on_where_its_code_is_now(journal: Journal, in_child: Opener) -> None:
    """Known by the code's place in its project, it is joined from another checkout, and names that one from then on.

    What was shown as parameters stays; each attempt names where it ran; a subflow does not name the run's code.
    """
    moved = {"code": "el_nino.py:el_nino", "parameters_sha256": "equal"}
    first = replace(identity("1"), entry_point="/old/el_nino.py:el_nino", parameters={"in": "/old/a"}, **moved)
    _, kill = in_child(first)
    kill()
    again = replace(identity("2"), entry_point="/new/el_nino.py:el_nino", parameters={"in": "/new/a"}, **moved)
    assert (continued := journal.runs.continued(again)) is not None
    assert continued.entry_point == first.entry_point
    opened = journal.runs.open_attempt(again)
    assert (opened.joined, opened.run.entry_point, opened.run.parameters) == (True, again.entry_point, {"in": "/old/a"})
    journal.runs.close_attempt(opened.attempt.id, "failed")
    child = replace(identity("3", root="2"), flow_name="sub", entry_point="/new/sub.py:sub")
    assert journal.runs.open_attempt(child).run.entry_point == again.entry_point
    places = [attempt.entry_point for attempt in journal.runs.attempts(opened.run.id)]
    assert places == [first.entry_point, again.entry_point, child.entry_point]


def test_scope_flow_is_the_flow_or_the_code_of_a_script(journal: Journal) -> None:
    """The scope `flow` is the flow's name, or the code's place for a script without a flow."""
    assert journal.runs.open_attempt(identity("1")).run.flow == "el-nino"
    script = replace(identity("2"), flow_name="run.py", entry_point="/home/run.py:", code="work/run.py:")
    assert journal.runs.open_attempt(script).run.flow == "work/run.py:"


def test_deployed_run_is_never_joined_by_a_script(journal: Journal, in_child: Opener) -> None:
    """Rule (b) looks at scripts' runs only."""
    _, kill = in_child(replace(identity("1"), deployed=True))
    kill()
    assert journal.runs.open_attempt(identity("2")).joined is False


def test_unfinished_run_before_a_completed_one_is_past(journal: Journal, in_child: Opener) -> None:
    """Once the same command has completed, an older unfinished run is not continued."""
    _, kill = in_child(identity("1"))
    kill()
    done = journal.runs.open_attempt(identity("2"), fresh=True)
    journal.runs.close_attempt(done.attempt.id, "completed")
    assert journal.runs.open_attempt(identity("3")).joined is False


def test_order_of_parameters_does_not_matter(journal: Journal, in_child: Opener) -> None:
    """Parameters are compared as canonical JSON, also with numbers that it cannot represent."""
    huge = 2**70
    _, kill = in_child(identity("1", {"a": 1, "b": [huge]}))
    kill()
    assert journal.runs.open_attempt(identity("2", {"b": [huge], "a": 1})).joined is True


def _race(url: str, number: int, moment: float, results: Any) -> None:
    journal = Journal.open(url)
    journal.runs.open_attempt(identity(f"warm-{number}", {"warm": number}))
    time.sleep(max(0.0, moment - time.time()))
    opened = journal.runs.open_attempt(identity(f"race-{number}"))
    results.put((opened.run.id, opened.joined))
    time.sleep(60)


def test_of_commands_at_once_one_continues(journal_url: str, journal: Journal, in_child: Opener) -> None:
    """Of four processes that could continue a killed run, one does and the others begin their own."""
    attempt_id, kill = in_child(identity("1"))
    kill()
    results = FORK.Queue()
    moment = time.time() + 0.4
    children = [FORK.Process(target=_race, args=(journal_url, n, moment, results), daemon=True) for n in range(4)]
    for child in children:
        child.start()
    opened = [results.get(timeout=20) for _ in children]
    for child in children:
        child.kill()
        child.join()
    assert [run_id for run_id, joined in opened if joined] == [journal.runs.attempt(attempt_id).run_id]
    assert len({run_id for run_id, _ in opened}) == 4


def test_subflow_belongs_to_its_parents_attempt(journal: Journal) -> None:
    """A subflow has the number of the attempt that it runs in. Its end is not the end of the run."""
    parent = journal.runs.open_attempt(identity("root"))
    child = journal.runs.open_attempt(replace(identity("sub", root="root"), entry_point="sub.py:sub"))
    assert (child.run.id, child.attempt.number, child.attempt.leads, child.joined) == (parent.run.id, 1, False, False)
    journal.runs.close_attempt(child.attempt.id, "completed")
    assert journal.runs.get(parent.run.id).outcome == "running"
    journal.runs.close_attempt(parent.attempt.id, "failed")
    retried = journal.runs.open_attempt(identity("root"))
    assert retried.attempt.number == 2
    assert journal.runs.open_attempt(identity("sub", root="root")).attempt.number == 2


def test_a_subflow_continues_no_run_of_its_like(journal: Journal) -> None:
    """It belongs to the run of its root, and is the first of it if the journal does not know that."""
    before = journal.runs.open_attempt(identity("1"))
    journal.runs.close_attempt(before.attempt.id, "failed")
    child = identity("2", root="deployed")
    assert journal.runs.continued(child) is None
    assert journal.runs.open_attempt(child).run.id == "deployed"
    again = journal.runs.open_attempt(identity("3"))
    assert (again.run.id, again.joined) == ("1", True)
    journal.runs.close_attempt(again.attempt.id, "completed")
    assert journal.runs.completed_before(identity("4", root="another")) is None


def test_closing_an_old_attempt_leaves_the_newer_outcome(journal: Journal) -> None:
    """The newest leading attempt decides the run's outcome, whatever the order in which attempts close."""
    first = journal.runs.open_attempt(identity("1"))
    second = journal.runs.open_attempt(identity("1"))
    journal.runs.close_attempt(second.attempt.id, "completed")
    journal.runs.close_attempt(first.attempt.id, "crashed")
    assert journal.runs.get(first.run.id).outcome == "completed"


@pytest.mark.parametrize("end", ["failed", "killed"])
def test_a_run_has_completed_once_any_of_its_attempts_has(journal: Journal, in_child: Opener, end: str) -> None:
    """If one of two attempts at the same time completes, the run has completed, however the other ends.

    A later attempt may change that.
    """
    first = journal.runs.open_attempt(identity("deployed"))
    second, kill = in_child(identity("deployed"))
    journal.runs.close_attempt(first.attempt.id, "completed")
    assert journal.runs.get(first.run.id).outcome == "completed"
    if end == "killed":
        kill()
        assert [attempt.id for attempt in journal.runs.reap()] == [second]
    else:
        journal.runs.close_attempt(second, "failed", "out of luck")
    assert journal.runs.get(first.run.id).outcome == "completed"
    later = journal.runs.open_attempt(identity("deployed"))
    assert journal.runs.get(first.run.id).outcome == "running"
    journal.runs.close_attempt(later.attempt.id, "failed", "this one was begun afterwards")
    assert journal.runs.get(first.run.id).outcome == "failed"


def test_a_completion_that_is_taken_back_leaves_the_run_to_be_continued(journal: Journal, in_child: Opener) -> None:
    """If Prefect did not hear that an attempt completed, the attempt becomes lost and the run can be continued."""
    first, kill_first = in_child(identity("1"))
    second, kill_second = in_child(identity("1"))
    journal.runs.close_attempt(first, "completed")
    kill_first()
    kill_second()
    assert [attempt.id for attempt in journal.runs.reap()] == [second]
    done = journal.runs.completed_before(identity("2"))
    assert done is not None and done.id == first
    journal.runs.close_attempt(first, "lost", "Prefect has not heard of its end")
    assert journal.runs.completed_before(identity("2")) is None
    assert journal.runs.open_attempt(identity("2")).run.id == done.run_id


def test_a_run_goes_on_where_an_older_attempt_is_lost(journal: Journal, in_child: Opener) -> None:
    """A lost older attempt does not end the run: the newer one decides."""
    first, kill = in_child(identity("deployed"))
    second = journal.runs.open_attempt(identity("deployed"))
    kill()
    assert [attempt.id for attempt in journal.runs.reap()] == [first]
    assert journal.runs.get(second.run.id).outcome == "running"
    assert not journal.runs.decides(journal.runs.attempt(first), "lost")
    assert journal.runs.decides(second.attempt, "failed") and journal.runs.decides(second.attempt, "completed")


def test_of_two_attempts_that_end_at_once_neither_overlooks_the_other(
    journal_url: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attempts that end at the same time are closed one after the other, so the completed one is not overlooked."""
    older = journal.runs.open_attempt(identity("deployed"))
    newer = journal.runs.open_attempt(identity("deployed"))
    has_read, over = threading.Event(), threading.Event()
    with Journal.open(journal_url) as other:
        attempts = other.runs._attempts

        def slowly(connection: sa.Connection, run_id: str) -> Sequence[AttemptRow]:
            rows = attempts(connection, run_id)
            has_read.set()
            over.wait(0.5)
            return rows

        monkeypatch.setattr(other.runs, "_attempts", slowly)
        with ThreadPoolExecutor() as pool:
            failing = pool.submit(other.runs.close_attempt, newer.attempt.id, "failed")
            assert has_read.wait(10)
            journal.runs.close_attempt(older.attempt.id, "completed")
            over.set()
            failing.result()
    assert journal.runs.get(older.run.id).outcome == "completed"


@pytest.mark.parametrize("end", ["completed", "failed", "lost"])
def test_a_run_goes_on_where_the_newer_of_two_attempts_is_lost(
    journal: Journal, in_child: Opener, end: Outcome
) -> None:
    """If the newer of two attempts is lost, the older one that still lives decides the outcome."""
    first = journal.runs.open_attempt(identity("deployed"))
    second, kill = in_child(identity("deployed"))
    kill()
    assert journal.runs.standing(journal.runs.get(first.run.id))[0].outcome == "running"
    assert not journal.runs.decides(journal.runs.attempt(second), "lost")
    assert [attempt.id for attempt in journal.runs.reap()] == [second]
    assert journal.runs.get(first.run.id).outcome == "running"
    assert journal.runs.decides(first.attempt, end)
    journal.runs.close_attempt(first.attempt.id, end)
    assert journal.runs.get(first.run.id).outcome == end


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the journal's clock ahead of the real time, or behind it, by some hours."""
    now, off = Store.now, [0.0]
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=off[0]))
    return lambda hours: off.__setitem__(0, hours)


def test_a_clock_that_is_set_back_loses_no_end(journal: Journal, set_clock: Callable[[float], None]) -> None:
    """A run that completed by a clock behind its begin has completed. The next start is a new run."""
    first = journal.runs.open_attempt(identity("1"))
    set_clock(-3)
    journal.runs.close_attempt(first.attempt.id, "completed")
    assert journal.runs.get(first.run.id).outcome == "completed"
    ended = journal.runs.attempt(first.attempt.id)
    assert ended.ended_at is not None and ended.ended_at >= ended.started_at
    assert journal.runs.open_attempt(identity("2")).run.id != first.run.id


@pytest.mark.parametrize("end", ["failed", "completed"])
def test_an_end_before_the_next_attempt_is_past_whatever_the_clock_says(
    journal: Journal, set_clock: Callable[[float], None], end: Outcome
) -> None:
    """An attempt that ended before the newest one began does not decide the outcome, even if the clock was set back."""
    set_clock(3)
    first = journal.runs.open_attempt(identity("deployed"))
    journal.runs.close_attempt(first.attempt.id, end)
    set_clock(0)
    second = journal.runs.open_attempt(identity("deployed"))
    journal.runs.close_attempt(second.attempt.id, "crashed")
    assert journal.runs.get(first.run.id).outcome == "crashed"


def test_a_lost_attempt_ends_no_earlier_than_it_began(
    journal: Journal, in_child: Opener, set_clock: Callable[[float], None]
) -> None:
    """A lost attempt does not end before its begin, even if the clock was ahead then."""
    set_clock(3)
    attempt, kill = in_child(identity("1"))
    set_clock(0)
    with journal._store.write() as connection:
        connection.execute(sa.update(schema.processes).values(heartbeat_at=journal._store.now(connection)))
    kill()
    assert [each.id for each in journal.runs.reap()] == [attempt]
    lost = journal.runs.attempt(attempt)
    assert lost.outcome == "lost" and lost.ended_at is not None and lost.ended_at >= lost.started_at


def test_runs_and_attempts_keep_their_order_when_the_clock_is_set_back(
    journal: Journal, set_clock: Callable[[float], None]
) -> None:
    """Runs and attempts are listed in the order in which they began, even if the clock was set back."""
    made = []
    for hours, end in ((3, "completed"), (-3, "failed")):
        set_clock(hours)
        made.append(journal.runs.open_attempt(identity(f"{hours}")))
        journal.runs.close_attempt(made[-1].attempt.id, end)
    set_clock(-6)
    assert [run.id for run in journal.runs.recent()] == [each.run.id for each in reversed(made)]
    [first] = journal.runs.recent(1)
    assert [run.id for run in journal.runs.recent(1, before=first)] == [made[0].run.id]
    again = journal.runs.open_attempt(identity("again"))
    assert again.run.id == made[1].run.id, "the one that failed after the other had completed is continued"
    inner = [journal.runs.open_attempt(identity("inner", root="again")) for _ in range(2)]
    set_clock(-9)
    inner.append(journal.runs.open_attempt(identity("inner", root="again")))
    listed = [attempt.id for attempt in journal.runs.attempts(again.run.id)]
    assert listed[-4:] == [again.attempt.id, *(each.attempt.id for each in inner)]
    found = journal.runs.attempt_of("inner")
    assert found is not None and found.attempt.id == inner[-1].attempt.id


def test_a_run_stands_as_lost_before_anybody_has_written_it_down(journal: Journal, in_child: Opener) -> None:
    """A run whose process is gone is shown as lost. Reading it changes nothing."""
    attempt, kill = in_child(identity("1"))
    run = journal.runs.get(journal.runs.attempt(attempt).run_id)
    assert journal.runs.standing(run)[0].outcome == "running"
    kill()
    stood, attempts = journal.runs.standing(run)
    assert (stood.outcome, [each.outcome for each in attempts]) == ("lost", ["lost"])
    assert journal.runs.get(run.id).outcome == "running"


def test_process_of_another_machine_lives_by_its_beat(
    journal_url: str, journal: Journal, take_elsewhere: Callable[..., None]
) -> None:
    """A process of another machine lives as long as its heartbeat moves, since its lock is not here."""
    with Journal.open(journal_url) as other:
        opened = other.runs.open_attempt(identity("1"))
        take_elsewhere(journal, SILENT_SECONDS - 5)
        assert journal.runs.alive(journal.runs.attempt(opened.attempt.id))
        take_elsewhere(journal, SILENT_SECONDS + 5)
        assert not journal.runs.alive(journal.runs.attempt(opened.attempt.id))
        other.processes.heartbeat()
        assert journal.runs.alive(journal.runs.attempt(opened.attempt.id))


def test_a_run_of_another_machine_is_continued_whatever_the_clock_says(
    journal_url: str, journal: Journal, set_clock: Callable[[float], None], take_elsewhere: Callable[..., None]
) -> None:
    """A heartbeat from the future was written before the clock was set back, so the run is continued.

    A live process sends new heartbeats.
    """
    with Journal.open(journal_url) as other:
        opened = other.runs.open_attempt(identity("1"))
        take_elsewhere(journal, SILENT_SECONDS + 5)
        set_clock(-3)
        again = journal.runs.open_attempt(identity("2"))
        assert (again.run.id, again.joined) == (opened.run.id, True)
        journal.runs.close_attempt(again.attempt.id, "failed")
        other.processes.heartbeat()
        assert journal.runs.alive(replace(opened.attempt, process=journal.runs.attempt(opened.attempt.id).process))


def test_reap_finds_the_killed(journal: Journal, in_child: Opener) -> None:
    """Attempts of dead processes become lost, once. Live ones are unchanged."""
    dead, kill = in_child(identity("1"))
    alive = journal.runs.open_attempt(identity("2"))
    kill()
    assert [row.id for row in journal.runs.reap()] == [dead]
    assert journal.runs.get(journal.runs.attempt(dead).run_id).outcome == "lost"
    assert journal.runs.reap() == []
    assert journal.runs.attempt(alive.attempt.id).outcome == "running"


def test_runs_are_found_by_what_people_have(journal: Journal) -> None:
    """By its id or part of it, its flow or Prefect flow run, or as the latest. No match, or several, is an error."""
    with pytest.raises(InputError, match="has no run yet"):
        journal.runs.get("latest")
    opened = [
        journal.runs.open_attempt(replace(identity(f"flow-run-{n}", {"n": n}), flow_run_name=f"swift-owl-{n % 20}"))
        for n in range(40)
    ]
    run = opened[0].run
    assert journal.runs.get(run.id).id == journal.runs.get("flow-run-0").id == run.id
    assert journal.runs.get(run.id[:12]).parameters == {"n": 0}
    assert journal.runs.get("w-run-7").parameters == {"n": 7}
    assert journal.runs.get("swift-owl-7").parameters == {"n": 27}
    assert journal.runs.get(run.flow_name).parameters == journal.runs.get("latest").parameters == {"n": 39}
    with pytest.raises(InputError, match="has no run 'zzz'"):
        journal.runs.get("zzz")
    with pytest.raises(InputError, match="ambiguous"):
        journal.runs.get("")
    again = journal.runs.attempt_of("flow-run-3")
    assert again is not None
    assert again.attempt.id == opened[3].attempt.id
    assert journal.runs.attempt_of("none") is None


def test_runs_are_paged_newest_first(journal: Journal) -> None:
    """Pages follow each other without gap or repetition."""
    made = [journal.runs.open_attempt(identity(str(n), {"n": n})).run.id for n in range(7)]
    first = journal.runs.recent(3)
    second = journal.runs.recent(10, before=first[-1])
    assert [row.id for row in first + second] == made[::-1]


def test_missing_facts_are_counted(journal: Journal) -> None:
    """The run counts the facts that could not be written."""
    run = journal.runs.open_attempt(identity("1")).run
    journal.runs.count_missing(run.id, 3)
    journal.runs.count_missing(run.id, 4)
    assert journal.runs.get(run.id).missing_facts == 7


def test_prune_keeps_the_keys_that_last(journal: Journal) -> None:
    """Pruning deletes completed runs with their run-scoped intents. Keys of scope flow and account stay for ever."""
    opened = journal.runs.open_attempt(identity("1"))
    for scope in (f"run:{opened.run.id}", "flow:f", "account"):
        key = f"k1:{scope}"
        journal.intents.claim(
            NewIntent(key, key, "order", "p", "a", scope, {}, run_id=opened.run.id, attempt_id=opened.attempt.id)
        )
    unfinished = journal.runs.open_attempt(identity("2", {"n": 2})).run
    journal.runs.close_attempt(opened.attempt.id, "completed")
    assert journal.prune(older_than_days=1) == 0
    assert journal.prune(older_than_days=0) == 1
    assert [row.id for row in journal.runs.recent()] == [unfinished.id]
    assert {row.scope for row in journal.intents.where()} == {"flow:f", "account"}


def test_forked_child_has_a_lease_of_its_own(journal: Journal) -> None:
    """A forked child that uses the same journal object has its own connections and its own lease."""
    ours = journal.runs.open_attempt(identity("1"))
    pid = os.fork()
    if pid == 0:
        try:
            journal.runs.open_attempt(identity("2", {"n": 2}))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs = journal.runs.attempt_of("2")
    assert theirs is not None
    assert theirs.attempt.process.pid == pid != ours.attempt.process.pid
    assert not journal.runs.alive(theirs.attempt)


def test_prune_keeps_what_is_open_and_what_is_not_delivered(journal: Journal) -> None:
    """Pruning keeps a run with a doubt or with undelivered records, and the orphan of an abandoned run."""
    ids = {}
    made = {"doubt": "sent", "orphan": "done", "new": None, "old": None, "more": None}
    for number, (name, state) in enumerate(made.items()):
        opened = journal.runs.open_attempt(identity(str(number), {"n": number}))
        ids[name] = opened.run.id
        if state is not None:
            scope = f"run:{opened.run.id}"
            asked = NewIntent(name, name, "order", "p", "a", scope, {}, run_id=opened.run.id)
            intent = journal.intents.mark_sent(journal.intents.claim(asked).intent)
            if state == "done":
                journal.intents.settle(intent, urn="u", outcome={}, how="sent")
        journal.runs.close_attempt(opened.attempt.id, "failed" if name == "orphan" else "completed")
        fact = Fact(entity("urn:x:1", "entity"), opened.run.id)
        journal.facts.append([fact])
        if name != "new":
            told = f"{opened.run.id}@{journal.facts.last_seq(opened.run.id)}"
            journal.deliveries.record("prov-json:/x", told, "delivered", run_id=opened.run.id)
        if name == "more":
            journal.facts.append([fact])
    journal.runs.abandon(ids["orphan"])
    assert journal.prune(older_than_days=0, sinks=["prov-json:/x", "ivcap:https://p"]) == 0
    assert journal.prune(older_than_days=0, sinks=["prov-json:/y"]) == 0
    assert journal.prune(older_than_days=0, sinks=["prov-json:/x"]) == 1
    assert {row.id for row in journal.runs.recent()} == {ids[name] for name in ("doubt", "orphan", "new", "more")}


def test_a_run_is_not_given_up_while_it_runs_or_once_it_completed(journal: Journal, in_child: Opener) -> None:
    """A running or completed run cannot be abandoned."""
    attempt_id, kill = in_child(identity("1"))
    run_id = journal.runs.attempt(attempt_id).run_id
    with pytest.raises(DurabilityError, match="is running"):
        journal.runs.abandon(run_id)
    kill()
    journal.runs.abandon(run_id)
    journal.runs.abandon(run_id)
    assert journal.runs.get(run_id).outcome == "abandoned"
    journal.runs.reap()
    journal.runs.close_attempt(attempt_id, "crashed", "Prefect's word, which comes late")
    assert journal.runs.get(run_id).outcome == "abandoned"
    done = journal.runs.open_attempt(identity("2", {"other": True}))
    journal.runs.close_attempt(done.attempt.id, "completed")
    with pytest.raises(DurabilityError, match="completed"):
        journal.runs.abandon(done.run.id)


def test_prune_asks_no_sink_that_is_switched_off(journal: Journal) -> None:
    """A delivery that a sink refused keeps its run only while the sink is on."""
    opened = journal.runs.open_attempt(identity("1"))
    journal.runs.close_attempt(opened.attempt.id, "completed")
    journal.facts.append([Fact(entity("urn:x:1", "entity"), opened.run.id)])
    told = f"{opened.run.id}@{journal.facts.last_seq(opened.run.id)}"
    for sink, state in (("ivcap:https://old", "dead"), ("ivcap:https://new", "delivered"), ("prov-n:/x", "delivered")):
        journal.deliveries.record(sink, told, state, run_id=opened.run.id)  # type: ignore[arg-type]
    assert journal.prune(older_than_days=0, sinks=["prov-n:/x", "ivcap:https://old"]) == 0
    assert journal.prune(older_than_days=0, sinks=["prov-n:/x", "ivcap:https://new"]) == 1
    assert journal.deliveries.where() == []


def test_prune_keeps_what_a_deployed_run_has_paid_for(journal: Journal) -> None:
    """Pruning keeps the paid orders of a deployed run, since Prefect may run it again. Other intents are deleted."""
    asked = RunIdentity("f", "f.py:f", {}, "1", "1", deployed=True)
    opened = journal.runs.open_attempt(asked)
    for noun, spends in (("order", True), ("aspect", False)):
        scope = f"run:{opened.run.id}"
        wanted = NewIntent(noun, noun, noun, "p", "a", scope, {}, spends=spends, run_id=opened.run.id)
        intent = journal.intents.mark_sent(journal.intents.claim(wanted).intent)
        journal.intents.settle(intent, urn="u", outcome={}, how="sent")
        journal.intents.finish(noun, "succeeded", {})
    journal.runs.close_attempt(opened.attempt.id, "completed")
    assert journal.prune(older_than_days=0) == 1
    again = journal.runs.open_attempt(asked)
    assert again.run.id == opened.run.id
    wanted = NewIntent("order", "order", "order", "p", "a", f"run:{again.run.id}", {}, run_id=again.run.id)
    assert journal.intents.claim(wanted).kind == "kept"
    assert [row.noun for row in journal.intents.where()] == ["order"]


def test_prune_leaves_a_run_that_a_process_is_still_at(journal: Journal) -> None:
    """Pruning keeps a completed run while another attempt of it lives, which would otherwise order again."""
    asked = RunIdentity("f", "f.py:f", {}, "1", "1", deployed=True)
    first, second = (journal.runs.open_attempt(asked) for _ in range(2))
    assert first.run.id == second.run.id
    journal.runs.close_attempt(first.attempt.id, "completed")
    assert journal.runs.get(first.run.id).outcome == "completed"
    assert journal.prune(older_than_days=0) == 0
    journal.runs.close_attempt(second.attempt.id, "failed")
    assert journal.prune(older_than_days=0) == 1


@pytest.mark.parametrize("moment", ["DELETE FROM intents", "DELETE FROM runs"])
def test_a_run_is_pruned_with_its_intents_or_not_at_all(journal: Journal, journal_url: str, moment: str) -> None:
    """An attempt that begins during pruning finds either the whole run or nothing of it."""
    asked = RunIdentity("f", "f.py:f", {}, "1", "1", deployed=True)
    opened = journal.runs.open_attempt(asked)
    scope = f"run:{opened.run.id}"
    wanted = NewIntent("k", "k", "aspect", "p", "a", scope, {}, run_id=opened.run.id)
    intent = journal.intents.mark_sent(journal.intents.claim(wanted).intent)
    journal.intents.settle(intent, urn="u", outcome={}, how="sent")
    journal.runs.close_attempt(opened.attempt.id, "completed")
    joined: list[OpenedAttempt] = []

    def join() -> None:
        with Journal.open(journal_url) as other:
            joined.append(other.runs.open_attempt(asked))

    meanwhile = threading.Thread(target=join)

    @sa.event.listens_for(journal._store.engine, "before_cursor_execute")
    def _before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(moment) and not meanwhile.ident:
            meanwhile.start()
            # It is done now, or waits for the pruning to end.
            meanwhile.join(0.5)

    journal.prune(older_than_days=0)
    meanwhile.join(60)
    sa.event.remove(journal._store.engine, "before_cursor_execute", _before)
    [again] = joined
    assert journal.runs.get(again.run.id).outcome == "running"
    assert [row.key for row in journal.intents.where()] == (["k"] if again.joined else [])
