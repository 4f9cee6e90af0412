"""The heartbeat: one daemon thread per process writes to each journal in use that the process is alive."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal
from ivcap_flows.secrets import logger_of

__all__ = ["catch_up", "listen", "start_heartbeat", "stop_heartbeat", "tell_later"]

logger = logger_of("ivcap_flows.durable")

_SOON: Final = 0.5
"""Seconds between two tries of a write that failed. Until it succeeds, a claim whose call has ended looks held to other
processes, as long as this process is alive."""

_LISTENING: Final = 5.0
"""Seconds between two looks while `listen` waits."""


class _HeartbeatThread:
    """The heartbeat's thread, the number of open starts per journal, and the writes that failed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[Journal, int] = {}
        self.untold: dict[Journal, list[Callable[[], None]]] = {}
        self.stopped = False
        self.bell = threading.Event()
        """Set when the thread has something to do before the next heartbeat."""
        self.thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Start the thread unless it is running."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.run, args=(seconds,), name="ivcap-flows-heartbeat", daemon=True)
            self.thread.start()

    def tell_later(self, journal: Journal, tell: Callable[[], None]) -> None:
        """Repeat `tell` until the journal can be written. The caller must hold the lock."""
        self.untold.setdefault(journal, []).append(tell)
        self.bell.set()

    def stop(self) -> None:
        """Let the thread end."""
        self.stopped = True
        self.bell.set()

    def run(self, seconds: float) -> None:
        beats_at = time.monotonic() + seconds
        while True:
            left = max(0.0, beats_at - time.monotonic())
            if self.bell.wait(min(left, _SOON) if self.untold else left):
                self.bell.clear()
            if self.stopped:
                return
            with self.lock:
                late, journals = list(self.untold), list(self.counts)
            is_due = time.monotonic() >= beats_at
            for journal in journals if is_due else late:
                # rich, which Prefect logs with, raises SystemExit in a thread that logs to a closed console.
                with contextlib.suppress(SystemExit):
                    _send_heartbeat(journal) if is_due else _tell(journal)
            if is_due:
                beats_at = time.monotonic() + seconds


_lock = threading.Lock()
_thread: _HeartbeatThread | None = None


def _forget_parent() -> None:
    """Reset a forked child: a thread that does not exist here may hold the parent's lock."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def start_heartbeat(journal: Journal) -> None:
    """Send heartbeats to a journal from now on. Each call needs its own `stop_heartbeat`.

    This writes no first heartbeat: every claim, lease or attempt is taken together with a heartbeat.
    """
    from ivcap_flows.journal.processes import HEARTBEAT_SECONDS

    global _thread
    with _lock:
        if _thread is None:
            _thread = _HeartbeatThread()
        _thread.start(HEARTBEAT_SECONDS)
        with _thread.lock:
            _thread.counts[journal] = _thread.counts.get(journal, 0) + 1


def stop_heartbeat(journal: Journal) -> None:
    """Undo one `start_heartbeat`. After the last, the thread ends once it has written which claims have ended."""
    global _thread
    with _lock:
        if _thread is None:
            return
        with _thread.lock:
            if _thread.counts.get(journal) == 1 and journal.processes.owes:
                _thread.tell_later(journal, journal.processes.heartbeat)
                return
            left = _thread.counts.pop(journal, 1) - 1
            if left > 0:
                _thread.counts[journal] = left
            if not _thread.counts:
                _thread.stop()
                _thread = None


def tell_later(journal: Journal, tell: Callable[[], None]) -> None:
    """Let the heartbeat's thread repeat a write, `tell`, that failed because the journal cannot be written now.

    It replaces the caller's `stop_heartbeat`, which follows when the write has succeeded. The write is tried at once
    and every half second, before the journal's next run begins, and when the process ends. It may happen twice.
    """
    with _lock:
        if _thread is None:
            return
        with _thread.lock:
            _thread.tell_later(journal, tell)


def catch_up(journal: Journal) -> None:
    """Repeat the writes of a journal that failed before. Raise JournalError if the journal still cannot be written."""
    heart = _thread
    if heart is None:
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
            stop_heartbeat(journal)


def listen(journal: Journal) -> None:
    """Wait until it is known whether overdue processes of other machines, which hold something, are alive.

    This is for a command that asks only once: it must not take what a live process holds only because a clock was
    changed. Return at once if no such process holds anything.
    """
    if (seconds := journal.processes.unheard()) > 0:
        logger.info("A process of another machine is silent; listening for its heartbeat for %.0f s.", seconds)
    end = time.monotonic() + seconds
    while journal.processes.unheard() > 0 and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LISTENING))


def _last_words() -> None:
    heart = _thread
    for journal in list(heart.untold) if heart is not None else ():
        _tell(journal)


atexit.register(_last_words)


def _tell(journal: Journal) -> None:
    with contextlib.suppress(Exception):
        catch_up(journal)


def _send_heartbeat(journal: Journal) -> None:
    try:
        journal.processes.heartbeat()
        catch_up(journal)
    except Exception as error:  # noqa: BLE001 - without the thread, other machines would take this process for gone
        logger.warning("The journal could not be told that this process lives: %s", error)
