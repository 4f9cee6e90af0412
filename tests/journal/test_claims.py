"""Claims and the changes that their holders make: who is held out, what a kill leaves, what is not written twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from ivcap_flows.errors import DurabilityError, FencedError, InDoubtError
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.journal.rows import GIVEN_UP, RESEND

FORK = multiprocessing.get_context("fork")


def wanted(number: int) -> NewIntent:
    key = f"k1:{number:04}"
    return NewIntent(key, key, "model run", "https://x", "ada", "account", {"n": key}, subject="a run")


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_many_keys_are_found_at_once(journal: Journal) -> None:
    """More than a statement takes."""
    keys = [journal.intents.claim(wanted(n)).intent.key for n in range(600)]
    assert journal.intents.find_many([*keys, "k1:other"]).keys() == set(keys)
    assert journal.intents.find_many([]) == {}


def _claim_and_stay(url: str, ready: Any) -> None:
    journal = Journal.open(url)
    journal.intents.mark_sent(journal.intents.claim(wanted(0)).intent)
    journal.intents.claim(wanted(1))
    ready.send(None)
    time.sleep(60)


def test_killed_with_claims(journal_url: str, journal: Journal) -> None:
    """While the holder lives, all its intents are held.

    After a kill, the sent ones are in doubt and the others are new.
    """
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_claim_and_stay, args=(journal_url, theirs), daemon=True)
    child.start()
    ours.recv()
    assert {journal.intents.claim(wanted(n)).kind for n in (0, 1)} == {"held"}
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    doubt, new = (journal.intents.claim(wanted(n)) for n in (0, 1))
    assert (doubt.kind, new.kind) == ("doubt", "new")
    assert doubt.intent == journal.intents.get(doubt.intent.key) and new.intent == journal.intents.get(new.intent.key)
    assert doubt.intent.fence == 2 and doubt.intent.sent_at and new.intent.sent_at is None


def test_what_was_taken_over_is_not_written(journal: Journal) -> None:
    """Who was taken over can neither mark nor settle; the row stays as the new holder has it."""
    first = journal.intents.claim(wanted(0)).intent
    journal.intents.release(first)
    taken = journal.intents.claim(wanted(0)).intent
    with pytest.raises(FencedError):
        journal.intents.mark_sent(first)
    with pytest.raises(FencedError):
        journal.intents.settle(first, urn="102/1", outcome={}, how="sent")
    row = journal.intents.get(taken.key)
    assert row is not None and (row.state, row.fence) == ("claimed", 2)


def test_callers_at_once_get_each_key_once(journal_url: str, journal: Journal) -> None:
    """Callers that claim the same keys in another order do not deadlock, and no key is given twice."""
    got: list[str] = []

    def claim(opened: Journal, keys: list[NewIntent]) -> None:
        claims = [opened.intents.claim(each) for each in keys]
        got.extend(claim.intent.key for claim in claims if claim.kind == "new")

    keys = [wanted(n) for n in range(100)]
    with ExitStack() as stack:
        parts = [(stack.enter_context(Journal.open(journal_url)), some) for some in (keys, keys[::-1], keys[30:])]
        threads = [threading.Thread(target=claim, args=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(got) == [each.key for each in keys]


def test_left_in_doubt_for_the_user(journal: Journal) -> None:
    """While its holder lives, the user cannot decide on an intent in doubt; then to give it up or to send it again."""
    sent = [journal.intents.mark_sent(journal.intents.claim(wanted(n)).intent) for n in range(3)]
    doubted = [journal.intents.mark_in_doubt(row, "the reply was lost") for row in sent]
    with pytest.raises(DurabilityError, match="is working on the"):
        journal.decisions.give_up(doubted[0].key)
    for row in doubted:
        journal.intents.release(row)
    assert journal.decisions.give_up(doubted[0].key).error == GIVEN_UP
    assert journal.intents.claim(wanted(0)).kind == "given up"
    assert journal.decisions.send_again(doubted[0].key).error == RESEND
    assert journal.decisions.send_again(doubted[1].key).state == "dropped"
    assert [journal.intents.claim(wanted(n)).kind for n in range(3)] == ["new", "new", "doubt"]


def test_a_reason_that_no_database_could_store_is_stored_with_escapes(journal: Journal) -> None:
    """A platform's words may hold a NUL or half a surrogate pair."""
    moved = journal.intents.drop(journal.intents.claim(wanted(0)).intent, "out\0of \ud800luck")
    assert moved.error == r"out\x00of \ud800luck"
    assert journal.intents.get(moved.key) == moved


