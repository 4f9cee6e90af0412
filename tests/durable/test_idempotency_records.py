"""What machines without a shared journal know of each other, by aspects on the platform."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from durable_platform import VISIBILITY_DELAY, Aspects, Platform, cut_off, forget_platform_warnings, order, perform

from ivcap_flows.durable import Effect, Found, Performed, Resume
from ivcap_flows.errors import ForbiddenError, UnavailableError
from ivcap_flows.journal import IntentRow, Journal, schema


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    forget_platform_warnings()
    return Platform(tmp_path / "platform")


@pytest.fixture
def aspects(tmp_path: Path) -> Aspects:
    return Aspects(tmp_path / "aspects")


@pytest.fixture
def two_journals(tmp_path: Path) -> Iterator[tuple[Journal, Journal]]:
    with Journal.open(f"sqlite:///{tmp_path / 'a.sqlite'}") as one, Journal.open(f"sqlite:///{tmp_path / 'b'}") as two:
        yield one, two


async def call(effect: Effect[Any], journal: Journal, aspects: Any) -> Performed[Any]:
    return await perform(
        effect, journal=journal, attempt=None, platform="https://x", account="urn:acc", idempotency_records=aspects
    )


def run(effect: Effect[Any], journal: Journal, aspects: Any) -> Performed[Any]:
    return asyncio.run(call(effect, journal, aspects))


def test_other_machine_adopts_what_is_done(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects
) -> None:
    """The outcome aspect is enough: without the first journal, without a look and without a send."""
    first = run(order(platform), two_journals[0], aspects)
    second = run(order(platform), two_journals[1], aspects)
    assert (second.how, second.value) == ("adopted", first.value)
    assert (len(platform.sends), platform.looks) == (1, [])


def test_other_machine_settles_what_is_open(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects
) -> None:
    """An intent of another journal without outcome is a doubt: adopted once it shows, else sent after settling."""
    for request, fault in (("shows", "hang after"), ("never", "hang")):
        platform.faults = [fault]
        cut_off(platform, call(order(platform, request), two_journals[0], aspects))
    before = len(platform.sends)
    assert run(order(platform, "shows"), two_journals[1], aspects).how == "adopted"
    began = time.monotonic()
    assert run(order(platform, "never"), two_journals[1], aspects).how == "sent"
    assert platform.sends[before] - began >= VISIBILITY_DELAY
    assert len(platform.urns) == 2


def test_two_machines_at_once_send_once(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects
) -> None:
    """Both journals write their aspect; the older one sends, the other waits and adopts."""

    class Racing(Aspects):
        async def read(self, key: str) -> dict[str, Any] | None:
            found = await super().read(key)
            await asyncio.sleep(0.1)
            return found

    racing = Racing(aspects.folder)

    async def both() -> list[Performed[Any]]:
        return await asyncio.gather(*(call(order(platform), journal, racing) for journal in two_journals))

    done = asyncio.run(both())
    assert sorted(one.how for one in done) == ["adopted", "sent"]
    assert len(platform.urns) == 1


def test_refused_aspects_are_said_once_and_done_without(
    sqlite_journal: Journal, platform: Platform, aspects: Aspects, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a policy forbids them the order is placed all the same, and the lost guarantee is named once."""

    class Refusing(Aspects):
        async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
            raise ForbiddenError("policy", status=403)

    for request in ("x", "y"):
        assert run(order(platform, request), sqlite_journal, Refusing(aspects.folder)).how == "sent"
    assert caplog.text.count("refuses idempotency records") == 1


def test_aspect_that_cannot_be_written_stops_before_sending(
    sqlite_journal: Journal, platform: Platform, aspects: Aspects
) -> None:
    """The idempotency record comes before the request; without its answer nothing is sent, and the next call begins
    anew.
    """

    class Away(Aspects):
        async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
            raise UnavailableError("busy", status=503)

    with pytest.raises(UnavailableError):
        run(order(platform), sqlite_journal, Away(aspects.folder))
    assert platform.sends == []
    assert run(order(platform), sqlite_journal, aspects).how == "sent"


