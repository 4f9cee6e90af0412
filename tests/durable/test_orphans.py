"""The journal alone tells which orders are orphans: their run has ended and did not wait for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows.in_prefect.end_of_run import tell_of_live_orders
from ivcap_flows.journal import IntentRow, Journal, NewIntent, OpenedAttempt, Outcome, RunIdentity
from ivcap_flows.work.orphans import is_orphan, orphans_of

SERVICE = "urn:ivcap:service:s"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(f"sqlite:///{tmp_path / 'j.sqlite'}") as opened:
        yield opened


def began(journal: Journal, name: str = "f", *, deployed: bool = False) -> OpenedAttempt:
    identity = RunIdentity(name, f"f.py:{name}", {}, f"flow-run-{name}", f"flow-run-{name}", deployed=deployed)
    return journal.runs.open_attempt(identity)


def asked(journal: Journal, opened: OpenedAttempt | None, key: str = "k1:a", noun: str = "order") -> IntentRow:
    run_id = None if opened is None else opened.run.id
    wanted = NewIntent(key, key, noun, "p", "a", f"run:{run_id}", {"service": SERVICE}, subject="s", run_id=run_id)
    return journal.intents.mark_sent(journal.intents.claim(wanted).intent)


def placed(journal: Journal, opened: OpenedAttempt | None, key: str = "k1:a", **options: Any) -> IntentRow:
    urn = f"urn:ivcap:order:{key}"
    how = {"how": "sent", **options}
    return journal.intents.settle(asked(journal, opened, key), urn=urn, outcome={}, **how)


def keys(journal: Journal, **options: Any) -> list[str | None]:
    return [orphan.key for orphan in orphans_of(journal, **options)]


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "crashed", "lost", "abandoned"])
def test_a_run_that_ended_badly_leaves_orphans(journal: Journal, outcome: Outcome) -> None:
    """Orders that were accepted or are in doubt become orphans, with the name of their flow and how its run ended."""
    opened = began(journal)
    placed(journal, opened)
    journal.intents.release(asked(journal, opened, "k1:b", "job"))
    assert keys(journal) == []
    journal.runs.close_attempt(opened.attempt.id, outcome)
    found = orphans_of(journal)
    assert {(one.key, one.noun, one.status) for one in found} == {
        ("k1:a", "order", "unknown"),
        ("k1:b", "job", "in doubt"),
    }
    assert {(one.flow, one.left) for one in found} == {("f", outcome)}
    again = "no run will request it again" if outcome == "abandoned" else "the same command again"
    assert all(again in one.then for one in found)


def test_what_has_an_owner_or_an_end_is_no_orphan(journal: Journal) -> None:
    """Effects with an owner or an end are no orphans.

    These are: of a live run, ended, reused, taken over by the user, an upload, or being sent.
    """
    live, ended = began(journal, "live"), began(journal, "ended")
    placed(journal, live, "k1:live")
    placed(journal, ended, "k1:terminal")
    journal.intents.finish("k1:terminal", "succeeded")
    placed(journal, ended, "k1:reused", how="reused")
    placed(journal, ended, "k1:mine")
    journal.intents.release(asked(journal, ended, "k1:upload", "upload"))
    asked(journal, ended, "k1:held")
    journal.runs.close_attempt(ended.attempt.id, "failed")
    assert keys(journal) == ["k1:mine"]
    journal.decisions.take_over("k1:mine")
    assert keys(journal) == []


def test_what_a_completed_run_left_is_meant(journal: Journal) -> None:
    """A completed run left its accepted orders on purpose. Only its orders in doubt are orphans."""
    opened = began(journal)
    placed(journal, opened)
    journal.intents.release(asked(journal, opened, "k1:doubt"))
    journal.runs.close_attempt(opened.attempt.id, "completed")
    assert keys(journal) == ["k1:doubt"]


def test_a_run_that_fails_after_a_live_retry_is_no_orphan(journal: Journal) -> None:
    """An order is no orphan while a later attempt of its run is live."""
    opened = began(journal)
    row = placed(journal, opened)
    journal.runs.close_attempt(opened.attempt.id, "failed")
    assert is_orphan(journal, row)
    again = began(journal)
    assert again.run.id == opened.run.id and not is_orphan(journal, row)


def test_a_parked_run_owns_what_it_waits_for(journal: Journal) -> None:
    """A parked run owns its orders until Prefect says that its flow run was deleted, or how it ended."""
    opened = began(journal, deployed=True)
    placed(journal, opened)
    journal.runs.close_attempt(opened.attempt.id, "parked")
    assert keys(journal) == [] and keys(journal, ended=lambda ids: set()) == []
    [orphan] = orphans_of(journal, ended=set)
    assert orphan.left == "parked" and "retry flow run flow-run-f in Prefect" in orphan.then
    journal.runs.end(opened.run.id, "cancelled")
    assert keys(journal) == ["k1:a"]


def test_an_order_of_no_run_is_an_orphan(journal: Journal) -> None:
    """An order without a run, because it was pruned or the journal rebuilt, is an orphan."""
    placed(journal, None)
    [orphan] = orphans_of(journal)
    assert (orphan.run, orphan.left) == (None, "no run on record")


def test_the_end_of_a_flow_names_what_goes_on(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A flow that was cancelled logs one warning that names its live orders and what the user can do.

    A completed one logs nothing.
    """
    opened = began(journal)
    placed(journal, opened)
    tell_of_live_orders(journal, opened.run.id, "completed")
    assert caplog.records == []
    tell_of_live_orders(journal, opened.run.id, "cancelled")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    for word in ("was cancelled", "cannot cancel", "urn:ivcap:order:k1:a (s)", "orders --orphans"):
        assert word in record.getMessage()
