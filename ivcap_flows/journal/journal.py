"""The journal: one durable store for runs, intents, facts and deliveries. Opening it imports SQLAlchemy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ivcap_flows.secrets import scrub_text
from ivcap_flows.threads import JOURNAL

if TYPE_CHECKING:
    from ivcap_flows.journal.accounts import Accounts
    from ivcap_flows.journal.decisions import Decisions
    from ivcap_flows.journal.deliveries import Deliveries
    from ivcap_flows.journal.facts import Facts
    from ivcap_flows.journal.filestats import FileStats
    from ivcap_flows.journal.intents import Intents
    from ivcap_flows.journal.leases import Leases
    from ivcap_flows.journal.lineages import Lineages
    from ivcap_flows.journal.observer import Observer
    from ivcap_flows.journal.once import Once
    from ivcap_flows.journal.parks import Parks
    from ivcap_flows.journal.polls import Polls
    from ivcap_flows.journal.processes import Processes
    from ivcap_flows.journal.redaction import Redaction
    from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent
    from ivcap_flows.journal.runs import Runs
    from ivcap_flows.journal.store import Store
    from ivcap_flows.journal.untold import Untold

__all__ = ["Journal"]

P = ParamSpec("P")
T = TypeVar("T")


class Journal:
    """One journal, opened by `Journal.open(url)`. It may be shared by threads, and its database by processes.

    Methods are synchronous and short; coroutines call them through `ask`. They raise JournalError if the database
    cannot be read or written.
    """

    runs: Runs
    accounts: Accounts
    intents: Intents
    decisions: Decisions
    facts: Facts
    deliveries: Deliveries
    files: FileStats
    leases: Leases
    lineages: Lineages
    once: Once
    parks: Parks
    redaction: Redaction
    polls: Polls
    processes: Processes
    untold: Untold

    id: str
    """Identifies this journal, and stays the same when its file is moved."""
    url: str
    """The URL without its password."""
    is_relative: bool
    """Whether the URL names a file below the folder in which the process works."""

    def __init__(self, store: Store) -> None:
        from ivcap_flows.journal.accounts import Accounts
        from ivcap_flows.journal.decisions import Decisions
        from ivcap_flows.journal.deliveries import Deliveries
        from ivcap_flows.journal.facts import Facts
        from ivcap_flows.journal.filestats import FileStats
        from ivcap_flows.journal.group_commit import GroupCommit
        from ivcap_flows.journal.intents import Intents
        from ivcap_flows.journal.leases import Leases
        from ivcap_flows.journal.lineages import Lineages
        from ivcap_flows.journal.once import Once
        from ivcap_flows.journal.parks import Parks
        from ivcap_flows.journal.polls import Polls
        from ivcap_flows.journal.processes import Processes
        from ivcap_flows.journal.redaction import Redaction
        from ivcap_flows.journal.runs import Runs
        from ivcap_flows.journal.untold import Untold

        self._store = store
        self._group_commit = GroupCommit(store)
        self.untold = Untold()
        self.processes = processes = Processes(store, self.untold)
        self.id = store.journal_id
        self.url = store.url
        self.is_relative = store.is_relative
        self.redaction = Redaction(store)
        self.intents = Intents(store, processes, self.redaction)
        self.decisions = Decisions(store, processes, self.redaction)
        self.facts = Facts(store)
        self.runs = Runs(store, processes, self.facts)
        self.accounts = Accounts(store)
        self.leases = Leases(store, processes)
        self.lineages = Lineages(store)
        self.deliveries = Deliveries(store, self.leases)
        self.files = FileStats(store)
        self.once = Once(store)
        self.parks = Parks(store, processes)
        self.polls = Polls(store)

    @classmethod
    def open(cls, url: str) -> Journal:
        """Open or create the journal at `sqlite:///<path>` or `postgresql://…`, and bring its tables to this version.

        Raise ConfigurationError if the URL or place cannot hold a journal, NewerSchemaError if a newer version made it,
        JournalMovedError if it was moved, and JournalError if it cannot be reached, read or written.
        """
        from ivcap_flows.journal.store import Store

        return cls(Store(url))

    @staticmethod
    def is_missing(url: str) -> bool:
        """Return whether there is no journal at a URL. Make nothing.

        Raise ConfigurationError for a URL or place that cannot hold one, and JournalError if it cannot be reached.
        """
        from ivcap_flows.journal.store import is_missing

        return is_missing(url)

    @classmethod
    @contextmanager
    def or_empty(cls, url: str) -> Iterator[Journal]:
        """Open the journal at a URL to read it; where there is none, an empty one, which is deleted at the end."""
        if not cls.is_missing(url):
            with cls.open(url) as journal:
                yield journal
            return
        with TemporaryDirectory(prefix="ivcap-flows-") as folder, cls.open(f"sqlite:///{folder}/empty") as journal:
            # As messages name it.
            journal.url = scrub_text(url)
            yield journal

    def now(self) -> datetime:
        """Return the journal's time: this machine's on SQLite, the server's on PostgreSQL."""
        with self._store.read() as connection:
            return self._store.now(connection)

    def prune(self, older_than_days: float, *, sinks: Sequence[str] = ()) -> int:
        """Delete runs that ended so long ago, as `Pruning` does, and return their number.

        Then delete what is left of processes that nothing names any more, and digests of files that are as old.
        """
        from ivcap_flows.journal.pruning import Pruning

        count = Pruning(self._store, self.processes).prune(older_than_days, sinks=sinks)
        before = self.now() - timedelta(days=older_than_days)
        self.processes.prune(before)
        self.files.prune(before)
        return count

    def observe(self, observer: Observer) -> None:
        """Have `observer` called with each transition that this object writes, once it is on disk.

        It is called in the thread that wrote, in the context of its caller. What it raises is only logged.
        """
        self._store.observer = observer

    def exposure(self) -> str | None:
        """Return a sentence, with the next step, if other users of this machine may use the journal's file."""
        return self._store.exposure()

    def weaknesses(self) -> list[str]:
        """Return the risks in the database's settings, each as a sentence with the next step."""
        return self._store.weaknesses()

    async def ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of the journal in a thread and return its result. On SQLite, queued calls share a commit.

        Other calls wait for this one, so use `JOURNAL.run` for a call that also reads whole tables, and `alone` for one
        that sends requests. If this coroutine is cancelled, the method may still have its effect.
        """
        return await self._group_commit.ask(call, *args, **kwargs)

    async def claim(self, wanted: NewIntent, *, spend_limit: int | None = None, in_doubt: bool = False) -> Claim:
        """Claim as `Intents.claim` does, through `ask`.

        If the caller is cancelled, or the commit fails or may have failed, release a claim that was granted. Otherwise
        it would be held as long as the process lives.
        """
        lock = threading.Lock()
        granted: IntentRow | None = None
        unheard = False

        def release() -> None:
            if granted is not None:
                self.intents.release(granted)

        def take() -> Claim:
            nonlocal granted
            claim = self.intents.claim(wanted, spend_limit=spend_limit, in_doubt=in_doubt)
            with lock:
                granted = claim.intent if claim.kind in ("new", "doubt") else None
                if unheard:
                    release()
            return claim

        try:
            return await self.ask(take)
        except BaseException:

            def give_up() -> None:
                nonlocal unheard
                with lock:
                    unheard = True
                    release()

            await self.ask_surely(give_up)
            raise

    async def ask_surely(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a method of the journal in a thread, to its end even if this coroutine is cancelled."""
        try:
            done = JOURNAL.begin(call, *args, **kwargs)
        except RuntimeError:
            # The interpreter ends, and no thread can be started any more.
            call(*args, **kwargs)
        else:
            await asyncio.shield(done)

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        self.processes.close()
        self._store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({self.url!r})"
