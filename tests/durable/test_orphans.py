"""The journal alone tells which orders are orphans: their run has ended and did not wait for them."""

from __future__ import annotations

from typing import Any

import pytest

from ivcap_flows.journal import IntentRow, Journal, NewIntent, OpenedAttempt, RunIdentity
from ivcap_flows.work.orphans import is_orphan, orphans_of


def began(journal: Journal, name: str = "f", **more: Any) -> OpenedAttempt:
    identity = RunIdentity(name, f"f.py:{name}", {}, f"flow-run-{name}", f"flow-run-{name}", **more)
    return journal.runs.open_attempt(identity)


def asked(journal: Journal, opened: OpenedAttempt | None, key: str = "k1:a", noun: str = "order") -> IntentRow:
    run_id = None if opened is None else opened.run.id
    request = {"service": "urn:ivcap:service:s"}
    wanted = NewIntent(key, key, noun, "p", "a", f"run:{run_id}", request, subject="s", run_id=run_id)
    return journal.intents.mark_sent(journal.intents.claim(wanted).intent)


def placed(journal: Journal, opened: OpenedAttempt | None, key: str = "k1:a", how: str = "sent") -> IntentRow:
    return journal.intents.settle(asked(journal, opened, key), urn=f"urn:ivcap:order:{key}", outcome={}, how=how)


def keys(journal: Journal, **options: Any) -> list[str | None]:
    return [orphan.key for orphan in orphans_of(journal, **options)]


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "crashed", "lost", "abandoned", "completed"])
def test_a_run_that_ended_leaves_orphans(sqlite_journal, outcome):
    """Orders that were accepted or are in doubt become orphans, with the name of their flow and how its run ended. A
    completed run left those that were accepted on purpose."""
    opened = began(sqlite_journal)
    placed(sqlite_journal, opened)
    sqlite_journal.intents.release(asked(sqlite_journal, opened, "k1:b", "job"))
    assert keys(sqlite_journal) == []
    sqlite_journal.runs.close_attempt(opened.attempt.id, outcome)
    found = orphans_of(sqlite_journal)
    left = {("k1:a", "order", "unknown")} if outcome != "completed" else set()
    assert {(one.key, one.noun, one.status) for one in found} == {("k1:b", "job", "in doubt"), *left}
    assert {(one.flow, one.left) for one in found} == {("f", outcome)}
    again = "no run will request it again" if outcome in ("abandoned", "completed") else "the same command again"
    assert all(again in one.then for one in found)


def test_what_has_an_owner_or_an_end_is_no_orphan(sqlite_journal):
    """Of a live run, also of one that is tried again; ended, reused, taken over by the user, an upload, being sent."""
    live, ended = began(sqlite_journal, "live"), began(sqlite_journal, "ended")
    placed(sqlite_journal, live, "k1:live")
    placed(sqlite_journal, ended, "k1:terminal")
    sqlite_journal.intents.finish("k1:terminal", "succeeded")
    placed(sqlite_journal, ended, "k1:reused", how="reused")
    row = placed(sqlite_journal, ended, "k1:mine")
    sqlite_journal.intents.release(asked(sqlite_journal, ended, "k1:upload", "upload"))
    asked(sqlite_journal, ended, "k1:held")
    sqlite_journal.runs.close_attempt(ended.attempt.id, "failed")
    assert keys(sqlite_journal) == ["k1:mine"] and is_orphan(sqlite_journal, row)
    again = began(sqlite_journal, "ended")
    assert again.run.id == ended.run.id and not is_orphan(sqlite_journal, row)
    sqlite_journal.runs.close_attempt(again.attempt.id, "failed")
    sqlite_journal.decisions.take_over("k1:mine")
    assert keys(sqlite_journal) == []
    placed(sqlite_journal, None)
    [orphan] = orphans_of(sqlite_journal)
    assert (orphan.run, orphan.left) == (None, "no run on record"), "pruned, or of a journal that was rebuilt"


def test_a_parked_run_owns_what_it_waits_for(sqlite_journal):
    """A parked run owns its orders until Prefect says that its flow run was deleted, or how it ended."""
    opened = began(sqlite_journal, deployed=True, deployment_id="d")
    placed(sqlite_journal, opened)
    sqlite_journal.runs.close_attempt(opened.attempt.id, "parked")
    assert keys(sqlite_journal) == [] and keys(sqlite_journal, ended=lambda ids: set()) == []
    [orphan] = orphans_of(sqlite_journal, ended=set)
    assert orphan.left == "parked" and "retry flow run flow-run-f in Prefect" in orphan.then
    sqlite_journal.runs.end(opened.run.id, "cancelled")
    assert keys(sqlite_journal) == ["k1:a"]


def test_a_run_that_was_given_up_may_be_retried_in_prefect(sqlite_journal):
    opened = began(sqlite_journal, deployed=True, deployment_id="d")
    placed(sqlite_journal, opened)
    sqlite_journal.runs.close_attempt(opened.attempt.id, "abandoned")
    [orphan] = orphans_of(sqlite_journal)
    assert "no run will request it again, unless you retry flow run flow-run-f in Prefect: use" in orphan.then


def test_a_background_task_is_delivered_again(sqlite_journal):
    """Nobody can retry it in Prefect, and no command starts it."""
    opened = began(sqlite_journal, deployed=True)
    placed(sqlite_journal, opened)
    sqlite_journal.runs.close_attempt(opened.attempt.id, "crashed")
    [orphan] = orphans_of(sqlite_journal)
    assert "takes it up: have Prefect deliver task run flow-run-f again; if that was deleted" in orphan.then
    sqlite_journal.runs.abandon(opened.run.id)
    [orphan] = orphans_of(sqlite_journal)
    assert "unless you have Prefect deliver task run flow-run-f again: use" in orphan.then
