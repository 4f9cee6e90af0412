"""Find out what became of sent rows: watch them to their end, or leave them in doubt with a text that says why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import LEAVES_WITHIN
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration.batch_watcher import BatchWatcher, End, Pulse, Sending, Unit
from ivcap_flows.registration.ledger import Ledger, Work, doubted_since, job_of
from ivcap_flows.registration.lookup import Lookup, Sign, half
from ivcap_flows.registration.registry import moment

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Resolver"]


class Resolver:
    """Finds the outcome of rows that were or may have been sent: a handle, the reason of a failure, or a doubt."""

    def __init__(
        self,
        client: ProvenaClient,
        journal: Journal,
        ledger: Ledger,
        lookup: Lookup,
        pulse: Pulse,
        sending: Sending,
        *,
        in_flight: int,
        stall_timeout: float,
    ) -> None:
        self._client = client
        self._journal = journal
        self._ledger = ledger
        self._lookup = lookup
        self._watcher = BatchWatcher(client, pulse, sending, stall_timeout)
        self._visibility_delay = client.visibility_delay
        self._stall_timeout = stall_timeout
        self._in_flight = in_flight

    async def take_up(self, works: Sequence[Work]) -> tuple[list[Work], list[Work]]:
        """Continue with rows that were or may have been sent before. Return those that can be sent.

        The first list has rows that were never sent, the second rows that Provena has not shown within the visibility
        delay. Rows that an earlier start left in doubt stay so: their user decides.
        """
        silent = await self.by_signs(works, final=False)
        unsent = [work for work in silent if work.intent.state == "intent"]
        doubted = [work for work in silent if work.intent.state != "intent"]
        if doubted:
            intents = [work.intent for work in doubted]
            linger = any(intent.lingering for intent in intents)
            await asyncio.sleep(self._visibility_delay + (LEAVES_WITHIN if linger else 0.0))
            await self._lookup.everywhere(look_since(self._client.time, *intents))
            silent = await self.by_signs(doubted, final=True)
            left = [work for work in silent if doubted_since(work.intent)]
            await self._leave([(work, work.intent.progress.get("job"), work.intent.error or "") for work in left])
            doubted = [work for work in silent if not doubted_since(work.intent)]
        return unsent, doubted

    async def by_signs(self, works: Sequence[Work], *, final: bool) -> list[Work]:
        """Act on what Provena shows of rows, or on the job that the journal names. Return rows without any of these.

        A failure counts only if `final` is set: before, a later job of the same row may not show yet.
        """
        signs = self._ledger.signs(work.row for work in works)
        units: dict[Unit, list[Work]] = {}
        began: dict[Unit, int] = {}
        silent: list[Work] = []
        failed: list[tuple[Work, str | None, str | None]] = []
        lodged: list[tuple[Work, Sign]] = []
        halves: list[tuple[Work, str | None, str]] = []
        for work in works:
            sign, job = signs.get(work.row.key), job_of(work.intent)
            if sign is not None and sign.kind == "lodged":
                lodged.append((work, sign))
            elif sign is not None and sign.kind == "under way" and sign.job is not None:
                unit = _unit(sign, sign.job)
                units.setdefault(unit, []).append(work)
                began[unit] = max(sign.at or 0, began.get(unit, 0))
            elif sign is not None and sign.kind == "half" and (final or job is None):
                halves.append((work, sign.job, half(sign.handle, sign.words)))
            elif job is not None and not final:
                units.setdefault(Unit(job, parent=True), []).append(work)
            elif sign is not None and final:
                failed.append((work, sign.job, sign.words))
            else:
                silent.append(work)
        await self._ledger.adopt(lodged)
        await self._ledger.fail(failed)
        await self._leave(halves)
        await all_of(
            lambda unit: self._follow_again(unit, units[unit], moment(began.get(unit))), units, self._in_flight
        )
        return silent

    async def follow(self, unit: Unit, works: Sequence[Work], *, stall_timeout: float, alone: bool = False) -> None:
        """Watch sent rows until each has ended. For `alone`, see `BatchWatcher.follow`."""
        by_key = {work.row.key: work for work in works}
        failed: list[tuple[Work, JobRow]] = []

        async def told(ended: Sequence[tuple[str, JobRow]]) -> None:
            lodged: list[tuple[Work, Sign]] = []
            for key, row in ended:
                run = row.lodged
                if run is not None:
                    there = json.dumps(row.payload.get("record"))
                    lodged.append((by_key[key], Sign("lodged", run.id, job=row.session_id, record=there)))
                else:
                    failed.append((by_key[key], row))
            await self._ledger.adopt(lodged, how="sent")

        end = await self._watcher.follow(unit, by_key, told, stall_timeout=stall_timeout, alone=alone)
        await self._judge_failed(failed)
        if end.left:
            await self._judge_left(end, [by_key[key] for key in by_key if key in end.left], stall_timeout)

    async def leave(self, works: Sequence[Work], words: str) -> None:
        """Leave rows in doubt."""
        await self._leave([(work, None, words) for work in works])

    async def _follow_again(self, unit: Unit, works: Sequence[Work], began: datetime | None) -> None:
        """Watch rows that were sent before, with a job created at `began`, while it is young or makes progress."""
        works = await self._ledger.in_doubt(works, "sent before, and found again")
        if not works:
            return
        known = any(doubted_since(work.intent) for work in works)
        age = self._stall_timeout if known else self._age(began)
        await self.follow(unit, works, stall_timeout=max(self._visibility_delay, self._stall_timeout - age), alone=True)

    def _age(self, began: datetime | None) -> float:
        """Return the seconds for which the rows have certainly been with Provena, by Provena's clock."""
        if self._client.time is None or began is None:
            return 0.0
        return max(0.0, (self._client.time.earliest - began).total_seconds())

    async def _judge_failed(self, failed: Sequence[tuple[Work, JobRow]]) -> None:
        """End rows whose jobs failed. A row is left in doubt if its job made a run in the registry before it failed."""
        if not failed:
            return
        await self._lookup.among_items(look_since(self._client.time, *(work.intent for work, _ in failed)))
        signs = self._ledger.signs(work.row for work, _ in failed)
        ended: list[tuple[Work, str | None, str | None]] = []
        halves: list[tuple[Work, str | None, str]] = []
        for work, row in failed:
            sign, words = signs.get(work.row.key), (row.info or "").strip() or None
            if sign is not None and sign.handle is not None:
                halves.append((work, row.session_id, half(sign.handle, words)))
            else:
                ended.append((work, row.session_id, words))
        await self._ledger.fail(ended)
        await self._leave(halves)

    async def _judge_left(self, end: End, works: Sequence[Work], stall_timeout: float) -> None:
        """Look everywhere once for rows that did not end. Then end them if possible, or leave them in doubt."""
        if end.parent_failed is not None:
            # Jobs that the batch had dispatched before it failed may still show.
            await asyncio.sleep(self._visibility_delay)
        await self._lookup.everywhere(look_since(self._client.time, *(work.intent for work in works)))
        signs = self._ledger.signs(work.row for work in works)
        now = await self._journal.ask(self._journal.now)
        lodged: list[tuple[Work, Sign]] = []
        failed: list[tuple[Work, str | None, str | None]] = []
        stuck: list[tuple[Work, str | None, str]] = []
        units: dict[Unit, list[Work]] = {}
        for work in works:
            sign, own = signs.get(work.row.key), end.jobs.get(work.row.key)
            if sign is not None and sign.kind == "lodged":
                lodged.append((work, sign))
            elif sign is not None and sign.kind == "failed" and not sign.parent:
                failed.append((work, sign.job, sign.words))
            elif sign is not None and sign.kind == "under way" and sign.job and not sign.parent and own is None:
                units.setdefault(_unit(sign, sign.job), []).append(work)
            elif sign is not None and sign.kind == "half":
                stuck.append((work, sign.job, half(sign.handle, sign.words)))
            elif end.parent_failed is not None and own is None:
                failed.append((work, end.job, f"Its batch failed: {end.parent_failed}"))
            else:
                stuck.append((work, own or end.job or None, _stuck(work, end, own, sign.handle if sign else None, now)))
        await self._ledger.adopt(lodged)
        await self._ledger.fail(failed)
        await self._leave(stuck)
        for unit, members in units.items():
            await self.follow(unit, members, stall_timeout=stall_timeout, alone=True)

    async def _leave(self, doubtful: Sequence[tuple[Work, str | None, str]]) -> None:
        now = await self._journal.ask(self._journal.now)
        await self._ledger.leave(doubtful, now.isoformat(timespec="seconds"))


def _unit(sign: Sign, job: str) -> Unit:
    """Return what to watch for a job that has not ended: its whole batch if it is in one."""
    return Unit(job, None, True) if sign.parent else Unit("" if sign.batch else job, sign.batch)


def _stuck(work: Work, end: End, own: str | None, handle: str | None, now: datetime) -> str:
    sent = (work.intent.sent_at or work.intent.created_at).isoformat(timespec="seconds")
    standing = f" (the batch's own job is {end.status})" if end.status else ""
    what = f"Its job {own} has not ended" if own else f"The batch {end.job} has shown no job for it{standing}"
    what += f"; the registry has its run {handle}, which is not lodged" if handle else ""
    return (
        f"{what}, and there was no progress; sent by {sent}; looked, until {now.isoformat(timespec='seconds')}, at the "
        "batch and its jobs, and at your jobs and the registry's model runs since then"
    )
