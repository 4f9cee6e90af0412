"""Which flow run continues which logical run, how its attempts decide its outcome, and how people find it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.journal import Journal, RunIdentity, schema
from ivcap_flows.journal.processes import SILENT_SECONDS
from ivcap_flows.journal.store import Store


def command(name, **changes):
    return replace(RunIdentity("el-nino", "el_nino.py:el_nino", {"base": 1981}, name, name), **changes)


@pytest.fixture
def elsewhere(journal_url):
    """Begins attempts in a journal of another holder; gives what ends that holder, as a kill does, and their ids."""
    with ExitStack() as everything:

        def begin(*some):
            holder = everything.enter_context(Journal.open(journal_url))
            return holder.close, *(holder.runs.open_attempt(each).attempt.id for each in some)

        yield begin


@pytest.fixture
def set_clock(monkeypatch):
    """Sets the journal's clock ahead of the real time, or behind it, by some hours."""
    now, off = Store.now, [0.0]
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=off[0]))
    return lambda hours: off.__setitem__(0, hours)


def test_a_retry_of_a_flow_run_continues_its_run(journal):
    """Deployed or not, also with `fresh`."""
    for who in (command("1"), command("2", deployed=True, deployment_id="d")):
        first = journal.runs.open_attempt(who)
        journal.runs.close_attempt(first.attempt.id, "failed", "boom")
        second = journal.runs.open_attempt(who, fresh=True)
        assert (second.run.id, second.attempt.number, second.joined) == (first.run.id, 2, True)
        assert second.run.outcome == "running"


NEXT = {
    "the same again": ({}, {}, True),
    "of one that failed": ({}, {}, True),
    "of one that was cancelled": ({}, {}, True),
    "of one that completed": ({}, {}, False),
    "of one that was given up": ({}, {}, False),
    "of one that was deployed": ({"deployed": True}, {}, False),
    "afresh": ({}, {}, False),
    "deployed": ({}, {"deployed": True}, False),
    "with other parameters": ({}, {"parameters": {"base": 1991}}, False),
    "with another digest of them": ({}, {"parameters_sha256": "unlike any"}, False),
    "with another order of them": ({"parameters": {"a": 1, "b": 2**70}}, {"parameters": {"b": 2**70, "a": 1}}, True),
    "from another entry point": ({}, {"entry_point": "other.py:el_nino"}, False),
    "from another place in its project": ({}, {"code": "flows/el_nino.py:el_nino"}, False),
    "of another flow": ({}, {"flow_name": "la-nina"}, False),
}
"""What is special about a command and about the next one, and whether the next one continues the run of the first."""
ENDED = {"of one that failed": "failed", "of one that was cancelled": "cancelled", "of one that completed": "completed"}


def test_which_command_continues_a_run(journal, elsewhere):
    """The next one does that is the same, if the run is unfinished and no process is at it."""
    kill, *attempts = elsewhere(
        *(command(f"{case} 1", **{"flow_name": case, **first}) for case, (first, *_) in NEXT.items())
    )

    def following(case):
        return command(f"{case} 2", **{"flow_name": case, **NEXT[case][1]}), case == "afresh"

    def continued(case):
        who, fresh = following(case)
        return journal.runs.continued(who, fresh=fresh) is not None

    assert all(journal.runs.alive(journal.runs.attempt(attempt)) for attempt in attempts)
    assert not any(map(continued, NEXT))
    for case, attempt in zip(NEXT, attempts, strict=True):
        if case in ENDED:
            journal.runs.close_attempt(attempt, ENDED[case])
    assert continued("of one that failed"), "such as in a notebook, whose process lives on"
    kill()
    journal.runs.abandon("of one that was given up 1")
    assert not journal.runs.alive(journal.runs.attempt(attempts[0]))
    joined = {}
    for case in NEXT:
        would = continued(case)
        who, fresh = following(case)
        opened = journal.runs.open_attempt(who, fresh=fresh)
        assert opened.joined == would == (opened.run.id == f"{case} 1")
        joined[case] = opened.joined
    assert joined == {case: joins for case, (*_, joins) in NEXT.items()}
    lost, now = journal.runs.attempts("the same again 1")
    assert (lost.outcome, now.number) == ("lost", 2) and "last seen" in lost.cause


