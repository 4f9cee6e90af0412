"""The user's decisions about existing effects, and intents that are restored from elsewhere."""

from __future__ import annotations

import pytest

from ivcap_flows.errors import DurabilityError, SpendLimitError
from ivcap_flows.journal import IntentRow, Journal, NewIntent, RunIdentity

WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")


def sent(journal: Journal) -> IntentRow:
    return journal.intents.mark_sent(journal.intents.claim(WANTED).intent)


def accepted(journal: Journal) -> IntentRow:
    return journal.intents.settle(sent(journal), urn="urn:o", outcome={"x": 1}, how="sent")


def test_only_what_exists_is_taken_over(journal: Journal) -> None:
    """The user can take over an accepted effect, but not one that is still being sent."""
    row = sent(journal)
    with pytest.raises(DurabilityError, match="not known to exist"):
        journal.decisions.take_over(row.key)
    journal.intents.settle(row, urn="urn:o", outcome={}, how="sent")
    taken = journal.decisions.take_over(row.key)
    assert (taken.state, taken.how, taken.matched_by) == ("done", "sent", "user")
    assert journal.intents.get(row.key) == taken


def test_what_ended_is_accounted_for_and_stays_the_answer(journal: Journal) -> None:
    """An effect that the user accounts for is terminal with its real status.

    The next claim gets it, and nothing is sent.
    """
    accepted(journal)
    row = journal.decisions.account_for("k1:a", "failed")
    assert (row.state, row.status, row.error) == ("done", "failed", "written off by the user")
    assert journal.intents.claim(WANTED).kind == "kept"


def test_what_is_on_its_way_is_not_accounted_for(journal: Journal) -> None:
    """An effect that is being sent cannot be accounted for, since it may not exist."""
    sent(journal)
    with pytest.raises(DurabilityError):
        journal.decisions.account_for("k1:a", "failed")


def test_what_is_reused_counts_for_nothing(journal: Journal) -> None:
    """A claim for reuse does not count against the spend limit. It counts if the same is paid for after all."""
    run = journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "r", "r")).run
    free = NewIntent("k1:r", "k1:r", "order", "p", "a", "account", {}, run_id=run.id, reuse="urn:o is used")
    paid = NewIntent("k1:r", "k1:r", "order", "p", "a", "account", {}, run_id=run.id, spends=True)
    claim = journal.intents.claim(free, spend_limit=0)
    assert (claim.kind, claim.intent.reuse) == ("new", "urn:o is used")
    journal.intents.release(claim.intent)
    with pytest.raises(SpendLimitError):
        journal.intents.claim(paid, spend_limit=0)
    again = journal.intents.claim(paid, spend_limit=1).intent
    assert (again.spends, again.reuse) == (True, None)
