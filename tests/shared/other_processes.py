"""Settings, ports, turns and ends of the processes that tests start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import psutil
from eventually import until

T = TypeVar("T")


def settings_of_platforms(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What an environment says of the platforms and of the journal."""
    return {name: value for name, value in environment.items() if name.startswith(("IVCAP", "PROVENA"))}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def come_up(process: subprocess.Popen[bytes], ready: Callable[[], T], log: Path, seconds: float = 60) -> T:
    """Wait until a process that was just started is ready. One that is not is ended, and its log told."""
    try:
        return until(ready, seconds=seconds, alive=process, said=log.read_text)
    except BaseException:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes] | psutil.Process) -> None:
    """Ask a process to end, and end it where it does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        seen = psutil.Process(process.pid)
        for ask in (seen.terminate, seen.kill):
            ask()
            end = time.monotonic() + 15
            # A zombie has ended; whoever started it, perhaps another process of the session, has not looked yet.
            while seen.is_running() and seen.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            else:
                break
    if isinstance(process, subprocess.Popen):
        process.wait(5)


def end_at_once(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    if process.poll() is None:
        seen = psutil.Process(process.pid)
        for one in (seen, *seen.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait(10)


@contextlib.contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Only one process of the session is in the block at a time."""
    with open(lock, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
