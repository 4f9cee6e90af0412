"""An intent has one holder, changes state only along the table, and is never lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ivcap_flows.errors import DurabilityError, FencedError, JournalError, SpendLimitError
from ivcap_flows.journal import IntentRow, Journal, NewIntent, RunIdentity, schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.states import ARROWS, allowed

FORK = multiprocessing.get_context("fork")
WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")


def _claim_and_stay(url: str, steps: int, ready: Any) -> None:
    journal = Journal.open(url)
    intent = journal.intents.claim(WANTED).intent
    if steps > 0:
        intent = journal.intents.mark_sent(intent)
    ready.send(intent.fence)
    time.sleep(60)


@pytest.fixture
def child_at(journal_url: str, journal: Journal) -> Iterator[Any]:
    """Return a process that has claimed (0) or marked as sent (1), and a function that kills it."""
    children = []

    def start(steps: int) -> Any:
        ours, theirs = FORK.Pipe()
        child = FORK.Process(target=_claim_and_stay, args=(journal_url, steps, theirs), daemon=True)
        child.start()
        children.append(child)
        ours.recv()

        def kill() -> None:
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()

        return kill

    yield start
    for child in children:
        child.kill()
        child.join()


def test_live_claim_holds_and_a_killed_one_is_in_doubt(journal: Journal, child_at: Any) -> None:
    """While its holder lives, nobody else gets the key.

    If the holder is killed after sending, the next claim is a doubt.
    """
    kill = child_at(1)
    assert journal.intents.claim(WANTED).kind == "held"
    kill()
    claim = journal.intents.claim(WANTED)
    assert (claim.kind, claim.intent.state, claim.intent.fence) == ("doubt", "sent", 2)
    assert journal.intents.claim(WANTED).kind == "held"


def test_killed_before_sending_is_no_doubt(journal: Journal, child_at: Any) -> None:
    """A request leaves only after the mark, so without the mark the next claim may send at once."""
    kill = child_at(0)
    assert journal.intents.claim(WANTED).kind == "held"
    kill()
    assert journal.intents.claim(WANTED).kind == "new"


def test_outcome_is_kept_for_whoever_asks(journal: Journal) -> None:
    """After the outcome, every claim gets it back as it was written."""
    intent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    outcome = {"urn": "urn:o", "text": "Niño\u0000\ud800"}
    journal.intents.settle(intent, urn="urn:o", outcome=outcome, how="sent")
    claim = journal.intents.claim(WANTED)
    assert (claim.kind, claim.intent.outcome, claim.intent.urn, claim.intent.how) == ("kept", outcome, "urn:o", "sent")
    assert claim.intent.fence == 1


def test_released_claim_is_free_at_once(journal: Journal) -> None:
    """A released claim is free at once, although its process lives."""
    first = journal.intents.claim(WANTED).intent
    journal.intents.release(first)
    second = journal.intents.claim(WANTED)
    assert second.kind == "new"
    journal.intents.mark_sent(second.intent)
    journal.intents.release(second.intent)
    assert journal.intents.claim(WANTED).kind == "doubt"


def test_two_journal_objects_in_one_process_are_one_holder(journal_url: str, journal: Journal) -> None:
    """A claim belongs to the process, not to the journal object that made it."""
    with Journal.open(journal_url) as other:
        intent = other.intents.claim(WANTED).intent
        assert journal.intents.claim(WANTED).kind == "held"
        other.intents.release(intent)
        assert journal.intents.claim(WANTED).kind == "new"


def test_older_fence_is_refused_everywhere(journal: Journal) -> None:
    """A holder that has lost its claim can neither send nor write."""
    old = journal.intents.claim(WANTED).intent
    journal.intents.release(old)
    new = journal.intents.claim(WANTED).intent
    assert new.fence == old.fence + 1
    for attempt in (
        lambda: journal.intents.mark_sent(old),
        lambda: journal.intents.mark_in_doubt(old, "lost"),
        lambda: journal.intents.progress(old, {}),
        lambda: journal.intents.settle(old, urn="urn:old", outcome={}, how="sent"),
        lambda: journal.intents.drop(old, "refused"),
    ):
        with pytest.raises(FencedError):
            attempt()
    assert journal.intents.get(WANTED.key) == new


def test_what_was_sent_again_is_on_record(journal: Journal) -> None:
    """Sent once more after a doubt, whoever does it; neither the first time nor when it is resumed."""
    intents = journal.intents

    def doubt(key: str) -> IntentRow:
        sent = intents.mark_sent(intents.claim(replace(WANTED, key=key, base_key=key)).intent)
        assert not intents.mark_sent(sent).sent_again
        return intents.mark_in_doubt(sent, "lost")

    intents.release(doubt("k1:again"))
    intents.mark_sent(intents.progress(doubt("k1:resumed"), {"at": 1}))
    again = intents.mark_sent(intents.claim(replace(WANTED, key="k1:again", base_key="k1:again")).intent)
    intents.settle(again, urn="urn:o", outcome={}, how="sent")
    assert [row.key for row in intents.where(only="sent again")] == ["k1:again"]


def test_holder_with_an_older_row_moves_on(journal: Journal) -> None:
    """The fencing token decides who may write, not how new the caller's row is. The newest row is returned."""
    claimed = journal.intents.claim(WANTED).intent
    journal.intents.progress(journal.intents.mark_sent(claimed), {"at": 1})
    again = journal.intents.mark_sent(claimed)
    assert (again.state, again.progress) == ("sent", {"at": 1})
    assert again == journal.intents.get(WANTED.key)