def test_unfinished_runs_before_one_that_completed_are_past(journal, elsewhere):
    """Before that, the newest one that no process is at is continued."""
    kill, _ = elsewhere(command("1"))
    assert not journal.runs.open_attempt(command("2")).joined
    kill()
    third = journal.runs.open_attempt(command("3"))
    assert third.run.id == "1"
    journal.runs.close_attempt(third.attempt.id, "failed")
    done = journal.runs.open_attempt(command("4"), fresh=True)
    journal.runs.close_attempt(done.attempt.id, "completed")
    assert not journal.runs.open_attempt(command("5")).joined


def test_a_run_goes_on_where_its_code_is_now(journal, elsewhere):
    """Known by the code's place in its project, it is joined from another checkout, and names that one from then on.

    What was shown as parameters stays; each attempt names where it ran; a subflow does not name the run's code.
    """
    moved = {"code": "el_nino.py:el_nino", "parameters_sha256": "equal"}
    kill, _ = elsewhere(command("1", entry_point="/old/el_nino.py:el_nino", parameters={"in": "/old/a"}, **moved))
    kill()
    again = command("2", entry_point="/new/el_nino.py:el_nino", parameters={"in": "/new/a"}, **moved)
    assert journal.runs.continued(again).entry_point == "/old/el_nino.py:el_nino"
    opened = journal.runs.open_attempt(again)
    assert (opened.joined, opened.run.entry_point, opened.run.parameters) == (True, again.entry_point, {"in": "/old/a"})
    journal.runs.close_attempt(opened.attempt.id, "failed")
    child = command("3", root_flow_run_id="2", flow_name="sub", entry_point="/new/sub.py:sub")
    assert journal.runs.open_attempt(child).run.entry_point == again.entry_point
    places = [attempt.entry_point for attempt in journal.runs.attempts(opened.run.id)]
    assert places == ["/old/el_nino.py:el_nino", again.entry_point, child.entry_point]


def test_the_scope_flow_is_the_flow_or_the_code_of_a_script(journal):
    assert journal.runs.open_attempt(command("1")).run.flow == "el-nino"
    script = command("2", flow_name="run.py", entry_point="/home/run.py:", code="work/run.py:")
    assert journal.runs.open_attempt(script).run.flow == "work/run.py:"


def test_of_commands_at_once_one_continues(journal_url, elsewhere, at_once):
    """Of four processes that could continue a killed run, one does and the others begin their own."""
    kill, _ = elsewhere(command("1"))
    kill()

    def race(number, together):
        with Journal.open(journal_url) as journal:
            journal.runs.open_attempt(command(f"warm-{number}", parameters={"warm": number}))
            together()
            yield journal.runs.open_attempt(command(f"race-{number}")).run.id

    found = at_once(4, race)
    assert len(set(found)) == 4 and found.count("1") == 1


