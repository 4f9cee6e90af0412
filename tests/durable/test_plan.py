"""Plan mode says what would be sent and what is there, and changes nothing."""

from __future__ import annotations

import threading
from contextvars import copy_context
from pathlib import Path
from typing import Any

from durable_platform import Aspects, Platform, cut_off, order, perform

from ivcap_flows import loop
from ivcap_flows.durable import Effect, Performed, plan, planning
from ivcap_flows.journal import Journal, RunIdentity


def run(effect: Effect[Any], journal: Journal, **options: Any) -> Performed[Any]:
    options = {"attempt": None, "platform": "https://x", "account": "urn:acc", **options}
    return loop.run(perform(effect, journal=journal, **options))


def test_plan_tells_and_changes_nothing(sqlite_journal: Journal, tmp_path: Path) -> None:
    """A plan distinguishes new, kept, adopted, doubtful and resubmitted effects. It sends and writes nothing."""
    platform, aspects = Platform(tmp_path / "platform"), Aspects(tmp_path / "aspects")
    kept = run(order(platform, "kept"), sqlite_journal)
    failed = run(order(platform, "failed"), sqlite_journal)
    sqlite_journal.intents.finish(failed.key, "failed")
    platform.faults = ["hang"]
    call = perform(
        order(platform, "doubt"), journal=sqlite_journal, attempt=None, platform="https://x", account="urn:acc"
    )
    cut_off(platform, call)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        run(order(platform, "adopted"), other, idempotency_records=aspects)
    before = (platform.urns, sqlite_journal.intents.where(), sorted(aspects.folder.iterdir()), len(platform.sends))

    with plan() as planned:
        values = [
            run(order(platform, request), sqlite_journal, idempotency_records=aspects, max_resubmits=3)
            for request in ("new", "kept", "failed", "doubt", "adopted", "new")
        ]
    assert [effect.source for effect in planned.effects] == ["new", "kept", "resubmitted", "in doubt", "adopted"]
    assert [value.how for value in values] == ["planned", "kept", "planned", "planned", "adopted", "planned"]
    assert values[1].value == kept.value
    assert values[0].value == {"urn": f"urn:plan:{values[0].key}"}
    assert [effect.request for effect in planned.new] == ["new", "failed"]
    assert f"kept: order for service, {kept.value['urn']}" in str(planned)
    assert (
        platform.urns,
        sqlite_journal.intents.where(),
        sorted(aspects.folder.iterdir()),
        len(platform.sends),
    ) == before
    assert planning() is None


def test_plan_of_a_run_knows_what_it_would_continue(sqlite_journal: Journal, tmp_path: Path) -> None:
    """Given the run that would be continued, its orders show as kept though no attempt is open."""
    platform = Platform(tmp_path / "platform")
    identity = RunIdentity("f", "f.py:f", {}, "1", "1")
    opened = sqlite_journal.runs.open_attempt(identity)
    run(order(platform, once_per="run"), sqlite_journal, attempt=opened)
    with plan(sqlite_journal.runs.continued(identity)) as planned:
        run(order(platform, once_per="run"), sqlite_journal)
    [effect] = planned.effects
    assert (effect.source, effect.origin) == ("kept", f"run {opened.run.id}")
    assert len(sqlite_journal.runs.attempts(opened.run.id)) == 1


def test_plan_reaches_threads_that_inherit_the_context(sqlite_journal: Journal, tmp_path: Path) -> None:
    """A task in a thread with the flow's context plans too."""
    platform = Platform(tmp_path / "platform")
    with plan() as planned:
        thread = threading.Thread(target=copy_context().run, args=(run, order(platform), sqlite_journal))
        thread.start()
        thread.join()
    assert [effect.source for effect in planned.effects] == ["new"]
    assert platform.sends == []