def test_arrows_missing_from_the_table_are_refused(journal: Journal) -> None:
    """Each change of state that the table does not have is refused, and the row is unchanged."""
    moves = {
        "sent": lambda row: journal.intents.mark_sent(row),
        "done": lambda row: journal.intents.settle(row, urn="u", outcome={}, how="sent"),
        "dropped": lambda row: journal.intents.drop(row, "refused"),
    }
    row = journal.intents.claim(WANTED).intent
    refused = 0
    for before in ("claimed", "sent", "done", "dropped"):
        for after, move in moves.items():
            with journal._store.write() as connection:
                connection.execute(sa.update(schema.intents).values(state=before))
            if (before, after) not in ARROWS:
                refused += 1
                with pytest.raises(DurabilityError, match=f"is {before} and cannot become {after}"):
                    move(row)
                found = journal.intents.get(WANTED.key)
                assert found is not None
                assert found.state == before
    assert refused == 5


def test_abandoned_intent_begins_anew(journal: Journal) -> None:
    """After a definite refusal, the same request is a new claim without what the last one stored."""
    sent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    journal.intents.drop(journal.intents.progress(sent, {"url": "u"}), "refused")
    claim = journal.intents.claim(WANTED)
    assert (claim.kind, claim.intent.state, claim.intent.progress, claim.intent.error) == ("new", "claimed", None, None)


def test_progress_outlives_the_process(journal: Journal) -> None:
    """The next holder gets the progress that a resumable effect stored."""
    sent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    journal.intents.progress(sent, {"url": "https://x/1"})
    journal.intents.release(sent)
    assert journal.intents.claim(WANTED).intent.progress == {"url": "https://x/1"}


def test_end_of_the_work_is_noted_once_accepted(journal: Journal) -> None:
    """`finish` needs no claim, and ignores an intent that is not accepted yet."""
    sent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    for row in (journal.intents.finish(WANTED.key, "failed"),):
        assert row is not None
        assert row.state == "sent"
    journal.intents.settle(sent, urn="u", outcome={"a": 1}, how="sent")
    done = journal.intents.finish(WANTED.key, "failed")
    assert done is not None
    assert (done.state, done.status, done.outcome) == ("done", "failed", {"a": 1})
    assert journal.intents.finish("k1:unknown", "failed") is None


def test_user_decides_a_doubt(journal: Journal) -> None:
    """The user ends a doubt by adopting, or frees it by writing off.

    Neither is possible while a live process holds it.
    """
    sent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    with pytest.raises(DurabilityError, match="Process .* is working on the"):
        journal.decisions.write_off(WANTED.key)
    journal.intents.release(sent)
    assert journal.decisions.write_off(WANTED.key).state == "dropped"
    with pytest.raises(FencedError):
        journal.intents.mark_sent(sent)
    again = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    journal.intents.release(again)
    assert journal.decisions.resolve(WANTED.key, urn="urn:o", outcome={"o": 1}).state == "done"
    assert journal.intents.claim(WANTED).intent.outcome == {"o": 1}


