"""The processes of services: their environment, who they are, how they are ended."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

import psutil

__all__ = ["end_process", "note_process", "noted_process", "service_environment"]

_PATIENCE: Final = 5.0


def note_process(file: int | Path, pid: int) -> None:
    """Write down a living process, to be recognised even if its number is given away again."""
    with contextlib.suppress(psutil.Error), open(file, "w", encoding="utf-8") as out:
        out.write(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}))


def noted_process(path: Path) -> psutil.Process | None:
    """The very process that was written down, while it lives."""
    try:
        noted = json.loads(path.read_bytes())
        process = psutil.Process(noted["pid"])
        alive = process.create_time() == noted["created"] and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return process if alive else None


def end_process(process: psutil.Process, *, patience: float = _PATIENCE) -> None:
    """End a process and its descendants, by force if they don't leave within so many seconds."""
    with contextlib.suppress(psutil.Error):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.terminate()
        for one in psutil.wait_procs(family, patience)[1]:
            with contextlib.suppress(psutil.Error):
                one.kill()


def service_environment(ticket: dict[str, Any], sidecar: str) -> dict[str, str]:
    """What a service finds in its environment, as in its container: the sidecar is its IVCAP and keeps its secrets."""
    direct = [value for name in ("NO_PROXY", "no_proxy") if (value := os.environ.get(name))]
    no_proxy = ",".join([*direct[:1], "127.0.0.1"])
    return os.environ | {
        "IVCAP_BASE_URL": sidecar,
        "SECRETMGR_PROXY": sidecar,
        "IVCAP_SERVICE_ID": ticket["service"],
        "IVCAP_SERVICE_NAME": ticket["service_name"] or "",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # A log is read while it is written.
        "PYTHONUNBUFFERED": "1",
    }
