"""How a sink's cursor moves: what it has been offered it is not offered again, and nothing is passed by."""

import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from eventually import auntil
from pydantic import BaseModel

from ivcap_flows.durable import heartbeat
from ivcap_flows.errors import (
    ConfigurationError,
    FencedError,
    ForbiddenError,
    IncompleteSettingsError,
    InputError,
    UnavailableError,
    UnreachableError,
    WaitTimeoutError,
)
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import entity
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import Delivery, Drained, drain, outbox, run_graph
from ivcap_flows.sinks.sink_registry import NAMES, check_sinks

SAID = [entity("urn:x:handle", "entity")]
"""What a sink adds to the record of a run."""


def begun(journal: Journal, name: str):
    opened = journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {"name": name}, name, name))
    more(journal, name)
    return opened.attempt


def ended(journal: Journal, *names: str) -> list[str]:
    for name in names:
        journal.runs.close_attempt(begun(journal, name).id, "completed")
    return [*names]


def more(journal: Journal, name: str) -> None:
    journal.facts.append([Fact(entity(f"urn:x:{name}", "entity"), name)])


def prune(journal: Journal, name: str) -> None:
    with journal._store.write() as connection:
        connection.exec_driver_sql(f"DELETE FROM runs WHERE id = '{name}'")


class Sink:
    """Keeps the ids of what it is given and answers as `answer` does: with a delivery, or an error that it raises."""

    def __init__(
        self, answer: Callable[[str], Delivery | Exception] = lambda run: Delivery("delivered"), name: str = "s"
    ) -> None:
        self.answer, self.name, self.got, self.sizes = answer, name, [], []

    async def deliver(self, run, graph) -> Delivery:
        self.got.append(run.id)
        self.sizes.append(len(graph))
        answer = self.answer(run.id)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_what_was_delivered_is_not_looked_at_again(ivcap_journal, monkeypatch):
    """Oldest first; a second pass begins behind the last fact of the first and looks at what is new alone."""
    monkeypatch.setattr(outbox, "WINDOW", 2)
    names = ended(ivcap_journal, *(f"r{n}" for n in range(5)))
    sink = Sink()
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=5)]
    assert sink.got == names
    assert ivcap_journal.deliveries.cursor("s").seq == ivcap_journal.facts.newest()
    asked = []
    find = ivcap_journal.runs.find
    monkeypatch.setattr(ivcap_journal.runs, "find", lambda run: asked.append(run) or find(run))
    assert drain(ivcap_journal, [sink]) == [Drained("s")]
    more(ivcap_journal, "r1")
    ended(ivcap_journal, "r5")
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=2)]
    assert set(asked) == {"r1", "r5"}


def test_a_run_that_still_runs_is_come_back_to(ivcap_journal):
    """Runs that ended later move the cursor past it; once it has ended, or parked, it is delivered, though it states no
    more. One that was pruned meanwhile holds nothing."""
    long, sink = begun(ivcap_journal, "long"), Sink()
    begun(ivcap_journal, "gone")
    ended(ivcap_journal, "short")
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1)]
    cursor = ivcap_journal.deliveries.cursor("s")
    assert (cursor.seq, cursor.behind) == (ivcap_journal.facts.newest(), ("long", "gone"))
    ivcap_journal.runs.close_attempt(long.id, "parked")
    prune(ivcap_journal, "gone")
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1)]
    assert (sink.got, ivcap_journal.deliveries.cursor("s").behind) == (["short", "long"], ())


def test_a_sink_that_is_away_stays_where_it_is(ivcap_journal, monkeypatch):
    """Two runs in a row that find it away end a pass, and hold no other sink; what it was not offered it is offered
    later, each once."""
    monkeypatch.setattr(outbox, "WINDOW", 2)
    names = ended(ivcap_journal, *(f"r{n}" for n in range(6)))
    sink = Sink(lambda run: UnreachableError("no route"))
    drained = drain(ivcap_journal, [sink, Sink(name="other")])
    assert drained == [Drained("s", pending=6), Drained("other", delivered=6)]
    assert (sink.got, ivcap_journal.deliveries.cursor("s").seq) == (["r0", "r1"], 0)
    rows = ivcap_journal.deliveries.where("s")
    assert [(row.state, row.reason, row.tries) for row in rows] == [("pending", "no route", 1)] * 2
    for row in rows:
        assert timedelta(0) < row.next_try - datetime.now(timezone.utc) < timedelta(seconds=16)
    assert drain(ivcap_journal, [sink], again=True) == [Drained("s", pending=6)]
    assert (sink.got, ivcap_journal.deliveries.cursor("s").seq) == (["r0", "r1", "r2", "r3"], 2)
    sink.answer, sink.got = (lambda run: Delivery("delivered")), []
    assert drain(ivcap_journal, [sink], again=True) == [Drained("s", delivered=6)]
    assert (sink.got[:2], sorted(sink.got)) == (["r4", "r5"], names)
    assert drain(ivcap_journal, [sink]) == [Drained("s")]