def test_what_is_known_is_not_decided(journal: Journal) -> None:
    """The user can decide only doubts: an accepted effect keeps its URN."""
    sent = journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    journal.intents.settle(sent, urn="urn:first", outcome={"a": 1}, how="sent")
    with pytest.raises(DurabilityError, match="is done, not in doubt"):
        journal.decisions.resolve(WANTED.key, urn="urn:second", outcome={"a": 2})
    with pytest.raises(DurabilityError, match="is done, not in doubt"):
        journal.decisions.write_off(WANTED.key)
    row = journal.intents.get(WANTED.key)
    assert row is not None
    assert (row.state, row.urn) == ("done", "urn:first")


def test_claim_whose_commit_was_not_confirmed_is_free_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connection is lost at a claim's commit, which took effect, the same process can claim again at once."""
    write = journal._store.write

    @contextlib.contextmanager
    def unconfirmed() -> Iterator[Any]:
        with write() as connection:
            yield connection
        raise JournalError("the server closed the connection")

    journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
    with monkeypatch.context() as patch:
        patch.setattr(journal._store, "write", unconfirmed)
        with pytest.raises(JournalError):
            journal.intents.claim(WANTED)
        with pytest.raises(JournalError), journal.leases.hold("sink:x"):
            pass
    assert journal.intents.get(WANTED.key) is not None
    assert journal.intents.claim(WANTED).kind == "new"
    with journal.leases.hold("sink:x") as mine:
        assert mine


