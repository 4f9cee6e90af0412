"""How attempts and calls end: whatever else happens at their end, and whatever their names and causes hold."""

import asyncio
import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from prefect.exceptions import CancelledRun, Pause, TerminationSignal
from prefect.states import Scheduled, Suspended

from ivcap_flows import flow
from ivcap_flows.capture import attempts, context, journal, recorded, recorder
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import RunIdentity
from ivcap_flows.journal.facts import Facts
from ivcap_flows.journal.runs import Runs


def begin(name: str = "twice", file: str | None = None, *, deployed: bool = False):
    identity = RunIdentity(name, f"{name}.py:", {}, name, name, deployed=deployed)
    return attempts.open_attempt(identity, file, name)


ENDS = {
    "parked": lambda: Pause(state=Scheduled(name="Parked")),
    "paused": lambda: Pause(state=Suspended()),
    "paused without a state": lambda: Pause("until tomorrow"),
    "cancelled": lambda: CancelledRun("by Ada"),
    "cancelled by its loop": asyncio.CancelledError,
    "crashed": lambda: TerminationSignal(signal=15),
    "crashed by hand": KeyboardInterrupt,
    "failed": lambda: ValueError("no"),
}


def test_a_call_ends_as_what_it_raised_says(recorded_graph):
    """Parking and cancelling are no failures, and what ends a process is no error of the function's."""

    @recorded
    def work(kind: str) -> None:
        raise ENDS[kind]()

    for kind in ENDS:
        with pytest.raises(type(ENDS[kind]())):
            work(kind)
    calls = [node for node in recorded_graph() if node.type == "call"]
    told = {call.attributes["parameters"]["kind"]: call.attributes["outcome"] for call in calls}
    assert told == {kind: kind.split()[0] for kind in ENDS}
    assert all(call.ended is not None for call in calls)
    causes = {call.attributes["parameters"]["kind"]: call.attributes.get("cause") for call in calls}
    assert (causes["crashed"], causes["failed"]) == ("TerminationSignal", "ValueError: no")