@pytest.mark.parametrize(("hours", "tried"), [(0.5, 1), (3.0, 2)])
def test_a_clock_that_was_ahead_keeps_nothing_waiting(ivcap_journal, hours, tried):
    """A try that was put off by a clock hours ahead is made when the clock is right: none waits longer than an hour."""
    ended(ivcap_journal, "r")
    then = datetime.now(timezone.utc) + timedelta(hours=hours)
    sink = Sink(lambda run: Delivery("pending", "not yet", next_try=then))
    for _ in range(2):
        drain(ivcap_journal, [sink])
    assert len(sink.got) == tried


def test_runs_that_a_sink_can_never_take_hold_no_other(ivcap_journal):
    """They end no pass alone, what was never tried goes before them, and of what was tried the longest ago first."""
    ended(ivcap_journal, "bad0", "r0", "bad1", "bad2", "r1", "r2")
    sink = Sink(lambda run: UnavailableError("500") if run.startswith("bad") else Delivery("delivered"))
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1, pending=5)]
    assert drain(ivcap_journal, [sink], again=True) == [Drained("s", delivered=2, pending=3)]
    ended(ivcap_journal, "r3")
    assert drain(ivcap_journal, [sink], again=True) == [Drained("s", delivered=1, pending=3)]
    assert sink.got == ["bad0", "r0", "bad1", "bad2", "r1", "r2", "bad0", "bad1", "r3", "bad2", "bad0"]
    assert ivcap_journal.deliveries.left("s") == ["bad1", "bad2", "bad0"]


@pytest.mark.parametrize("error", [WaitTimeoutError("not ended within 120 s"), FencedError("another is at it")])
def test_what_is_said_of_one_run_is_not_said_of_the_sink(ivcap_journal, error):
    """Work that takes its time, or that another process has, is pending by itself."""
    names = ended(ivcap_journal, *(f"r{n}" for n in range(4)))
    sink = Sink(lambda run: error)
    drain(ivcap_journal, [sink])
    assert sink.got == names


class Wrong(BaseModel):
    n: int


@pytest.mark.catches("a fault is a refusal")
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("ValueError", lambda: int("x")),
        ("ValidationError", lambda: Wrong(n="x")),
        ("UnicodeEncodeError", lambda: "\ud800".encode()),
    ],
)
def test_a_fault_of_the_code_is_no_refusal(ivcap_journal, name, fault):
    """It is tried again by itself, so the next version of the package delivers it; the reason says whose it is."""
    ended(ivcap_journal, "r")
    sink = Sink(lambda run: fault())
    drain(ivcap_journal, [sink])
    [row] = ivcap_journal.deliveries.where("s")
    sink.answer = lambda run: Delivery("delivered")
    earlier = datetime.now(timezone.utc) - timedelta(seconds=1)
    ivcap_journal.deliveries.record("s", row.key, row.state, run_id="r", reason=row.reason, next_try=earlier)
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1)]
    assert row.state == "pending" and row.reason.startswith(outbox.FAULT) and name in row.reason
    assert "nothing is wrong with the run" in row.reason and "tried again" in row.reason and "/issues" in row.reason


def test_a_setting_that_is_missing_is_no_refusal(ivcap_journal):
    """Though its error is a ValueError, too: the sink is away until it is set."""
    ended(ivcap_journal, "r")
    sink = Sink(lambda run: IncompleteSettingsError("IVCAP_JWT is set, IVCAP_URL is not"))
    assert drain(ivcap_journal, [sink]) == [Drained("s", pending=1)]


@pytest.mark.parametrize("answer", [Delivery("dead", "No licence."), InputError("No licence"), ForbiddenError("No.")])
def test_a_refusal_is_a_dead_letter_that_names_what_to_do(ivcap_journal, answer):
    """Whether the sink says so or raises it. It is not tried again by itself; `again`, or a newer record, tries it."""
    ended(ivcap_journal, "r")
    sink = Sink(lambda run: answer)
    for again in (False, False, True):
        assert drain(ivcap_journal, [sink], again=again) == [Drained("s", dead=1)]
    assert len(sink.got) == 2
    [row] = ivcap_journal.deliveries.where("s", state="dead")
    assert row.reason.endswith(". When that is corrected, run `ivcap-flows sync --again`.") and ".." not in row.reason
    sink.answer = lambda run: Delivery("delivered")
    more(ivcap_journal, "r")
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1)]
    assert {row.state for row in ivcap_journal.deliveries.where("s")} == {"delivered"}


