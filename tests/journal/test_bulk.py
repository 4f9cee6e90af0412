"""Many intents in one transaction: the same states, fences and leases as one by one."""

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
from ivcap_flows.journal.rows import GIVEN_UP, RESEND, Settled

FORK = multiprocessing.get_context("fork")


def wanted(count: int, begin: int = 0) -> list[NewIntent]:
    keys = [f"k1:{n:04}" for n in range(begin, begin + count)]
    return [
        NewIntent(key, key, "model run", "https://x", "ada", "account", {"n": key}, subject="a run") for key in keys
    ]


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_claimed_sent_and_settled(journal: Journal) -> None:
    """A batch passes through the same states as each of its intents. What is done is returned to later claims."""
    claims = journal.intents.claim_many(wanted(1200))
    assert {claim.kind for claim in claims} == {"new"}
    assert [claim.intent.key for claim in claims] == [each.key for each in wanted(1200)]
    sent = journal.intents.mark_sent_many([claim.intent for claim in claims])
    assert {row.state for row in sent} == {"sent"} and all(row.sent_at for row in sent)
    sent = journal.intents.progress_many(sent, {"session_id": "s"})
    journal.intents.settle_many([Settled(row, f"102/{row.key}", {"urn": row.key}, "sent") for row in sent[:1000]])
    journal.intents.abandon_many({row.key: "refused" for row in sent[1000:]}, sent[1000:])
    again = journal.intents.claim_many(wanted(1200))
    assert [claim.kind for claim in again] == ["kept"] * 1000 + ["new"] * 200
    assert again[7].intent == journal.intents.get(again[7].intent.key) and again[7].intent.outcome == {"urn": "k1:0007"}
    assert journal.intents.find_many([each.key for each in wanted(1201)]).keys() == {each.key for each in wanted(1200)}


def test_one_by_one_and_in_bulk_are_the_same(journal: Journal) -> None:
    """A key that is claimed alone is held for a batch, and the other way round. The rows look the same."""
    alone, other = wanted(2)
    first = journal.intents.claim(alone).intent
    held, new = journal.intents.claim_many([alone, other])
    assert (held.kind, new.kind) == ("held", "new")
    assert journal.intents.claim(other).kind == "held"
    known = journal.intents.get(other.key)
    assert known is not None
    same = dict.fromkeys(("key", "base_key", "request", "token", "created_at", "updated_at"))
    assert replace(known, **same) == replace(first, **same)
    journal.intents.release_many([first, new.intent])
    assert [claim.kind for claim in journal.intents.claim_many([alone, other])] == ["new", "new"]


def _claim_and_stay(url: str, ready: Any) -> None:
    journal = Journal.open(url)
    claims = journal.intents.claim_many(wanted(10))
    journal.intents.mark_sent_many([claim.intent for claim in claims[:5]])
    ready.send(None)
    time.sleep(60)


def test_killed_amid_a_batch(journal_url: str, journal: Journal) -> None:
    """While the holder lives, all its intents are held.

    After a kill, the sent ones are in doubt and the others are new.
    """
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_claim_and_stay, args=(journal_url, theirs), daemon=True)
    child.start()
    ours.recv()
    assert {claim.kind for claim in journal.intents.claim_many(wanted(10))} == {"held"}
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    claims = journal.intents.claim_many(wanted(10))
    assert [claim.kind for claim in claims] == ["doubt"] * 5 + ["new"] * 5
    assert [claim.intent for claim in claims] == [journal.intents.get(claim.intent.key) for claim in claims]
    assert all(claim.intent.fence == 2 and claim.intent.sent_at for claim in claims[:5])
    assert all(claim.intent.sent_at is None for claim in claims[5:])


def test_what_was_taken_over_is_left_out(journal: Journal) -> None:
    """A batch call skips intents that another process has claimed, and returns those that the caller still holds."""
    intents = [claim.intent for claim in journal.intents.claim_many(wanted(3))]
    journal.intents.release(intents[1])
    taken = journal.intents.claim(wanted(3)[1]).intent
    moved = journal.intents.mark_sent_many(intents)
    assert [row.key for row in moved] == [intents[0].key, intents[2].key]
    settled = journal.intents.settle_many([Settled(row, "102/1", {}, "sent") for row in (moved[0], intents[1])])
    assert [row.key for row in settled] == [moved[0].key]
    row = journal.intents.get(taken.key)
    assert row is not None and (row.state, row.fence) == ("intent", 2)
    with pytest.raises(FencedError):
        journal.intents.mark_sent(intents[1])


