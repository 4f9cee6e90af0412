"""What each call does to files, as an audit hook of the interpreter sees it (PEP 578).

The hook can never be removed, is called for each audit event of the process, and never raises. It sees file operations
of Python in the call's own thread, and wherever its context is passed on: asyncio, `asyncio.to_thread`, Prefect's
threads. It does not see C libraries that read and write themselves, other processes, plain threads, and what is named
by an open folder (`dir_fd`).

An event says that something is about to happen. It is believed as the paths show it at the thread's next event, or when
somebody asks.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

from ivcap_flows.capture.path_tree import PathTree
from ivcap_flows.forked import PerProcess

__all__ = ["FileActivity", "Written", "unseen"]

MOST_PATHS: Final = 20_000
"""The maximum number of paths that are kept for one call. Further ones are counted."""
MOST_KEPT: Final = 50_000
"""The maximum number of paths that are kept for calls beside each other. Then those of ended calls are forgotten."""
_MOST_WRITERS: Final = 4
"""The maximum number of calls that are kept as the last writers of one path."""
_MOST_ENDED: Final = 100
"""The maximum number of ended calls that are kept for one path that they were given."""
_LIBRARIES: Final = tuple(
    {os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")}
    | {"/proc/", "/dev/", "/sys/"}
)
_IN_MEMORY: Final = "/dev/shm/"  # noqa: S108 - it is only compared
"""Where files of data are, though what lies around it is none."""
_WRITES: Final = os.O_WRONLY | os.O_RDWR
_ANEW: Final = os.O_TRUNC | os.O_EXCL


@dataclass(frozen=True)
class Written:
    """What a call last did to the content at a path.

    Nothing that was there when the call began is left of content that is the call's `own`. `origin` is the path from
    which it came, and how: `copy`, `link`, `rename`, or None for what was kept at the path itself. What is `gone` is no
    longer at the path. `tick` orders what happened in the process.
    """

    tick: int
    own: bool
    origin: tuple[str, str | None] | None = None
    gone: Literal["removed", "renamed"] | None = None


@dataclass
class _Process:
    """What the calls of this process have done to files while any of them runs. `clock` counts what happens."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: int = 0
    running: set[FileActivity] = field(default_factory=set)
    writers: PathTree[deque[tuple[FileActivity, int]]] = field(default_factory=PathTree)
    places: PathTree[_Place] = field(default_factory=PathTree)
    announced: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = field(default_factory=dict)
    """By thread, what it was about to do at its last event: whether it did, and how to note it."""
    count: int = 0
    forgotten: int = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def announce(self, happened: Callable[[], bool], note: Callable[[], None]) -> None:
        """Note what this thread is about to do once its next event shows that it `happened`."""
        self.announced[threading.get_ident()] = happened, note

    def settle(self, thread: int | None = None) -> None:
        """Note what was announced, by one thread or by all, if it happened."""
        for each in [thread] if thread is not None else list(self.announced):
            happened, note = self.announced.pop(each, (bool, bool))
            if happened():
                note()

    def forget(self) -> None:
        """Forget what was written, and the calls that ended."""
        self.writers, self.places = PathTree(), PathTree()
        for call in self.running:
            self.note_reachable(call)
        self.count = 0

    def note_reachable(self, call: FileActivity) -> None:
        """Note that a running call was given its paths."""
        for path in call.reachable:
            place = self.places.get(path)
            if place is None:
                place = _Place()
                self.count += self.places.put(path, place)
            place.running.add(call)

    def note_writer(self, call: FileActivity, path: str, tick: int) -> None:
        """Note the last writer of a path."""
        writers = self.writers.get(path)
        if writers is None:
            if self.count >= MOST_KEPT:
                self.forget()
                self.forgotten = tick
            writers = deque(maxlen=_MOST_WRITERS)
            self.count += self.writers.put(path, writers)
        if writers and writers[-1][0] is call:
            writers.pop()
        writers.append((call, tick))


@dataclass
class _Place:
    """The calls that were given one path: those that run, and those that ended last, in this order."""

    running: set[FileActivity] = field(default_factory=set)
    ended: deque[FileActivity] = field(default_factory=lambda: deque(maxlen=_MOST_ENDED))


