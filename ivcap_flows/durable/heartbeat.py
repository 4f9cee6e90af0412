"""The heartbeat: one daemon thread per process writes to each journal in use that the process is alive."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from typing import Final

from ivcap_flows.forked import in_forked_child
from ivcap_flows.journal import Journal
from ivcap_flows.secrets import logger_of

__all__ = ["listen", "start_heartbeat", "stop_heartbeat"]

logger = logger_of("ivcap_flows.durable")

_SOON: Final = 0.5
"""Seconds between two tries of a write that failed. Until it succeeds, a claim whose call has ended looks held to other
processes, as long as this process is alive."""

_LISTENING: Final = 5.0
"""Seconds between two looks while `listen` waits."""


class _HeartbeatThread:
    """The heartbeat's thread, and the number of open starts per journal; of one that is owed a write, it may be 0."""

    def __init__(self) -> None:
        self.counts: dict[Journal, int] = {}
        self.stopped = False
        self.bell = threading.Event()
        """Set when the thread has something to do before the next heartbeat."""
        self.thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Start the thread unless it is running."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.run, args=(seconds,), name="ivcap-flows-heartbeat", daemon=True)
            self.thread.start()

    def run(self, seconds: float) -> None:
        beats_at = time.monotonic() + seconds
        while not self.stopped:
            left = max(0.0, beats_at - time.monotonic())
            is_late = any(journal.untold for journal in list(self.counts))
            if self.bell.wait(min(left, _SOON) if is_late else left):
                self.bell.clear()
            is_due = time.monotonic() >= beats_at
            for journal in list(self.counts):
                # rich, which Prefect logs with, raises SystemExit in a thread that logs to a closed console.
                with contextlib.suppress(SystemExit):
                    if is_due and not self.stopped:
                        _send_heartbeat(journal)
                    elif journal.untold:
                        _tell(journal)
            _let_go_of_unused(self)
            if is_due:
                beats_at = time.monotonic() + seconds


_lock = threading.Lock()
_thread: _HeartbeatThread | None = None


def _forget_parent() -> None:
    """Reset a forked child: a thread that does not exist here may hold the parent's lock."""
    global _lock, _thread
    for journal in _thread.counts if _thread is not None else ():
        journal.untold.forget()
    _lock, _thread = threading.Lock(), None


in_forked_child(_forget_parent)


def start_heartbeat(journal: Journal) -> None:
    """Send heartbeats to a journal from now on. Each call needs its own `stop_heartbeat`.

    This writes no first heartbeat: every claim, lease or attempt is taken together with a heartbeat. What the journal
    could not be told meanwhile (`journal.untold`) is tried at once and every half second, before the journal's next run
    begins, and when the process ends.
    """
    from ivcap_flows.journal.processes import HEARTBEAT_SECONDS

    global _thread
    with _lock:
        if _thread is None:
            _thread = _HeartbeatThread()
        _thread.start(HEARTBEAT_SECONDS)
        _thread.counts[journal] = _thread.counts.get(journal, 0) + 1
        journal.untold.heard = _thread.bell.set


def stop_heartbeat(journal: Journal) -> None:
    """Undo one `start_heartbeat`. After the last, the thread ends once the journal has been told everything."""
    with _lock:
        if _thread is not None:
            _thread.counts[journal] = max(0, _thread.counts.get(journal, 1) - 1)
    if _thread is not None:
        _let_go_of_unused(_thread)


def _let_go_of_unused(thread: _HeartbeatThread) -> None:
    """Let go of the journals that nobody uses and that have been told everything. After the last, end the thread."""
    global _thread
    with _lock:
        for journal in [journal for journal, count in thread.counts.items() if not count and not journal.untold]:
            del thread.counts[journal]
        if not thread.counts and _thread is thread:
            _thread = None
            thread.stopped = True
            thread.bell.set()


def listen(journal: Journal) -> None:
    """Wait until it is known whether overdue processes, whose locks are not seen and which hold something, are alive.

    This is for a command that asks only once: it must not take what a live process holds only because a clock was
    changed. Return at once if no such process holds anything.
    """
    if (seconds := journal.processes.unheard()) > 0:
        logger.info("Another process had begun something here. Waiting for %.0f s to see whether it is alive.", seconds)
    end = time.monotonic() + seconds
    while journal.processes.unheard() > 0 and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LISTENING))


def _last_words() -> None:
    for journal in list(_thread.counts) if _thread is not None else ():
        _tell(journal)


atexit.register(_last_words)


def _tell(journal: Journal) -> None:
    with contextlib.suppress(Exception):
        journal.untold.write()


def _send_heartbeat(journal: Journal) -> None:
    try:
        journal.processes.heartbeat()
        journal.untold.write()
    except Exception as error:  # noqa: BLE001 - without the thread, other machines would take this process for gone
        logger.warning("The journal could not be told that this process lives: %s", error)