def test_a_name_that_is_no_utf8_is_recorded(tmp_path, recorded_graph):
    """A file, a folder and a parameter named in Latin-1 are told apart, with their digests; nothing is missing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (b"M\xfcnchen.csv", b"M\xf6nchen.csv"):
        (folder / os.fsdecode(name)).write_bytes(name)

    @recorded
    def ingest(path: str, folder: Path) -> None:
        raise ValueError(path)

    for path in (folder / os.fsdecode(b"M\xfcnchen.csv"), folder / os.fsdecode(b"gone-\xfc.csv")):
        with pytest.raises(ValueError):
            ingest(str(path), folder)
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert run.missing_facts == 0
    named = {str(Path(node.attributes["path"]).name) for node in graph.nodes.values() if "path" in node.attributes}
    assert named == {"folder", "M\\udcfcnchen.csv", "M\\udcf6nchen.csv"}
    calls = [node.attributes for node in graph.nodes.values() if node.type == "call"]
    assert [Path(call["parameters"]["path"]).name for call in calls] == ["M\\udcfcnchen.csv", "gone-\\udcfc.csv"]
    assert calls[0]["cause"].endswith("M\\udcfcnchen.csv")


@pytest.mark.parametrize(
    ("deployed", "edited", "told"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_who_edits_a_flow_that_failed_is_told_what_is_kept(tmp_path, caplog, deployed, edited, told):
    """Not if nothing was edited, nor in a deployment, whose next attempt may run on another version for good reason."""
    path = tmp_path / "edited.py"
    for text in ("def flow(): 1 / 0", "def flow(): 1 / 1" if edited else "def flow(): 1 / 0"):
        path.write_text(text)
        attempts.close_attempt(begin("edited", str(path), deployed=deployed), "failed", "out of luck")
        assert recorder().flush()
    assert ("Your code has changed since attempt 1" in caplog.text) == told


@pytest.mark.parametrize("order", ["the failed one first", "the failed one last"])
def test_a_run_with_an_attempt_that_completed_has_completed(recorded_graph, order):
    """Whether another one failed before it or, of two at once, after it. The run has no cause then; the attempt that
    failed keeps its own.
    """
    first = begin()
    if order == "the failed one first":
        attempts.close_attempt(first, "failed", "out of luck")
        attempts.close_attempt(begin(), "completed")
    else:
        second = begin()
        attempts.close_attempt(first, "completed")
        attempts.close_attempt(second, "failed", "out of luck")
    known = [node.attributes for node in recorded_graph() if node.type in ("flow-run", "attempt")]
    told = {facts.get("number"): (facts["outcome"], facts.get("cause")) for facts in known}
    ends = [("failed", "out of luck"), ("completed", None)]
    expected = ends if order == "the failed one first" else ends[::-1]
    assert told == {None: ("completed", None), 1: expected[0], 2: expected[1]}


@pytest.mark.parametrize("told_last", ["the one that failed", "the one that completed"])
def test_a_run_whose_processes_end_at_once_is_told_to_have_completed(recorded_graph, monkeypatch, told_last):
    """Both have told how it ended before either has closed: the one that is wrong must not have the last word."""
    first, second = begin(), begin()
    monkeypatch.setattr(Runs, "decides", lambda *_: True)
    if told_last == "the one that failed":
        attempts.close_attempt(first, "completed")
        attempts.close_attempt(second, "failed", "out of luck")
    else:
        close = Runs.close_attempt

        def while_the_other_closes(runs, attempt_id, *end):
            if attempt_id == first.attempt.id:
                attempts.close_attempt(second, "failed", "out of luck")
            close(runs, attempt_id, *end)

        monkeypatch.setattr(Runs, "close_attempt", while_the_other_closes)
        attempts.close_attempt(first, "completed")
    assert journal().runs.get(first.run.id).outcome == "completed"
    [told] = (node.attributes for node in recorded_graph() if node.type == "flow-run")
    assert told["outcome"] == "completed"


@pytest.mark.usefixtures("prefect_api")
def test_a_log_names_the_run_by_its_id(caplog, ivcap_journal):
    """Not by its name, which many runs may have, and a shell may take for more than a name."""

    @flow(flow_run_name="daily; rm -rf x")
    def nothing() -> None: ...

    nothing()
    nothing()
    told = "On record: nothing was requested on a platform. `ivcap-flows show %s` shows the run."
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("On record")]
    assert said == [told % run.id[-8:] for run in reversed(ivcap_journal.runs.recent(2))]


def test_an_end_that_cannot_be_checked_is_an_end(monkeypatch, caplog):
    """The journal that took it and is away at once takes the record as told, and says so."""
    opened = begin("away")

    def away(*_, **__):
        raise JournalError("The journal is away.")

    monkeypatch.setattr(Facts, "about", away)
    attempts.close_attempt(opened, "completed")
    assert f"the records say how run {opened.run.id} ended: The journal is away." in caplog.text
    assert journal().runs.get(opened.run.id).outcome == "completed"


@pytest.mark.loses_records
def test_a_flows_end_that_cannot_be_recorded_is_counted(monkeypatch):
    """A flow without `@recorded` whose end fails to be written: nothing is raised, and its run says so."""

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    attempt = begin("f9")
    with monkeypatch.context() as patch:
        patch.setattr(context, "close_attempt", full)
        context._ended("f9", "completed", None)
    assert recorder().flush()
    assert journal().runs.get(attempt.run.id).missing_facts == 1
    attempts.close_attempt(attempt, "completed")


def test_an_attempt_ends_whatever_else_begins_or_breaks(monkeypatch):
    """The end of one does not touch what another is beginning, and is told though its last facts cannot be."""
    beginning, started = threading.Event(), threading.Event()
    start = threading.Thread.start

    def slow(thread: threading.Thread) -> None:
        if thread.name == "ivcap-flows-code" and threading.current_thread().name == "other":
            beginning.set()
            started.wait(10)
        start(thread)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", slow)
    first, opened_later = begin("f1"), []
    other = threading.Thread(target=lambda: opened_later.append(begin("f2")), name="other")
    other.start()
    assert beginning.wait(10)
    attempts.close_attempt(first, "completed")
    started.set()
    other.join(10)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recorder(), "flush", interrupted)
        attempts.close_attempt(opened_later[0], "cancelled")
    assert [run.outcome for run in journal().runs.recent()] == ["cancelled", "completed"]
    assert recorder().flush()


def test_clocks_that_go_back_leave_a_valid_record(monkeypatch, recorded_graph):
    """Neither a run whose journal is ahead of its process nor a call during which the clock was set ends too early."""

    @recorded
    def use() -> None:
        monkeypatch.setattr("ivcap_flows.capture.calls.now", early)

    def early() -> datetime:
        return datetime.now(timezone.utc) - timedelta(hours=1)

    attempt = begin()
    use()
    monkeypatch.setattr(attempts, "now", early)
    attempts.close_attempt(attempt, "completed")
    for fact in journal().facts.of_run(attempt.run.id):
        assert fact.record.ended is None or fact.record.ended >= fact.record.time
    kinds = {node.type for node in recorded_graph().nodes.values() if node.ended is not None}
    assert kinds == {"flow-run", "attempt", "call"}