_current: ContextVar[FileActivity | None] = ContextVar("ivcap_flows_file_activity", default=None)
_process: Final = PerProcess(_Process)
"""The other calls of a forked child's parent run there."""


class FileActivity:
    """The file operations of one call, including those of the calls within it.

    `reachable` are the paths that were passed to it: it can reach these files and the files below them. `lost` counts
    the operations that were not noted. `started` is a monotonic time in nanoseconds.
    """

    __slots__ = (
        "_began", "_copying", "_count", "_ended", "_is_flow", "_reads", "_token", "_written", "lost", "outer",
        "reachable", "started",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reachable: tuple[str, ...] = ()
        self.outer: FileActivity | None = None
        self.lost = 0
        self.started = time.monotonic_ns()
        self._reads: PathTree[bool] = PathTree()
        self._written: PathTree[Written] = PathTree()
        self._copying: dict[int, tuple[str, str]] = {}
        self._count = self._began = self._ended = 0
        self._is_flow = False
        self._token: Token[FileActivity | None] | None = None

    # From begin to end

    def begin(self, *, flow: bool = False) -> None:
        """Watch this context from now on, until `end`. `flow` says that it is a flow, whose tasks are within it."""
        _watch()
        self.outer, self.started = _current.get(), time.monotonic_ns()
        # All that runs in an outermost flow is within it, so the flow needs to know nothing of calls beside it.
        self._is_flow = flow and self.outer is None
        with _process().lock:
            self._began = _process().tick()
            if not self._is_flow:
                _process().running.add(self)
                _process().note_reachable(self)
        self.resume()

    def resume(self) -> None:
        """Watch this context again, as when a generator continues."""
        if self._token is None:
            self._token = _current.set(self)

    def pause(self) -> None:
        """Stop watching until `resume`: the code that runs meanwhile is the caller's."""
        if self._token is not None:
            _settle()
            _current.reset(self._token)
            self._token = None

    def end(self) -> None:
        """Stop watching, and forget what was seen. A call beside this one may still need to know what it wrote."""
        self.pause()
        with _process().lock:
            self._ended = _process().tick()
            self._reads, self._written = PathTree(), PathTree()
            if self in _process().running:
                _process().running.discard(self)
                for path in self.reachable:
                    place = _process().places.get(path)
                    if place is not None:
                        place.running.discard(self)
                        place.ended.append(self)
            if not _process().running:
                _process().forget()

    # What was seen

    def read(self, path: str) -> bool:
        """Whether it was seen to read what was at an absolute path before it wrote its own content there."""
        _settle()
        return self._reads.get(path) is not None

    def written(self, path: str) -> Written | None:
        """Return what it was last seen to do to the content at an absolute path, or to a folder around it."""
        _settle()
        return self._last_written(path)

    def _last_written(self, path: str) -> Written | None:
        for written, rest in self._written.around(path):
            if not rest:
                return written
            origin = written.origin
            return replace(written, own=True, origin=(os.path.join(origin[0], rest), origin[1]) if origin else None)
        return None

    def read_below(self, folder: str) -> bool:
        """Whether it was seen to read a file in a folder."""
        _settle()
        return any(self._reads.below(folder))

    def wrote_below(self, folder: str) -> bool:
        """Whether it was seen to write or to remove a file in a folder, or the folder as a whole."""
        _settle()
        return any(True for _ in self._written.below(folder)) or self.written(folder) is not None

    def last_concurrent(self, path: str, *, below: bool = False) -> int | None:
        """Return the tick at which a call beside this one was last seen to write a path, or with `below` a path below.

        Only calls of this process count, from the begin of this one.
        """
        _settle()
        with _process().lock:
            found = [writers for writers, _ in _process().writers.around(path)]
            found += _process().writers.below(path) if below else ()
            ticks = [tick for writers in found for by, tick in writers if tick > self._began and self._is_beside(by)]
        return max(ticks, default=None)

    def could_be_concurrent(self, path: str) -> bool:
        """Whether a call beside this one could have written a path unseen: it was given the path or a folder around it.

        Only calls of this process count that ran at the same time.
        """
        if self._began < _process().forgotten:
            return True
        with _process().lock:
            for place, _ in _process().places.around(path):
                if any(self._is_beside(each) for each in place.running):
                    return True
                for each in reversed(place.ended):
                    if each._ended < self._began:
                        break
                    if self._is_beside(each):
                        return True
        return False

    def _is_beside(self, other: FileActivity) -> bool:
        return not any(each is other for each in self._chain()) and not any(each is self for each in other._chain())

    def _chain(self) -> Iterator[FileActivity]:
        """Yield this call, and the calls around it."""
        call: FileActivity | None = self
        while call is not None:
            yield call
            call = call.outer

    def _running_chain(self) -> Iterator[FileActivity]:
        return (call for call in self._chain() if not call._ended)

    # What the hook notes, for this call and for those around it

    def _note_read(self, path: str) -> None:
        written = self._last_written(path)
        if (written is None or not written.own) and self._fits():
            self._count += self._reads.put(path, True)

    def _note_written(self, path: str, written: Written) -> None:
        if self._fits():
            self._count += self._written.put(path, written)

    def _note_kept(self, path: str, tick: int) -> None:
        known = self._last_written(path)
        if known is not None and known.own:
            self._note_written(path, replace(known, tick=tick, gone=None))
        else:
            self._note_written(path, Written(tick, own=False, origin=(path, None)))

    def _note_put(self, source: str, target: str, how: str, tick: int) -> None:
        known = self._last_written(source)
        # Content that came by way of a temporary file has the origin of that file.
        origin = known.origin if known is not None and known.own else (source, how)
        if how == "rename":
            self._written.move(source, target)
            self._note_written(source, Written(tick, own=True, gone="renamed"))
        else:
            self._note_read(source)
        self._note_written(target, Written(tick, own=True, origin=origin))

    def _note_removed(self, path: str, tick: int) -> None:
        self._written.forget(path)
        self._note_written(path, Written(tick, own=True, gone="removed"))

    def _fits(self) -> bool:
        self.lost += self._count >= MOST_PATHS
        return self._count < MOST_PATHS


# The events of PEP 578, each with the arguments that Python's documentation names ("Audit events table").


def _opens(activity: FileActivity, tick: int, path: Any, _mode: Any, flags: int) -> None:
    if isinstance(path, int):
        return
    path = _absolute(path)
    if path.startswith(_LIBRARIES) and not path.startswith(_IN_MEMORY):
        return
    source, target = activity._copying.pop(threading.get_ident(), ("", ""))
    if flags & _WRITES:
        if not _may_write(path, flags):
            return
        if path == target:
            _copies(activity, tick, source, target)
            return
        _process().note_writer(activity, path, tick)
    elif path == source:
        activity._copying[threading.get_ident()] = source, target
    for call in activity._running_chain():
        if not flags & _WRITES:
            call._note_read(path)
        elif flags & _ANEW:
            call._note_written(path, Written(tick, own=True))
        else:
            if flags & os.O_RDWR:
                call._note_read(path)
            call._note_kept(path, tick)


def _may_write(path: str, flags: int) -> bool:
    """Whether a file can be opened to be written, as far as the paths show it."""
    if os.path.lexists(path):
        # `tempfile` opens the folder of a temporary file by itself.
        return not flags & os.O_EXCL and not os.path.isdir(path)
    return bool(flags & os.O_CREAT) and os.path.isdir(os.path.dirname(path))


def _puts(activity: FileActivity, tick: int, source: str, target: str, how: str) -> None:
    _process().note_writer(activity, target, tick)
    for call in activity._running_chain():
        call._note_put(source, target, how, tick)


def _renames(activity: FileActivity, tick: int, source: Any, target: Any, *folders: int) -> None:
    if not any(map(_is_open, folders)):
        _announce_rename(activity, tick, _absolute(source), _absolute(target))


def _announce_rename(activity: FileActivity, tick: int, source: str, target: str) -> None:
    def note() -> None:
        _process().writers.move(source, target)
        _process().note_writer(activity, source, tick)
        _puts(activity, tick, source, target, "rename")

    if os.path.lexists(source):
        _process().announce(lambda: not os.path.lexists(source) and os.path.lexists(target), note)


def _links(activity: FileActivity, tick: int, source: Any, target: Any, *folders: int) -> None:
    if not any(map(_is_open, folders)):
        _announce_link(activity, tick, _absolute(source), _absolute(target))


def _announce_link(activity: FileActivity, tick: int, source: str, target: str) -> None:
    if not os.path.lexists(target):
        _process().announce(partial(os.path.lexists, target), partial(_puts, activity, tick, source, target, "link"))


def _links_by_name(activity: FileActivity, tick: int, source: Any, target: Any, folder: int) -> None:
    if not _is_open(folder):
        target = _absolute(target)
        # The name leads from the folder of the link.
        source = os.path.join(os.path.dirname(target), os.fsdecode(source))
        _announce_link(activity, tick, _absolute(source), target)


def _begins_copy(activity: FileActivity, tick: int, source: Any, target: Any) -> None:
    """Note that the two next files to be opened may be the two ends of a copy."""
    source, target = _absolute(source), _absolute(target)
    same = os.path.exists(target) and os.path.samefile(source, target)
    if os.path.isfile(source) and os.access(source, os.R_OK) and not same:
        activity._copying[threading.get_ident()] = source, target


def _copies(activity: FileActivity, tick: int, source: str, target: str) -> None:
    """Note a copy. One that broke off, as on a full disk, is a file of the call's own."""
    thread = threading.get_ident()

    def broke_off() -> bool:
        return threading.get_ident() == thread and _size(source) != _size(target)

    def note() -> None:
        for call in activity._running_chain():
            call._note_written(target, Written(tick, own=True))

    _puts(activity, tick, source, target, "copy")
    _process().announce(broke_off, note)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _removes(activity: FileActivity, tick: int, path: Any, folder: int | None = None) -> None:
    if not _is_open(folder) and os.path.lexists(_absolute(path)):
        path = _absolute(path)
        _process().announce(lambda: not os.path.lexists(path), partial(_removed, activity, tick, path))


def _removes_tree(activity: FileActivity, tick: int, path: Any, folder: int | None = None) -> None:
    # The events of its parts follow, so none of them shows whether it succeeds.
    if not _is_open(folder) and os.path.lexists(_absolute(path)):
        _removed(activity, tick, _absolute(path))


def _removed(activity: FileActivity, tick: int, path: str) -> None:
    _process().note_writer(activity, path, tick)
    for call in activity._running_chain():
        call._note_removed(path, tick)


def _truncates(activity: FileActivity, tick: int, path: Any, *_: Any) -> None:
    _opens(activity, tick, path, None, os.O_WRONLY)


def _connects(activity: FileActivity, tick: int, database: Any, *_: Any) -> None:
    # The library itself reads and writes the file, and changes it in place.
    if isinstance(database, str | bytes | os.PathLike) and database != ":memory:":
        _opens(activity, tick, database, None, os.O_RDWR | os.O_CREAT)


def _is_open(folder: int | None) -> bool:
    """Whether a path is relative to an open folder, so that what it means is not known."""
    return folder is not None and folder != -1


_EVENTS: Final[dict[str, Callable[..., None]]] = {
    "open": _opens,
    "os.rename": _renames,
    "os.link": _links,
    "os.symlink": _links_by_name,
    "os.remove": _removes,
    "os.truncate": _truncates,
    "shutil.copyfile": _begins_copy,
    "shutil.rmtree": _removes_tree,
    "sqlite3.connect": _connects,
}
"""`os.replace` and `shutil.move` raise `os.rename`; all copies of `shutil` end in `shutil.copyfile`."""


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Do not count what the recording itself reads in the block as done by the call."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def _settle() -> None:
    with _process().lock:
        _process().settle()


def _absolute(path: str | bytes | os.PathLike[Any]) -> str:
    path = os.fsdecode(path)
    return path if path[:1] == os.sep and "/." not in path and "//" not in path else os.path.abspath(path)


_watches = False


def _watch() -> None:
    """Add the hook, once per process."""
    global _watches
    with _process().lock:
        if _watches:
            return
        _watches = True

    # Locals, since the interpreter clears globals first when it ends.
    find, current, here, thread = _EVENTS.get, _current.get, _process, threading.get_ident

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        note, process = find(event), here()
        if note is None and thread() not in process.announced:
            return
        activity = current()
        try:
            with process.lock:
                process.settle(thread())
                if note is not None and activity is not None:
                    note(activity, process.tick(), *arguments)
        except Exception:  # noqa: BLE001 - it must not reach the code that opens a file
            if activity is not None:
                activity.lost += 1

    sys.addaudithook(hook)