def test_a_subflow_belongs_to_the_run_of_its_root(journal):
    """It has the number of the attempt that it runs in. Its end is not the end of the run, and it continues no other
    run of its like, even if the journal does not know its root."""
    parent = journal.runs.open_attempt(command("1"))
    inner = command("sub", root_flow_run_id="1", entry_point="sub.py:sub")
    child = journal.runs.open_attempt(inner)
    assert (child.run.id, child.attempt.number, child.attempt.leads, child.joined) == ("1", 1, False, False)
    journal.runs.close_attempt(child.attempt.id, "completed")
    assert journal.runs.get("1").outcome == "running"
    journal.runs.close_attempt(parent.attempt.id, "failed")
    stray = command("2", root_flow_run_id="unknown")
    assert journal.runs.continued(stray) is None
    assert journal.runs.open_attempt(stray).run.id == "unknown"
    retried = journal.runs.open_attempt(command("1"))
    assert (retried.attempt.number, journal.runs.open_attempt(inner).attempt.number) == (2, 2)


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ("1 begins, 2 begins, 2 completed, 1 crashed", "completed"),
        ("1 begins, 2 begins, 1 completed, 2 failed", "completed"),
        ("1 begins, 2 begins, 1 completed, 2 killed", "completed"),
        ("1 begins, 2 begins, 1 completed, 2 failed, 3 begins", "running"),
        ("1 begins, 2 begins, 1 completed, 2 killed, 3 begins, 3 failed", "failed"),
        ("1 begins, 2 begins, 1 killed", "running"),
        ("1 begins, 2 begins, 2 killed", "running"),
        *((f"1 begins, 2 begins, 2 killed, 1 {end}", end) for end in ("completed", "failed", "lost")),
        ("1 begins, 1 killed", "lost"),
        ("1 begins, clock -3, 1 completed", "completed"),
        ("clock 3, 1 begins, clock 0, 1 killed", "lost"),
        *((f"clock 3, 1 begins, 1 {end}, clock 0, 2 begins, 2 crashed", "crashed") for end in ("failed", "completed")),
        *((f"1 begins, user abandons, 1 {end}", "abandoned") for end in ("failed", "completed")),
    ],
)
def test_the_attempts_of_a_run_decide_its_outcome(journal, elsewhere, set_clock, steps, outcome):
    """The newest does, and any that ran at the same time and completed, whatever the order in which they end and
    whatever the clock says. A run that was given up stays that. What a run is shown as is what it will be once that is
    written."""
    runs, kills, attempts = journal.runs, {}, {}
    for who, what in (step.split() for step in steps.split(", ")):
        if who == "clock":
            set_clock(float(what))
        elif who == "user":
            runs.abandon("r", running=True)
        elif what == "begins":
            kills[who], attempts[who] = elsewhere(command("r", deployed=True))
        else:
            attempt, end = runs.attempt(attempts[who]), "lost" if what == "killed" else what
            decides = runs.decides(attempt, end)
            if what == "killed":
                with journal._store.write() as connection:
                    now = journal._store.now(connection)
                    connection.execute(sa.update(schema.processes).values(heartbeat_at=now))
                before = runs.get("r")
                kills[who]()
                assert runs.get("r") == before
                standing = runs.standing(before)[0].outcome
                assert [each.id for each in runs.reap()] == [attempt.id] and runs.reap() == []
                assert runs.get("r").outcome == standing
            else:
                runs.close_attempt(attempt.id, end)
            ended = runs.attempt(attempt.id)
            assert ended.outcome == end and ended.ended_at >= ended.started_at
            assert decides == (runs.get("r").outcome == end)
    assert runs.get("r").outcome == outcome


def test_a_completion_that_is_taken_back_leaves_the_run_to_be_continued(journal, elsewhere):
    """If Prefect did not hear that an attempt completed, the attempt becomes lost and the run can be continued."""
    (kill, first), (kill_other, _) = elsewhere(command("1")), elsewhere(command("1"))
    journal.runs.close_attempt(first, "completed")
    kill()
    kill_other()
    journal.runs.reap()
    assert journal.runs.completed_before(command("2")).id == first
    assert journal.runs.completed_before(command("2", root_flow_run_id="a root")) is None
    journal.runs.close_attempt(first, "lost", "Prefect has not heard of its end")
    assert journal.runs.completed_before(command("2")) is None
    assert journal.runs.open_attempt(command("2")).run.id == "1"


def test_of_two_attempts_that_end_at_once_neither_overlooks_the_other(journal_url, journal, at_statement):
    """They are closed one after the other, so the one that completed is not overlooked."""
    older, newer = (journal.runs.open_attempt(command("r", deployed=True)).attempt.id for _ in range(2))
    has_read, over = threading.Event(), threading.Event()
    with Journal.open(journal_url) as other, ThreadPoolExecutor() as pool:
        at_statement(other, "ORDER BY attempts.number", lambda: has_read.set() or over.wait(0.5), after=True)
        failing = pool.submit(other.runs.close_attempt, newer, "failed")
        assert has_read.wait(10)
        journal.runs.close_attempt(older, "completed")
        over.set()
        failing.result()
    assert journal.runs.get("r").outcome == "completed"


