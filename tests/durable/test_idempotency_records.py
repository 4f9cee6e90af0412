"""What machines without a shared journal know of each other, by records on the platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from durable_platform import VISIBILITY_DELAY, Account, Platform
from simulated import run_on
from simulated_aspects import RECORD_FAULTS, records_on

from ivcap_flows.durable import Found, Performed, Resume
from ivcap_flows.errors import UnavailableError
from ivcap_flows.journal import IntentRow, Journal, schema


@pytest.fixture
def three_journals(tmp_path: Path) -> Iterator[list[Journal]]:
    with ExitStack() as opened:
        yield [opened.enter_context(Journal.open(f"sqlite:///{tmp_path / name}")) for name in "abc"]


@pytest.fixture
def two_journals(tmp_path: Path) -> Iterator[tuple[Journal, Journal]]:
    with Journal.open(f"sqlite:///{tmp_path / 'a.sqlite'}") as one, Journal.open(f"sqlite:///{tmp_path / 'b'}") as two:
        yield one, two


_TWICE = {"lost before twice": ["lost before"] * 2}


class Slowly(Platform):
    """Each request takes a moment, in which another may write a record."""

    async def travel(self) -> None:
        await asyncio.sleep(0.1)


class Uploads(Platform):
    """Its effects are resumable, as uploads are: each takes a name, stores it, and continues under it. Each request for
    a record takes `pause` seconds."""

    pause = 0.0

    async def travel(self) -> None:
        await asyncio.sleep(self.pause)

    async def call(self, journal: Journal, request: Any = "x", **options: Any) -> Performed[Any]:
        given: dict[str, Any] = {"visibility_delay": 0.0, "resumable": True, "announced": False}
        return await super().call(journal, request, **given, records=True, **options)

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
    first = platform.run(one, records=True)
    second = platform.run(two, records=True)
    assert (second.how, second.value) == ("adopted", first.value)
    assert (len(platform.sends), platform.looks) == (1, [])
    for request, fault in (("shows", "given up"), ("never", "given up before")):
        platform.faults = [fault]
        with pytest.raises(asyncio.CancelledError):
            platform.run(one, request, records=True)
    assert platform.run(two, "shows", records=True).how == "adopted"
    began = platform.account.clock.seconds
    assert platform.run(two, "never", records=True).how == "sent"
    assert platform.sends[-1] - began >= VISIBILITY_DELAY
    assert len(platform.urns) == 3


def test_two_journals_at_once_send_once(two_journals):
    """Both write their record; the older one sends, the other waits and adopts."""
    platform = Slowly()

    async def both() -> list[Performed[Any]]:
        return await asyncio.gather(*(platform.call(journal, records=True) for journal in two_journals))

    done = run_on(platform.account.clock, both())
    assert sorted(one.how for one in done) == ["adopted", "sent"]
    assert len(platform.urns) == 1


@pytest.mark.catches(
    "only the oldest is waited for",
    "sent again unannounced",
    "a turn without the look",
    "the own record is not waited for",
)
@pytest.mark.parametrize(
    ("befalls", "afters", "lags"),
    [
        (("", "lost before twice", "late and lost", "given up before"), (0.15,), ((0, 0, 0), (0.9, 0, 0.9))),
        pytest.param(
            ("", "lost before twice", "late and lost", "given up before", "given up"),
            (0.0, 0.15, VISIBILITY_DELAY / 2),
            ((0, 0, 0), (0.9, 0, 0.5), (0, 0.9, 0.9)),
            marks=pytest.mark.long,
        ),
    ],
    ids=["some", "all"],
)
def test_several_journals_send_once_whatever_befalls_their_requests(three_journals, befalls, afters, lags):
    """At the same time or one after the other, and however late each sees the records, within the visibility delay: who
    dies, or gets no reply, is waited for by each that came later, and who sends again waits for each that came
    meanwhile."""
    starts = product(afters, repeat=2)
    for number, (faults, later, lag) in enumerate(product(product(befalls, repeat=3), starts, lags)):
        account = Account()

        async def ask(platform: Platform, journal: Journal, after: float, number: int) -> Any:
            await asyncio.sleep(after)
            return await platform.call(journal, number, records=True)

        platforms = [Slowly(account, _TWICE.get(fault, [fault])) for fault in faults]
        for platform, late in zip(platforms, lag, strict=True):
            platform.lists_lag = late * VISIBILITY_DELAY

        async def all_of_them(platforms: list[Slowly], later: Any, number: int) -> list[Any]:
            calls = zip(platforms, three_journals, (0.0, *later), strict=False)
            return await asyncio.gather(*(ask(*call, number) for call in calls), return_exceptions=True)

        done = run_on(account.clock, all_of_them(platforms, later, number))
        made = {effect["urn"] for effect in account.effects}
        assert len(made) == len(account.effects) <= 1, (faults, later, lag)
        assert {each.value["urn"] for each in done if isinstance(each, Performed)} <= made, (faults, later, lag)


def test_an_order_that_another_journal_placed_too_is_named(two_journals, caplog):
    """Where records show later than the visibility delay, both place it. Each journal says once that what it wrote is
    not listed; who ends last sees the other's, and keeps it on record."""

    platform = Platform()
    platform.lists_lag = 4 * VISIBILITY_DELAY

    async def slowly(intent: IntentRow, progress: Resume) -> dict[str, Any]:
        await asyncio.sleep(platform.lists_lag)
        return await platform.send(intent, progress)

    first = platform.run(two_journals[0], records=True)
    second = platform.run(two_journals[1], records=True, on_send=slowly)
    platform.run(two_journals[1], "another", records=True)
    [row, _] = two_journals[1].intents.where()
    assert (second.how, row.urn, row.duplicates) == ("sent", second.value["urn"], [first.value["urn"]])
    assert f"here it is {row.urn}, and there is {first.value['urn']}" in caplog.text
    assert caplog.text.count(f"does not list it after {VISIBILITY_DELAY:.0f} s") == 2


