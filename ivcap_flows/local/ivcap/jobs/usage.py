"""Resource use of a running job, in the form of IVCAP's `top`: texts with Kubernetes' units."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import psutil

from ivcap_flows.local.services.processes import noted_process

__all__ = ["usage"]

_LOOK: Final = 0.1
"""Seconds over which processor use is measured."""


def usage(folder: Path) -> dict[str, str] | None:
    """Return the resource use of a job's process and its descendants; None if it has ended.

    A long-running service is one process for all its jobs. `storage` is the size of products that the server has not
    collected yet, `ephemeral-storage` that of the working folder.
    """
    process = noted_process(folder / "started")
    if process is None:
        return None
    before, begun = _family(process), time.monotonic()
    time.sleep(_LOOK)
    after, seconds = _family(process), time.monotonic() - begun
    spent = sum(used - before.get(pid, (0.0, 0))[0] for pid, (used, _) in after.items())
    return {
        "cpu": f"{round(max(spent, 0.0) / seconds * 1000)}m",
        "memory": f"{sum(size for _, size in after.values()) // 2**20}Mi",
        "storage": f"{_size(folder / 'products') // 2**10}Ki",
        "ephemeral-storage": f"{_size(folder / 'work') // 2**10}Ki",
    }


def _family(process: psutil.Process) -> dict[int, tuple[float, int]]:
    """Return the processor seconds and bytes of memory of each process in a tree."""
    found = {}
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                found[one.pid] = (times.user + times.system, one.memory_info().rss)
    return found


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size
