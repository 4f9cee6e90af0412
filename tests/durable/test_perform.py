"""At most one effect per key, whatever the network, the platform and the processes do."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from durable_platform import VISIBILITY_DELAY, Aspects, Platform, cut_off, forget_platform_warnings, order, perform

from ivcap_flows.durable import Effect, Performed
from ivcap_flows.errors import (
    BadRequestError,
    InDoubtError,
    InputError,
    JournalError,
    RegistrationFailedError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http.confirm_send import confirm_send, confirming_sends
from ivcap_flows.journal import IntentRow, Journal, NewIntent, RunIdentity

SOMEBODY: dict[str, Any] = {"attempt": None, "platform": "https://x", "account": "urn:acc"}
FORK = multiprocessing.get_context("fork")


def run(effect: Effect[Any], journal: Journal, **options: Any) -> Performed[Any]:
    options = {"attempt": None, "platform": "https://x", "account": "urn:acc", **options}
    return asyncio.run(perform(effect, journal=journal, **options))


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    forget_platform_warnings()
    return Platform(tmp_path / "platform")


def only(journal: Journal) -> IntentRow:
    [row] = journal.intents.where()
    return row


def test_second_call_gets_the_first_ones_effect(durable_journal: Journal, platform: Platform) -> None:
    """One send; afterwards the same request is answered from the journal, another request is another effect."""
    first = run(order(platform), durable_journal)
    second = run(order(platform), durable_journal)
    assert (first.how, second.how) == ("sent", "kept")
    assert first.value == second.value == {"urn": platform.urns[0]}
    run(order(platform, "y"), durable_journal)
    run(order(platform, discriminator="2"), durable_journal)
    run(order(platform), durable_journal, account="urn:other")
    run(order(platform, once_per="call"), durable_journal)
    run(order(platform, once_per="call"), durable_journal)
    assert len(platform.urns) == 6


def test_lost_reply_is_looked_for_and_adopted(durable_journal: Journal, platform: Platform) -> None:
    """The platform took the order but its reply was lost: the call finds it and does not send again."""
    platform.faults = ["lost"]
    done = run(order(platform), durable_journal)
    assert (done.how, done.value["urn"]) == ("adopted", platform.urns[0])
    assert len(platform.sends) == len(platform.urns) == 1
    assert (only(durable_journal).state, only(durable_journal).matched_by) == ("done", "key")


def test_late_effect_is_waited_for(durable_journal: Journal, platform: Platform) -> None:
    """An order that shows only after a while, but within the visibility delay, is adopted."""
    platform.faults = ["late"]
    assert run(order(platform), durable_journal).how == "adopted"
    assert len(platform.urns) == 1


def test_sent_again_only_after_settling_and_a_last_look(durable_journal: Journal, platform: Platform) -> None:
    """A request that never arrived is sent again, not before the visibility delay, and the last look comes after it."""
    platform.faults = ["lost before"]
    assert run(order(platform), durable_journal).how == "sent"
    first, second = platform.sends
    assert second - first >= VISIBILITY_DELAY
    assert platform.looks[0] - first < VISIBILITY_DELAY / 2
    assert first + VISIBILITY_DELAY <= platform.looks[-1] <= second
    assert len(platform.urns) == 1


def test_platform_that_stays_silent_is_an_error_that_leaves_the_doubt(
    sqlite_journal: Journal, platform: Platform
) -> None:
    """After three lost sends the call raises, and the next call continues with looking."""
    platform.faults = ["lost before"] * 3
    with pytest.raises(UnreachableError):
        run(order(platform, visibility_delay=0.05), sqlite_journal)
    assert only(sqlite_journal).in_doubt
    assert run(order(platform, visibility_delay=0.05), sqlite_journal).how == "sent"
    assert len(platform.urns) == 1


@pytest.mark.parametrize("fault", ["refuse", "no connection", "fail the work"])
def test_definite_refusal_ends_the_intent(sqlite_journal: Journal, platform: Platform, fault: str) -> None:
    """A refusal that surely had no effect is raised without a look. The same call may send again later."""
    platform.faults = [fault]
    with pytest.raises((BadRequestError, UnreachableError, RegistrationFailedError)):
        run(order(platform), sqlite_journal)
    row = only(sqlite_journal)
    assert row.state == "dropped"
    assert "Error: " in (row.error or "")
    assert platform.looks == []
    assert run(order(platform), sqlite_journal).how == "sent"


@pytest.mark.parametrize("fault", ["refuse", pytest.param("no connection", marks=pytest.mark.long)])
def test_refusal_says_nothing_of_a_request_before_it(sqlite_journal: Journal, platform: Platform, fault: str) -> None:
    """A refusal of the second request says nothing of the first, whose reply was lost.

    If the first one's effect appears later, the next call finds it and sends nothing.
    """
    platform.faults = ["very late", fault]
    with pytest.raises((BadRequestError, UnreachableError)):
        run(order(platform), sqlite_journal)
    assert only(sqlite_journal).in_doubt
    time.sleep(3 * VISIBILITY_DELAY)
    assert run(order(platform), sqlite_journal).how == "adopted"
    assert len(platform.urns) == 1


def test_several_effects_keep_the_oldest_and_report_the_rest(
    sqlite_journal: Journal, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """If one key has several effects, the oldest is kept. The others are logged and stay in the journal."""
    platform.faults = ["lost before"]
    original = platform.send

    async def send_thrice(intent: IntentRow, progress: Any) -> Any:
        for _ in range(3):
            platform.take(intent.key, intent.request)
            await asyncio.sleep(0.01)
        return await original(intent, progress)

    platform.send = send_thrice  # type: ignore[method-assign]
    done = run(order(platform), sqlite_journal)
    oldest, *others = platform.urns
    assert done.value["urn"] == oldest
    assert sorted(only(sqlite_journal).duplicates) == sorted(others)
    assert others[0] in caplog.text


def test_content_match_leaves_other_keys_effects_alone(sqlite_journal: Journal, platform: Platform) -> None:
    """A look by content does not adopt an effect that belongs to another key. It adopts and marks a free one."""
    run(order(platform), sqlite_journal)
    platform.by_content = True
    platform.faults = ["lost before", "lost"]
    done = run(order(platform, discriminator="2"), sqlite_journal)
    assert (done.how, done.value["urn"], len(platform.urns)) == ("adopted", platform.urns[1], 2)
    assert [row.matched_by for row in sqlite_journal.intents.where()] == [None, "content"]


def test_what_cannot_be_told_stops_with_the_candidates(sqlite_journal: Journal, platform: Platform) -> None:
    """If no candidate is certain, nothing is adopted or sent.

    The error names the candidates and the commands that decide.
    """
    original = platform.find

    async def guess(intent: IntentRow) -> Any:
        return [replace(one, matched_by="guess") for one in await original(intent)]

    platform.find = guess  # type: ignore[method-assign]
    platform.faults = ["lost"]
    for _ in range(2):
        with pytest.raises(InDoubtError, match="orders adopt") as caught:
            run(order(platform), sqlite_journal)
    assert caught.value.candidates == platform.urns
    assert len(platform.sends) == 1
    sqlite_journal.decisions.resolve(caught.value.key, urn=platform.urns[0], outcome={"urn": platform.urns[0]})
    assert run(order(platform), sqlite_journal).how == "kept"


def test_look_survives_a_platform_that_is_away(sqlite_journal: Journal, platform: Platform) -> None:
    """A look that fails within the visibility delay is repeated. Nothing is sent because a look failed."""
    original, failures = platform.find, [0]

    async def flaky(intent: IntentRow) -> Any:
        failures[0] += 1
        if failures[0] < 3:
            raise UnavailableError("busy", status=503)
        return await original(intent)

    platform.find = flaky  # type: ignore[method-assign]
    platform.faults = ["lost"]
    assert run(order(platform), sqlite_journal).how == "adopted"
    failures[0] = -1000
    platform.faults = ["lost"]
    with pytest.raises(UnavailableError):
        run(order(platform, "y"), sqlite_journal)
    assert len(platform.sends) == 2


def test_intent_that_cannot_be_written_sends_nothing(sqlite_journal: Journal, platform: Platform) -> None:
    """If the claim or the mark before the request cannot be written, nothing is sent."""
    for method in ("claim", "mark_sent"):

        def fail(*_: Any, **__: Any) -> Any:
            raise JournalError("disk full")

        original = getattr(sqlite_journal.intents, method)
        setattr(sqlite_journal.intents, method, fail)
        with pytest.raises(JournalError):
            run(order(platform), sqlite_journal)
        setattr(sqlite_journal.intents, method, original)
    assert platform.sends == []
    assert run(order(platform), sqlite_journal).how == "sent"


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written, and the reply lost"])
def test_outcome_that_cannot_be_written_is_written_later(
    durable_journal: Journal, platform: Platform, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """If the outcome cannot be written, the flow still gets the effect, and the journal gets it as soon as it can."""
    settle, fails = durable_journal.intents.settle, [True, True]

    def fail(*arguments: Any, **options: Any) -> Any:
        if fails:
            fails.pop()
            if written and fails:
                settle(*arguments, **options)
            raise JournalError("the connection is lost")
        return settle(*arguments, **options)

    monkeypatch.setattr(durable_journal.intents, "settle", fail)
    first = run(order(platform), durable_journal)
    assert first.how == "sent"
    end = time.monotonic() + 60
    while fails or only(durable_journal).state != "done" or durable_journal.untold:
        assert time.monotonic() < end
        time.sleep(0.02)
    second = run(order(platform), durable_journal)
    assert (second.how, second.value) == ("kept", first.value)
    assert len(platform.urns) == 1


def test_cancelled_call_is_in_doubt(sqlite_journal: Journal, platform: Platform) -> None:
    """A call that is cancelled during its request leaves the intent in doubt, with its time. The next call adopts."""
    platform.faults = ["hang after"]
    call = perform(order(platform), journal=sqlite_journal, attempt=None, platform="https://x", account="urn:acc")
    cut_off(platform, call)
    assert only(sqlite_journal).in_doubt
    assert run(order(platform), sqlite_journal).how == "adopted"
    assert len(platform.urns) == 1


def test_call_cancelled_while_claiming_holds_nothing(sqlite_journal: Journal, platform: Platform) -> None:
    """A claim that the journal grants after its caller was cancelled is given back, so that the next call can go on."""
    original = sqlite_journal.intents.claim
    claimed = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        claims = original(*args, **kwargs)
        claimed.set()
        time.sleep(0.3)
        return claims

    async def cancelled() -> None:
        asked = asyncio.ensure_future(perform(order(platform), journal=sqlite_journal, **SOMEBODY))
        while not claimed.is_set():
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    sqlite_journal.intents.claim = slow  # type: ignore[method-assign]
    asyncio.run(cancelled())
    sqlite_journal.intents.claim = original  # type: ignore[method-assign]

    async def soon() -> Performed[Any]:
        again = perform(order(platform), journal=sqlite_journal, attempt=None, platform="https://x", account="urn:acc")
        return await asyncio.wait_for(again, 5)

    assert asyncio.run(soon()).how == "sent"


def test_equal_calls_at_once_share_one_effect(
    durable_journal: Journal, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty equal calls in one run: one send, one effect, and one warning that names the way out."""
    attempt = durable_journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))

    async def many() -> list[Performed[Any]]:
        options: dict[str, Any] = {"attempt": attempt, "platform": "https://x", "account": "urn:acc"}
        calls = (perform(order(platform, once_per="run"), journal=durable_journal, **options) for _ in range(20))
        return await asyncio.gather(*calls)

    platform.faults = ["slow"]
    done = asyncio.run(many())
    assert sorted(one.how for one in done) == ["kept"] * 19 + ["sent"]
    assert len({one.value["urn"] for one in done}) == len(platform.urns) == 1
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "discriminator" in warnings[0].getMessage()