@pytest.mark.catches("a claim gives way before its outcome shows")
def test_a_claim_stays_until_what_follows_it_shows(two_journals):
    """Where lists lack what is new, and not what was taken away, a journal that comes amid the first one's order would
    find neither its claim nor its outcome."""
    account = Account()
    account.hides_new = 0.9 * VISIBILITY_DELAY
    one, two = Platform(account), Platform(account)

    async def both() -> list[Performed[Any]]:
        async def later() -> Performed[Any]:
            await asyncio.sleep(account.hides_new / 2)
            return await two.call(two_journals[1], records=True)

        return await asyncio.gather(one.call(two_journals[0], records=True), later())

    first, second = run_on(account.clock, both())
    assert (second.how, second.value, len(one.urns)) == ("adopted", first.value, 1)


def test_an_outcome_keeps_what_newer_code_says_in_its_claim():
    """It knows more fields than this one; what a claim alone has goes with it."""
    account = Account()
    records = records_on(Platform(account))
    claim = {"version": 2, "journal": "j", "created-at": "c", "claim": "t", "send": 1, "urn": None, "mood": "new"}

    outcome = {name: claim[name] for name in ("journal", "created-at", "claim")} | {"version": 1, "urn": "urn:order:1"}

    async def tell() -> list[dict[str, Any]]:
        await records.write("k1:b", claim, first=True)
        await records.write("k1:b", outcome)
        return await records.read("k1:b")

    assert run_on(account.clock, tell()) == [{**outcome, "mood": "new"}]


