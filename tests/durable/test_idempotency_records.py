"""What machines without a shared journal know of each other, by records on the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from durable_platform import VISIBILITY_DELAY, Platform
from simulated import run_on

from ivcap_flows.durable import Found, Performed, Resume
from ivcap_flows.errors import UnavailableError
from ivcap_flows.journal import IntentRow, Journal, schema


@pytest.fixture
def two_journals(tmp_path: Path) -> Iterator[tuple[Journal, Journal]]:
    with Journal.open(f"sqlite:///{tmp_path / 'a.sqlite'}") as one, Journal.open(f"sqlite:///{tmp_path / 'b'}") as two:
        yield one, two


class Slowly(Platform):
    """Each look at the records takes a moment, in which another may write its own."""

    async def read(self, key: str) -> dict[str, Any] | None:
        found = await super().read(key)
        await asyncio.sleep(0.1)
        return found


class Uploads(Platform):
    """Its effects are resumable, as uploads are: each takes a name, stores it, and continues under it."""

    async def call(self, journal: Journal, request: Any = "x", **options: Any) -> Performed[Any]:
        given: dict[str, Any] = {"visibility_delay": 0.0, "resumable": True, "announced": False}
        return await super().call(journal, request, **given, records=self, **options)

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        if progress.stored is None:
            await progress.save({"urn": self.take(intent)})
        await asyncio.sleep(0.1)
        if self.faults and self.faults.pop():
            raise asyncio.CancelledError
        return dict(progress.stored)

    async def find(self, intent: IntentRow) -> list[Found[dict[str, Any]]]:
        return []


def test_another_journal_adopts_what_there_is(two_journals, platform):
    """The outcome in a record is enough, without a look. A record without one is a doubt: the effect is adopted if it
    shows, else sent after the visibility delay."""
    one, two = two_journals
    first = platform.run(one, records=platform)
    second = platform.run(two, records=platform)
    assert (second.how, second.value) == ("adopted", first.value)
    assert (len(platform.sends), platform.looks) == (1, [])
    for request, fault in (("shows", "given up"), ("never", "given up before")):
        platform.faults = [fault]
        with pytest.raises(asyncio.CancelledError):
            platform.run(one, request, records=platform)
    assert platform.run(two, "shows", records=platform).how == "adopted"
    began = platform.account.clock.seconds
    assert platform.run(two, "never", records=platform).how == "sent"
    assert platform.sends[-1] - began >= VISIBILITY_DELAY
    assert len(platform.urns) == 3


def test_two_journals_at_once_send_once(two_journals):
    """Both write their record; the older one sends, the other waits and adopts."""
    platform = Slowly()

    async def both() -> list[Performed[Any]]:
        return await asyncio.gather(*(platform.call(journal, records=platform) for journal in two_journals))

    done = run_on(platform.account.clock, both())
    assert sorted(one.how for one in done) == ["adopted", "sent"]
    assert len(platform.urns) == 1


def test_an_order_that_another_journal_placed_too_is_named(two_journals, caplog):
    """Where records show too late, both place it; who ends last sees the other's, and keeps it on record."""

    class ShownLate(Platform):
        async def read(self, key: str) -> dict[str, Any] | None:
            return None

    platform = ShownLate()
    first, second = [platform.run(journal, records=platform, visibility_delay=0.0) for journal in two_journals]
    [row] = two_journals[1].intents.where()
    assert (second.how, row.urn, row.duplicates) == ("sent", second.value["urn"], [first.value["urn"]])
    assert f"here it is {row.urn}, there {first.value['urn']}" in caplog.text


def test_a_record_that_cannot_be_written_stops_before_sending(sqlite_journal, platform):
    """The record comes before the request; without its answer nothing is sent, and the next call begins anew."""

    class Away(Platform):
        async def write(self, *_: Any, **__: Any) -> Any:
            raise UnavailableError("busy", status=503)

    with pytest.raises(UnavailableError):
        platform.run(sqlite_journal, records=Away(platform.account))
    assert platform.sends == []
    assert platform.run(sqlite_journal, records=platform).how == "sent"


@pytest.mark.parametrize("left", ["outcome", "intent"])
def test_a_journal_that_lost_rows_finds_what_they_made(durable_journal, platform, left):
    """Nothing is sent twice, whether or not the record has an outcome: as with a journal that was restored from a copy,
    or whose server failed over to a standby which was behind."""
    if left == "outcome":
        platform.run(durable_journal, records=platform)
    else:
        platform.faults = ["given up"]
        with pytest.raises(asyncio.CancelledError):
            platform.run(durable_journal, records=platform)
    with durable_journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    done = platform.run(durable_journal, records=platform)
    assert (done.how, [done.value["urn"]]) == ("adopted", platform.urns)


def test_an_upload_is_known_by_its_outcome(two_journals):
    """One look and one record; another journal adopts by them. One that had begun itself, and adopts instead, keeps the
    name of its own: it may be whole."""
    one, two = two_journals
    uploads = Uploads()
    first = uploads.run(one)
    assert uploads.asked == ["read", "outcome"]
    second = uploads.run(two)
    assert (second.how, second.value) == ("adopted", first.value)
    uploads.faults = ["given up"]
    with pytest.raises(asyncio.CancelledError):
        uploads.run(one, "y")
    second = uploads.run(two, "y")
    first = uploads.run(one, "y")
    assert (first.how, first.value) == ("adopted", second.value)
    [row] = [row for row in one.intents.where() if row.request == "y"]
    assert [*row.duplicates, row.urn] == uploads.urns[1:]


def test_two_journals_that_upload_at_once(two_journals, sqlite_journal, caplog):
    """At the same moment each makes its own; the later one, and who asks after them, say so and keep it on record."""
    uploads = Uploads()

    async def both() -> list[Performed[Any]]:
        return await asyncio.gather(*(uploads.call(journal) for journal in two_journals))

    done = [one.value["urn"] for one in run_on(uploads.account.clock, both())]
    assert sorted(done) == sorted(uploads.urns) and len(set(done)) == 2
    noted = sorted((row.duplicates for journal in two_journals for row in journal.intents.where()), key=len)
    assert noted in ([[], [urn]] for urn in done)
    [here] = [urn for urn in done if [urn] not in noted]
    assert f"here it is {here}, there {noted[1][0]}" in caplog.text
    caplog.clear()
    third = uploads.run(sqlite_journal)
    [row] = sqlite_journal.intents.where()
    assert third.how == "adopted" and {row.urn, *row.duplicates} == set(done)
    assert "Another journal has made" in caplog.text
