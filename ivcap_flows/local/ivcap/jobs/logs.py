"""The log of a job: its service's raw output, and a file that records how long the log was at which time.

The times are those at which the platform looked, some 20 times a second while it serves.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["LogTimes", "read_log"]


class LogTimes:
    """Records how logs grow. `at` is in milliseconds since 1970."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def note(self, folder: Path, at: int) -> None:
        try:
            size = (folder / "log").stat().st_size
        except FileNotFoundError:
            return
        if size > self._sizes.get(folder.name, 0):
            self._sizes[folder.name] = size
            with (folder / "log.times").open("a", encoding="ascii") as file:
                file.write(f"{at} {size}\n")

    def forget(self, folder: Path) -> None:
        self._sizes.pop(folder.name, None)


def read_log(folder: Path, begin: int | None = None, end: int | None = None) -> bytes:
    """Return the lines written from `begin` to before `end` (milliseconds since 1970); None means no bound."""
    try:
        text = (folder / "log").read_bytes()
    except FileNotFoundError:
        return b""
    if begin is None and end is None:
        return text
    try:
        lines = (folder / "log.times").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        lines = []
    times = [(int(at), int(size)) for at, size in (line.split() for line in lines if line.count(" ") == 1)]

    def written_before(moment: int) -> int:
        size = max((size for at, size in times if at < moment), default=0)
        # A line that was incomplete then belongs to the time of its completion.
        return text.rfind(b"\n", 0, size) + 1

    first = 0 if begin is None else written_before(begin)
    last = len(text) if end is None or not times or end > times[-1][0] else written_before(end)
    return text[first:last]
