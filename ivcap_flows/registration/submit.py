"""Send rows as model runs. Each row is in the journal before it is sent, and looked for before it is sent again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable import Limit, look_since
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.durable.outages import through_outages
from ivcap_flows.durable.submission import may_have_taken_effect
from ivcap_flows.errors import (
    BadRequestError,
    FencedError,
    InputError,
    InvalidParameterError,
    PlatformError,
)
from ivcap_flows.http.leave import asking_leave
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt
from ivcap_flows.journal.rows import RESEND
from ivcap_flows.journal.states import DONE
from ivcap_flows.provena.prov import MAX_BATCH_BYTES
from ivcap_flows.registration.batch_watcher import Pulse, Sending, Unit
from ivcap_flows.registration.keys import marked
from ivcap_flows.registration.ledger import Ledger, Work, artifacts_in, given_up, with_datasets
from ivcap_flows.registration.lookup import Lookup, Newest
from ivcap_flows.registration.minting import Mint, Minting
from ivcap_flows.registration.outcome import OutcomeFile
from ivcap_flows.registration.preflight import OnProgress, encoded
from ivcap_flows.registration.resolver import Resolver
from ivcap_flows.registration.spool import Outcome, Spool, Spooled
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Submission"]

logger = logger_of(__name__)

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_WAITED_FOR: Final = 4
"""Number of batches waited for, per batch being sent. An accepted batch does not keep others from being sent."""
_LOOKED_AT: Final = 1_000
"""Rows that the journal does not know are looked for among so many jobs and runs, and two more for each row."""
_SENT: Final = ("sent", "in_doubt")
_NEVER: Final = 2**62
_LONG_AGO: Final = datetime.min.replace(tzinfo=timezone.utc)
_LOOKS: Final = 8
"""After a lost reply, the first pause between two looks is the visibility delay divided by this; the pauses double."""


class Submission:
    """Sends the ready rows of a spool. Call `run` once. Each row ends with a handle, as failed, or as doubtful.

    `in_flight` batches are sent at the same time, and `_WAITED_FOR` times as many are waited for. `stall_timeout` is
    the number of seconds without progress after which sent rows are left in doubt, and for which Provena may be
    unreachable.
    """

    def __init__(
        self,
        client: ProvenaClient,
        journal: Journal,
        spool: Spool,
        out: OutcomeFile | None,
        *,
        platform: str,
        account: str,
        attempt: OpenedAttempt | None,
        mint: Mint,
        in_flight: int,
        limit: Limit | None,
        stall_timeout: float,
        progress: OnProgress,
    ) -> None:
        pulse = Pulse()
        self._client = client
        self._journal = journal
        self._spool = spool
        self._minting = Minting(spool, mint, stall_timeout)
        self._out = out
        self._in_flight = in_flight
        self._posting = asyncio.Semaphore(in_flight)
        self._limit = limit
        self._stall_timeout = stall_timeout
        self._lookup = Lookup(client, spool, stall_timeout)
        self._ledger = Ledger(
            *(journal, spool, out, pulse, self._lookup, client),
            platform=platform,
            account=account,
            attempt=attempt,
            progress=progress,
        )
        self._sending = Sending()
        self._resolver = Resolver(
            *(client, journal, self._ledger, self._lookup, pulse, self._sending),
            in_flight=in_flight,
            stall_timeout=stall_timeout,
        )
        self._turn = asyncio.Lock()
        self._under_way = asyncio.Event()

    async def run(self) -> None:
        """Send all rows. Raises the error of a refusal of all rows, such as of the token.

        The next start finds what was sent until then.
        """
        start_heartbeat(self._journal)
        try:
            await through_outages(self._ledger.begin, self._stall_timeout)
            await self._recall()
            if self._out is not None:
                await asyncio.to_thread(self._out.begin)
            pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
            while True:
                before = self._ledger.ended
                await self._resume()
                await self._send_all()
                if not self._spool.page("waiting", "ready", limit=1):
                    return
                # Another process is working on the rest.
                if self._ledger.ended > before:
                    pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
                await pauses.sleep()
        finally:
            stop_heartbeat(self._journal)

    async def _recall(self) -> None:
        """Look for the rows in the journal and then in Provena."""
        oldest: IntentRow | None = None
        unknown, first_end = 0, _NEVER
        for page in self._spool.pages("ready"):
            known = await self._journal.ask(self._journal.intents.find_many, [row.key for row in page])
            for intent in known.values():
                if intent.state in _SENT and (oldest is None or _began(intent) < _began(oldest)):
                    oldest = intent
            for row in page:
                if row.key not in known:
                    unknown, first_end = unknown + 1, min(first_end, row.body["end_time"])
            found = [(row, known[row.key]) for row in page if row.key in known]
            await self._ledger.keep([(row, intent) for row, intent in found if intent.state in DONE])
            await self._ledger.stand([given_up(row) for row, intent in found if intent.given_up])
            self._spool.look_again((row.number, intent.fence) for row, intent in found if _is_resent(intent))
            self._wait_for([row for row, intent in found if intent.state in _SENT])
        # When the journal first stored a row, Provena was searched for it. So search only for what it does not know,
        # and for what may have been sent since.
        if oldest is not None:
            await self._lookup.everywhere(look_since(self._client.time, oldest))
        if unknown:
            await self._lookup.everywhere(Newest.after(first_end, _LOOKED_AT + 2 * unknown))
        for page in self._spool.pages("ready"):
            signs = self._ledger.signs(row for row in page if row.looked_at is None)
            self._wait_for([row for row in page if row.key in signs and signs[row.key].kind != "failed"])

    def _wait_for(self, rows: Sequence[Spooled]) -> None:
        self._spool.stand(Outcome(row.number, row.called, "waiting") for row in rows)

    async def _resume(self) -> None:
        """Continue with rows that any process sent, or may have sent, unless a live process is working on them."""
        for page in self._spool.pages("waiting"):
            works = await self._ledger.claim(page)
            try:
                for unsent in await self._resolver.take_up(works):
                    self._spool.look_again((work.row.number, work.intent.fence) for work in unsent)
            finally:
                await self._ledger.release(works)

    async def _send_all(self) -> None:
        async def worker() -> None:
            while await self._minting.has_rows():
                works: list[Work] | None = []
                try:
                    with self._sending:
                        works = await self._next_chunk()
                        sent = await self._send(works or [])
                    self._under_way.set()
                    if sent is not None:
                        session, accepted = sent
                        await self._resolver.follow(
                            Unit(session, parent=True), accepted, stall_timeout=self._stall_timeout
                        )
                finally:
                    await self._ledger.release(works or [])
            self._under_way.set()

        working = [self._minting.run(), self._note(), *(worker() for _ in range(_WAITED_FOR * self._in_flight))]
        workers = [asyncio.create_task(each) for each in working]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _note(self) -> None:
        """Write intents for the other rows that will be sent, so that the next start knows since when to look for them.

        This waits until the first batch was sent, so that Provena can start its work.
        """
        await self._under_way.wait()
        for page in self._spool.pages("ready"):
            await self._ledger.note(page)

    async def _next_chunk(self) -> list[Work] | None:
        """Return rows for one batch, claimed in the journal; None if no row is ready now."""
        async with self._turn:
            rows = await asyncio.to_thread(self._next_rows)
            if not rows:
                return None
            self._wait_for(rows)
            works = await self._ledger.claim(rows)
        unlooked = [work for work in works if not _may_be_sent(work)]
        await self._ledger.release(unlooked)
        return [work for work in works if _may_be_sent(work)]

    def _next_rows(self) -> list[Spooled]:
        rows: list[Spooled] = []
        room = MAX_BATCH_BYTES
        last = 0
        while page := self._spool.page("ready", after=last, limit=100, lacking_none=True):
            datasets = self._spool.datasets([each for row in page for each in artifacts_in(row.body)])
            for row in page:
                size = encoded(with_datasets(marked(row.body, row.key, row.subject), datasets))
                if rows and size > room:
                    return rows
                rows.append(row)
                room -= size
                last = row.number
        return rows

    async def _send(self, works: Sequence[Work]) -> tuple[str, list[Work]] | None:
        """Send a batch. Return its session id and its works, or None if nothing is left to wait for."""
        works = await self._without_troubles(works)
        deadline = time.monotonic() + self._stall_timeout
        pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)

        async def mark_sent() -> None:
            nonlocal works
            wanted, works = works, await self._ledger.mark_sent(works)
            if len(works) < len(wanted):
                raise FencedError(f"Another process has claimed {len(wanted) - len(works)} rows of a batch.")

        while works:
            try:
                async with self._posting, self._limit.turn() if self._limit is not None else nullcontext():
                    with asking_leave(mark_sent):
                        session = await self._client.prov.register_batch(
                            [self._ledger.record(work.row) for work in works]
                        )
            except FencedError:
                # Nothing was sent. Try again without the rows that another process has claimed.
                continue
            except InputError as error:
                await self._ledger.fail([(work, None, str(error)) for work in works])
                return None
            except PlatformError as error:
                late = time.monotonic() > deadline
                if may_have_taken_effect(error):
                    works = await self._lost_reply(works, error)
                elif not error.retryable:
                    await self._refused(works, error)
                    return None
                if works and late:
                    words = f"Provena accepted no batch with this row; the last error: {error}"
                    await self._ledger.fail([(work, None, words) for work in works])
                    return None
                await pauses.sleep()
            else:
                return session, await self._ledger.save(works, {"session_id": session})
        return None

    async def _lost_reply(self, works: Sequence[Work], error: PlatformError) -> list[Work]:
        """Look for a batch for the visibility delay and continue with rows that show. Return the rows to send again."""
        logger.warning("The reply to a batch of %d model runs was lost; looking for the batch: %s", len(works), error)
        works = await self._ledger.in_doubt(works, f"{type(error).__name__}: {error}")
        end = time.monotonic() + self._client.visibility_delay
        pauses = Pauses(self._client.visibility_delay / _LOOKS, self._client.visibility_delay)
        while works:
            left = end - time.monotonic()
            try:
                since = look_since(self._client.time, *(work.intent for work in works))
                await self._lookup.among_jobs(since)
            except PlatformError as failure:
                words = f"The reply to its batch was lost ({error}), and the look for the batch failed: {failure}"
                await self._resolver.leave(works, words)
                return []
            signs = self._ledger.signs(work.row for work in works)
            shown = {key for key, sign in signs.items() if sign.kind != "failed"}
            if shown:
                await self._resolver.by_signs([work for work in works if work.row.key in shown], final=False)
                works = [work for work in works if work.row.key not in shown]
            if left <= 0:
                break
            await pauses.sleep(left)
        return list(works)

    async def _refused(self, works: Sequence[Work], error: PlatformError) -> None:
        """End the rows of a batch that Provena refuses because of its records. Any other refusal is raised."""
        if isinstance(error, BadRequestError | InvalidParameterError):
            await self._ledger.fail([(work, None, str(error)) for work in works])
            return
        await self._ledger.give_back(works, str(error))
        raise error

    async def _without_troubles(self, works: Sequence[Work]) -> list[Work]:
        """Return the works whose artifacts all have datasets, and end the others as failed."""
        troubles = self._minting.troubles
        broken = [
            (work, [troubles[each] for each in artifacts_in(work.row.body) if each in troubles]) for work in works
        ]
        await self._ledger.fail([(work, None, words[0]) for work, words in broken if words])
        return [work for work, words in broken if not words]


def _began(intent: IntentRow) -> datetime:
    """Return since when, by Provena's clock, a row may have a run; the earliest possible time if it is unknown."""
    return intent.platform_time or _LONG_AGO


def _may_be_sent(work: Work) -> bool:
    """Return whether a row may be sent.

    It was certainly never sent, or it was looked for under the claim directly before this one, so that no other process
    has claimed it in between.
    """
    return work.intent.state == "intent" or work.row.looked_at == work.intent.fence - 1


def _is_resent(intent: IntentRow) -> bool:
    return intent.state == "abandoned" and intent.error == RESEND
