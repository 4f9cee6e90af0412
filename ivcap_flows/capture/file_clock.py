"""The clocks that set the times of files: tell whether a file is older than one tick of its clock.

A file that is changed twice within one tick has the same state after both changes. So a digest stands for a state only
if the clock had left that tick before the file was read (git calls other files "racily clean"). The file system's clock
counts. If this machine's kernel sets the times, that is the kernel's clock, which this module reads. If a server sets
them, its clock may be hours ahead or behind. But it runs while this process looks, and that is enough.
"""

from __future__ import annotations

import math
import platform
import time
from pathlib import Path
from typing import Final

from ivcap_flows.file_state import FileState
from ivcap_flows.journal.filesystems import file_system
from ivcap_flows.lru_cache import LruCache

__all__ = ["FileClock"]

_TICK: Final = 10_000_000
"""The maximum number of nanoseconds between two ticks of a kernel's clock (CONFIG_HZ of Linux is 100 to 1000)."""
_COARSE: Final = 2_000_000_000
"""The maximum number of nanoseconds between two ticks of a file system that keeps whole seconds."""
_WORTH_A_TICK: Final = 2**15
"""From this size on, in bytes, it is worth waiting for the next tick. A smaller file is read again instead."""
_WORTH_A_REMOTE_TICK: Final = 4 * 2**20
"""The same for servers. There each file has to be waited for, since only its own times show the server's clock."""
_FILES: Final = 20_000

_STAMPED_HERE: Final = frozenset(
    {
        "apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay", "ramfs", "reiserfs",
        "tmpfs", "ufs", "xfs", "zfs",
    }
)  # fmt: skip
_STAMPED_ELSEWHERE: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs",
        "smb3", "smbfs", "virtiofs", "wekafs",
    }
)  # fmt: skip
"""Other file systems get no digests: some report the modification time, which anyone can set, as the change time."""


class FileClock:
    """Knows the kind of each file system, and since when this process has seen each file in its present state."""

    def __init__(self) -> None:
        self._kinds: LruCache[int, str] = LruCache(1_000)
        self._seen: LruCache[str, tuple[FileState, int]] = LruCache(_FILES)

    def is_past(self, path: str, state: FileState) -> bool:
        """Whether every change of the file from now on gives it another state. Wait for a large file, up to a tick.

        A file with a time in the future may get the same state again when that time comes.
        """
        left = self._left(path, state)
        worth = _WORTH_A_TICK if self._kind(path, state) in _STAMPED_HERE else _WORTH_A_REMOTE_TICK
        while state.size >= worth and 0 < left <= _TICK:
            time.sleep(0.001)
            left = self._left(path, state)
        return left <= 0

    def _left(self, path: str, state: FileState) -> float:
        """Return the nanoseconds until the clock has left the tick of the file's times."""
        kind = self._kind(path, state)
        coarse = state.ctime_ns % 1_000_000_000 == 0
        if kind in _STAMPED_HERE:
            return max(state.ctime_ns, state.mtime_ns) + (_COARSE if coarse else 0) + 1 - _now_ns()
        if kind not in _STAMPED_ELSEWHERE or state.mtime_ns > time.time_ns():
            return math.inf
        now, known = time.monotonic_ns(), self._seen.get(path)
        if known is None or known[0] != state:
            known = state, now
            self._seen.put(path, known)
        return known[1] + (_COARSE if coarse else _TICK) - now

    def _kind(self, path: str, state: FileState) -> str:
        kind = self._kinds.get(state.device)
        if kind is None:
            kind = file_system(Path(path))
            self._kinds.put(state.device, kind)
        return kind


def _now_ns() -> int:
    """Return the time of the clock that the kernel sets file times with. It stands still between two ticks."""
    if platform.system() == "Linux":
        return time.clock_gettime_ns(5)  # CLOCK_REALTIME_COARSE
    return time.time_ns() - 50_000_000