class Busy:
    """A limit whose turn comes after a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await asyncio.sleep(self._seconds)
        yield


@pytest.mark.parametrize("lag", [0.0, 0.9])
def test_two_journals_share_a_limit_of_one(two_journals, lag):
    """Who waits for its turn among the journals holds its slot, and waits for nobody who needs that slot."""
    platforms, slot = [Platform(account := Account()), Platform(account)], asyncio.Semaphore(1)
    platforms[0].lists_lag = lag * VISIBILITY_DELAY
    platforms[1].faults = ["lost before"]

    class OneSlot:
        @asynccontextmanager
        async def turn(self) -> AsyncIterator[None]:
            async with slot:
                yield

    async def both() -> list[Performed[Any]]:
        calls = zip(platforms, two_journals, strict=True)
        return await asyncio.gather(*(each.call(its, records=True, limit=OneSlot()) for each, its in calls))

    for _ in range(2):
        first, second = run_on(account.clock, both())
        assert first.value == second.value and len(account.effects) == 1
        platforms.reverse()
        two_journals = two_journals[::-1]


@pytest.mark.catches("announced before its turn")
def test_who_waits_for_a_turn_has_announced_nothing(two_journals, platform):
    """However long the limit makes a journal wait, another one that sends meanwhile is seen: one effect."""
    one, two = two_journals

    async def both() -> list[Performed[Any]]:
        waits = platform.call(one, records=True, limit=Busy(3 * VISIBILITY_DELAY))
        return await asyncio.gather(waits, platform.call(two, records=True))

    waited, sent = run_on(platform.account.clock, both())
    assert (waited.how, sent.how, len(platform.urns)) == ("adopted", "sent", 1)


def test_a_record_that_cannot_be_written_stops_before_sending(sqlite_journal, platform):
    """The record comes before the request; without its answer nothing is sent, and the next call begins anew."""

    platform.record_faults = ["503"] * 10
    with pytest.raises(UnavailableError):
        platform.run(sqlite_journal, records=True)
    assert platform.sends == []
    platform.record_faults = []
    assert platform.run(sqlite_journal, records=True).how == "sent"


@pytest.mark.parametrize("left", ["outcome", "intent"])
def test_a_journal_that_lost_rows_finds_what_they_made(durable_journal, platform, left):
    """Nothing is sent twice, whether or not the record has an outcome: as with a journal that was restored from a copy,
    or whose server failed over to a standby which was behind."""
    if left == "outcome":
        platform.run(durable_journal, records=True)
    else:
        platform.faults = ["given up"]
        with pytest.raises(asyncio.CancelledError):
            platform.run(durable_journal, records=True)
    with durable_journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    done = platform.run(durable_journal, records=True)
    assert (done.how, [done.value["urn"]]) == ("adopted", platform.urns)


def test_an_upload_is_known_by_its_outcome(two_journals):
    """A look, a record, and a look which record counts; another journal adopts by the first look. One that had begun
    itself, and adopts instead, keeps the name of its own: it may be whole."""
    one, two = two_journals
    uploads = Uploads()
    first = uploads.run(one)
    assert uploads.asked == ["read", "outcome", "read"]
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


@pytest.mark.catches("each journal keeps its upload")
@pytest.mark.parametrize(
    ("fault", "lag"),
    [*((fault, 0.0) for fault in ("", *RECORD_FAULTS)), *((fault, 0.9) for fault in ("", "503", "lost"))],
)
def test_two_journals_that_upload_at_once_take_the_same(two_journals, sqlite_journal, caplog, fault, lag):
    """Each makes its own, however quick they are, and both take that of the oldest record, also if a request for a
    record fails, and if the lists of one lag by almost the visibility delay. Who knows of both says so, and keeps the
    other on record. A third adopts the same."""
    # The first look is repeated by the client.
    for number, (one, other, request) in enumerate(product((0.0, 0.03, 0.2), (0.0, 0.03, 0.2), (1, 2))):
        account = Account()
        both = Uploads(account), Uploads(account, record_faults=[*[""] * request, fault])
        both[0].pause, both[1].pause = one, other
        both[number % 2].lists_lag = lag * VISIBILITY_DELAY

        async def at_once(asked: int, both: tuple[Uploads, Uploads]) -> list[Performed[Any]]:
            calls = zip(both, two_journals, strict=True)
            return await asyncio.gather(*(uploads.call(journal, asked) for uploads, journal in calls))

        caplog.clear()
        done = {each.value["urn"] for each in run_on(account.clock, at_once(number, both))}
        done.add(Uploads(account).run(sqlite_journal, number).value["urn"])
        assert len(done) == 1, (one, other, request)
        if len(account.effects) == 2:
            rows = [row for journal in two_journals for row in journal.intents.where() if row.request == number]
            assert {urn for row in rows for urn in (row.urn, *row.duplicates)} == set(both[0].urns)
            assert "was made more than once: here it is" in caplog.text


def test_an_upload_whose_record_is_not_answered_is_not_agreed_on(sqlite_journal):
    """What follows would ask for another thing than another journal. The next call goes on where this one stopped."""
    uploads = Uploads(record_faults=["", *["503"] * 10])
    with pytest.raises(UnavailableError):
        uploads.run(sqlite_journal)
    uploads.record_faults = []
    assert [uploads.run(sqlite_journal).value["urn"]] == uploads.urns