def test_two_claim_the_same_at_once(journal_url: str, journal: Journal) -> None:
    """Callers that claim the same keys in another order do not deadlock, and no key is given twice."""
    got: list[str] = []

    def claim(opened: Journal, keys: list[NewIntent]) -> None:
        got.extend(claim.intent.key for claim in opened.intents.claim_many(keys) if claim.kind == "new")

    keys = wanted(300)
    with ExitStack() as stack:
        parts = [(stack.enter_context(Journal.open(journal_url)), some) for some in (keys, keys[::-1], keys[100:])]
        threads = [threading.Thread(target=claim, args=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(got) == [each.key for each in keys]


def test_noted_intents_are_nobodys(journal: Journal) -> None:
    """A noted intent has no holder and keeps the time of its first note. Noting does not change an existing intent."""
    done = journal.intents.mark_sent(journal.intents.claim(wanted(1)[0]).intent)
    journal.intents.settle_outcome(done, urn="102/1", outcome={}, how="sent")
    journal.intents.note_many(wanted(3))
    noted = journal.intents.find_many([each.key for each in wanted(3)])
    assert [noted[each.key].state for each in wanted(3)] == ["accepted", "intent", "intent"]
    journal.intents.note_many(wanted(3))
    assert journal.intents.find_many([each.key for each in wanted(3)]) == noted
    assert [claim.kind for claim in journal.intents.claim_many(wanted(3))] == ["kept", "new", "new"]


def test_left_in_doubt_for_the_user(journal: Journal) -> None:
    """An intent that is left in doubt is free and keeps its reason and time.

    The user decides to give it up or send it again.
    """
    claims = journal.intents.claim_many(wanted(3))
    sent = journal.intents.mark_sent_many([claim.intent for claim in claims])
    doubted = journal.intents.mark_in_doubt_many(sent, "the reply was lost")
    assert {row.error for row in doubted} == {"the reply was lost"}
    with pytest.raises(DurabilityError, match="is working on the"):
        journal.intents.give_up(doubted[0].key)
    journal.intents.leave_many({r.key: {"job": r.key} for r in doubted}, {r.key: "stuck" for r in doubted}, doubted)
    row = journal.intents.get(doubted[0].key)
    assert row is not None and (row.state, row.error, row.progress) == ("in_doubt", "stuck", {"job": row.key})
    assert row.sent_at == doubted[0].sent_at
    assert journal.intents.give_up(doubted[0].key).error == GIVEN_UP
    assert journal.intents.claim(wanted(1)[0]).kind == "given up"
    assert journal.intents.send_again(doubted[0].key).error == RESEND
    assert journal.intents.send_again(doubted[1].key).state == "abandoned"
    assert [claim.kind for claim in journal.intents.claim_many(wanted(3))] == ["new", "new", "doubt"]


def test_a_reason_that_no_database_could_store_is_stored_with_escapes(journal: Journal) -> None:
    """A platform's words may hold a NUL or half a surrogate pair; the others of the transaction are stored, too."""
    held = [claim.intent for claim in journal.intents.claim_many(wanted(2))]
    reasons = {held[0].key: "out\0of \ud800luck", held[1].key: "refused"}
    moved = journal.intents.abandon_many(reasons, held)
    assert [row.error for row in moved] == [r"out\x00of \ud800luck", "refused"]
    assert {row.error for row in journal.intents.find_many(list(reasons)).values()} == {row.error for row in moved}


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_doubt_about_what_never_left_is_as_old_as_it_may_be(journal: Journal, many: bool) -> None:
    """A doubt about a request that never left this process gets the time of the doubt.

    It is about another journal's request, whose time is unknown.
    """
    intents, now = journal.intents, journal.now()
    intent = intents.claim(replace(wanted(1)[0], platform_time=now)).intent
    time = ServerTime(now, now)
    row = intents.mark_in_doubt_many([intent], "x", time)[0] if many else intents.mark_in_doubt(intent, "x", time)
    assert row.platform_time is None and row == intents.get(intent.key)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_what_is_known_by_its_content_is_the_outcome_of_one_key(journal: Journal, many: bool) -> None:
    """Two keys cannot take the same effect by its content. The second one raises and keeps its claim."""
    intents = journal.intents
    first, second = intents.mark_sent_many([claim.intent for claim in intents.claim_many(wanted(2))])
    settled = [Settled(row, "urn:o", {}, "adopted", "content") for row in (first, second)]
    intents.settle_many(settled[:1])
    with pytest.raises(InDoubtError, match="is the outcome of another model run"):
        if many:
            intents.settle_many(settled[1:])
        else:
            intents.settle_outcome(second, urn="urn:o", outcome={}, how="adopted", matched_by="content")
    assert intents.get(second.key) == second and intents.held(second)


def test_progress_leaves_each_in_its_state(journal: Journal) -> None:
    """Storing progress does not change the states of a batch, even if they differ."""
    intents = journal.intents
    first, second = [claim.intent for claim in intents.claim_many(wanted(2))]
    moved = intents.progress_many([first, intents.mark_sent(second)], {"at": 1})
    assert [(row.state, row.progress) for row in moved] == [("intent", {"at": 1}), ("sent", {"at": 1})]


def test_nothing_is_asked_of_nothing(journal: Journal) -> None:
    """Every batch call accepts an empty batch."""
    intents = journal.intents
    assert intents.claim_many([]) == intents.mark_sent_many([]) == intents.settle_many([]) == []
    assert intents.progress_many([], {}) == intents.abandon_many({}, []) == intents.mark_in_doubt_many([], "") == []
    assert intents.leave_many({}, {}, []) == [] and intents.find_many([]) == {}
    intents.note_many([])


def test_one_claim_and_many_write_the_same(journal: Journal) -> None:
    """Single and batch claims write the same rows for a repeated request, and for a new one after a refusal."""
    opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
    run = {"run_id": opened.run.id, "attempt_id": opened.attempt.id}
    first = [replace(each, **run, attempt_number=1) for each in wanted(4)]
    claims = journal.intents.claim_many(first)
    for claim in claims[:2]:
        sent = journal.intents.mark_sent(claim.intent)
        journal.intents.settle_outcome(sent, urn=f"102/{sent.key}", outcome={}, how="sent")
    for claim in claims[2:]:
        journal.intents.abandon(claim.intent, "refused")
    later = [replace(each, attempt_number=2, spends=True, definition="d", reuse="r") for each in first]
    rows = []
    for answers in ([journal.intents.claim(each) for each in later[::2]], journal.intents.claim_many(later[1::2])):
        for each, answer in zip(("kept", "new"), answers, strict=True):
            row = journal.intents.get(answer.intent.key)
            assert row == answer.intent and answer.kind == each
            rows.append((row.state, row.asked_attempt, row.spends, row.definition, row.reuse, row.error))
    assert rows[:2] == rows[2:] == [("accepted", 2, False, None, None, None), ("intent", 2, True, "d", "r", None)]


def test_claims_that_have_ended_are_not_released_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releasing a claim that has ended writes nothing. A claim that has not ended becomes free for other processes."""
    claims = journal.intents.claim_many(wanted(4))
    sent = journal.intents.mark_sent_many([claim.intent for claim in claims[:2]])
    journal.intents.settle_many([Settled(sent[0], "102/1", {}, "sent")])
    journal.intents.abandon_many({sent[1].key: "refused"}, sent[1:])
    journal.intents.release_many([claim.intent for claim in claims])
    assert [row.token for row in journal.intents.where()] == [None] * 4
    with monkeypatch.context() as patch:
        patch.setattr(journal._store, "write", lambda: pytest.fail("written again"))
        journal.intents.release_many([claim.intent for claim in claims])
        journal.intents.release(claims[0].intent, "lost")
    assert [claim.kind for claim in journal.intents.claim_many(wanted(4))] == ["kept", "new", "new", "new"]