def test_runs_and_attempts_keep_their_order_when_the_clock_is_set_back(journal, set_clock):
    """Pages of runs follow each other without gap or repetition, in the order in which the runs began."""
    made = []
    for hours, end in ((3, "completed"), (-3, "failed"), (-6, "failed")):
        set_clock(hours)
        made.append(journal.runs.open_attempt(command(f"{hours}"), fresh=True))
        journal.runs.close_attempt(made[-1].attempt.id, end)
    set_clock(-9)
    expected = [each.run.id for each in reversed(made)]
    first = journal.runs.recent(1)
    assert [run.id for run in first + journal.runs.recent(10, before=first[-1])] == expected
    again = journal.runs.open_attempt(command("again"))
    assert again.run.id == "-6", "what failed after another had completed is continued"
    inner = [journal.runs.open_attempt(command("inner", root_flow_run_id="again")) for _ in range(2)]
    set_clock(-12)
    inner.append(journal.runs.open_attempt(command("inner", root_flow_run_id="again")))
    listed = [attempt.id for attempt in journal.runs.attempts(again.run.id)]
    assert listed[-4:] == [again.attempt.id, *(each.attempt.id for each in inner)]
    assert journal.runs.attempt_of("inner").attempt.id == inner[-1].attempt.id


def test_a_process_of_another_machine_lives_by_its_heartbeat(journal_url, journal, set_clock, take_elsewhere):
    """Its lock is not here. A heartbeat from the future was written before the clock was set back, so the run is
    continued; a live process sends new ones."""
    runs = journal.runs
    with Journal.open(journal_url) as other:
        attempt = other.runs.open_attempt(command("1")).attempt
        for silent, alive in ((SILENT_SECONDS - 5, True), (SILENT_SECONDS + 5, False)):
            take_elsewhere(journal, silent)
            assert runs.alive(runs.attempt(attempt.id)) == alive
        other.processes.heartbeat()
        assert runs.alive(runs.attempt(attempt.id))
        set_clock(-3)
        again = runs.open_attempt(command("2"))
        assert (again.run.id, again.joined) == ("1", True)
        other.processes.heartbeat()
        assert runs.alive(replace(attempt, process=runs.attempt(attempt.id).process))


def test_a_forked_child_has_connections_and_a_life_of_its_own(journal, begin, child):
    """Also if it uses the journal object of its parent."""
    ours = begin("1").attempt

    def use():
        yield begin("2").attempt.id

    process = child(use)
    theirs = journal.runs.attempt(process.said())
    assert theirs.process.pid == process.pid != ours.process.pid
    process.kill()
    assert not journal.runs.alive(theirs) and journal.runs.alive(ours)
    assert [row.id for row in journal.runs.reap()] == [theirs.id]


def test_runs_are_found_by_what_people_have(journal):
    """By its id or part of it, its flow or Prefect flow run, or as the latest. No match, or several, is an error."""
    runs = journal.runs
    with pytest.raises(InputError, match="has no run yet"):
        runs.get("latest")
    opened = [
        runs.open_attempt(command(f"flow-run-{n}", parameters={"n": n}, flow_run_name=f"swift-owl-{n % 20}"))
        for n in range(40)
    ]
    found = {
        "flow-run-0": 0,
        "w-run-7": 7,
        "swift-owl-7": 27,
        opened[0].run.flow_name: 39,
        "latest": 39,
    }
    assert {name: runs.get(name).parameters["n"] for name in found} == found
    for name, words in (("zzz", "has no run 'zzz'"), ("", "ambiguous")):
        with pytest.raises(InputError, match=words):
            runs.get(name)
    assert runs.attempt_of("flow-run-3").attempt.id == opened[3].attempt.id and runs.attempt_of("none") is None


def test_a_run_is_not_given_up_while_it_runs_or_once_it_completed(journal, begin, elsewhere):
    """What is told of a run that was given up changes nothing."""
    kill, attempt = elsewhere(command("1"))
    with pytest.raises(DurabilityError, match="is running"):
        journal.runs.abandon("1")
    kill()
    for _ in range(2):
        journal.runs.abandon("1")
        assert journal.runs.get("1").outcome == "abandoned"
        journal.runs.reap()
        journal.runs.close_attempt(attempt, "crashed", "Prefect's word, which comes late")
    assert journal.runs.get("1").outcome == "abandoned"
    journal.runs.close_attempt(begin("2").attempt.id, "completed")
    with pytest.raises(DurabilityError, match="completed"):
        journal.runs.abandon("2")
