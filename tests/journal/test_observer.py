"""The observer of a journal is told of what is on disk, once, and of nothing else."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ivcap_flows.errors import FencedError, JournalError, SpendLimitError
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.journal.observer import AttemptEnded, DeliveryRefused, IntentMoved, LimitReached, RunWoken
from ivcap_flows.journal.rows import Park, Wait

HERE: ContextVar[str] = ContextVar("here", default="nowhere")


def wanted(key: str = "k1:a", **changed: Any) -> NewIntent:
    return NewIntent(key, key, "order", "https://x", "urn:acc", "account", {"n": key}, subject="service", **changed)


@pytest.fixture
def told(journal: Journal) -> list[Any]:
    found: list[Any] = []
    journal.observe(found.append)
    return found


def test_each_change_of_an_intent_is_told_once(journal: Journal, told: list[Any]) -> None:
    """With the state before and the row after it, in the order of the changes."""
    intent = journal.intents.mark_sent(journal.intents.claim(wanted()).intent)
    intent = journal.intents.mark_in_doubt(intent, "no reply")
    intent = journal.intents.settle(intent, urn="urn:o", outcome={}, how="adopted", matched_by="key")
    journal.intents.finish("k1:a", "succeeded")
    assert [(each.before.standing, each.intent.standing) for each in told] == [
        ("claimed", "sent"),
        ("sent", "in doubt"),
        ("in doubt", "done"),
        ("done", "succeeded"),
    ]
    assert told[2].intent == intent and told[3].intent.status == "succeeded"


def test_a_change_that_is_refused_is_not_told(journal: Journal, told: list[Any]) -> None:
    """The transaction of a holder that was taken over is rolled back."""
    claimed = journal.intents.claim(wanted()).intent
    journal.intents.release(claimed)
    journal.intents.claim(wanted())
    told.clear()
    with pytest.raises(FencedError):
        journal.intents.mark_sent(claimed)
    assert told == []


def test_what_shares_a_commit_is_told_after_it(sqlite_url: str) -> None:
    """If the shared commit fails, nothing of it is told; otherwise each in the context of the call that asked."""
    journal = Journal.open(sqlite_url)
    intents = {name: journal.intents.claim(wanted(f"k1:{name}")).intent for name in "abcd"}
    told: list[tuple[str, str]] = []
    journal.observe(lambda transition: told.append((HERE.get(), transition.intent.key)))  # type: ignore[union-attr]

    async def sent(name: str) -> None:
        HERE.set(name)
        await journal.ask(journal.intents.mark_sent, intents[name])

    async def all_at_once() -> list[BaseException | None]:
        return await asyncio.gather(*map(sent, intents), return_exceptions=True)

    def fail(_: sa.Connection) -> None:
        raise OSError("no room")

    sa.event.listen(journal._store.engine, "commit", fail)
    failed = asyncio.run(all_at_once())
    assert all(isinstance(error, OSError | JournalError) for error in failed), failed
    assert told == []
    sa.event.remove(journal._store.engine, "commit", fail)
    intents = {name: found for name in "abcd" if (found := journal.intents.get(f"k1:{name}"))}
    assert asyncio.run(all_at_once()) == [None] * 4
    assert sorted(told) == [(name, f"k1:{name}") for name in "abcd"]


def test_an_observer_that_fails_fails_nobody(journal: Journal) -> None:
    """The change is on disk, and the caller goes on."""

    def fails(_: Any) -> None:
        raise RuntimeError("away")

    journal.observe(fails)
    intent = journal.intents.mark_sent(journal.intents.claim(wanted()).intent)
    assert journal.intents.get("k1:a") == intent


def test_the_doubt_that_a_killed_holder_leaves_is_told(journal: Journal, told: list[Any]) -> None:
    """By the claim that takes the intent over."""
    sent = journal.intents.mark_sent(journal.intents.claim(wanted()).intent)
    journal.intents.release(sent)
    told.clear()
    assert journal.intents.claim(wanted()).kind == "doubt"
    [moved] = told
    assert isinstance(moved, IntentMoved)
    assert (moved.before.standing, moved.intent.standing) == ("sent", "in doubt")


def test_the_limit_of_a_run_is_told(journal: Journal, told: list[Any]) -> None:
    """Although nothing is written."""
    run = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r")).run
    journal.intents.claim(wanted(run_id=run.id, spends=True), spend_limit=1)
    with pytest.raises(SpendLimitError) as raised:
        journal.intents.claim(wanted("k1:b", run_id=run.id, spends=True), spend_limit=1)
    assert told == [LimitReached(run.id, raised.value)]


def test_parks_attempts_and_refused_deliveries_are_told(journal: Journal, told: list[Any]) -> None:
    """An attempt when it is closed, a parked run when it goes on, and a delivery when it is refused."""
    opened = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r"))
    now = journal.now()
    waits = (Wait("urn:o", "order", "urn:s"),)
    journal.parks.note(opened.attempt.id, Park(1, "https://x", None, waits, now, now + timedelta(seconds=60)))
    journal.runs.close_attempt(opened.attempt.id, "parked", "Parked: waits.")
    journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r"))
    journal.deliveries.record("ivcap:x", "a@1", "pending", run_id=opened.run.id, reason="away")
    journal.deliveries.record("ivcap:x", "a@1", "dead", run_id=opened.run.id, reason="too large")
    parked, woken, refused = told
    assert isinstance(parked, AttemptEnded)
    assert (parked.attempt.outcome, parked.attempt.cause) == ("parked", "Parked: waits.")
    assert isinstance(woken, RunWoken) and woken.attempt.id == parked.attempt.id
    assert refused == DeliveryRefused("ivcap:x", opened.run.id, "too large")
