"""One daemon thread per process that tells each journal in use that the process lives."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal

__all__ = ["catch_up", "start_beating", "stop_beating", "tell_later"]

logger = logging.getLogger("ivcap_flows.durable")


class _Heart:
    """The journals to beat for, each as often as it was started and not stopped."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.counts: dict[Journal, int] = {}
        self.untold: dict[Journal, list[Callable[[], None]]] = {}
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Beat in a thread of its own, unless one beats."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.run, args=(seconds,), name="ivcap-flows-beat", daemon=True)
            self.thread.start()

    def run(self, seconds: float) -> None:
        while not self.stopped.wait(seconds):
            with self.lock:
                journals = list(self.counts)
            for journal in journals:
                # rich, which Prefect logs with, ends the thread that logs where the console is gone.
                with contextlib.suppress(SystemExit):
                    _beat(journal)


_lock = threading.Lock()
_heart: _Heart | None = None


def start_beating(journal: Journal) -> None:
    """Beat for a journal from now on; may be called again, and each call needs its `stop_beating`.

    It does not write by itself: what is taken in the journal is taken with a beat.
    """
    from ivcap_flows.journal.processes import BEAT_SECONDS

    global _heart
    with _lock:
        # A forked child inherits the heart but not its thread.
        if _heart is None or _heart.pid != os.getpid():
            _heart = _Heart()
        _heart.start(BEAT_SECONDS)
        with _heart.lock:
            _heart.counts[journal] = _heart.counts.get(journal, 0) + 1


def stop_beating(journal: Journal) -> None:
    """Undo one `start_beating`; the thread ends with the last."""
    global _heart
    with _lock:
        if _heart is None or _heart.pid != os.getpid():
            return
        with _heart.lock:
            left = _heart.counts.pop(journal, 1) - 1
            if left > 0:
                _heart.counts[journal] = left
            if not _heart.counts:
                _heart.stopped.set()
                _heart = None


def tell_later(journal: Journal, tell: Callable[[], None]) -> None:
    """Let the beat tell a journal what it cannot take now; one `start_beating` of the caller's goes over to it.

    It is tried at each beat, before the next run of the journal begins, and when the process ends. `tell` may be called
    twice.
    """
    with _lock:
        if _heart is None or _heart.pid != os.getpid():
            return
        with _heart.lock:
            if not _heart.untold:
                atexit.register(_last_words)
            _heart.untold.setdefault(journal, []).append(tell)


def catch_up(journal: Journal) -> None:
    """Tell a journal what it could not take before. JournalError if it still cannot."""
    heart = _heart
    if heart is None or heart.pid != os.getpid():
        return
    while waiting := list(heart.untold.get(journal, ())):
        try:
            waiting[0]()
        except JournalError as error:
            if error.retryable:
                raise
            logger.warning("The journal cannot be told what happened: %s", error)
        with heart.lock:
            left = heart.untold.get(journal, [])
            told = waiting[0] in left
            if told:
                left.remove(waiting[0])
            if not left:
                heart.untold.pop(journal, None)
        if told:
            stop_beating(journal)


def _last_words() -> None:
    heart = _heart
    for journal in list(heart.untold) if heart is not None else ():
        with contextlib.suppress(Exception):
            catch_up(journal)


def _beat(journal: Journal) -> None:
    try:
        journal.runs.beat()
        catch_up(journal)
    except Exception as error:  # noqa: BLE001 - without the thread, other machines would take this process for gone
        logger.warning("The journal could not be told that this process lives: %s", error)
