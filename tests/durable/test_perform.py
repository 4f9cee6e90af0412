"""At most one effect per key, whatever the network, the platform and the processes do."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from durable_platform import LOST, VISIBILITY_DELAY, Platform
from eventually import until
from simulated import run_on

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
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.journal.store import Store


def only(journal: Journal) -> IntentRow:
    [row] = journal.intents.where()
    return row


def test_second_call_gets_the_first_ones_effect(durable_journal, platform):
    """One send; afterwards the same request is answered from the journal, another request is another effect."""
    first, second = platform.run(durable_journal), platform.run(durable_journal)
    assert (first.how, second.how) == ("sent", "kept")
    assert first.value == second.value == {"urn": platform.urns[0]}
    platform.run(durable_journal, "y")
    platform.run(durable_journal, discriminator="2")
    platform.run(durable_journal, account="urn:other")
    platform.run(durable_journal, once_per="call")
    platform.run(durable_journal, once_per="call")
    assert len(platform.urns) == 6


@pytest.mark.parametrize(
    ("faults", "error", "row", "then", "sends"),
    [
        ("lost", None, ("done", False), "kept", 1),
        ("late and lost", None, ("done", False), "kept", 1),
        ("lost before", None, ("done", False), "kept", 2),
        ("lost before, lost before, lost before", UnreachableError, ("sent", True), "sent", 4),
        ("refuse", BadRequestError, ("dropped", False), "sent", 2),
        ("refuse by 200", BadRequestError, ("dropped", False), "sent", 2),
        ("refuse in part", None, ("done", False), "kept", 2),
        ("fail", None, ("done", False), "kept", 2),
        ("no connection", UnreachableError, ("dropped", False), "sent", 2),
        ("fail the work", RegistrationFailedError, ("dropped", False), "sent", 2),
        # A refusal of the second request says nothing of the first, whose reply was lost.
        ("very late, refuse", BadRequestError, ("sent", True), "adopted", 2),
        ("very late, no connection", UnreachableError, ("sent", True), "adopted", 2),
        ("given up", asyncio.CancelledError, ("sent", True), "adopted", 1),
        ("given up before", asyncio.CancelledError, ("sent", True), "sent", 2),
    ],
)
def test_whatever_is_answered_there_is_one_effect(durable_journal, platform, faults, error, row, then, sends):
    """What is lost is looked for until it shows. It is sent again only after the visibility delay and a last look; what
    was surely refused, at once. A call that gives up leaves the doubt to the next one."""
    platform.faults = faults.split(", ")
    if error is None:
        seen = "adopted" if faults in LOST else "sent"
        assert platform.run(durable_journal).how == seen
    else:
        with pytest.raises(error):
            platform.run(durable_journal)
    left = only(durable_journal)
    assert (left.state, left.in_doubt) == row
    if left.state == "dropped":
        assert "Error: " in str(left.error) and platform.looks == []
    if "very late" in faults:
        platform.account.clock.seconds += 3 * VISIBILITY_DELAY
    assert platform.run(durable_journal).how == then
    assert len(platform.urns) == 1 and len(platform.sends) == sends
    for before, after in zip(platform.sends, platform.sends[1:], strict=False):
        looks = [at for at in platform.looks if before <= at <= after]
        assert left.state == "dropped" or (looks[0] < before + VISIBILITY_DELAY <= looks[-1])


@pytest.mark.catches("a refusal is a lost reply")
def test_what_was_answered_is_not_called_lost(sqlite_journal, platform, caplog):
    """Only a reply that did not come is called lost. A refusal that made nothing leaves no doubt to speak of."""
    platform.faults = ["refuse by 200"]
    with suppress(BadRequestError):
        platform.run(sqlite_journal)
    assert not caplog.records and platform.looks == platform.urns == []
    platform.faults = ["fail", "lost before"]
    platform.run(sqlite_journal)
    said = [record.getMessage() for record in caplog.records]
    assert "does not say whether it took effect" in said[0] and "out of order" in said[0]
    assert "was lost" in said[1] and "time-out" in said[1]


def test_several_effects_keep_the_oldest_and_report_the_rest(sqlite_journal, platform, caplog):
    """If one key has several effects, the oldest is kept. The others are logged and stay in the journal."""

    async def send_thrice(intent: IntentRow, progress: Any) -> Any:
        for _ in range(3):
            platform.take(intent)
            await asyncio.sleep(1)
        return await platform.send(intent, progress)

    platform.faults = ["lost before"]
    done = platform.run(sqlite_journal, on_send=send_thrice)
    oldest, *others = platform.urns
    assert done.value["urn"] == oldest
    assert sorted(only(sqlite_journal).duplicates) == others and others[0] in caplog.text


def test_what_cannot_be_told_stops_with_the_candidates(sqlite_journal, platform):
    """If no candidate is certain, nothing is adopted or sent.

    The error names the candidates and the commands that decide.
    """
    platform.matched_by = "guess"
    platform.faults = ["lost"]
    for _ in range(2):
        with pytest.raises(InDoubtError, match="orders resolve") as caught:
            platform.run(sqlite_journal)
    assert caught.value.candidates == platform.urns
    assert len(platform.sends) == 1
    sqlite_journal.decisions.resolve(caught.value.key, urn=platform.urns[0], outcome={"urn": platform.urns[0]})
    assert platform.run(sqlite_journal).how == "kept"


def test_look_survives_a_platform_that_is_away(sqlite_journal, platform):
    """A look that fails within the visibility delay is repeated. Nothing is sent because a look failed."""
    fails = [UnavailableError("busy", status=503)] * 2

    async def flaky(intent: IntentRow) -> Any:
        if fails:
            raise fails.pop()
        return await platform.find(intent)

    platform.faults = ["lost", "lost"]
    assert platform.run(sqlite_journal, on_find=flaky).how == "adopted"
    fails.extend([UnavailableError("busy", status=503)] * 1000)
    with pytest.raises(UnavailableError):
        platform.run(sqlite_journal, "y", on_find=flaky)
    assert len(platform.sends) == 2


def test_intent_that_cannot_be_written_sends_nothing(sqlite_journal, platform, monkeypatch):
    """If the claim or the mark before the request cannot be written, or the request has no canonical form."""

    def fail(*_: Any, **__: Any) -> Any:
        raise JournalError("disk full")

    with pytest.raises(InputError, match=r"is an int beyond 2\*\*53"):
        platform.run(sqlite_journal, {"n": 2**60})
    assert sqlite_journal.intents.where() == []
    for method in ("claim", "mark_sent"):
        with monkeypatch.context() as patch, pytest.raises(JournalError):
            patch.setattr(sqlite_journal.intents, method, fail)
            platform.run(sqlite_journal)
    assert platform.sends == []
    assert platform.run(sqlite_journal).how == "sent"


@pytest.mark.parametrize("written", [False, True], ids=["not written", "written, and the reply lost"])
def test_outcome_that_cannot_be_written_is_written_later(durable_journal, platform, monkeypatch, written):
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
    first = platform.run(durable_journal)
    assert first.how == "sent"
    until(lambda: not fails and only(durable_journal).state == "done" and not durable_journal.untold)
    second = platform.run(durable_journal)
    assert (second.how, second.value) == ("kept", first.value)
    assert len(platform.urns) == 1


def test_an_end_that_could_not_be_written_is_written_as_soon_as_it_can(durable_journal, platform, monkeypatch):
    """A process that gave up a call and lives on does not keep others from the effect, though the disk was full."""
    write, full = Store.write, threading.Event()

    def no_more(store: Store) -> Any:
        if full.is_set():
            raise JournalError("the disk is full", url=store.url)
        return write(store)

    async def fail(intent: IntentRow, progress: Any) -> Any:
        full.set()
        raise UnreachableError("time-out", sent=False)

    monkeypatch.setattr(Store, "write", no_more)
    with pytest.raises(UnreachableError):
        platform.run(durable_journal, on_send=fail)
    assert only(durable_journal).token is not None
    full.clear()
    until(lambda: only(durable_journal).token is None and not durable_journal.untold)
    assert platform.run(durable_journal).how == "sent"


@pytest.mark.catches("end on the loop")
def test_the_end_of_a_call_does_not_stop_the_loop(sqlite_journal, platform):
    """While the journal cannot be written, a cancelled call waits for it, and everything else on its loop goes on."""
    away = sqlite3.connect(sqlite_journal.url.removeprefix("sqlite:///"), isolation_level=None)

    async def cancel() -> None:
        sending = asyncio.Event()

        async def hang(intent: IntentRow, progress: Any) -> Any:
            await confirm_send()
            sending.set()
            await asyncio.sleep(60)

        call = asyncio.create_task(platform.call(sqlite_journal, on_send=hang))
        await sending.wait()
        away.execute("BEGIN IMMEDIATE")
        call.cancel()
        for _ in range(10):
            await asyncio.sleep(0.02)
        assert not call.done()
        away.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    away.close()
    row = only(sqlite_journal)
    assert row.in_doubt and not sqlite_journal.intents.held(row)


def test_call_cancelled_while_claiming_holds_nothing(sqlite_journal, platform, monkeypatch):
    """A claim that the journal grants after its caller was cancelled is given back, so that the next call can go on."""
    claim, claimed, cancelled = sqlite_journal.intents.claim, threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        claims = claim(*args, **kwargs)
        claimed.set()
        cancelled.wait(10)
        return claims

    async def cancel() -> None:
        call = asyncio.ensure_future(platform.call(sqlite_journal))
        while not claimed.is_set():
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.sleep(0.01)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await call

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_journal.intents, "claim", slow)
        asyncio.run(cancel())
    assert platform.run(sqlite_journal).how == "sent" and platform.account.clock.seconds < 1


def test_eight_at_once_send_once(durable_url, platform):
    """Eight ask for the same at the same moment, each by a journal of its own: one sends, all get the one effect."""
    begin = threading.Barrier(8)

    def ask() -> str:
        with Journal.open(durable_url) as journal:
            begin.wait(30)
            return str(asyncio.run(platform.call(journal)).value["urn"])

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
        assert {each.result(60) for each in asked} == set(platform.urns)
    assert len(platform.urns) == 1


def test_who_holds_a_key_is_named_to_the_one_who_waits(sqlite_journal, platform, caplog):
    """A call that waits for another says once which process that is, since when and what to do; it gets its outcome
    then."""

    async def slowly(intent, progress):
        await asyncio.sleep(5)
        return await platform.send(intent, progress)

    async def both():
        return await asyncio.gather(*(platform.call(sqlite_journal, on_send=slowly) for _ in range(2)))

    assert [done.how for done in run_on(platform.account.clock, both())] == ["sent", "kept"]
    [said] = [message for message in caplog.messages if "Ctrl-Z" in message]
    assert "Waiting for process" in said and "since 20" in said and "the order k1:" in said
    assert len(platform.urns) == 1


def test_effect_of_an_overtaken_holder_is_reported(sqlite_journal, platform, caplog):
    """An effect that was sent by a process which had lost its claim is logged and kept as a duplicate."""
    intents = sqlite_journal.intents

    async def confirmed() -> None: ...

    async def overtaken(intent: IntentRow, progress: Any) -> Any:
        await confirm_send()
        intents.release(intent)
        wanted = {each.name: getattr(intent, each.name) for each in fields(NewIntent) if each.name != "attempt_number"}
        other = intents.mark_sent(intents.claim(NewIntent(**wanted)).intent)
        intents.settle(other, urn="urn:first", outcome={"urn": "urn:first"}, how="sent")
        with confirming_sends(confirmed):
            return await platform.send(intent, progress)

    done = platform.run(sqlite_journal, on_send=overtaken)
    assert (done.how, done.value) == ("kept", {"urn": "urn:first"})
    assert only(sqlite_journal).duplicates == platform.urns
    assert platform.urns[0] in caplog.text


def test_equal_content_is_of_one_key_each(durable_journal):
    """Found by content, an effect is not adopted by a second key: neither that of another key, nor one whose reply is
    still under way. Two equal requests whose replies are lost together are two effects."""
    platform = Platform()
    platform.matched_by = "content"

    async def at_once(*calls: Any) -> list[Any]:
        return await asyncio.gather(*calls)

    platform.run(durable_journal)
    platform.faults = ["lost before", "lost"]
    done = platform.run(durable_journal, discriminator="2")
    assert (done.how, done.value["urn"], len(platform.urns)) == ("adopted", platform.urns[1], 2)
    assert [row.matched_by for row in durable_journal.intents.where()] == [None, "content"]

    platform.faults = ["lost", "lost"]
    two = at_once(*(platform.call(durable_journal, "both lost", discriminator=each) for each in "ab"))
    assert len({one.value["urn"] for one in run_on(platform.account.clock, two)}) == 2 and len(platform.urns) == 4

    async def reply_late(intent: IntentRow, progress: Any) -> Any:
        await confirm_send()
        urn = platform.take(intent)
        await asyncio.sleep(VISIBILITY_DELAY / 2)
        return {"urn": urn}

    platform.faults = ["lost before"]
    under_way = platform.call(durable_journal, "under way", discriminator="b", on_send=reply_late)
    two = at_once(platform.call(durable_journal, "under way", discriminator="a"), under_way)
    assert len({one.value["urn"] for one in run_on(platform.account.clock, two)}) == 2 and len(platform.urns) == 6