@pytest.fixture
def sending(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that sends and writes the outcome while another one checks whether it is alive."""
    intent = journal.intents.claim(WANTED).intent
    holds = Processes.holds

    def send() -> None:
        journal.intents.settle(journal.intents.mark_sent(intent), urn="urn:o", outcome={}, how="sent")

    sender = threading.Thread(target=send)

    def after_a_while(*asked: Any) -> bool:
        sender.start()
        sender.join(0.5)
        return holds(*asked)

    with monkeypatch.context() as patch:
        patch.setattr(Processes, "holds", after_a_while)
        yield
    sender.join(10)
    row = journal.intents.get(WANTED.key)
    assert row is not None
    assert (row.state, row.urn, row.fence) == ("done", "urn:o", 1)


@pytest.mark.usefixtures("sending")
def test_what_is_just_being_sent_is_held(journal: Journal) -> None:
    """A claim is not granted from a row that was read before the holder sent.

    Otherwise the request would be sent twice.
    """
    assert journal.intents.claim(WANTED).kind == "held"


@pytest.mark.usefixtures("sending")
def test_user_does_not_decide_what_is_just_being_sent(journal: Journal) -> None:
    """The user's decision does not undo an outcome that is written at the same time."""
    with pytest.raises(DurabilityError, match="is working on the"):
        journal.decisions.resolve(WANTED.key, urn="urn:other", outcome={})


def test_spend_limit_counts_over_all_attempts(journal: Journal) -> None:
    """All spending intents of a run count, except abandoned ones. Kept effects may always be requested."""
    opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
    base = replace(WANTED, spends=True, run_id=opened.run.id, attempt_id=opened.attempt.id, attempt_number=1)
    for n in range(2):
        journal.intents.claim(replace(base, key=f"k{n}", base_key=f"k{n}"), spend_limit=2)
    with pytest.raises(SpendLimitError) as caught:
        journal.intents.claim(replace(base, key="k2", base_key="k2"), spend_limit=2)
    assert (caught.value.limit, caught.value.placed) == (2, 2)
    assert journal.intents.get("k2") is None
    assert journal.intents.claim(replace(base, key="k1", base_key="k1"), spend_limit=2).kind == "held"
    first = journal.intents.get("k0")
    assert first is not None
    journal.intents.drop(first, "refused")
    assert journal.intents.claim(replace(base, key="k2", base_key="k2"), spend_limit=2).kind == "new"
    with pytest.raises(SpendLimitError):
        journal.intents.claim(replace(base, key="k0", base_key="k0"), spend_limit=2)


def _spend(url: str, n: int, run_id: str, attempt_id: str, results: Any) -> None:
    wanted = replace(WANTED, key=f"k{n}", base_key=f"k{n}", spends=True, run_id=run_id, attempt_id=attempt_id)
    try:
        results.put(Journal.open(url).intents.claim(wanted, spend_limit=3).kind)
    except SpendLimitError:
        results.put("refused")
    time.sleep(30)


def test_spend_limit_holds_for_claims_at_once(journal_url: str, journal: Journal) -> None:
    """Of six processes with a limit of three, three get a claim."""
    opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
    results = FORK.Queue()
    children = [
        FORK.Process(target=_spend, args=(journal_url, n, opened.run.id, opened.attempt.id, results), daemon=True)
        for n in range(6)
    ]
    for child in children:
        child.start()
    kinds = sorted(results.get(timeout=20) for _ in children)
    for child in children:
        child.kill()
        child.join()
    assert kinds == ["new"] * 3 + ["refused"] * 3


class IntentMachine(RuleBasedStateMachine):
    """Several holders, live and dead, do anything in any order with one key. A model says which results are right."""

    folder: Path
    count = 0

    @initialize()
    def begin(self) -> None:
        type(self).count += 1
        self.wanted = replace(WANTED, key=f"k1:{self.count}", base_key=f"k1:{self.count}")
        self.held: list[IntentRow] = []
        self.trail: list[str | None] = [None]
        self.effects = 0
        self.may_be_there = False

    @property
    def intents(self) -> Any:
        return self.journal.intents

    def _note(self) -> None:
        row = self.intents.get(self.wanted.key)
        if row is not None:
            self.trail.append(row.state)

    def _try(self, index: int, action: Any) -> IntentRow | None:
        """Check that only the newest holder succeeds, and only along the table."""
        if not self.held:
            return None
        old = self.held[index % len(self.held)]
        before = self.intents.get(self.wanted.key)
        try:
            row = action(old)
        except (FencedError, DurabilityError):
            assert self.intents.get(self.wanted.key) == before
            return None
        assert old.fence == before.fence
        self.held[index % len(self.held)] = row
        self._note()
        return row

    @rule()
    def claim(self) -> None:
        before = self.intents.get(self.wanted.key)
        claim = self.intents.claim(self.wanted)
        if claim.kind in ("new", "doubt"):
            assert before is None or claim.intent.fence == before.fence + 1
            # "new" promises that nothing can be there; it is the only leave to send without a look.
            assert claim.kind == "doubt" or not self.may_be_there
            self.held.append(claim.intent)
        self._note()

    @rule(index=st.integers(0, 5))
    def die(self, index: int) -> None:
        if self.held:
            self.intents.release(self.held[index % len(self.held)])

    @rule(index=st.integers(0, 5), arrives=st.booleans())
    def send(self, index: int, arrives: bool) -> None:
        if self._try(index, self.intents.mark_sent) is not None and arrives:
            self.may_be_there = True

    @rule(index=st.integers(0, 5))
    def lose_reply(self, index: int) -> None:
        self._try(index, lambda row: self.intents.mark_in_doubt(row, "lost"))

    @rule(index=st.integers(0, 5))
    def store_progress(self, index: int) -> None:
        self._try(index, lambda row: self.intents.progress(row, {"n": row.fence}))

    @rule(index=st.integers(0, 5))
    def accept(self, index: int) -> None:
        if self._try(index, lambda row: self.intents.settle(row, urn="u", outcome={}, how="sent")) is not None:
            self.may_be_there = True

    @precondition(lambda self: not self.may_be_there)
    @rule(index=st.integers(0, 5))
    def be_refused(self, index: int) -> None:
        self._try(index, lambda row: self.intents.drop(row, "refused"))

    @rule()
    def finish(self) -> None:
        self.intents.finish(self.wanted.key, "succeeded")
        self._note()

    @invariant()
    def trail_follows_the_table(self) -> None:
        for before, after in zip(self.trail, self.trail[1:], strict=False):
            assert before == after or allowed(before, after), (before, after)  # type: ignore[arg-type]

    @invariant()
    def done_stays_done(self) -> None:
        done = [state == "done" for state in self.trail]
        assert done == sorted(done)


@pytest.mark.parametrize("examples", [10, pytest.param(40, marks=pytest.mark.long)])
def test_any_order_of_events_keeps_the_promises(tmp_path: Path, examples: int) -> None:
    """Claims, deaths, sends, lost replies and outcomes may come in any order.

    There is one holder, only legal state changes, and no blind second send.
    """
    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as journal:
        raw = journal._store.engine.raw_connection()
        # The disk is not what this test is about.
        raw.cursor().execute("PRAGMA synchronous = OFF")
        raw.close()
        machine = type("Machine", (IntentMachine,), {"journal": journal})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
