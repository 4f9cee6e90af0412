"""Find the server of a directory, or start it. Many processes may ask at the same time; all get the same server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ivcap_flows.errors import EmbeddedPlatformError, NewerSchemaError
from ivcap_flows.local.directory import Directory, is_held, make_private
from ivcap_flows.local.proof import connected

__all__ = ["IDLE", "EmbeddedPlatform", "ensure"]

IDLE: Final = 300.0
"""Seconds without a request or a running job after which a server that was started on demand ends."""
_PATIENCE: Final = 30.0
_NEWER_STATUS: Final = 3


@dataclass(frozen=True)
class EmbeddedPlatform:
    """A running server. `environment` has its URLs and tokens; `control` is the token of its control API."""

    url: str
    directory: Path
    instance: str
    environment: dict[str, str] = field(repr=False)
    control: str = field(repr=False)

    def end(self) -> None:
        """End the server. Running jobs continue, and the next server of the directory finds them."""
        server = Directory(self.directory).server()
        if server is not None and _probe(server):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server["pid"], signal.SIGTERM)

    def end_with_jobs(self) -> None:
        """End the server and what its jobs run, at the end of a directory that is used no more."""
        # Imported late, since each flow imports this module.
        from ivcap_flows.local.services.processes import end_process, noted_process

        self.end()
        place = Directory(self.directory)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            held = [lock for lock in place.runs.glob("*/lock") if is_held(lock)]
            if not held and not is_held(place.server_lock):
                return
            for lock in held:
                process = noted_process(lock.with_name("started"))
                if process is not None:
                    end_process(process)
            time.sleep(0.05)


def _probe(server: dict[str, Any]) -> bool:
    """Return whether the server that wrote this is the one that answers at its address."""
    connection = connected(server)
    if connection is None:
        return False
    connection.close()
    return True


def _running(place: Directory) -> EmbeddedPlatform | None:
    server = place.server()
    if server is None or not _probe(server):
        return None
    return EmbeddedPlatform(server["url"], place.root, server["instance"], server["environment"], server["control"])


def ensure(directory: Path | str, *, idle: float = IDLE) -> EmbeddedPlatform:
    """Return the server of a directory; start one if there is none. It ends after `idle` seconds without work.

    Safe to call from many processes at the same time. Raises EmbeddedPlatformError, and NewerSchemaError for a
    directory made by a newer version.
    """
    place = Directory(Path(directory).expanduser().absolute())
    found = _running(place)
    if found is not None:
        return found
    place.prepare()
    with place.starting():
        found = _running(place)
        return found if found is not None else _start(place, idle)


def _start(place: Directory, idle: float) -> EmbeddedPlatform:
    end = time.monotonic() + _PATIENCE
    # A server that is about to end answers no more, but still holds the folder.
    while is_held(place.server_lock) and time.monotonic() < end:
        if (found := _running(place)) is not None:
            return found
        time.sleep(0.02)
    command = [sys.executable, "-m", "ivcap_flows.local", "serve", "--port", "0", "--dir", str(place.root)]
    make_private(place.server_log)
    with place.server_log.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the interpreter and this package
            [*command, "--idle", f"{idle:g}", "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    while time.monotonic() < end:
        # If another process has started a server meanwhile, ours ends and that one serves as well.
        found = _running(place)
        if found is not None:
            return found
        status = process.poll()
        if status == _NEWER_STATUS:
            raise _newer(place)
        if status is not None and not is_held(place.server_lock):
            break
        time.sleep(0.02)
    said = ""
    with contextlib.suppress(OSError):
        said = place.server_log.read_bytes()[-600:].decode("utf-8", "replace").strip()
    raise EmbeddedPlatformError(
        f"The embedded platform of {place.root} did not start"
        + (f"; its last output: {said}" if said else ".")
        + f" The complete output is in {place.server_log}.",
        directory=str(place.root),
    )


def _newer(place: Directory) -> NewerSchemaError:
    words = json.loads(place.server_log.read_bytes())
    return NewerSchemaError(words["message"], found=words["found"], known=words["known"])