def _order_at(url: str, folder: Path, moment: float, results: Any) -> None:
    platform = Platform(folder, ["slow"])
    time.sleep(max(0.0, moment - time.time()))
    with Journal.open(url) as journal:
        results.put(run(order(platform), journal).value["urn"])


def test_eight_processes_at_once_send_once(durable_url: str, durable_journal: Journal, platform: Platform) -> None:
    """Eight processes ask for the same at the same moment: one sends, all get the one effect."""
    results = FORK.Queue()
    moment = time.time() + 0.3
    children = [FORK.Process(target=_order_at, args=(durable_url, platform.folder, moment, results)) for _ in range(8)]
    for child in children:
        child.start()
    urns = {results.get(timeout=30) for _ in children}
    for child in children:
        child.join()
    assert [*urns] == platform.urns


def _crash(url: str, folder: Path, point: str) -> None:
    """Order until the named point, then die as by kill -9."""
    platform = Platform(folder, [point])
    kills = {"after the idempotency record": 1, "after the outcome row": 2}
    aspects = Aspects(folder / "aspects", kill_at=kills.get(point, 0))
    journal = Journal.open(url)

    def die_after(name: str) -> None:
        original = getattr(journal.intents, name)

        def killing(*args: Any, **kwargs: Any) -> Any:
            original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(journal.intents, name, killing)

    if point == "after the intent":
        die_after("claim")
    if point == "after the mark":
        die_after("mark_sent")
    run(order(platform), journal, idempotency_records=aspects)


