"""The journal: one durable store for runs, intents, facts and deliveries. Opening one loads the database library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from ivcap_flows.journal.deliveries import Deliveries
    from ivcap_flows.journal.facts import Facts
    from ivcap_flows.journal.filestats import FileStats
    from ivcap_flows.journal.intents import Intents
    from ivcap_flows.journal.leases import Leases
    from ivcap_flows.journal.lineages import Lineages
    from ivcap_flows.journal.losses import Losses
    from ivcap_flows.journal.once import Once
    from ivcap_flows.journal.parks import Parks
    from ivcap_flows.journal.poll_status import PollStatus
    from ivcap_flows.journal.redaction import Redaction
    from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent
    from ivcap_flows.journal.runs import Runs
    from ivcap_flows.journal.store import Store

__all__ = ["Journal"]

P = ParamSpec("P")
T = TypeVar("T")


class Journal:
    """Open with `Journal.open(url)`. Safe in threads and among processes; methods are synchronous and short, and
    coroutines call them by `ask`.

    Methods raise JournalError when the database cannot be read or written.
    """

    runs: Runs
    intents: Intents
    facts: Facts
    deliveries: Deliveries
    files: FileStats
    leases: Leases
    lineages: Lineages
    losses: Losses
    once: Once
    parks: Parks
    redaction: Redaction
    poll_status: PollStatus

    id: str
    """What tells this journal from another, wherever it is moved."""
    url: str
    """Without password."""

    def __init__(self, store: Store) -> None:
        from ivcap_flows.journal.deliveries import Deliveries
        from ivcap_flows.journal.facts import Facts
        from ivcap_flows.journal.filestats import FileStats
        from ivcap_flows.journal.group_commit import GroupCommit
        from ivcap_flows.journal.intents import Intents
        from ivcap_flows.journal.leases import Leases
        from ivcap_flows.journal.lineages import Lineages
        from ivcap_flows.journal.losses import Losses
        from ivcap_flows.journal.once import Once
        from ivcap_flows.journal.parks import Parks
        from ivcap_flows.journal.poll_status import PollStatus
        from ivcap_flows.journal.processes import Processes
        from ivcap_flows.journal.redaction import Redaction
        from ivcap_flows.journal.runs import Runs

        self._store = store
        self._group_commit = GroupCommit(store)
        processes = Processes(store)
        self.id = store.journal_id
        self.url = store.url
        self.runs = Runs(store, processes)
        self.redaction = Redaction(store)
        self.intents = Intents(store, processes, self.redaction)
        self.facts = Facts(store)
        self.leases = Leases(store, processes)
        self.lineages = Lineages(store)
        self.losses = Losses(store)
        self.deliveries = Deliveries(store, self.leases)
        self.files = FileStats(store)
        self.once = Once(store)
        self.parks = Parks(store, processes)
        self.poll_status = PollStatus(store, processes)

    @classmethod
    def open(cls, url: str, *, accept_loss: bool = False) -> Journal:
        """Open or create the journal at `sqlite:///<path>` or `postgresql://…`, and bring its tables to this version.

        ConfigurationError for a URL or place that cannot hold a journal, NewerSchemaError for one made by a newer
        version, JournalError if it cannot be reached, read or written. A file that lost rows since it was written is
        a JournalLossError, unless the user says to `accept_loss`.
        """
        from ivcap_flows.journal.store import Store

        return cls(Store(url, accept_loss=accept_loss))

    def now(self) -> datetime:
        """The journal's time, the same for all processes that share it."""
        with self._store.read() as connection:
            return self._store.now(connection)

    def weaknesses(self) -> list[str]:
        """What the database does not promise by its settings, each in a sentence with the next step."""
        return self._store.weaknesses()

    async def ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the journal gives, called beside the loop; on SQLite those asked meanwhile share a commit.

        Others wait for the call, so one that also reads files, asks a server or goes through all rows takes a thread of
        its own instead (`asyncio.to_thread`). Cancelled, the method may have had its effect all the same.
        """
        return await self._group_commit.ask(call, *args, **kwargs)

    async def claim(self, wanted: Sequence[NewIntent], *, spend_limit: int | None = None) -> list[Claim]:
        """Claim as `Intents.claim_many` does, beside the loop.

        What is granted to a caller that does not hear of it is given back, or it would hold as long as the process
        lives: where the caller was cancelled, and where the commit was not confirmed, which may be on disk anyway.
        """
        lock = threading.Lock()
        granted: list[IntentRow] = []
        unheard = False

        def take() -> list[Claim]:
            claims = self.intents.claim_many(wanted, spend_limit=spend_limit)
            with lock:
                granted.extend(claim.intent for claim in claims if claim.kind in ("new", "doubt"))
                if unheard:
                    self.intents.release_many(granted)
            return claims

        try:
            return await self.ask(take)
        except BaseException:
            with lock:
                unheard = True
                self.intents.release_many(granted)
            raise

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        self._store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({self.url!r})"
