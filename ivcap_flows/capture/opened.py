"""The files that each call opens, renames and copies, as an audit hook of the interpreter sees them (PEP 578).

The hook can never be removed, is called for each audit event of the process, and never raises. It sees file operations
of Python in the call's own thread, and wherever its context is passed on: asyncio, `asyncio.to_thread`, Prefect's
threads. It does not see C libraries that read and write themselves, other processes, and plain threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import Any, Final

__all__ = ["KEPT", "READ", "REMOVED", "WRITTEN", "Opened", "unseen"]

READ: Final = 1
"""Opened for reading, before the call wrote its own content to the path."""
WRITTEN: Final = 2
"""Opened for writing, or put at the path by a rename, a copy or a link."""
KEPT: Final = 4
"""Opened for writing with the old content kept: to append, or to change a part."""
REMOVED: Final = 8
_OWN: Final = 16
"""The content at the path is the call's own."""

MOST_PATHS: Final = 20_000
"""The maximum number of paths that are kept for one call. Further ones are counted."""
_MOST_ENDED: Final = 4_000
_LIBRARIES: Final = tuple(
    {os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")}
    | {"/proc/", "/dev/", "/sys/"}
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR
_ANEW: Final = os.O_TRUNC | os.O_EXCL

_current: ContextVar[Opened | None] = ContextVar("ivcap_flows_opened", default=None)
_lock = threading.Lock()
_running: dict[int, Opened] = {}
_ended: deque[Opened] = deque(maxlen=_MOST_ENDED)
_clock = 0
_watches = False


class Opened:
    """The file operations of one call, including those of the calls within it.

    `given` are the paths that were passed to it: it can reach these files and the files below them. `origins` maps a
    path to the path from which its content came, and how.
    """

    __slots__ = ("_began", "_end", "_frames", "_token", "given", "lost", "origins", "outer", "paths")

    def __init__(self) -> None:
        self.paths: dict[str, int] = {}
        self.origins: dict[str, tuple[str, str]] = {}
        self.given: tuple[str, ...] = ()
        self.outer: Opened | None = None
        self.lost = 0
        self._began = self._end = 0
        self._frames = False
        self._token: Token[Opened | None] | None = None

    def begin(self, *, flow: bool = False) -> None:
        """Watch this context from now on, until `end`. `flow` says that it is a flow, whose tasks are within it."""
        global _clock
        _watch()
        self.outer = _current.get()
        self._frames = flow and self.outer is None
        with _lock:
            _clock += 1
            self._began = _clock
            _running[id(self)] = self
        self.resume()

    def resume(self) -> None:
        """Watch this context again, as when a generator continues."""
        if self._token is None:
            self._token = _current.set(self)

    def pause(self) -> None:
        """Stop watching until `resume`: the code that runs meanwhile is the caller's."""
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def end(self) -> None:
        """Stop watching. Count what was seen as done by the call around this one, too."""
        global _clock
        self.pause()
        if self.outer is not None:
            self.outer._take(self)
        self.paths = {path: bits for path, bits in self.paths.items() if bits & WRITTEN}
        with _lock:
            _clock += 1
            self._end = _clock
            _running.pop(id(self), None)
            # A call that ran beside this one may still need to know what it did. An outermost flow does not count, or
            # all that runs in it would be kept until its end.
            oldest = min((each._began for each in _running.values() if not each._frames), default=_clock)
            _ended.append(self)
            while _ended and _ended[0]._end < oldest:
                _ended.popleft()

    def at(self, path: str) -> int:
        """Return what is known of an absolute path: the bits of this module, or 0 if nothing was seen."""
        return self.paths.get(path, 0)

    def elsewhere(self, path: str, *, below: bool = False) -> tuple[bool, bool]:
        """Return whether a call beside this one was seen to write the path, and whether one could have done so unseen.

        Only calls of this process count that ran at the same time. `below` includes writing to any path below. A call
        could have written a path if that path, or a folder around it, was passed to the call.
        """
        with _lock:
            others = [*_running.values(), *(each for each in _ended if each._end > self._began)]
        beside = [each for each in others if not (each._is_within(self) or self._is_within(each))]
        return (
            any(each.has_written(path, below=below) for each in beside),
            any(path == place or path.startswith(os.path.join(place, "")) for each in beside for place in each.given),
        )

    def has_written(self, path: str, *, below: bool) -> bool:
        """Whether it was seen to write the path, or with `below` any path below it."""
        if not below:
            return bool(self.at(path) & WRITTEN)
        around = os.path.join(path, "")
        return any(bits & WRITTEN for name, bits in list(self.paths.items()) if name.startswith(around))

    def _is_within(self, other: Opened) -> bool:
        call: Opened | None = self
        while call is not None and call is not other:
            call = call.outer
        return call is other

    def _take(self, inner: Opened) -> None:
        for path, bits in list(inner.paths.items()):
            self._note(path, bits)
        self.origins.update(inner.origins)
        self.lost += inner.lost

    def _note(self, path: str, bits: int) -> None:
        known = self.paths.get(path)
        if known is None:
            if len(self.paths) >= MOST_PATHS:
                self.lost += 1
                return
            known = 0
        if known & _OWN:
            bits &= ~(READ | KEPT)
        self.paths[path] = known | bits

    def opens(self, path: Any, _mode: Any, flags: int) -> None:
        """Handle `open` of PEP 578. Ignore a file descriptor, which has no path of its own."""
        if isinstance(path, int):
            return
        path = _absolute(path)
        if path.startswith(_LIBRARIES):
            return
        if not flags & _WRITES:
            self._note(path, READ)
        elif flags & _ANEW:
            self._forget_origin(path)
            self._note(path, WRITTEN | _OWN)
        else:
            self._note(path, WRITTEN | KEPT | (READ if flags & os.O_RDWR else 0))

    def _forget_origin(self, path: str) -> None:
        # A copy itself opens its target, once.
        origin = self.origins.get(path)
        if origin is not None:
            if origin[1] == "copying":
                self.origins[path] = origin[0], "copy"
            else:
                del self.origins[path]

    def renames(self, source: Any, target: Any, *_: Any) -> None:
        """Handle `os.rename`, which `os.replace` and `shutil.move` raise as well."""
        self._puts(source, target, "rename")
        self._note(_absolute(source), REMOVED)

    def links(self, source: Any, target: Any, *_: Any) -> None:
        """Handle `os.link` and `os.symlink`."""
        self._puts(source, target, "link")

    def copies(self, source: Any, target: Any) -> None:
        """Handle `shutil.copyfile`, in which all copies of `shutil` end. It opens both files afterwards."""
        self._puts(source, target, "copying")

    def _puts(self, source: Any, target: Any, how: str) -> None:
        source, target = _absolute(source), _absolute(target)
        self._note(source, READ)
        self._note(target, WRITTEN | _OWN)
        for path in [path for path in self.origins if path.startswith(os.path.join(source, ""))]:
            self.origins[target + path[len(source) :]] = self.origins[path]
        first = self.origins.get(source)
        # Content that came by way of a temporary file has the origin of that file.
        self.origins[target] = first if first is not None and self.at(source) & _OWN else (source, how)

    def removes(self, path: Any, *_: Any) -> None:
        """Handle `os.remove`. If the path is relative to an open folder (`dir_fd`), the note means nothing."""
        self._note(_absolute(path), REMOVED)

    def truncates(self, path: Any, *_: Any) -> None:
        """Handle `os.truncate` of a path. Ignore a file descriptor."""
        if not isinstance(path, int):
            self._note(_absolute(path), WRITTEN | KEPT)

    def connects(self, database: Any, *_: Any) -> None:
        """Handle `sqlite3.connect`: the library itself reads and writes the file, and changes it in place."""
        if isinstance(database, str | bytes | os.PathLike) and database != ":memory:":
            self._note(_absolute(database), READ | WRITTEN | KEPT)


_EVENTS: Final[dict[str, Callable[..., None]]] = {
    "open": Opened.opens,
    "os.rename": Opened.renames,
    "os.link": Opened.links,
    "os.symlink": Opened.links,
    "os.remove": Opened.removes,
    "os.truncate": Opened.truncates,
    "shutil.copyfile": Opened.copies,
    "sqlite3.connect": Opened.connects,
}


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Do not count what the recording itself reads in the block as done by the call."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def _absolute(path: str | bytes | os.PathLike[Any]) -> str:
    path = os.fsdecode(path)
    return path if path[:1] == os.sep and "/." not in path and "//" not in path else os.path.abspath(path)


def _watch() -> None:
    """Add the hook, once per process."""
    global _watches
    with _lock:
        if _watches:
            return
        _watches = True

    # Locals, since the interpreter clears globals first when it ends.
    find, current = _EVENTS.get, _current.get

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        note = find(event)
        if note is not None:
            opened = current()
            if opened is not None:
                try:
                    note(opened, *arguments)
                except Exception:  # noqa: BLE001 - it must not reach the code that opens a file
                    opened.lost += 1

    sys.addaudithook(hook)


def _forget_parent() -> None:
    """Forget the other calls in a forked child: they run in the parent."""
    global _lock
    _lock = threading.Lock()
    _running.clear()
    _ended.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
