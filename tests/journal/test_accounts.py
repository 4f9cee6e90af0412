"""The account to which the credentials of a run lead, in each of its attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ivcap_flows.journal import NewIntent
from ivcap_flows.journal.rows import AccountRow, Park, Wait

HERE, OTHER_ACCOUNT, OTHER_PLATFORM = AccountRow("p", "a"), AccountRow("p", "b"), AccountRow("q", "a")


@pytest.fixture
def run(begin, journal):
    """A run that acts for an account by the credentials of its environment."""
    opened = begin("run")
    assert journal.accounts.note("run", "ivcap", HERE) is None
    return opened


def order(journal, at=HERE, run_id="run"):
    wanted = NewIntent(f"k1:{at}", f"k1:{at}", "order", at.platform, at.account, f"run:{run_id}", {}, run_id=run_id)
    return journal.intents.mark_sent(journal.intents.claim(wanted).intent)


@pytest.mark.parametrize("there", [OTHER_ACCOUNT, OTHER_PLATFORM])
def test_a_run_with_work_stays_with_its_account(journal, run, there):
    """The same credentials must lead there. Other credentials, and other runs, may lead elsewhere."""
    order(journal)
    for _ in range(2):
        assert journal.accounts.elsewhere("run", "ivcap", there) == HERE
        assert journal.accounts.note("run", "ivcap", there) == HERE
        assert journal.accounts.note("run", "ivcap", HERE) is None
    assert journal.accounts.note("run", "ivcap/partner", there) is None
    order(journal, there)
    assert journal.accounts.note("run", "ivcap/partner", HERE) == there


def test_a_run_that_has_nothing_may_begin_elsewhere(journal, run):
    """What was refused, or is on another account, is no work of the first one."""
    order(journal, OTHER_ACCOUNT)
    journal.intents.drop(order(journal), "refused")
    assert journal.accounts.elsewhere("run", "ivcap", OTHER_ACCOUNT) is None
    assert journal.accounts.note("run", "ivcap", OTHER_ACCOUNT) is None
    assert journal.accounts.note("run", "ivcap", HERE) == OTHER_ACCOUNT


def test_what_a_run_parked_for_is_its_work(journal, run):
    """An order that another run placed is none of its intents."""
    now, waits = journal.now(), (Wait("urn:ivcap:order:1", "order", "urn:ivcap:service:1"),)
    park = Park(1, HERE.platform, HERE.account, None, waits, now, now)
    journal.parks.note(run.attempt.id, replace(park, account="another"))
    assert journal.accounts.elsewhere("run", "ivcap", OTHER_ACCOUNT) is None
    journal.parks.note(run.attempt.id, park)
    assert journal.accounts.elsewhere("run", "ivcap", OTHER_ACCOUNT) == HERE
