"""The processes of services: their environment, how to recognise them, and how to end them."""

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
    """Record a running process, to recognise it even if its number is used again."""
    with contextlib.suppress(psutil.Error), open(file, "w", encoding="utf-8") as out:
        out.write(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}))


def noted_process(path: Path) -> psutil.Process | None:
    """Return exactly the recorded process while it runs, else None."""
    try:
        noted = json.loads(path.read_bytes())
        process = psutil.Process(noted["pid"])
        alive = process.create_time() == noted["created"] and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return process if alive else None


def end_process(process: psutil.Process, *, patience: float = _PATIENCE) -> None:
    """End a process and its descendants, by force if they do not end within `patience` seconds."""
    with contextlib.suppress(psutil.Error):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.terminate()
        for one in psutil.wait_procs(family, patience)[1]:
            with contextlib.suppress(psutil.Error):
                one.kill()


def service_environment(ticket: dict[str, Any], sidecar: str) -> dict[str, str]:
    """Return a service's environment, as in its container: the sidecar is its IVCAP and its secret manager."""
    direct = [value for name in ("NO_PROXY", "no_proxy") if (value := os.environ.get(name))]
    no_proxy = ",".join([*direct[:1], "127.0.0.1"])
    return os.environ | {
        "IVCAP_BASE_URL": sidecar,
        "SECRETMGR_PROXY": sidecar,
        "IVCAP_SERVICE_ID": ticket["service"],
        "IVCAP_SERVICE_NAME": ticket["service_name"] or "",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # Unbuffered, since the log is read while it is written.
        "PYTHONUNBUFFERED": "1",
    }
