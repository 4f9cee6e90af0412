"""Write facts behind the flow (write-behind): one bounded queue and one thread per journal, many facts per commit.

Nothing here raises into a flow. What cannot be recorded is counted, and its run is marked incomplete.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from ivcap_flows.capture import files, makers
from ivcap_flows.capture.calls import Call, records_of
from ivcap_flows.errors import JournalError
from ivcap_flows.forked import in_forked_child
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Fact, Journal
    from ivcap_flows.provenance.records import Record

__all__ = ["Recorder", "Statement"]

log = logger_of("ivcap_flows.capture")

CAPACITY: Final = 100_000
"""The maximum number of calls that wait to be written. Further ones are counted as missing."""
ROOM: Final = 256 * 2**20
"""The approximate maximum number of bytes that they hold. Further ones are counted as missing."""
GROUP_SECONDS: Final = 0.25
"""Seconds for which facts are gathered for one commit."""
RELEASE_SECONDS: Final = 1.0
"""Seconds after which values are released that nothing but the record of their makers holds."""
STALL_TIMEOUT: Final = 60.0
"""Seconds without progress (nothing made, read or written) after which callers stop waiting for the recorder."""
OUTAGE: Final = 20.0
"""Seconds for which facts are written again and again while the journal cannot be reached. Then they are missing."""
_BATCH: Final = 2_000


class Statement:
    """Records of a run that the recorder's thread makes. `holds` is the approximate number of bytes that they take."""

    __slots__ = ("attempt_id", "make", "run_id", "weight")

    def __init__(
        self, run_id: str, attempt_id: str | None, make: Callable[[], Iterable[Record]], *, holds: int = 0
    ) -> None:
        self.run_id, self.attempt_id, self.make, self.weight = run_id, attempt_id, make, 2_000 + holds


class _FlushMarker(threading.Event):
    """Set once everything that was put before it is written. With `ends`, the thread ends there."""

    def __init__(self, *, ends: bool = False) -> None:
        super().__init__()
        self.ends = ends


_recorders: WeakSet[Recorder] = WeakSet()


def _leave_to_parent() -> None:
    """Begin empty in a forked child: the parent writes what was queued. Its threads and locks do not exist here."""
    for recorder in _recorders:
        recorder._begin_empty()


def _flush_all() -> None:
    """Write at the end of the process what is still queued."""
    for recorder in list(_recorders):
        recorder.flush()


in_forked_child(_leave_to_parent)
atexit.register(_flush_all)