def test_a_drainer_beats_while_it_delivers(ivcap_journal, monkeypatch):
    """A slow delivery keeps its lease: another machine sees by the heartbeat that the drainer lives."""
    # Another test's heartbeats may go on already, at other times.
    monkeypatch.setattr(heartbeat, "_thread", None)
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    attempt = begun(ivcap_journal, "r")
    ivcap_journal.runs.close_attempt(attempt.id, "completed")

    def heartbeat_at() -> datetime:
        return ivcap_journal.runs.attempt(attempt.id).process.heartbeat_at

    class Slow(Sink):
        async def deliver(self, run, graph) -> Delivery:
            before = heartbeat_at()
            await auntil(lambda: heartbeat_at() > before, 20)
            return Delivery("delivered")

    # An error within the delivery would leave it pending.
    assert drain(ivcap_journal, [Slow()]) == [Drained("s", delivered=1)]


def test_what_another_drainer_passes_by_is_done_by_the_first(ivcap_journal):
    """A run ends while a sink is drained; who would deliver it finds the sink busy; the first does not leave it."""
    ended(ivcap_journal, "r0")
    second: list[Drained] = []

    def meanwhile(run: str) -> Delivery:
        if run == "r0":
            ended(ivcap_journal, "r1")
            other = threading.Thread(target=lambda: second.extend(drain(ivcap_journal, [sink])))
            other.start()
            # The drainers of one process share a loop, which this delivery holds; the other needs none to be refused.
            other.join(10)
        return Delivery("delivered")

    sink = Sink(meanwhile)
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=2)]
    assert (second, sink.got) == ([Drained("s", busy=True)], ["r0", "r1"])


def test_what_one_sink_states_reaches_the_others_at_once(ivcap_journal):
    """In the same call, whichever goes first; and a sink that has something to say every time ends no less."""
    ended(ivcap_journal, "r0")
    states = Sink(lambda run: Delivery("delivered", facts=SAID if len(states.got) == 1 else ()), name="states")
    takes = Sink(name="takes")
    assert drain(ivcap_journal, [takes, states]) == [Drained("takes", delivered=2), Drained("states", delivered=1)]
    assert drain(ivcap_journal, [takes, states]) == [Drained("takes"), Drained("states")]


@pytest.mark.parametrize("moment", ["before its record is read", "as it is delivered", "with facts of the sink"])
def test_a_run_that_is_pruned_during_its_delivery_is_passed_by(ivcap_journal, monkeypatch, moment):
    """The others are delivered, and no sink gets a record from which facts are missing."""
    ended(ivcap_journal, "gone", "r1")

    def read(journal: Journal, run: str):
        if moment == "before its record is read" and run == "gone":
            prune(journal, run)
        return run_graph(journal, run)

    def answer(run: str) -> Delivery:
        if run == "gone":
            prune(ivcap_journal, run)
        return Delivery("delivered", facts=SAID if moment == "with facts of the sink" and run == "gone" else ())

    monkeypatch.setattr(outbox, "run_graph", read)
    sink = Sink(answer)
    assert drain(ivcap_journal, [sink]) == [Drained("s", delivered=1)]
    assert all(sink.sizes)


def test_a_name_that_is_no_sink_is_refused_and_every_sink_is_named_to_users():
    """By the description of the setting, and by a row of the page."""
    for name in ("ivcap:x", "prov-json", "prov-json:", "carrier-pigeon", ""):
        with pytest.raises(ConfigurationError, match=f"no sink '{name}'"):
            check_sinks(["ivcap", name])
    setting = Settings.settings_names()["IVCAP_FLOWS_SINKS"]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "deliver-the-record.md").read_text(encoding="utf-8")
    rows = "".join(re.findall(r"^\| (`.+?) \| .+ \|$", page, re.MULTILINE))
    assert set(re.findall(r"`([^`]+)`", setting)) - {"sync"} == set(NAMES), "see `sinks` in settings.py"
    assert set(NAMES) <= set(re.findall(r"`([^`]+)`", rows)), "see docs/how-to/deliver-the-record.md"
