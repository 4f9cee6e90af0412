"""The observer of a journal is told of what is on disk, once, and of nothing else."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta

import pytest
from on_record import wanted

from ivcap_flows.errors import FencedError, JournalError, SpendLimitError
from ivcap_flows.journal.observer import AttemptEnded, DeliveryRefused, LimitReached, RunWoken
from ivcap_flows.journal.rows import Park, Wait

HERE = ContextVar("here", default="nowhere")


@pytest.fixture
def told(journal):
    found = []
    journal.observe(found.append)
    return found


def test_each_change_of_an_intent_is_told_once(journal, told):
    """With the state before and the row after it, in the order of the changes; that it is left in doubt by the claim
    that takes it over; and no change of a holder that was taken over, since that is refused."""
    intents = journal.intents
    intent = intents.mark_sent(intents.claim(wanted()).intent)
    intent = intents.settle(
        intents.mark_in_doubt(intent, "no reply"), urn="urn:o", outcome={}, how="adopted", matched_by="key"
    )
    intents.finish("k1:a", "succeeded")
    sent = intents.mark_sent(intents.claim(wanted("k1:b")).intent)
    intents.release(sent)
    intents.claim(wanted("k1:b"))
    with pytest.raises(FencedError):
        intents.mark_sent(sent)
    assert [(each.before.standing, each.intent.standing) for each in told] == [
        ("claimed", "sent"),
        ("sent", "in doubt"),
        ("in doubt", "done"),
        ("done", "succeeded"),
        ("claimed", "sent"),
        ("sent", "in doubt"),
    ]
    assert told[2].intent == intent and told[3].intent.status == "succeeded"


def test_what_shares_a_commit_is_told_after_it(sqlite_journal, failing_commits):
    """If the shared commit fails, nothing of it is told; otherwise each in the context of the call that asked."""
    intents = {name: sqlite_journal.intents.claim(wanted(f"k1:{name}")).intent for name in "abcd"}
    told = []
    sqlite_journal.observe(lambda transition: told.append((HERE.get(), transition.intent.key)))

    async def sent(name):
        HERE.set(name)
        await sqlite_journal.ask(sqlite_journal.intents.mark_sent, intents[name])

    async def all_at_once():
        return await asyncio.gather(*map(sent, intents), return_exceptions=True)

    with failing_commits(sqlite_journal._store):
        failed = asyncio.run(all_at_once())
    assert all(isinstance(error, JournalError) for error in failed), failed
    assert told == []
    assert asyncio.run(all_at_once()) == [None] * 4
    assert sorted(told) == [(name, f"k1:{name}") for name in "abcd"]


def test_an_observer_that_fails_fails_nobody(journal):
    """The change is on disk, and the caller goes on."""

    def fails(_):
        raise RuntimeError("away")

    journal.observe(fails)
    intent = journal.intents.mark_sent(journal.intents.claim(wanted()).intent)
    assert journal.intents.get("k1:a") == intent


def test_what_concerns_a_run_is_told(journal, begin, told):
    """That its limit is reached, although nothing is written; an attempt when it is closed, a parked run when it goes
    on, and a delivery when it is refused."""
    opened, now = begin(), journal.now()
    journal.intents.claim(wanted(run_id="1", spends=True), spend_limit=1)
    with pytest.raises(SpendLimitError) as raised:
        journal.intents.claim(wanted("k1:b", run_id="1", spends=True), spend_limit=1)
    waits = (Wait("urn:o", "order", "urn:s"),)
    journal.parks.note(opened.attempt.id, Park(1, "https://x", "ada", None, waits, now, now + timedelta(seconds=60)))
    journal.runs.close_attempt(opened.attempt.id, "parked", "Parked: waits.")
    begin()
    journal.deliveries.record("ivcap:x", "a@1", "pending", run_id="1", reason="away")
    journal.deliveries.record("ivcap:x", "a@1", "dead", run_id="1", reason="too large")
    limit, parked, woken, refused = told
    assert limit == LimitReached("1", raised.value) and refused == DeliveryRefused("ivcap:x", "1", "too large")
    assert isinstance(parked, AttemptEnded) and isinstance(woken, RunWoken)
    assert (parked.attempt.outcome, parked.attempt.cause) == ("parked", "Parked: waits.")
    assert woken.attempt.id == parked.attempt.id