@pytest.mark.parametrize(
    ("point", "how"),
    [
        ("after the intent", "sent"),
        ("after the idempotency record", "sent"),
        ("after the mark", "sent"),
        ("kill before", "sent"),
        ("kill after", "adopted"),
        ("after the outcome row", "kept"),
    ],
)
def test_killed_anywhere_there_is_one_effect(
    durable_url: str, durable_journal: Journal, platform: Platform, point: str, how: str
) -> None:
    """kill -9 between any two steps, then the same call again: exactly one effect, sent, adopted or kept."""
    child = FORK.Process(target=_crash, args=(durable_url, platform.folder, point))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    never_sent = point in ("after the intent", "after the idempotency record")
    effect = order(platform, visibility_delay=60.0 if never_sent else VISIBILITY_DELAY)
    began = time.monotonic()
    done = run(effect, durable_journal, idempotency_records=Aspects(platform.folder / "aspects"))
    assert done.how == how
    assert platform.urns == [done.value["urn"]]
    if point in ("after the mark", "kill before"):
        # It may have been sent for all the journal knows, so it is not sent again before it would have shown.
        assert platform.looks
    if never_sent:
        assert time.monotonic() - began < 30


def _order_slowly(url: str, folder: Path, ready: Any) -> None:
    platform = Platform(folder, ["slow"])
    original = platform.send

    async def send(intent: IntentRow, progress: Any) -> Any:
        ready.send("sending")
        return await original(intent, progress)

    platform.send = send  # type: ignore[method-assign]
    run(order(platform), Journal.open(url))