def test_journal_restored_from_a_copy_does_not_send_blindly(
    sqlite_journal: Journal, platform: Platform, aspects: Aspects
) -> None:
    """A journal that has forgotten an intent finds its own older aspect and takes it for a doubt."""
    platform.faults = ["hang after"]

    async def left_when_taken() -> None:
        calling = asyncio.create_task(call(order(platform), sqlite_journal, aspects))
        while not platform.urns:
            await asyncio.sleep(0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    asyncio.run(left_when_taken())
    with sqlite_journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    assert run(order(platform), sqlite_journal, aspects).how == "adopted"
    assert len(platform.urns) == 1


def test_lost_outcome_row_is_restored_from_the_aspect(
    sqlite_journal: Journal, platform: Platform, aspects: Aspects
) -> None:
    """Deleted with its journal, an outcome comes back from the platform."""
    first = run(order(platform), sqlite_journal, aspects)
    with sqlite_journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    again = run(order(platform), sqlite_journal, aspects)
    assert (again.how, again.value) == ("adopted", first.value)


def upload(platform: Platform) -> Effect[dict[str, Any]]:
    """A resumable effect as an upload is one: it takes a name, stores it, and continues under it."""

    async def send(intent: IntentRow, progress: Resume) -> dict[str, Any]:
        if progress.stored is None:
            await progress.save({"urn": platform.take(intent.key, intent.request)})
        if platform.faults and platform.faults.pop(0) == "hang":
            await platform.hang()
        return dict(progress.stored)

    async def find(intent: IntentRow) -> list[Found[dict[str, Any]]]:
        return []

    plain = order(platform, visibility_delay=0.0, resumable=True)
    return replace(plain, on_send=send, on_find=find)


def test_two_effects_under_one_key_are_reported(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects, caplog: pytest.LogCaptureFixture
) -> None:
    """Where two journals brought it about all the same, the later one says so, and keeps it on record."""

    class Blind(Aspects):
        async def read(self, key: str) -> dict[str, Any] | None:
            return None

    first = run(upload(platform), two_journals[0], aspects)
    second = run(upload(platform), two_journals[1], Blind(aspects.folder))
    assert first.value["urn"] != second.value["urn"]
    assert f"here it is {second.value['urn']}, there {first.value['urn']}" in caplog.text
    [row] = two_journals[1].intents.where()
    assert (row.urn, row.duplicates) == (second.value["urn"], [first.value["urn"]])


class Counted(Aspects):
    """Tells what was asked of it."""

    asked: list[str]

    def __init__(self, folder: Path, *, slow: float = 0.0) -> None:
        super().__init__(folder)
        self.asked, self.slow = [], slow

    async def read(self, key: str) -> dict[str, Any] | None:
        self.asked.append("read")
        found = await super().read(key)
        await asyncio.sleep(self.slow)
        return found

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
        self.asked.append("outcome" if content["urn"] is not None else "claim")
        return await super().write(key, content, first=first)


def test_an_upload_is_known_by_its_outcome(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects
) -> None:
    """One look and one record; another journal adopts by them."""
    counted = Counted(aspects.folder)
    first = run(upload(platform), two_journals[0], counted)
    assert counted.asked == ["read", "outcome"]
    second = run(upload(platform), two_journals[1], counted)
    assert (second.how, second.value) == ("adopted", first.value)
    assert platform.urns == [first.value["urn"]]


def test_two_machines_that_upload_at_once(
    two_journals: tuple[Journal, Journal],
    sqlite_journal: Journal,
    platform: Platform,
    aspects: Aspects,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the same moment each makes its own; the later one, and who asks after them, say so and keep it on record."""
    slow = Counted(aspects.folder, slow=0.1)

    async def both() -> list[Performed[Any]]:
        effect = upload(platform)
        return await asyncio.gather(*(call(effect, journal, slow) for journal in two_journals))

    done = [one.value["urn"] for one in asyncio.run(both())]
    assert sorted(done) == sorted(platform.urns) and len(set(done)) == 2
    noted = [row.duplicates for journal in two_journals for row in journal.intents.where()]
    assert sorted(noted, key=len) in ([[], [urn]] for urn in done)
    caplog.clear()
    third = run(upload(platform), sqlite_journal, aspects)
    [row] = sqlite_journal.intents.where()
    assert third.how == "adopted" and {row.urn, *row.duplicates} == set(done)
    assert "Another journal has made" in caplog.text


def test_what_was_left_for_another_is_on_record(
    two_journals: tuple[Journal, Journal], platform: Platform, aspects: Aspects
) -> None:
    """A journal that had begun, and adopts what another made instead, keeps the name of its own: it may be whole."""
    platform.faults = ["hang"]
    cut_off(platform, call(upload(platform), two_journals[0], aspects))
    second = run(upload(platform), two_journals[1], aspects)
    first = run(upload(platform), two_journals[0], aspects)
    assert (first.how, first.value) == ("adopted", second.value)
    [row] = two_journals[0].intents.where()
    assert [*row.duplicates, row.urn] == platform.urns


def lose(journal: Journal) -> None:
    """Take the intents out of a journal, as a server does that fails over to a standby which was behind."""
    with journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))


@pytest.mark.parametrize("left", ["outcome", "intent"])
def test_a_journal_that_lost_rows_finds_what_they_made(
    durable_journal: Journal, platform: Platform, aspects: Aspects, left: str
) -> None:
    """Nothing is sent twice, whether or not the record has an outcome."""
    platform.faults = ["hang after"] if left == "intent" else []
    cut_off(platform, call(order(platform), durable_journal, aspects))
    lose(durable_journal)
    assert run(order(platform), durable_journal, aspects).how == "adopted"
    assert len(platform.urns) == 1