class Recorder:
    """The recorder of one journal in this process."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._begin_empty()
        _recorders.add(self)

    def _begin_empty(self) -> None:
        self._queue: deque[tuple[Call | Statement | _FlushMarker, int]] = deque()
        self._held = 0
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._lock, self._draining = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._missing: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._presumed_missing: Counter[str] = Counter()
        self._steps = 0

    def put(self, item: Call | Statement) -> None:
        """Put a call or a statement into the queue. Never waits and never raises."""
        weight = item.weight
        with self._lock:
            full = len(self._queue) >= CAPACITY or self._held + weight > ROOM
            self._held += 0 if full else weight
        if full:
            self._count(item.run_id, 1)
            return
        self._queue.append((item, weight))
        if not self._wake.is_set():
            self._wake.set()
        if not self._runs():
            self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put so far is written or counted as missing. Return False after `timeout` seconds.

        Without a timeout, wait as long as the recorder makes progress, and return False when it stalls, for example
        because the journal is locked. What is left then counts as missing until it is written.
        """
        done = False
        try:
            if self._runs():
                marker = self._marked(_FlushMarker())
                done = self._awaited(marker) if timeout is None else marker.wait(timeout)
            else:
                self._drain()
                done = True
        finally:
            # Also after an interrupt, since the process may end before the recorder does.
            if not done and timeout is None:
                self._presume_missing()
        return done

    def close(self) -> None:
        """Flush, and end the thread. What is put afterwards is still written."""
        self.flush()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._marked(_FlushMarker(ends=True))
            thread.join(5.0)

    def miss(self, run_id: str, facts: int = 1) -> None:
        """Count facts that were never put as missing from a run."""
        self._count(run_id, facts)

    def _awaited(self, marker: _FlushMarker) -> bool:
        seen, since = (0, 0), time.monotonic()
        while not marker.wait(min(1.0, STALL_TIMEOUT)):
            now = self._steps, files.blocks_read()
            if now != seen:
                seen, since = now, time.monotonic()
            elif not self._runs():
                self._drain()
            elif time.monotonic() - since > STALL_TIMEOUT:
                return marker.is_set()
        return True

    def _presume_missing(self) -> None:
        """Count what is queued and in hand as missing, except what was counted before."""
        with self._lock:
            left = self._in_flight + Counter(
                item.run_id for item, _ in tuple(self._queue) if not isinstance(item, _FlushMarker)
            )
            self._missing.update(left)
            self._missing.subtract(self._presumed_missing)
            self._presumed_missing = left
        self._report_missing()
        if left:
            _warn("%d calls are not written to the journal yet, so the record does not contain them yet.", left.total())

    def _marked(self, marker: _FlushMarker) -> _FlushMarker:
        self._queue.append((marker, 0))
        self._hurry.set()
        self._wake.set()
        return marker

    def _start(self) -> None:
        with self._lock:
            if self._runs():
                return
            thread = threading.Thread(target=self._work, name="ivcap-flows-recorder", daemon=True)
            # The system may have no thread left. Then `flush` writes.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _runs(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _work(self) -> None:
        held = True
        while True:
            # A long call may follow, during which no other looks for what the flow has released.
            while not self._wake.wait(RELEASE_SECONDS if held else None):
                held = makers.release()
            if self._queue and not self._hurry.is_set():
                self._hurry.wait(GROUP_SECONDS)
            self._wake.clear()
            self._hurry.clear()
            held = True
            with contextlib.suppress(SystemExit):
                if self._drain():
                    return

    def _drain(self) -> bool:
        """Write what is queued by now. Return True if a flush marker tells the thread to end.

        What is put meanwhile waits for the next time. A commit takes as long as several tasks, so the thread would
        never rest, and write a few calls at a time.
        """
        ends = False
        with self._draining:
            left = len(self._queue)
            while left > 0 and not ends:
                markers: list[_FlushMarker] = []
                whole = False
                try:
                    stated = self._gathered(markers, left)
                    left -= len(stated) + len(markers)
                    self._write(stated)
                    whole = True
                finally:
                    self._put_down(written=whole)
                    for marker in markers:
                        ends = ends or marker.ends
                        marker.set()
        return ends

    def _gathered(self, markers: list[_FlushMarker], limit: int) -> list[list[Fact]]:
        """Return the facts of the next items, for one commit. Add the flush markers among them to `markers`."""
        stated: list[list[Fact]] = []
        number = 0
        while number < _BATCH and len(stated) + len(markers) < limit and (item := self._take()) is not None:
            if isinstance(item, _FlushMarker):
                markers.append(item)
            else:
                stated.append(self._facts(item))
                number += len(stated[-1])
        return stated

    def _take(self) -> Call | Statement | _FlushMarker | None:
        with self._lock:
            if not self._queue:
                return None
            item, weight = self._queue.popleft()
            self._held -= weight
            self._steps += 1
            if not isinstance(item, _FlushMarker):
                self._in_flight[item.run_id] += 1
            return item

    def _put_down(self, *, written: bool) -> None:
        """Release the items in hand, written or missing. With an empty queue, none is presumed missing any more."""
        with self._lock:
            if not written:
                self._missing.update(self._in_flight)
            self._in_flight.clear()
            if not self._queue:
                self._missing.subtract(self._presumed_missing)
                self._presumed_missing.clear()
        self._report_missing()

    def _facts(self, item: Call | Statement) -> list[Fact]:
        from ivcap_flows.journal import Fact

        try:
            if isinstance(item, Statement):
                records = list(item.make())
            else:
                # The same call is put at its begin and at its end. A short one may have ended before it is first
                # written.
                if item.written:
                    return []
                item.written = item.ended is not None
                records = records_of(item, self.journal.files)
            return [Fact(record, item.run_id, item.attempt_id) for record in records]
        except Exception:  # noqa: BLE001 - a value that cannot be described must not stop the others
            self._count(item.run_id, 1)
            _warn("A call could not be described and is missing from the record.", exc_info=True)
            return []

    def _write(self, stated: list[list[Fact]]) -> None:
        """Write the facts of all items in one commit. If the journal cannot hold one of them, write each item alone."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

        facts = [fact for each in stated for fact in each]
        again = Retrying(
            retry=retry_if_exception(lambda error: getattr(error, "retryable", False)),
            wait=wait_exponential(multiplier=0.05, exp_base=4, max=1),
            stop=stop_after_delay(OUTAGE),
            reraise=True,
        )
        try:
            again(self.journal.facts.append, facts)
            self._steps += 1
        except Exception as error:  # noqa: BLE001 - a recorder that fails must not end the flow
            if len(stated) > 1 and not isinstance(error, JournalError | OSError):
                for each in stated:
                    self._write([each])
                return
            for fact in facts:
                self._count(fact.run_id, 1)
            _warn("%d facts could not be written to the journal, so the record is incomplete: %s", len(facts), error)

    def _count(self, run_id: str, facts: int) -> None:
        with self._lock:
            self._missing[run_id] += facts

    def _report_missing(self) -> None:
        """Report the number of missing facts to the journal, as soon as it can be reached."""
        while True:
            with self._lock:
                if not self._missing:
                    return
                run_id, number = self._missing.popitem()
            try:
                if number:
                    self.journal.runs.count_missing(run_id, number)
            except Exception:  # noqa: BLE001 - tried again with the next batch
                self._count(run_id, number)
                return


def _warn(message: str, *arguments: object, exc_info: bool = False) -> None:
    # rich, which Prefect logs with, ends the logging thread if the console is gone.
    with contextlib.suppress(SystemExit):
        log.warning(message, *arguments, exc_info=exc_info)