def test_live_holder_is_waited_for(durable_url: str, durable_journal: Journal, platform: Platform) -> None:
    """While another live process holds the claim, the call waits for its outcome and neither looks nor sends."""
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_order_slowly, args=(durable_url, platform.folder, theirs))
    child.start()
    ours.recv()
    done = run(order(platform), durable_journal)
    child.join()
    assert (done.how, [done.value["urn"]]) == ("kept", platform.urns)
    assert platform.sends == platform.looks == []


def test_holder_taken_for_gone_does_not_send(
    durable_url: str,
    durable_journal: Journal,
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    take_elsewhere: Callable[..., None],
) -> None:
    """A process of another machine that was silent too long loses its claim. When it wakes it does not send."""
    monkeypatch.setattr("ivcap_flows.journal.processes.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("ivcap_flows.durable.submission.LEAVES_WITHIN", 0.0)
    aspects = Aspects(platform.folder / "aspects")
    other = Journal.open(durable_url)

    async def story() -> tuple[Performed[Any], Performed[Any]]:
        overtaken = asyncio.Event()
        asleep = asyncio.Event()

        class Sleepy(Aspects):
            async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> None:
                asleep.set()
                await overtaken.wait()

        options: dict[str, Any] = {"attempt": None, "platform": "https://x", "account": "urn:acc"}
        sleepy = Sleepy(platform.folder / "sleepy")
        first = asyncio.create_task(perform(order(platform), journal=other, idempotency_records=sleepy, **options))
        await asleep.wait()
        take_elsewhere(other)
        second = await perform(order(platform), journal=durable_journal, idempotency_records=aspects, **options)
        overtaken.set()
        return await first, second

    first, second = asyncio.run(story())
    other.close()
    assert (first.how, second.how) == ("kept", "sent")
    assert first.value == second.value
    assert len(platform.sends) == 1


def test_effect_of_an_overtaken_holder_is_reported(
    sqlite_journal: Journal, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """An effect that was sent by a process which had lost its claim is logged and kept as a duplicate."""
    original = platform.send

    async def confirmed() -> None: ...

    async def overtaken(intent: IntentRow, progress: Any) -> Any:
        platform.send = original  # type: ignore[method-assign]
        await confirm_send()
        sqlite_journal.intents.release(intent)
        other = sqlite_journal.intents.claim(_wanted(intent)).intent
        other = sqlite_journal.intents.mark_sent(other)
        sqlite_journal.intents.settle(other, urn="urn:first", outcome={"urn": "urn:first"}, how="sent")
        with confirming_sends(confirmed):
            return await original(intent, progress)

    platform.send = overtaken  # type: ignore[method-assign]
    done = run(order(platform), sqlite_journal)
    assert (done.how, done.value) == ("kept", {"urn": "urn:first"})
    assert only(sqlite_journal).duplicates == platform.urns
    assert platform.urns[0] in caplog.text


def _wanted(intent: IntentRow) -> NewIntent:
    names = [field.name for field in fields(NewIntent) if field.name != "attempt_number"]
    return NewIntent(**{name: getattr(intent, name) for name in names})


def test_request_beyond_json_is_an_input_error(sqlite_journal: Journal, platform: Platform) -> None:
    """A request that has no canonical form is refused before anything is written or sent."""
    with pytest.raises(InputError, match=r"is an int beyond 2\*\*53"):
        run(order(platform, {"n": 2**60}), sqlite_journal)
    assert sqlite_journal.intents.where() == []


def test_two_equal_jobs_lost_together_are_two(durable_journal: Journal, platform: Platform) -> None:
    """Two equal requests with discriminators, both with lost replies, have two keys and two effects."""
    platform.by_content = True
    platform.faults = ["lost", "lost"]

    async def both():
        return await asyncio.gather(
            *(
                perform(
                    order(platform, discriminator=d),
                    journal=durable_journal,
                    attempt=None,
                    platform="https://x",
                    account="urn:acc",
                )
                for d in "ab"
            )
        )

    a, b = asyncio.run(both())
    assert len(platform.urns) == 2
    assert a.value["urn"] != b.value["urn"]


def test_sibling_in_flight_is_not_adopted(durable_journal: Journal, platform: Platform) -> None:
    """The effect of an equal request whose reply is still under way is not adopted by another key."""
    platform.by_content = True
    platform.faults = ["lost before"]
    ea, eb = (
        replace(order(platform, discriminator="a"), visibility_delay=4 * VISIBILITY_DELAY),
        order(platform, discriminator="b"),
    )

    async def both():
        taken = asyncio.Event()

        async def send_b(intent, progress):
            await confirm_send()
            urn = platform.take(intent.key, intent.request)
            taken.set()
            while not platform.looks:
                await asyncio.sleep(0.01)
            return {"urn": urn}

        b = asyncio.create_task(perform(replace(eb, on_send=send_b), journal=durable_journal, **SOMEBODY))
        await taken.wait()
        a = perform(ea, journal=durable_journal, attempt=None, platform="https://x", account="urn:acc")
        return await asyncio.gather(a, b)

    a, b = asyncio.run(both())
    assert a.value["urn"] != b.value["urn"]