def test_a_doubt_about_what_never_left_is_as_old_as_it_may_be(journal: Journal) -> None:
    """A doubt about a request that never left this process gets no time of the platform.

    It is about another journal's request, whose time is unknown.
    """
    intents, now = journal.intents, journal.now()
    intent = intents.claim(replace(wanted(0), platform_time=now)).intent
    row = intents.mark_in_doubt(intent, "x", ServerTime(now, now))
    assert row.platform_time is None and row == intents.get(intent.key)


def test_what_is_known_by_its_content_is_the_outcome_of_one_key(journal: Journal) -> None:
    """Two keys cannot take the same effect by its content. The second one raises and keeps its claim."""
    intents = journal.intents
    first, second = (intents.mark_sent(intents.claim(wanted(n)).intent) for n in range(2))
    intents.settle(first, urn="urn:o", outcome={}, how="adopted", matched_by="content")
    with pytest.raises(InDoubtError, match="is the outcome of another model run"):
        intents.settle(second, urn="urn:o", outcome={}, how="adopted", matched_by="content")
    assert intents.get(second.key) == second and intents.held(second)


def test_progress_leaves_the_state(journal: Journal) -> None:
    """Storing progress does not change the state."""
    intents = journal.intents
    first, second = (intents.claim(wanted(n)).intent for n in range(2))
    moved = [intents.progress(row, {"at": 1}) for row in (first, intents.mark_sent(second))]
    assert [(row.state, row.progress) for row in moved] == [("claimed", {"at": 1}), ("sent", {"at": 1})]


def test_a_repeated_request_and_a_new_one_after_a_refusal(journal: Journal) -> None:
    """What is done keeps its row but for the attempt that asked; what was refused belongs to the new request."""
    opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
    run = {"run_id": opened.run.id, "attempt_id": opened.attempt.id}
    first = [replace(wanted(n), **run, attempt_number=1) for n in range(2)]
    done, refused = (journal.intents.claim(each).intent for each in first)
    journal.intents.settle(journal.intents.mark_sent(done), urn="102/1", outcome={}, how="sent")
    journal.intents.drop(refused, "refused")
    rows = []
    for each, kind in zip(first, ("kept", "new"), strict=True):
        answer = journal.intents.claim(replace(each, attempt_number=2, spends=True, definition="d", reuse="r"))
        row = journal.intents.get(answer.intent.key)
        assert row == answer.intent and answer.kind == kind
        rows.append((row.state, row.asked_attempt, row.spends, row.definition, row.reuse, row.error))
    assert rows == [("done", 2, False, None, None, None), ("claimed", 2, True, "d", "r", None)]


def test_claims_that_have_ended_are_not_released_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releasing a claim that has ended writes nothing. A claim that has not ended becomes free for other processes."""
    intents = journal.intents
    claims = [intents.claim(wanted(n)).intent for n in range(3)]
    intents.settle(intents.mark_sent(claims[0]), urn="102/1", outcome={}, how="sent")
    intents.drop(intents.mark_sent(claims[1]), "refused")
    for each in claims:
        intents.release(each)
    assert [row.token for row in intents.where()] == [None] * 3
    with monkeypatch.context() as patch:
        patch.setattr(journal._store, "write", lambda: pytest.fail("written again"))
        for each in claims:
            intents.release(each, "lost")
    assert [intents.claim(wanted(n)).kind for n in range(3)] == ["kept", "new", "new"]
