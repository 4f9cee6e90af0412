"""A platform in virtual time: it loses replies, shows effects late, and keeps idempotency records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from simulated import Clock, run_on
from simulated_aspects import ACCOUNT, KeptRecord, records_on

from ivcap_flows import durable
from ivcap_flows.durable import Caller, Effect, Found, MatchedBy, Performed, RecordStore, Resume, look_since
from ivcap_flows.errors import BadRequestError, RegistrationFailedError, UnavailableError, UnreachableError
from ivcap_flows.http.confirm_send import confirm_send
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt
from ivcap_flows.journal.processes import SILENT_SECONDS

VISIBILITY_DELAY = 8.0
SLOW = 3 * SILENT_SECONDS
"""Seconds of a request that takes longer than a process may be silent, and than any that left unseen may still take."""
BASE = datetime(2030, 1, 1, tzinfo=timezone.utc)
REFUSALS = {
    "refuse": partial(BadRequestError, "no such parameter", status=400),
    "refuse by 200": partial(BadRequestError, "no such id", status=200, nothing_made=True),
    "refuse in part": partial(BadRequestError, "made, but not recorded", status=200),
    "fail": partial(UnavailableError, "out of order", status=500, sent=True),
    "fail the work": partial(RegistrationFailedError, "unknown dataset", session_id="s"),
    "no connection": partial(UnreachableError, "connection refused", sent=False),
    "lost before": partial(UnreachableError, "time-out", sent=True),
}
"""What is answered to a request that has no effect."""
HIDDEN = {
    "late": VISIBILITY_DELAY / 2,
    "late and lost": VISIBILITY_DELAY / 2,
    "very late": 3 * VISIBILITY_DELAY,
}
"""For how many seconds an effect does not show."""
LOST = ("lost", "late and lost", "very late")
"""The effect is there, but no reply says so."""


class Account:
    """What the platform has of an account: effects, oldest first, and idempotency records."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.ahead = 0.0
        """Seconds by which the platform's clock is."""
        self.effects: list[dict[str, Any]] = []
        self.records: dict[str, list[KeptRecord]] = {}
        """By entity."""
        self.hides_new = 0.0
        """Seconds for which no list has a new record, though what it replaced is gone."""

    @property
    def time(self) -> datetime:
        return BASE + timedelta(seconds=self.clock.seconds + self.ahead)


class Platform:
    """The platform as one process reaches it. `faults` befall its requests in turn, and `record_faults` those for
    idempotency records; "" is none.

    Each effect has the words of `about` beside its own.
    """

    def __init__(
        self,
        account: Account | None = None,
        faults: Sequence[str] = (),
        record_faults: Sequence[str] = (),
        **about: Any,
    ) -> None:
        self.account, self.faults, self.about = account or Account(), list(faults), about
        self.matched_by: MatchedBy = "key"
        self.sends: list[float] = []
        self.looks: list[float] = []
        self.record_faults = list(record_faults)
        self.asked: list[str] = []
        """What was asked of the idempotency records."""
        self.lists_lag = 0.0
        """Seconds by which the lists of records that this process gets are old."""
        self.shows_within = VISIBILITY_DELAY

    @property
    def urns(self) -> list[str]:
        return [effect["urn"] for effect in self.account.effects]

    def order(self, request: Any = "x", **options: Any) -> Scripted:
        given: dict[str, Any] = {
            "once_per": "account",
            "visibility_delay": VISIBILITY_DELAY,
            "on_send": self.send,
            "on_find": self.find,
        }
        return Scripted(noun="order", request=request, subject="service", spends=True, **given | options)

    async def call(
        self,
        journal: Journal,
        request: Any = "x",
        *,
        attempt: OpenedAttempt | None = None,
        account: str = ACCOUNT,
        clock: Any = None,
        records: bool = False,
        max_resubmits: int = 0,
        max_orders: int | None = None,
        **effect: Any,
    ) -> Performed[Any]:
        """Order as a task does. With `records`, the platform keeps idempotency records."""
        return await durable.perform(
            self.order(request, **effect),
            Caller(journal, attempt, "https://x", account, clock),
            idempotency_records=self.records() if records else None,
            max_resubmits=max_resubmits,
            max_orders=max_orders,
        )

    def run(self, journal: Journal, request: Any = "x", **options: Any) -> Performed[Any]:
        return run_on(self.account.clock, self.call(journal, request, **options))

    # Where a world lets a process be suspended, wait for the network, or die.
    async def rest(self) -> None: ...
    async def travel(self) -> None: ...
    def step(self) -> None: ...

    @property
    def time(self) -> ServerTime:
        """What its replies tell."""
        return ServerTime(self.account.time, self.account.time)

    async def now(self) -> ServerTime:
        return self.time

    def take(self, intent: IntentRow, *, hidden: float = 0.0) -> str:
        """Accept a request. Its effect shows `hidden` seconds later."""
        effect = {"urn": f"urn:test:order:{len(self.account.effects)}", "key": intent.key, "request": intent.request}
        effect |= {"at": self.account.time, "shown": self.account.clock.seconds + hidden, **self.about}
        self.account.effects.append(effect)
        return str(effect["urn"])

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        fault = self.faults.pop(0) if self.faults else ""
        await self.rest()
        await confirm_send()
        self.sends.append(self.account.clock.seconds)
        # Not suspended between the leave and this: what leaves then cannot be called back.
        await self.travel()
        if fault == "slow":
            await asyncio.sleep(SLOW)
            self.step()
        if fault in REFUSALS:
            raise REFUSALS[fault]()
        if fault == "given up before":
            await _give_up()
        urn = self.take(intent, hidden=HIDDEN.get(fault, 0.0))
        self.step()
        if fault in LOST:
            raise UnreachableError("time-out", sent=True)
        if fault == "given up":
            await _give_up()
        await self.rest()
        await self.travel()
        return {"urn": urn}

    async def find(self, intent: IntentRow) -> Sequence[Found[dict[str, Any]]]:
        self.looks.append(self.account.clock.seconds)
        await self.rest()
        await self.travel()
        since = look_since(self.time, intent)
        same = "request" if self.matched_by == "content" else "key"
        found = [
            Found({"urn": one["urn"]}, one["urn"], one["at"], self.matched_by)
            for one in self.account.effects
            if one[same] == getattr(intent, same) and one["shown"] <= self.account.clock.seconds
            if since is None or one["at"] >= since
        ]
        await self.rest()
        return found

    def records(self) -> RecordStore:
        """Return the idempotency records as one call uses them."""
        return records_on(self)


async def _give_up() -> None:
    """Cancel the running call."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@dataclass(frozen=True, kw_only=True)
class Scripted(Effect[dict[str, Any]]):
    """An effect whose value is a dict with a URN. The test decides what sending and finding return."""

    on_send: Callable[[IntentRow, Resume], Awaitable[dict[str, Any]]]
    on_find: Callable[[IntentRow], Awaitable[Sequence[Found[dict[str, Any]]]]]

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        return await self.on_send(intent, progress)

    async def find(self, intent: IntentRow) -> Sequence[Found[dict[str, Any]]]:
        return await self.on_find(intent)

    def encode(self, value: dict[str, Any]) -> Any:
        return value

    def decode(self, outcome: Any) -> dict[str, Any]:
        return dict(outcome)

    def urn(self, value: dict[str, Any]) -> str:
        return str(value["urn"])

    def placeholder(self, key: str) -> dict[str, Any]:
        return {"urn": f"urn:plan:{key}"}
